"""Takes the snapshot of a cluster that `doctor` and `plan` judge. Needs the extra `cli`.

Reads, and creates a few objects as dry runs (dryRun=All), which no storage ever sees.
"""

import base64
import ssl
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode, urlsplit

from instaslice.cluster import discovery
from instaslice.cluster.client import Caller, ClusterError
from instaslice.doctor import gates, modes
from instaslice.doctor.gates import Known
from instaslice.doctor.reader import Reader, SurveyError
from instaslice.doctor.snapshot import Probe, Snapshot, Unreadable, mapping_of
from instaslice.patch import Json
from instaslice.profiles import RESOURCE_PREFIX
from instaslice.resource_api import GROUP, NEWEST, ResourceAPI
from instaslice.resources import Resources, read_mapping
from instaslice.webhook_configuration import BESIDE

#: What is listed, by the name it has in a Snapshot.
LISTS: Final = {
    "webhooks": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
    "namespaces": "/api/v1/namespaces",
    "nodes": "/api/v1/nodes",
    "pods": "/api/v1/pods",
    "quotas": "/api/v1/resourcequotas",
    "limits": "/api/v1/limitranges",
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
#: The versions of resource.k8s.io that have DeviceTaintRules, the newest first.
RULES: Final = ("v1", "v1beta2", "v1alpha3")
#: Of Kueue: its API group, and its configuration as its manifests and its chart name it.
KUEUE: Final = "kueue.x-k8s.io"
KUEUE_CONFIGURATION: Final = "/api/v1/namespaces/kueue-system/configmaps/kueue-manager-config"

#: Seconds for a webhook that is called by its URL to show its certificate.
HANDSHAKE: Final = 5.0


def take(cluster: Caller, namespace: str, resources: Resources | None = None) -> Snapshot:
    """All that the checks look at. Raises SurveyError where the API server is out of reach.

    namespace: where to create objects as dry runs. resources: those that are rewritten; None for
    what the pods of InstaSlice have been told.
    """
    reader = Reader(cluster)
    snapshot = _take(reader, dict(LISTS), resources)
    webhook = None
    with suppress(Unreadable):
        webhook = snapshot.webhook
    if webhook is not None:
        snapshot = _of_webhook(reader, snapshot, webhook["clientConfig"], resources)
    probes = tuple(_probe(reader, namespace, pod) for pod in _probes(webhook, snapshot.resources))
    return replace(snapshot, probes=probes, gates=_gates(reader, snapshot.api, namespace))


def take_for_plan(cluster: Caller, namespace: str, resources: Resources | None = None) -> Snapshot:
    """What a plan is made of. Raises SurveyError where the API server is out of reach."""
    reader = Reader(cluster)
    snapshot = _take(reader, dict(LISTS), resources)
    return replace(snapshot, gates=_gates(reader, snapshot.api, namespace))


def take_for_pod(
    cluster: Caller, namespace: str, name: str, resources: Resources | None = None
) -> tuple[Snapshot, Json, list[Json]]:
    """What is around a pod, the pod, and the events about it. Raises SurveyError."""
    reader = Reader(cluster)
    pod = reader.get(f"/api/v1/namespaces/{quote(namespace)}/pods/{quote(name)}")
    selector = {"fieldSelector": f"involvedObject.uid={pod['metadata']['uid']}"}
    events = f"/api/v1/namespaces/{quote(namespace)}/events?{urlencode(selector)}"
    wanted = {"quotas": f"/api/v1/namespaces/{quote(namespace)}/resourcequotas"}
    return _take(reader, wanted, resources), pod, list(reader.list(events))


def _take(reader: Reader, wanted: dict[str, str], resources: Resources | None) -> Snapshot:
    try:
        api = discovery.ask(reader)
    except ClusterError as error:
        raise SurveyError(str(error)) from None
    kubernetes = "of an unknown version"
    with suppress(SurveyError):
        kubernetes = str(reader.get("/version").get("gitVersion"))
    groups, failures = {}, {}
    try:
        groups = _groups(reader.get("/apis"))
    except SurveyError as error:
        failures["groups"] = str(error)
    if isinstance(api, ResourceAPI):
        kinds = CLASSIC_DRA_LISTS if api.is_classic else DRA_LISTS
        wanted |= {name: f"/apis/{GROUP}/{api.version}/{kind}" for name, kind in kinds.items()}
    optional: dict[str, str] = {}
    for version in RULES:
        if version in groups.get(GROUP, ()):
            optional.setdefault("rules", f"/apis/{GROUP}/{version}/devicetaintrules")
    if "quotas" in wanted and groups.get(KUEUE):
        optional["queues"] = f"/apis/{KUEUE}/{groups[KUEUE][0]}/clusterqueues"
    lists: dict[str, list[Json]] = {}
    for name, path in (wanted | optional).items():
        try:
            lists[name] = list(reader.list(path))
        except SurveyError as error:
            # The version may be served without the kind.
            if name in optional and str(error).startswith("404"):
                lists[name] = []
            else:
                failures[name] = str(error)
    if "queues" in optional:
        try:
            found = reader.find(KUEUE_CONFIGURATION)
            lists["kueue"] = [found] if found else []
        except SurveyError as error:
            failures["kueue"] = str(error)
    resources = resources or Resources()
    return Snapshot(datetime.now(UTC), kubernetes, api, lists, failures, groups, resources)


def _groups(found: Json) -> dict[str, tuple[str, ...]]:
    """The versions of each API group, the preferred one first."""
    return {
        group["name"]: tuple(
            dict.fromkeys(
                [group["preferredVersion"]["version"], *(v["version"] for v in group["versions"])]
            )
        )
        for group in found.get("groups") or []
    }


def _of_webhook(
    reader: Reader, snapshot: Snapshot, client: Json, resources: Resources | None
) -> Snapshot:
    """The snapshot with the webhook's endpoints, pods and certificate."""
    lists, failures, certificate = dict(snapshot.lists), dict(snapshot.failures), ""
    own: list[Json] = []
    try:
        if "service" in client:
            namespace, name = client["service"]["namespace"], client["service"]["name"]
            selector = urlencode({"labelSelector": f"kubernetes.io/service-name={name}"})
            path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?{selector}"
            lists["endpoints"] = list(reader.list(path))
    except SurveyError as error:
        failures["endpoints"] = str(error)
    try:
        own = _own_pods(reader, snapshot, client)
        certificate = _certificate(reader, client, own)
    except (SurveyError, OSError) as error:
        failures["certificate"] = str(error)
    if resources is None:
        try:
            resources = read_mapping(mapping_of(own))
        except ValueError as error:
            failures["mapping"] = str(error)
    resources = resources or Resources()
    found = replace(snapshot, lists=lists, failures=failures, certificate=certificate)
    return replace(found, resources=resources)


def _own_pods(reader: Reader, snapshot: Snapshot, client: Json) -> list[Json]:
    """The pods of the webhook's Service; none where it is called by a URL."""
    if "service" not in client:
        return []
    namespace = client["service"]["namespace"]
    service = reader.get(f"/api/v1/namespaces/{namespace}/services/{client['service']['name']}")
    selector = (service["spec"].get("selector") or {}).items()
    return [
        pod
        for pod in snapshot.lists.get("pods", [])
        if pod["metadata"]["namespace"] == namespace
        and selector <= (pod["metadata"].get("labels") or {}).items()
    ]


def _certificate(reader: Reader, client: Json, own: list[Json]) -> str:
    """The webhook's certificate: from the Secret that its pods mount, or from its URL."""
    if "service" not in client:
        url = urlsplit(client.get("url") or "")
        return ssl.get_server_certificate((url.hostname or "", url.port or 443), timeout=HANDSHAKE)
    for pod in own:
        for volume in pod["spec"].get("volumes") or []:
            secret = (volume.get("secret") or {}).get("secretName")
            if secret:
                namespace = pod["metadata"]["namespace"]
                found = reader.get(f"/api/v1/namespaces/{namespace}/secrets/{secret}")
                data = found.get("data") or {}
                if "tls.crt" in data:
                    return base64.b64decode(data["tls.crt"]).decode()
    raise SurveyError("no pod of its Service mounts a Secret with a tls.crt")


def _probes(webhook: Json | None, resources: Resources) -> list[Json]:
    """The pods to try: one with a slice, and one with a device of each mapped resource."""
    annotations = {}
    if webhook is not None and modes.read(webhook).mode == BESIDE:
        annotations = {"instaslice.io/alternatives": "1g.5gb or 1g.10gb"}
    probes = [probe_pod(RESOURCE_PREFIX + "1g.5gb", annotations)]
    return [*probes, *(probe_pod(name, {}) for name in resources.mapped if not annotations)]


def probe_pod(resource: str, annotations: dict[str, str]) -> Json:
    """A pod with one device, which Pod Security's level `restricted` takes."""
    metadata: dict[str, Any] = {"generateName": "instaslice-doctor-"}
    if annotations:
        metadata["annotations"] = annotations
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
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
                    "resources": {"limits": {resource: 1}},
                }
            ],
        },
    }


def _probe(reader: Reader, namespace: str, pod: Json) -> Probe:
    path = f"/api/v1/namespaces/{quote(namespace)}/pods?dryRun=All"
    (resource,) = pod["spec"]["containers"][0]["resources"]["limits"]
    try:
        answer = reader.call("POST", path, pod)
    except ClusterError as error:
        return Probe(namespace, resource, None, str(error), 0)
    if answer.status == 201:
        return Probe(namespace, resource, answer.body, "", answer.status)
    return Probe(namespace, resource, None, answer.reason, answer.status)


def _gates(reader: Reader, api: object, namespace: str) -> dict[str, Known]:
    """What is known of the feature gates; nothing before resource.k8s.io/v1."""
    found: dict[str, Known] = {}
    if api != NEWEST:
        return found
    for name in gates.GATES:
        path, manifest = gates.probe(NEWEST, name, quote(namespace))
        try:
            found[name] = gates.judge(name, reader.call("POST", path, manifest))
        except ClusterError as error:
            found[name] = Known(None, str(error))
    return found
