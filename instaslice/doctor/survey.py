"""Takes the snapshot of a cluster that `doctor` and `explain` judge. Needs the extra `cli`.

Reads, and creates one pod as a dry run (dryRun=All), which no storage ever sees.
"""

import base64
import ssl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from instaslice.cluster import discovery
from instaslice.cluster.client import Caller, ClusterError
from instaslice.doctor.snapshot import Probe, Snapshot, Unreadable
from instaslice.patch import Json
from instaslice.profiles import RESOURCE_PREFIX
from instaslice.resource_api import GROUP, ResourceAPI

#: What is listed, by the name it has in a Snapshot.
LISTS: Final = {
    "webhooks": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "nodes": "/api/v1/nodes",
    "pods": "/api/v1/pods",
    "quotas": "/api/v1/resourcequotas",
}
#: ... of resource.k8s.io, with the plural by which each is served.
DRA_LISTS: Final = {
    "claims": "resourceclaims",
    "templates": "resourceclaimtemplates",
    "slices": "resourceslices",
    "classes": "deviceclasses",
}
CLASSIC_DRA_LISTS: Final = {
    "claims": "resourceclaims",
    "templates": "resourceclaimtemplates",
    "classes": "resourceclasses",
}

#: Objects to ask for at once.
PAGE: Final = 500
#: Seconds for a webhook that is called by its URL to show its certificate.
HANDSHAKE: Final = 5.0

#: A pod that Pod Security's level `restricted` takes.
PROBE: Final[Json] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"generateName": "instaslice-doctor-"},
    "spec": {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "probe",
                "image": "probe.invalid/probe",
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                },
                "resources": {"limits": {RESOURCE_PREFIX + "1g.5gb": 1}},
            }
        ],
    },
}


class SurveyError(Exception):
    """Something could not be read; `str()` of it says why, in one line."""


def take(cluster: Caller, namespace: str) -> Snapshot:
    """All that the checks look at. Raises SurveyError where the API server is out of reach.

    namespace: where to create the pod that is a dry run.
    """
    snapshot = _take(cluster, {**LISTS})
    with suppress(Unreadable):
        webhook = snapshot.webhook
        if webhook is not None:
            snapshot = _of_webhook(cluster, snapshot, webhook["clientConfig"])
    return replace(snapshot, probe=_probe(cluster, namespace))


def take_for_pod(cluster: Caller, namespace: str, name: str) -> tuple[Snapshot, Json, list[Json]]:
    """What is around a pod, the pod, and the events about it. Raises SurveyError."""
    pod = _get(cluster, f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(name)}")
    selector = {"fieldSelector": f"involvedObject.uid={pod['metadata']['uid']}"}
    events = f"/api/v1/namespaces/{quote(namespace)}/events?{urlencode(selector)}"
    return _take(cluster, {}), pod, list(_list(cluster, events))


def _take(cluster: Caller, wanted: dict[str, str]) -> Snapshot:
    try:
        api = discovery.ask(cluster)
    except ClusterError as error:
        raise SurveyError(str(error)) from None
    if isinstance(api, ResourceAPI):
        kinds = CLASSIC_DRA_LISTS if api.is_classic else DRA_LISTS
        wanted |= {name: f"/apis/{GROUP}/{api.version}/{kind}" for name, kind in kinds.items()}
    lists, failures = {}, {}
    for name, path in wanted.items():
        try:
            lists[name] = list(_list(cluster, path))
        except SurveyError as error:
            failures[name] = str(error)
    version = str(_get(cluster, "/version").get("gitVersion"))
    return Snapshot(datetime.now(UTC), version, api, lists, failures)


def _of_webhook(cluster: Caller, snapshot: Snapshot, client: Json) -> Snapshot:
    """The snapshot with the webhook's endpoints and its certificate."""
    lists, failures, certificate = dict(snapshot.lists), dict(snapshot.failures), ""
    try:
        if "service" in client:
            namespace, name = client["service"]["namespace"], client["service"]["name"]
            selector = urlencode({"labelSelector": f"kubernetes.io/service-name={name}"})
            path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?{selector}"
            lists["endpoints"] = list(_list(cluster, path))
    except SurveyError as error:
        failures["endpoints"] = str(error)
    try:
        certificate = _certificate(cluster, snapshot, client)
    except (SurveyError, OSError) as error:
        failures["certificate"] = str(error)
    return replace(snapshot, lists=lists, failures=failures, certificate=certificate)


def _certificate(cluster: Caller, snapshot: Snapshot, client: Json) -> str:
    """The webhook's certificate: from the Secret that its pods mount, or from its URL."""
    if "service" not in client:
        url = urlsplit(client.get("url") or "")
        return ssl.get_server_certificate((url.hostname or "", url.port or 443), timeout=HANDSHAKE)
    namespace = client["service"]["namespace"]
    service = _get(cluster, f"/api/v1/namespaces/{namespace}/services/{client['service']['name']}")
    selector = (service["spec"].get("selector") or {}).items()
    for pod in snapshot.lists.get("pods", []):
        labels = pod["metadata"].get("labels") or {}
        if pod["metadata"]["namespace"] == namespace and selector <= labels.items():
            for volume in pod["spec"].get("volumes") or []:
                secret = (volume.get("secret") or {}).get("secretName")
                if secret:
                    path = f"/api/v1/namespaces/{namespace}/secrets/{secret}"
                    data = _get(cluster, path).get("data") or {}
                    if "tls.crt" in data:
                        return base64.b64decode(data["tls.crt"]).decode()
    raise SurveyError("no pod of its Service mounts a Secret with a tls.crt")


def _probe(cluster: Caller, namespace: str) -> Probe:
    path = f"/api/v1/namespaces/{quote(namespace)}/pods?dryRun=All"
    try:
        answer = cluster.call("POST", path, PROBE)
    except ClusterError as error:
        return Probe(namespace, None, str(error))
    if answer.status == 201:
        return Probe(namespace, answer.body, "")
    return Probe(namespace, None, answer.reason)


def _list(cluster: Caller, path: str) -> Iterator[Json]:
    """The objects of a list, page by page. Raises SurveyError."""
    query: dict[str, Any] = {"limit": PAGE}
    while True:
        page = _get(cluster, f"{path}{'&' if '?' in path else '?'}{urlencode(query)}")
        yield from page.get("items") or []
        query["continue"] = (page.get("metadata") or {}).get("continue")
        if not query["continue"]:
            return


def _get(cluster: Caller, path: str) -> Json:
    try:
        answer = cluster.call("GET", path)
    except ClusterError as error:
        raise SurveyError(str(error)) from None
    if answer.status != 200:
        raise SurveyError(answer.reason)
    return answer.body
