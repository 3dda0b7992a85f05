"""A client of the API server of a kubeconfig's context, by the `kubernetes` package (extra `cli`).

The package reads the kubeconfig and logs in. It has no deadline for a whole request, so this module
adds one: an API server may accept connections and never answer.
"""

import logging
import os
from logging.handlers import BufferingHandler
from pathlib import Path
from typing import Final

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

from instaslice.cli.usage import Refused, UsageError
from instaslice.cluster import discovery
from instaslice.cluster.client import PLURALS, SERVICE_ACCOUNT, Answer, json_object, within
from instaslice.patch import Json
from instaslice.resource_api import ResourceAPI, Unavailable

#: The owner of the fields that are applied (metav1.ManagedFieldsEntry.manager).
FIELD_MANAGER: Final = "instaslice"
#: kubectl's default, too.
DEFAULT: Final = "~/.kube/config"
#: Seconds for a whole request. An API server lists 500 pods in less than one.
DEADLINE: Final = 10.0


class Client:
    """A `cluster.client.Caller` that logs in like kubectl.

    kubeconfig: a file; None for $KUBECONFIG, ~/.kube/config or the service account of a pod.
    context: its name; None for the current one. deadline: in seconds; 0 for DEADLINE.
    Raises UsageError.
    """

    def __init__(
        self, kubeconfig: Path | None = None, context: str | None = None, deadline: float = 0.0
    ) -> None:
        self._deadline = deadline or DEADLINE
        configuration = client.Configuration()
        configuration.retries = False  # retries would only delay the error
        named = str(kubeconfig or os.environ.get("KUBECONFIG", "").strip(os.pathsep))
        where = named or DEFAULT
        #: The package logs some login errors instead of raising them.
        log = BufferingHandler(capacity=1000)
        log.setLevel(logging.ERROR)
        logging.getLogger().addHandler(log)
        try:
            if named or Path(DEFAULT).expanduser().exists():
                self.namespace: str = _log_in(where, context, configuration)  #: the context's
            else:
                self.namespace = _log_in_as_a_pod(context, configuration)
            self._api = client.ApiClient(configuration)
        except UsageError:
            raise
        except Exception as error:  # the package raises many types
            raise UsageError(f"kubeconfig: {_what_is_wrong(error, where)}") from None
        finally:
            logging.getLogger().removeHandler(log)
        if log.buffer:
            complaint = " ".join(log.buffer[0].getMessage().split())
            raise UsageError(f"kubeconfig: {where}: {complaint}")

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        """Make a request; PATCH is server-side apply. Raises ClusterError."""
        host = self._api.configuration.host
        content_type = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        headers = {"Accept": "application/json", "Content-Type": content_type}

        def ask() -> Answer:
            # The deadline comes first; this timeout, for each read, ends the thread after it.
            timeout = 2 * self._deadline
            try:
                self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, None)
                url = host + path
                response = self._api.call_api(method, url, headers, body, _request_timeout=timeout)
                if found := json_object(response.read()):
                    return Answer(response.status, found)
                raise ValueError("it did not answer with a JSON object")  # perhaps a proxy did
            except ApiException as error:
                if not error.status:  # it wraps an error of urllib3
                    raise
                return Answer(error.status, json_object(error.body or ""))

        return within(self._deadline, host, ask, lambda: None)

    def version(self) -> ResourceAPI:
        """Find the cluster's version of resource.k8s.io. Raises Refused, ClusterError."""
        served = discovery.ask(self)
        if isinstance(served, Unavailable):
            raise Refused(served.reason)
        return served

    def namespaces(self) -> list[str]:
        """List the namespaces that are not being deleted. Raises Refused, ClusterError."""
        items = self._taken("GET", "/api/v1/namespaces", None, "namespaces")["items"]
        return [i["metadata"]["name"] for i in items if i["status"].get("phase") != "Terminating"]

    def apply(self, manifest: Json) -> str:
        """Apply a manifest, and return a line about the result. Raises Refused, ClusterError."""
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
        """Make a request, and return the object of the answer. Raises Refused, ClusterError."""
        answer = self.call(method, path, body)
        if answer.status not in (200, 201):
            raise Refused(f"{what}: {answer.reason}")
        return answer.body


def _log_in(files: str, context: str | None, configuration: client.Configuration) -> str:
    """Log in with a list of files like $KUBECONFIG, and return the context's namespace.

    Raises the errors of the package.
    """
    merged = KubeConfigMerger(files)
    if merged.config is None:  # the package ignores missing files
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


def _log_in_as_a_pod(context: str | None, configuration: client.Configuration) -> str:
    """Log in as a pod's service account, and return its namespace. Raises UsageError."""
    if not os.environ.get("KUBERNETES_SERVICE_HOST") or not SERVICE_ACCOUNT.is_dir():
        text = f"{DEFAULT} does not exist; give a file with --kubeconfig or $KUBECONFIG"
        raise UsageError(f"kubeconfig: {text}")
    if context:
        raise UsageError(f"--context {context}: a pod's service account has no contexts")
    config.load_incluster_config(configuration)
    return (SERVICE_ACCOUNT / "namespace").read_text().strip() or "default"


def _what_is_wrong(error: Exception, where: str) -> str:
    """Describe a login error in words that a user can act on."""
    if isinstance(error, OSError):
        return f"{error.filename or where}: {error.strerror}"
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"{where}: not YAML: line {error.problem_mark.line + 1}: {error.problem}"
    if isinstance(error, AttributeError | TypeError | KeyError | UnicodeDecodeError):
        return f"{where}: not a kubeconfig"
    reason = " ".join(str(error).split()).removeprefix("Invalid kube-config file. ")
    return f"{where}: {reason or type(error).__name__}"
