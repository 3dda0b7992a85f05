"""The API server of a kubeconfig's context, with the `kubernetes` client (extra `cli`).

That client reads the kubeconfig and logs in. Every request has a deadline of its own, for the
client has none: an API server that accepts connections and says nothing is not waited for.
"""

import json
import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

from instaslice.cluster import discovery
from instaslice.cluster.client import PLURALS, SERVICE_ACCOUNT, Answer, ClusterError, failure
from instaslice.patch import Json
from instaslice.resource_api import ResourceAPI, Unavailable

#: Who owns the fields that are applied (metav1.ManagedFieldsEntry.manager).
FIELD_MANAGER: Final = "instaslice"
#: Where kubectl looks, too.
DEFAULT: Final = Path("~/.kube/config")
#: Seconds for a whole request. An API server answers a page of 500 pods in less than one.
DEADLINE: Final = 10.0


class KubeconfigError(Exception):
    """Nobody can be logged in by a kubeconfig; `str()` of it says why, in one line."""


class Refused(Exception):
    """The cluster was asked, and did not take it; `str()` of it says what and why, in one line."""


class Client:
    """A cluster, as a `cluster.client.Caller`.

    kubeconfig: the file that was named; None for $KUBECONFIG, ~/.kube/config or the service account
    of a pod. context: its name; None for the current one. deadline: in seconds; None for DEADLINE.
    Raises KubeconfigError.
    """

    def __init__(
        self,
        kubeconfig: Path | None = None,
        context: str | None = None,
        deadline: float | None = None,
    ) -> None:
        self._deadline = deadline or DEADLINE
        configuration = client.Configuration()
        where = _files(kubeconfig)
        try:
            with _complaints() as complaints:
                self.namespace: str = _log_in(where, context, configuration)  #: the context's
            # One attempt: what is asked twice of a cluster in trouble takes twice as long.
            configuration.retries = False
            self._api = client.ApiClient(configuration)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f"line {mark.line + 1}: " if mark else ""
            problem = getattr(error, "problem", None) or error
            raise KubeconfigError(f"{where}: not YAML: {line}{_line(problem)}") from None
        except (AttributeError, TypeError, KeyError, UnicodeDecodeError):
            raise KubeconfigError(f"{where}: not a kubeconfig") from None
        except OSError as error:
            raise KubeconfigError(f"{error.filename or where}: {error.strerror}") from None
        except Exception as error:
            reason = _line(error).removeprefix("Invalid kube-config file. ")
            raise KubeconfigError(f"{where}: {reason}") from None
        if complaints:
            raise KubeconfigError(f"{where}: {complaints[0]}")

    def call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        """One request with a JSON answer of any status. Raises ClusterError."""
        host = self._api.configuration.host

        def ask() -> Answer:
            url = host + path
            headers = {"Accept": "application/json", "Content-Type": content_type}
            self._api.update_params_for_auth(headers, [], ["BearerToken"], url, method, None)
            try:
                # Longer than the deadline, which is what is told; it ends what was left behind.
                timeout = 2 * self._deadline
                response = self._api.call_api(method, url, headers, body, _request_timeout=timeout)
                return Answer(response.status, _object(response.read()))
            except ApiException as error:
                if not error.status:  # no answer: the client wraps what urllib3 has raised
                    raise ClusterError(failure(host, error)) from None
                return Answer(error.status, _object(error.body))
            except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                raise ClusterError(failure(host, error)) from None

        return _within(self._deadline, host, ask)

    def version(self) -> ResourceAPI:
        """The version of resource.k8s.io that the cluster serves. Raises Refused, ClusterError."""
        served = discovery.ask(self)
        if isinstance(served, Unavailable):
            raise Refused(served.reason)
        return served

    def namespaces(self) -> list[str]:
        """The cluster's namespaces that are not being deleted. Raises Refused, ClusterError."""
        items = self._taken("GET", "/api/v1/namespaces", None, "namespaces")["items"]
        return [i["metadata"]["name"] for i in items if i["status"].get("phase") != "Terminating"]

    def apply(self, manifest: Json) -> str:
        """Server-side apply; a line about what came of it. Raises Refused, ClusterError."""
        name, namespace = manifest["metadata"]["name"], manifest["metadata"].get("namespace")
        what = f"{namespace or 'cluster'}: {manifest['kind']} {name}"
        where = f"/namespaces/{namespace}" if namespace else ""
        path = f"/apis/{manifest['apiVersion']}{where}/{PLURALS[manifest['kind']]}/{name}"
        before = self.call("GET", path)
        if before.status not in (200, 404):
            raise Refused(f"{what}: {before.reason}")
        query = f"fieldManager={FIELD_MANAGER}&force=true"
        after = self._taken("PATCH", f"{path}?{query}", manifest, what)
        if before.status == 404:
            return f"{what} created"
        same = before.body["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
        return f"{what} {'unchanged' if same else 'configured'}"

    def _taken(self, method: str, path: str, body: Json | None, what: str) -> Json:
        """The object of an answer that is not an error."""
        content_type = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        answer = self.call(method, path, body, content_type)
        if answer.status not in (200, 201):
            raise Refused(f"{what}: {answer.reason}")
        return answer.body


def _files(kubeconfig: Path | None) -> str:
    """The files to read, as in $KUBECONFIG; empty in a pod. Raises KubeconfigError."""
    if kubeconfig:
        return str(kubeconfig)
    if named := os.environ.get("KUBECONFIG", "").strip(os.pathsep):
        return named
    if DEFAULT.expanduser().exists():
        return str(DEFAULT.expanduser())
    if os.environ.get("KUBERNETES_SERVICE_HOST") and SERVICE_ACCOUNT.is_dir():
        return ""
    text = f"{DEFAULT} does not exist; name a file by --kubeconfig or $KUBECONFIG"
    raise KubeconfigError(text)


def _log_in(files: str, context: str | None, configuration: client.Configuration) -> str:
    """Log in, and return the context's namespace. Raises what the package raises."""
    if not files:
        if context:
            raise KubeconfigError(f"--context {context}: a pod's service account has no contexts")
        config.load_incluster_config(configuration)
        return (SERVICE_ACCOUNT / "namespace").read_text().strip() or "default"
    merged = KubeConfigMerger(files)
    if merged.config is None:  # the package passes over what is not there
        raise FileNotFoundError(2, "No such file or directory", files)
    # kubectl takes the first current-context of several files, and the package the last.
    current = (each.get("current-context") for each in merged.config_files.values())
    name = context or next(filter(None, current), None)
    if name is None:
        raise config.ConfigException("it has no current-context: give --context NAME")
    loader = KubeConfigLoader(merged.config, active_context=name, config_base_path=None)
    loader.load_and_set(configuration)
    if not configuration.host.startswith(("https://", "http://")):
        text = f"server {configuration.host!r} is not a URL, such as https://10.0.0.1:6443"
        raise config.ConfigException(text)
    return str(loader.current_context["context"].get("namespace") or "default")


def _within(seconds: float, where: str, ask: Callable[[], Answer]) -> Answer:
    """What a request brings within its time. Raises ClusterError.

    The client's own timeout is for each read, and a slow answer has many.
    """
    results: queue.SimpleQueue[Answer | Exception] = queue.SimpleQueue()

    def run() -> None:
        try:
            results.put(ask())
        except Exception as error:
            results.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        result = results.get(timeout=seconds)
    except queue.Empty:
        result = ClusterError(f"{where}: no answer within {seconds:g} s")
    if isinstance(result, Exception):
        raise result
    return result


@contextmanager
def _complaints() -> Iterator[list[str]]:
    """What the client only logs: that nobody could be logged in."""
    found: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                found.append(" ".join(record.getMessage().split()))

    listener, root = Listener(), logging.getLogger()
    root.addHandler(listener)
    try:
        yield found
    finally:
        root.removeHandler(listener)


def _object(data: Any) -> Json:
    try:
        found = json.loads(data or "")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _line(error: object) -> str:
    return " ".join(str(error).split()) or type(error).__name__
