"""What a change-over from the device plugin to DRA would meet in a cluster. Pure.

`survey.take_for_plan` takes the snapshot, `steps` makes the steps of what is found here, and
`plan_report` prints both. What is not in the snapshot because it could not be read is said.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from instaslice import profiles
from instaslice.doctor import installed, policies
from instaslice.doctor.findings import State
from instaslice.doctor.snapshot import (
    Snapshot,
    Unreadable,
    full_name,
    living,
    pod_claims,
)
from instaslice.patch import Json
from instaslice.resource_api import ResourceAPI
from instaslice.resources import MIG_CLASS

#: The device plugin's resource for a whole GPU; with its strategy "single", for a slice.
GPU: Final = "nvidia.com/gpu"
#: Resources of OpenShift's operator that was removed: it wrote them into pods in place of NVIDIA's.
DAS_PREFIX: Final = "mig.das.com/"
#: On nodes, by MIG manager and GPU Feature Discovery.
_MIG_CONFIG: Final = "nvidia.com/mig.config"
_STRATEGY: Final = "nvidia.com/mig.strategy"
_PRODUCT: Final = "nvidia.com/gpu.product"
#: How GPU Feature Discovery names a product whose GPUs are all cut alike ("single").
_SINGLE: Final = re.compile(r"-MIG-([0-9]+g\.[0-9]+gb(?:\.[a-z.]+)?)$")
#: GPUs that cannot switch MIG mode on without a reset (dra-driver-nvidia-gpu, guides/mig.md).
_AMPERE: Final = re.compile(r"\bA(?:100|30)\b|-A(?:100|30)-")

#: What pods run, by a part of an image's name.
_COMPONENTS: Final = {
    "NVIDIA's DRA driver": ("dra-driver-nvidia-gpu", "k8s-dra-driver"),
    "device plugin": ("k8s-device-plugin",),
    "MIG manager": ("mig-manager",),
    "GPU operator": ("gpu-operator",),
    "Cluster Autoscaler": ("cluster-autoscaler",),
    "Karpenter": ("karpenter",),
    "Kueue": ("/kueue:",),
}


@dataclass(frozen=True, slots=True)
class Workload:
    """Pods of one owner that ask for devices, or have them."""

    namespace: str
    owner: str  #: "Deployment/inference"; "Pod/p" for one that nobody owns
    pods: int
    asks: dict[str, str]  #: resources of one of the pods, with their amounts
    how: str  #: "limits", "claims" or "das"


@dataclass(frozen=True, slots=True)
class Node:
    """A node with GPUs."""

    name: str
    product: str
    advertised: dict[str, str]  #: what the device plugin offers
    config: str  #: MIG manager's, and its state
    strategy: str  #: "mixed", "single" or nothing
    published: bool  #: whether the DRA driver publishes MIG slices of it

    @property
    def needs_mig_mode(self) -> bool:
        """Whether somebody must switch MIG on before the driver starts."""
        return bool(_AMPERE.search(self.product))

    @property
    def single(self) -> str:
        """The profile that `nvidia.com/gpu` means on it, or nothing."""
        found = _SINGLE.search(self.product)
        return found[1] if found and self.strategy == "single" else ""


@dataclass(frozen=True, slots=True)
class Policy:
    """A ResourceQuota, LimitRange or queue that names resources, and what becomes of it."""

    what: str  #: "ResourceQuota ml/gpus"
    becomes: str
    command: str = ""
    back: str = ""


@dataclass(slots=True)
class Plan:
    """What is there, before anything is changed."""

    kubernetes: str
    resource_api: str  #: "v1"; empty where DRA is not served
    minor: int
    has_driver: bool
    gates: dict[str, bool | None]
    components: dict[str, str]  #: what runs, with its version
    installed: str  #: the mode in which InstaSlice is registered; empty where it is not
    workloads: list[Workload]
    nodes: list[Node]
    policies: list[Policy]
    unknown: dict[str, str] = field(default_factory=dict)  #: why a part could not be read
    notes: list[str] = field(default_factory=list)


def make(snapshot: Snapshot) -> Plan:
    """What a cluster has, and what it is up to."""
    unknown = {name: str(failure) for name, failure in snapshot.failures.items()}
    pods = list(living(snapshot.lists.get("pods", [])))
    mode = ""
    if "webhooks" not in snapshot.failures and (found := snapshot.registered):
        mode = found.mode or "unknown"
    api = snapshot.api
    if not isinstance(api, ResourceAPI):
        unknown["DRA"] = api.reason
    classes = {found["metadata"]["name"] for found in snapshot.lists.get("classes", [])}
    nodes = list(_nodes(snapshot))
    workloads = _workloads(snapshot, pods)
    return Plan(
        kubernetes=snapshot.kubernetes,
        resource_api=api.version if isinstance(api, ResourceAPI) else "",
        minor=snapshot.minor,
        has_driver=MIG_CLASS in classes,
        gates={name: known.on for name, known in snapshot.gates.items()},
        components=_components(pods),
        installed=mode,
        workloads=workloads,
        nodes=nodes,
        policies=list(_policies(snapshot)),
        unknown=unknown,
        notes=list(_notes(pods, nodes)),
    )


# -- workloads -----------------------------------------------------------------------------------


def _workloads(snapshot: Snapshot, pods: Iterable[Json]) -> list[Workload]:
    found: dict[tuple[str, str, str, str], int] = defaultdict(int)
    asks_by_key: dict[tuple[str, str, str, str], dict[str, str]] = {}
    for pod in pods:
        for how, asks in _asks(snapshot, pod):
            key = (pod["metadata"]["namespace"], _owner(pod), how, str(sorted(asks.items())))
            found[key] += 1
            asks_by_key[key] = asks
    return [
        Workload(key[0], key[1], count, asks_by_key[key], key[2])
        for key, count in sorted(found.items())
    ]


def _asks(snapshot: Snapshot, pod: Json) -> Iterator[tuple[str, dict[str, str]]]:
    """What a pod asks for, by how it asks."""
    spec = pod["spec"]
    every = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    limits: dict[str, dict[str, str]] = {"limits": {}, "das": {}}
    for container in every:
        for name, amount in ((container.get("resources") or {}).get("limits") or {}).items():
            is_ours = snapshot.resources.find(name) or name == GPU
            how = "das" if name.startswith(DAS_PREFIX) else "limits" if is_ours else ""
            if how and str(amount) != "0":
                limits[how][name] = _sum(limits[how].get(name), str(amount))
    yield from ((how, asks) for how, asks in limits.items() if asks)
    claims: dict[str, str] = {}
    for claim in pod_claims(pod, snapshot.resources):
        claims[claim.template] = _sum(claims.get(claim.template), "1")
    if claims:
        yield "claims", claims


def _sum(before: str | None, amount: str) -> str:
    """Two amounts in one; those that are no plain numbers are written side by side."""
    if before is None:
        return amount
    if before.isdecimal() and amount.isdecimal():
        return str(int(before) + int(amount))
    return f"{before} + {amount}"


def _owner(pod: Json) -> str:
    """Who made a pod: a Deployment by its ReplicaSet, the CRDs of others as they are."""
    metadata = pod["metadata"]
    for owner in metadata.get("ownerReferences") or []:
        if owner.get("controller"):
            kind, name = owner["kind"], owner["name"]
            suffix = "-" + str((metadata.get("labels") or {}).get("pod-template-hash"))
            if kind == "ReplicaSet" and name.endswith(suffix):
                return f"Deployment/{name.removesuffix(suffix)}"
            return f"{kind}/{name}"
    return f"Pod/{metadata['name']}"


# -- nodes ---------------------------------------------------------------------------------------


def _nodes(snapshot: Snapshot) -> Iterator[Node]:
    published: set[str] = set()
    if "slices" not in snapshot.failures and "claims" not in snapshot.failures:
        published = snapshot.inventory.nodes()
    for node in snapshot.lists.get("nodes", []):
        name = node["metadata"]["name"]
        labels = node["metadata"].get("labels") or {}
        amounts = (node.get("status") or {}).get("allocatable") or {}
        advertised = {
            resource: str(amount)
            for resource, amount in amounts.items()
            if (snapshot.resources.find(resource) or resource == GPU) and str(amount) != "0"
        }
        product = labels.get(_PRODUCT) or ""
        if not (advertised or product or name in published):
            continue
        config = " ".join(
            filter(None, (labels.get(_MIG_CONFIG), labels.get(_MIG_CONFIG + ".state")))
        )
        strategy = labels.get(_STRATEGY) or ""
        yield Node(name, product, advertised, config, strategy, name in published)


# -- policies ------------------------------------------------------------------------------------


def _policies(snapshot: Snapshot) -> Iterator[Policy]:
    """What names resources that are rewritten, and what is to be done with it."""
    for quota in snapshot.lists.get("quotas", []):
        what = f"ResourceQuota {full_name(quota)}"
        one = _of(snapshot, quotas=[quota])
        back = policies.unpatch(one, quota) if "classes" not in one.failures else ""
        for state, text, *advice in _judged(policies.quotas, one):
            becomes = text.removeprefix(f"{full_name(quota)} ")
            is_good = state is State.GOOD
            yield Policy(what, becomes, "" if is_good else advice[0], "" if is_good else back)
    for found in snapshot.lists.get("limits", []):
        for _, text, *advice in _judged(policies.limit_ranges, _of(snapshot, limits=[found])):
            what = f"LimitRange {full_name(found)}"
            becomes = text.removeprefix(f"{what} ")
            where = f"-n {found['metadata']['namespace']}"
            name = f"limitrange {found['metadata']['name']}"
            file = f"limitrange-{found['metadata']['name']}.yaml"
            keep = f"kubectl {where} get {name} -o yaml > {file}; kubectl {where} edit {name}"
            back = f"kubectl replace -f {file}"
            yield Policy(what, f"{becomes}; {advice[0]}", keep, back)
    for state, text, *advice in _judged(policies.kueue, snapshot):
        yield Policy("Kueue", text, "" if state is State.GOOD else advice[0])


def _of(snapshot: Snapshot, **lists: list[Json]) -> Snapshot:
    """The snapshot with these lists only."""
    kept = {name: snapshot.lists.get(name, []) for name in ("classes", "templates")}
    return Snapshot(
        snapshot.now,
        snapshot.kubernetes,
        snapshot.api,
        kept | lists,
        {name: why for name, why in snapshot.failures.items() if name in kept},
        resources=snapshot.resources,
        gates=snapshot.gates,
    )


def _judged(check: object, snapshot: Snapshot) -> list[tuple[State, str] | tuple[State, str, str]]:
    try:
        return list(check(snapshot))  # type: ignore[operator]
    except Unreadable:
        return []  # it is said with what is unknown


# -- the rest ------------------------------------------------------------------------------------


def _components(pods: Iterable[Json]) -> dict[str, str]:
    """What runs that a change-over touches, with the tag of its image."""
    found: dict[str, str] = {}
    for pod in pods:
        for container in pod["spec"].get("containers") or []:
            image = str(container.get("image") or "")
            for name, parts in _COMPONENTS.items():
                if name not in found and any(part in image for part in parts):
                    tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
                    where = pod["metadata"]["namespace"]
                    gates = _gates(container)
                    found[name] = f"{tag or 'of an unknown version'} in {where}{gates}"
    return found


def _gates(container: Json) -> str:
    """The driver's feature gates, as its chart hands them over."""
    for variable in container.get("env") or []:
        if variable.get("name") == "FEATURE_GATES" and variable.get("value"):
            return f", {variable['value']}"
    return ""


