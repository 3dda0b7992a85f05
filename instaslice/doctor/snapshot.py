"""A snapshot of a cluster, and what follows from it. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final, NamedTuple

from instaslice.annotations import is_mirror
from instaslice.cluster.client import Answer, ClusterError
from instaslice.cluster.gates import EXTENDED, Known
from instaslice.doctor.inventory import Inventory, dig, grouped
from instaslice.patch import Json
from instaslice.profiles import MIG_CLASS
from instaslice.quantity import InvalidQuantity, nanos
from instaslice.resource_api import ResourceAPI, Unavailable, template_name
from instaslice.resources import Resources
from instaslice.templates import CLASSIC_CLASS, DeviceClaim, DeviceRequest, from_template, is_ours
from instaslice.webhook_configuration import WEBHOOK

#: The device plugin's resource for a whole GPU, or for a slice with the strategy "single".
GPU: Final = "nvidia.com/gpu"
RIGHTS: Final = "the rights that this needs are in config/components/doctor"
_SHOWN: Final = 3  #: names that a finding lists


def advice_on(status: int) -> str:
    """The advice for a status of the API server; may be empty."""
    return RIGHTS if status in (401, 403) else ""


class Probe(NamedTuple):
    """The result of creating a pod as a dry run."""

    namespace: str
    resource: str  #: in the pod's limits, "nvidia.com/mig-1g.5gb"
    answer: Answer | ClusterError
    annotation: str = ""  #: the pod's annotation for InstaSlice


class PodClaim(NamedTuple):
    """A pod's claim that comes from one of InstaSlice's templates."""

    name: str
    template: str
    asks: DeviceClaim  #: empty if the template has a shortened name


class Pod:
    """A pod and the devices that it requests.

    rewritten: the extended resources that InstaSlice rewrites.
    """

    def __init__(self, manifest: Json, rewritten: Resources) -> None:
        self.spec: Json = manifest["spec"]
        self.metadata: Json = manifest["metadata"]
        self.status: Json = manifest.get("status") or {}
        self.namespace: str = self.metadata.get("namespace") or ""  #: empty if its file has none
        self.full_name = full_name(manifest)
        self.node: str = self.spec.get("nodeName") or ""  #: empty until it is bound
        self.phase = str(self.status.get("phase") or "Unknown")
        self._rewritten = rewritten

    @cached_property
    def extended(self) -> dict[str, str]:
        """The sums of the extended resources in its limits, without those of 0."""
        containers = (*dig(self.spec, "containers"), *dig(self.spec, "initContainers"))
        every = (limit for c in containers for limit in dig(c, "resources", "limits").items())
        found = grouped((name, str(n)) for name, n in every if "/" in name and not is_zero(n))
        return {name: total(amounts) for name, amounts in found.items()}

    @property
    def limits(self) -> dict[str, str]:
        """The extended resources in its limits that InstaSlice could rewrite."""
        return {name: n for name, n in self.extended.items() if self._rewritten.find(name)}

    @cached_property
    def claims(self) -> list[PodClaim]:
        """Its claims from templates with InstaSlice's names."""
        found = []
        for each in dig(self.spec, "resourceClaims"):
            template = template_name(each)
            if isinstance(template, str) and is_ours(template, self._rewritten):
                asks = from_template(template, self._rewritten) or DeviceClaim(())
                found.append(PodClaim(each["name"], template, asks))
        return found

    @property
    def names_its_node(self) -> bool:
        """Whether its author has set its node, bypassing the scheduler.

        `managedFields` records a node that an author sets, but not the scheduler's binding.
        """
        if not self.node or is_mirror({"metadata": self.metadata}):
            return False
        written = dig(self.metadata, "managedFields")
        if not written:
            return "uid" not in self.metadata  # it comes from a file
        return any("f:nodeName" in dig(each, "fieldsV1", "f:spec") for each in written)


def choices(request: DeviceRequest) -> str:
    """A request's alternatives: "3g.20gb or 4g.20gb", "1g.5gb or bigger"."""
    first, *others = (choice.profile for choice in request.choices)
    names = [first or request.resource.name, *filter(None, others)]
    return " or ".join([*names, "bigger"] if "" in others else names)


