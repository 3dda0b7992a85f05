"""Takes the snapshot of a cluster that `doctor` and `plan` judge. Needs the extra `cli`.

Reads, and creates a few objects as dry runs (dryRun=All), which no storage ever sees.
"""

from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

from instaslice.cluster import discovery, gates
from instaslice.cluster.client import Caller, ClusterError
from instaslice.doctor import modes
from instaslice.doctor.reader import Reader
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
    "policies": "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies",
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


def take(cluster: Caller, namespace: str, resources: Resources | None = None) -> Snapshot:
    """All that the checks look at. Raises Unreadable where the API server is out of reach.

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
    return _with_gates(reader, replace(snapshot, probes=probes), namespace)


def take_for_plan(cluster: Caller, namespace: str, resources: Resources | None = None) -> Snapshot:
    """What a plan is made of. Raises Unreadable where the API server is out of reach."""
    reader = Reader(cluster)
    return _with_gates(reader, _take(reader, dict(LISTS), resources), namespace)


def _with_gates(reader: Reader, snapshot: Snapshot, namespace: str) -> Snapshot:
    """The snapshot with what is known of the gates: nothing before resource.k8s.io/v1."""
    if snapshot.api != NEWEST:
        return snapshot
    found = {name: gates.ask(reader, NEWEST, name, namespace) for name in gates.GATES}
    return replace(snapshot, gates=found)


def take_for_pod(
    cluster: Caller, namespace: str, name: str, resources: Resources | None = None
) -> tuple[Snapshot, Json, list[Json]]:
    """What is around a pod, the pod, and the events about it. Raises Unreadable."""
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
        raise Unreadable(str(error)) from None
    kubernetes = "of an unknown version"
    with suppress(Unreadable):
        kubernetes = str(reader.get("/version").get("gitVersion"))
    failures: dict[str, Unreadable] = {}
    groups: dict[str, tuple[str, ...]] = {}
    try:
        groups = _groups(reader.get("/apis"))
    except Unreadable as error:
        failures["groups"] = error
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
        except Unreadable as error:
            # The version may be served without the kind.
            if name in (*optional, "policies") and error.status == 404:
                lists[name] = []
            else:
                failures[name] = error
    if "queues" in optional:
        try:
            lists["kueue"] = reader.find(KUEUE_CONFIGURATION)
        except Unreadable as error:
            failures["kueue"] = error
    resources = resources or Resources()
    return Snapshot(datetime.now(UTC), kubernetes, api, lists, failures, groups, resources)


def _groups(found: Json) -> dict[str, tuple[str, ...]]:
    """The versions of each API group, the preferred one first. What is malformed is left out."""
    groups: dict[str, tuple[str, ...]] = {}
    for group in found.get("groups") or []:
        every = [group.get("preferredVersion"), *(group.get("versions") or [])]
        versions = [each.get("version") for each in every if isinstance(each, dict)]
        groups[str(group.get("name"))] = tuple(dict.fromkeys(filter(None, versions)))
    return groups


def _of_webhook(
    reader: Reader, snapshot: Snapshot, client: Json, resources: Resources | None
) -> Snapshot:
    """The snapshot with the webhook's endpoints, and what its pods were told to map."""
    lists, failures = dict(snapshot.lists), dict(snapshot.failures)
    try:
        if "service" in client:
            namespace, name = client["service"]["namespace"], client["service"]["name"]
            selector = urlencode({"labelSelector": f"kubernetes.io/service-name={name}"})
            path = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices?{selector}"
            lists["endpoints"] = list(reader.list(path))
    except Unreadable as error:
        failures["endpoints"] = error
    if resources is None:
        try:
            resources = read_mapping(mapping_of(_own_pods(reader, snapshot, client)))
        except Unreadable as error:
            failures["own pods"] = error
        except ValueError as error:
            failures["mapping"] = Unreadable(str(error))
    resources = resources or Resources()
    return replace(snapshot, lists=lists, failures=failures, resources=resources)


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
    annotation = next(iter(pod["metadata"].get("annotations") or ()), "")
    made, error_ = (answer.body, "") if answer.status == 201 else (None, answer.reason)
    return Probe(namespace, resource, made, error_, answer.status, annotation)
