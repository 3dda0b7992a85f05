"""Takes a snapshot of a cluster for `doctor` and `plan`.

It reads, and creates a few objects as dry runs (dryRun=All), which are not stored. It copes with an
API server that stops answering.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final
from urllib.parse import quote, urlencode

from instaslice.annotations import ALTERNATIVES
from instaslice.cluster import discovery, gates
from instaslice.cluster.client import Answer, Caller, ClusterError
from instaslice.doctor import checks
from instaslice.doctor.inventory import dig
from instaslice.doctor.snapshot import Probe, Snapshot
from instaslice.patch import Json
from instaslice.profiles import RESOURCE_PREFIX
from instaslice.resource_api import GROUP, NEWEST, ResourceAPI
from instaslice.resources import Resources, read_mapping
from instaslice.webhook_configuration import BESIDE

#: The lists by their names in a Snapshot; each is a key of `_bases` and the path below it.
LISTS: Final[Mapping[str, str]] = {
    "webhooks": "admission/mutatingwebhookconfigurations",
    "namespaces": "core/namespaces",
    "nodes": "core/nodes",
    "pods": "core/pods",
    "quotas": "core/resourcequotas",
    "limits": "core/limitranges",
    "policies": "admission/validatingadmissionpolicies",
    "bindings": "admission/validatingadmissionpolicybindings",
    "claims": "dra/resourceclaims",
    "templates": "dra/resourceclaimtemplates",
    "slices": "dra/resourceslices",
    "classes": "dra/deviceclasses",
    "rules": "taints/devicetaintrules",
    "queues": "kueue/clusterqueues",
    "kueue": "kueue-system/configmaps/kueue-manager-config",
}
#: The versions of resource.k8s.io that have DeviceTaintRules, the newest first.
_TAINTS: Final = ("v1", "v1beta2", "v1alpha3")
_RESOURCE: Final = re.compile(r"--resource(?:[= ]|$)(\S*)")  #: in InstaSlice's arguments
PAGE: Final = 500  #: objects of a list per request
#: Consecutive calls without an answer, after which no more are made. Each has waited for its whole
#: deadline, and the user prefers a partial report to more waiting.
_MAX_SILENT: Final = 2


class Reader:
    """A `Caller` that gives up on a silent API server, and the lists that it has read."""

    def __init__(self, cluster: Caller) -> None:
        self._cluster = cluster
        self._silent = 0
        self.lists: dict[str, list[Json]] = {}
        self.failures: dict[str, ClusterError] = {}  #: why a list is missing, by name

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        """Send a request; the answer may have any status. Raises ClusterError without one."""
        if self._silent >= _MAX_SILENT:
            raise ClusterError("not requested, since the API server has stopped answering")
        try:
            answer = self._cluster.call(method, path, body)
        except ClusterError:
            self._silent += 1
            raise
        self._silent = 0
        return answer

    def get(self, path: str) -> Json:
        """Read an object. Raises ClusterError."""
        answer = self.call("GET", path)
        if answer.status != 200:
            raise ClusterError(answer.reason, answer.status)
        return answer.body

    def every(self, path: str, **query: str | int) -> Iterator[Json]:
        """Yield the objects of a list page by page, or a single object. Raises ClusterError."""
        query["limit"] = PAGE
        while True:
            page = self.get(f"{path}?{urlencode(query)}")
            if "items" not in page:
                yield page
                return
            if not all(isinstance(item, dict) for item in dig(page, "items")):
                raise ClusterError(f"{path}: an item of the list is not an object")
            yield from dig(page, "items")
            query["continue"] = dig(page, "metadata", "continue")
            if not query["continue"]:
                return

    def read(self, name: str, path: str, **query: str | int) -> None:
        """Store a list under a name, or the reason why it cannot be read."""
        try:
            self.lists[name] = list(self.every(path, **query))
        except ClusterError as error:
            if error.status == 404:  # a version may be served without the kind
                self.lists[name] = []
            else:
                self.failures[name] = error


def take_for_pod(
    cluster: Caller, namespace: str, name: str, resources: Resources | None = None
) -> tuple[Snapshot, Json, list[Json]]:
    """Read a pod, the lists that explain it, and its events. Raises ClusterError."""
    reader = Reader(cluster)
    where = f"namespaces/{quote(namespace)}"
    pod = reader.get(f"/api/v1/{where}/pods/{quote(name)}")
    selector = f"involvedObject.uid={pod['metadata']['uid']}"
    events = list(reader.every(f"/api/v1/{where}/events", fieldSelector=selector))
    around = {name: path for name, path in LISTS.items() if path.startswith(("dra/", "taints/"))}
    around |= {"webhooks": LISTS["webhooks"], "quotas": f"core/{where}/resourcequotas"}
    return take(reader, namespace, resources, around, tries_pods=False), pod, events


def take(
    cluster: Caller,
    namespace: str,
    resources: Resources | None = None,
    lists: Mapping[str, str] = LISTS,
    *,
    tries_pods: bool = True,
) -> Snapshot:
    """Read everything that the checks need. Raises ClusterError if the API server is unreachable.

    namespace: for the dry runs. resources: those that are rewritten; None for the mapping of
    InstaSlice's pods. tries_pods: whether to create pods as dry runs.
    """
    reader = Reader(cluster)
    api = discovery.ask(reader)
    kubernetes = "of an unknown version"
    with suppress(ClusterError):
        kubernetes = str(reader.get("/version").get("gitVersion"))
    bases = _bases(reader, api.version if isinstance(api, ResourceAPI) else "")
    for name, path in lists.items():
        base, _, kind = path.partition("/")
        if isinstance(api, ResourceAPI) and api.is_classic:
            kind = kind.replace("deviceclasses", "resourceclasses")
        if base in bases:
            reader.read(name, f"{bases[base]}/{kind}")
    webhook = Snapshot(kubernetes, api, reader.lists).webhook
    mapping = _read_service(reader, dig(webhook or {}, "clientConfig"), tries_pods)
    try:
        resources = resources or read_mapping(mapping)
    except ValueError as error:
        reader.failures["mapping"] = ClusterError(str(error))
    resources = resources or Resources()
    probes = tuple(_probes(reader, namespace, webhook, resources)) if tries_pods else ()
    asked = gates.GATES if api == NEWEST else ()
    known = {name: gates.ask(reader, NEWEST, name, namespace) for name in asked}
    return Snapshot(kubernetes, api, reader.lists, reader.failures, resources, probes, known)


def _bases(reader: Reader, version: str) -> dict[str, str]:
    """The base path of each API group that is served.

    version: the one of resource.k8s.io; empty if it is not served.
    """
    bases = {"core": "/api/v1", "admission": "/apis/admissionregistration.k8s.io/v1"}
    if version:
        bases["dra"] = f"/apis/{GROUP}/{version}"
    served: list[str] = []
    try:
        for group in dig(reader.get("/apis"), "groups"):
            every = (group.get("preferredVersion"), *dig(group, "versions"))
            versions = (each.get("version") for each in every if isinstance(each, dict))
            served += (f"{group.get('name')}/{version}" for version in versions if version)
    except ClusterError as error:
        reader.failures["groups"] = error
    for each in (f"{GROUP}/{version}" for version in _TAINTS):
        if each in served:
            bases.setdefault("taints", f"/apis/{each}")
    for each in served:
        if each.startswith("kueue.x-k8s.io/"):
            bases.setdefault("kueue", f"/apis/{each}")
            bases["kueue-system"] = "/api/v1/namespaces/kueue-system"
    return bases


def _read_service(reader: Reader, client: Json, endpoints: bool) -> list[str]:
    """Read the webhook's endpoints if wanted. Returns the mappings of its pods as texts."""
    if "service" not in client:
        return []
    where, name = f"v1/namespaces/{client['service']['namespace']}", client["service"]["name"]
    if endpoints:
        path = f"/apis/discovery.k8s.io/{where}/endpointslices"
        reader.read("endpoints", path, labelSelector=f"kubernetes.io/service-name={name}")
    try:
        service = reader.get(f"/api/{where}/services/{name}")
        labels = [f"{key}={value}" for key, value in dig(service["spec"], "selector").items()]
        return mapping_of(reader.every(f"/api/{where}/pods", labelSelector=",".join(labels)))
    except ClusterError as error:
        reader.failures["own pods"] = error
        return []