@dataclass(frozen=True)
class Snapshot:
    """The parts of a cluster that the checks need, as decoded JSON.

    Every property and method raises ClusterError if it needs a list that could not be read.
    """

    kubernetes: str  #: "v1.36.3"
    api: ResourceAPI | Unavailable
    lists: dict[str, list[Json]] = field(default_factory=dict)  #: by name, as in `reading.LISTS`
    failures: dict[str, ClusterError] = field(default_factory=dict)  #: by name, why it is missing
    resources: Resources = field(default_factory=Resources)  #: those that are rewritten
    probes: tuple[Probe, ...] = ()
    gates: Mapping[str, Known] = field(default_factory=dict)  #: by name, as in `cluster.gates`
    _named: dict[str, dict[str, Json]] = field(default_factory=dict, init=False, compare=False)

    def all(self, name: str) -> list[Json]:
        """The objects of a list."""
        if failure := self.failures.get(name):
            raise ClusterError(f"{name} could not be read: {failure}", failure.status)
        return self.lists.get(name, [])

    @cached_property
    def readable(self) -> "Snapshot":
        """A copy with an empty list in place of each that could not be read."""
        return replace(self, failures={})

    @property
    def webhook(self) -> Json | None:
        """InstaSlice's webhook in its MutatingWebhookConfiguration."""
        every = (each for found in self.all("webhooks") for each in dig(found, "webhooks"))
        return next((each for each in every if each.get("name") == WEBHOOK), None)

    @property
    def is_classic(self) -> bool:
        """Whether the API is v1alpha2, in which only the driver knows its devices."""
        return isinstance(self.api, ResourceAPI) and self.api.is_classic

    @property
    def driver_class(self) -> tuple[str, str]:
        """The kind and the name of the class of NVIDIA's driver for MIG slices."""
        classic = "ResourceClass", CLASSIC_CLASS
        return classic if self.is_classic else ("DeviceClass", MIG_CLASS)

    @property
    def minor(self) -> int:
        """Kubernetes' minor version, 34 for "v1.34.1"; 0 if it is unknown."""
        digits = self.kubernetes.partition("1.")[2].partition(".")[0].rstrip("+")
        return int(digits) if digits.isdecimal() else 0

    @cached_property
    def pods(self) -> list[Pod]:
        """The pods that have not ended."""
        every = (Pod(each, self.resources) for each in self.all("pods"))
        return [pod for pod in every if pod.phase not in ("Succeeded", "Failed")]

    @cached_property
    def waiting(self) -> list[tuple[Pod, PodClaim]]:
        """The claims of those pods that come from InstaSlice's templates, and have no devices."""
        users = ((pod, own) for pod in self.pods for own in pod.claims)
        return [each for each in users if not dig(self.claim_of(*each), "status", "allocation")]

    def named(self, kind: str) -> dict[str, Json]:
        """The objects of a list by their full names."""
        if kind not in self._named:
            self._named[kind] = {full_name(each): each for each in self.all(kind)}
        return self._named[kind]

    def claim_of(self, pod: Pod, own: PodClaim) -> Json:
        """The ResourceClaim of a pod's claim; {} if it does not exist."""
        for status in dig(pod.status, "resourceClaimStatuses"):
            if status["name"] == own.name:
                name = f"{pod.namespace}/{status.get('resourceClaimName')}"
                return self.named("claims").get(name) or {}
        return {}

    def is_past_scheduler(self, pod: Pod) -> bool:
        """Whether a pod bypassed the scheduler: it has a node, and a claim without devices."""
        if not pod.node or pod.phase == "Running":
            return False
        claims = (self.claim_of(pod, own) for own in pod.claims)
        return not all(dig(claim, "status", "allocation") for claim in claims)

    def is_on(self, gate: str, *, otherwise: bool) -> bool:
        """Whether a feature gate is on. otherwise: the answer if its state is unknown."""
        found = self.gates.get(gate)
        return otherwise if found is None or found.on is None else found.on

    @cached_property
    def inventory(self) -> Inventory:
        """The devices of NVIDIA's driver; none in v1alpha2."""
        if self.is_classic:
            return Inventory([], [])
        return Inventory(self.all("slices"), self.all("claims"), self.lists.get("rules", []))

    @cached_property
    def served_by_scheduler(self) -> dict[str, list[str]]:
        """Rewritten extended resources, each with the classes that map it (KEP-5004).

        With the gate off, the API server keeps the names, but nothing uses them.
        """
        if not self.is_on(EXTENDED, otherwise=True):
            return {}
        every = self.named("classes").items()
        named = ((dig(each, "spec", "extendedResourceName") or "", name) for name, each in every)
        return grouped(each for each in named if self.resources.find(each[0]) or each[0] == GPU)


def advertised(node: Json) -> dict[str, str]:
    """The resources that device plugins offer on a node; the kubelet keeps removed ones at 0."""
    amounts = dig(node, "status", "allocatable").items()
    return {name: str(n) for name, n in amounts if "/" in name and not is_zero(n)}


def is_zero(amount: object) -> bool:
    """Whether an amount is null or a quantity of zero."""
    try:
        return nanos(amount) == 0
    except InvalidQuantity:
        return False


def total(amounts: Sequence[str]) -> str:
    """The sum of amounts, as a text "1k + 1k" unless all are plain numbers."""
    return str(sum(map(int, amounts))) if all(map(str.isdecimal, amounts)) else " + ".join(amounts)


def full_name(manifest: Json) -> str:
    """The name of an object: "namespace/name", or "name" without a namespace."""
    metadata = manifest["metadata"]
    return "/".join(filter(None, (metadata.get("namespace"), metadata.get("name"))))


def some(names: Iterable[str]) -> str:
    """List the first few names, and the number of the others."""
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