def _notes(pods: Iterable[Json], nodes: Iterable[Node]) -> Iterator[str]:
    """What an administrator should know beside the steps."""
    shared = {n for node in nodes for n in node.advertised if n.endswith(".shared")}
    if shared:
        yield (
            f"{', '.join(sorted(shared))} are time-sliced: DRA shares slices by the driver's "
            "ConsumableShares (0.5, alpha), and InstaSlice leaves such limits alone"
        )
    if any(profile_of(name).startswith("7g.") for node in nodes for name in node.advertised):
        yield (
            "7g slices are in use: from 0.4.1 on the driver fails to make them with DynamicMIG "
            "(its issue 1480); ask for whole GPUs instead"
        )
    components = _components(pods)
    if "Karpenter" in components:
        yield (
            "Karpenter makes nodes for claims where IGNORE_DRA_REQUESTS=false, and not yet for "
            "extended resources that are served through DRA (karpenter, issue 3231)"
        )


def profile_of(resource: str) -> str:
    """The profile of a MIG resource, as tools print it; empty for others."""
    profile = profiles.from_resource(resource)
    return profile.attribute if profile else ""


#: From here on the scheduler serves limits by device classes without a gate.
SCHEDULER_SINCE: Final = installed.FIRST_OF_THE_SCHEDULERS