def mapping_of(pods: Iterator[Json]) -> list[str]:
    """The mappings in the arguments of InstaSlice's pods: "nvidia.com/gpu=gpu.nvidia.com"."""
    found: list[str] = []
    for container in (each for pod in pods for each in dig(pod["spec"], "containers")):
        words = map(str, (*dig(container, "command"), *dig(container, "args")))
        found += _RESOURCE.findall(" ".join(words))
        for variable in dig(container, "env"):
            if variable["name"] == "INSTASLICE_RESOURCES":
                found += filter(None, (variable.get("value") or "").split(","))
    return list(dict.fromkeys(text.strip() for text in found))


def _probes(
    reader: Reader, namespace: str, webhook: Json | None, resources: Resources
) -> Iterator[Probe]:
    """Try to create a pod with a slice, and one for each mapped resource."""
    path = f"/api/v1/namespaces/{quote(namespace)}/pods?dryRun=All"
    names, key = [RESOURCE_PREFIX + "1g.5gb", *resources.mapped], ""
    if checks.Registered(webhook or {}).mode == BESIDE:
        names, key = names[:1], ALTERNATIVES  # the scheduler cannot serve alternatives
    for name in names:
        pod = _pod(name, {key: "1g.5gb or 1g.10gb"} if key else {})
        try:
            yield Probe(namespace, name, reader.call("POST", path, pod), key)
        except ClusterError as error:
            yield Probe(namespace, name, error, key)


def _pod(resource: str, annotations: Json) -> Json:
    """A pod with one device that Pod Security's level `restricted` allows."""
    container = {
        "name": "probe",
        "image": "probe.invalid/probe",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "resources": {"limits": {resource: 1}},
    }
    security = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "securityContext": security, "containers": [container]}
    metadata = {"generateName": "instaslice-doctor-", "annotations": annotations}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
