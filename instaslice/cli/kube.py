"""The API server of a kubeconfig's context, with the `kubernetes` client (extra `cli`).

That client is here for what it knows of logging in. Every request has a deadline of its own, for
the client has none: an API server that accepts connections and says nothing is not waited for.
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
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from instaslice.cli import contexts
from instaslice.cluster import discovery
from instaslice.cluster.client import PLURALS, Answer, ClusterError
from instaslice.patch import Json
from instaslice.resource_api import ResourceAPI, Unavailable

#: Who owns the fields that are applied (metav1.ManagedFieldsEntry.manager).
FIELD_MANAGER: Final = "instaslice"

#: Seconds for a whole request. An API server answers a page of 500 pods in less than one.
DEADLINE: Final = 10.0


class ApplyError(Exception):
    """The cluster did not take it; `str()` of it says what and why, in one line."""


class Client:
    """A cluster, as a `cluster.client.Caller`.

    kubeconfig, context: as `contexts.choose` has them. deadline: in seconds; None for DEADLINE.
    Raises contexts.KubeconfigError.
    """

    def __init__(
        self,
        kubeconfig: Path | None = None,
        context: str | None = None,
        deadline: float | None = None,
    ) -> None:
        chosen = contexts.choose(kubeconfig, context, os.environ)
        self.namespace: str = chosen.namespace  #: the context's
        self._deadline = deadline or DEADLINE
        configuration = client.Configuration()
        where = os.pathsep.join(map(str, chosen.files)) or "the pod's service account"
        try:
            with _complaints() as complaints:
                if chosen.files:
                    config.load_kube_config(where, chosen.name, configuration)
                else:
                    config.load_incluster_config(configuration)
            # One attempt: what is asked twice of a cluster in trouble takes twice as long.
            configuration.retries = False
            self._api = client.ApiClient(configuration)
        except Exception as error:
            raise contexts.KubeconfigError(f"{where}: {_reason(error)}") from None
        if complaints:
            raise contexts.KubeconfigError(f"{where}: {complaints[0]}")

    def call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        content_type: str = "application/json",
    ) -> Answer:
        """One request with a JSON answer of any status. Raises ClusterError."""

        def ask() -> Answer:
            url = self._api.configuration.host + path
            headers = {"Accept": "application/json", "Content-Type": content_type}
            self._api.update_params_for_auth(headers, [], ["BearerToken"], url, method, None)
            try:
                # Longer than the deadline, which is what is told; it ends what was left behind.
                timeout = 2 * self._deadline
                response = self._api.call_api(method, url, headers, body, _request_timeout=timeout)
                return Answer(response.status, _object(response.read()))
            except ApiException as error:
                if not error.status:  # no answer, in the client's own words
                    raise ClusterError(_reason(error)) from None
                return Answer(error.status, _object(error.body))
            except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
                raise ClusterError(_reason(error)) from None

        return _within(self._deadline, self._api.configuration.host, ask)

    def version(self) -> ResourceAPI:
        """The version of resource.k8s.io that the cluster serves. Raises ApplyError."""
        try:
            served = discovery.ask(self)
        except ClusterError as error:
            raise ApplyError(str(error)) from None
        if isinstance(served, Unavailable):
            raise ApplyError(served.reason)
        return served

    def namespaces(self) -> list[str]:
        """The cluster's namespaces that are not being deleted. Raises ApplyError."""
        items = self._taken("GET", "/api/v1/namespaces", None, "namespaces")["items"]
        return [i["metadata"]["name"] for i in items if i["status"].get("phase") != "Terminating"]

    def apply(self, manifest: Json) -> str:
        """Server-side apply; returns a line about what came of it. Raises ApplyError."""
        name, namespace = manifest["metadata"]["name"], manifest["metadata"].get("namespace")
        what = f"{namespace or 'cluster'}: {manifest['kind']} {name}"
        where = f"/namespaces/{namespace}" if namespace else ""
        path = f"/apis/{manifest['apiVersion']}{where}/{PLURALS[manifest['kind']]}/{name}"
        before = self._asked("GET", path, None, what)
        if before.status not in (200, 404):
            raise ApplyError(f"{what}: {before.reason}")
        query = f"fieldManager={FIELD_MANAGER}&force=true"
        after = self._taken("PATCH", f"{path}?{query}", manifest, what)
        if before.status == 404:
            return f"{what} created"
        same = before.body["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"]
        return f"{what} {'unchanged' if same else 'configured'}"

    def _asked(self, method: str, path: str, body: Json | None, what: str) -> Answer:
        content_type = "application/apply-patch+yaml" if method == "PATCH" else "application/json"
        try:
            return self.call(method, path, body, content_type)
        except ClusterError as error:
            raise ApplyError(f"{what}: {error}") from None

    def _taken(self, method: str, path: str, body: Json | None, what: str) -> Json:
        """The object of an answer that is not an error."""
        answer = self._asked(method, path, body, what)
        if answer.status not in (200, 201):
            raise ApplyError(f"{what}: {answer.reason}")
        return answer.body


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


def _reason(error: Exception) -> str:
    """What a client library raised, as one line."""
    reason = getattr(error, "reason", None) or error
    return " ".join(str(reason).split()) or type(error).__name__
