"""A cluster as `instaslice doctor` sees it, and what can be read off it. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from http import HTTPStatus
from typing import Final, NamedTuple

from instaslice.annotations import is_mirror
from instaslice.cluster.client import ClusterError
from instaslice.cluster.gates import Known
from instaslice.doctor.inventory import Inventory, dig, grouped
from instaslice.patch import Json
from instaslice.quantity import InvalidQuantity, nanos
from instaslice.resource_api import ResourceAPI, Unavailable, template_name
from instaslice.resources import Resources
from instaslice.templates import DeviceClaim, DeviceRequest, from_template, is_ours
from instaslice.webhook_configuration import WEBHOOK

#: The device plugin's resource for a whole GPU; with its strategy "single", for a slice.
GPU: Final = "nvidia.com/gpu"
#: The advice where the API server says that the user may not do something.
RIGHTS: Final = "the rights that this needs are in config/components/doctor"
#: How many names a finding lists.
_SHOWN: Final = 3


def advice_on(status: int) -> str:
    """The advice where the API server refused an answer; empty for none."""
    return RIGHTS if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) else ""


class Probe(NamedTuple):
    """The result of creating a pod as a dry run."""

    namespace: str
    resource: str  #: what it asks for, "nvidia.com/mig-1g.5gb"
    pod: Json | None
    error: str  #: why it was refused; empty where it was not
    status: int  #: of HTTP; 0 where there was no answer
    annotation: str = ""  #: the one of InstaSlice's that it has


class PodClaim(NamedTuple):
    """A claim of a pod that is made from a template of InstaSlice's."""

    name: str
    template: str
    asks: DeviceClaim  #: for nothing where the template's name is too long to say all


_NOTHING: Final = DeviceClaim(())


class Pod:
    """A pod, by what it asks for.

    rewritten: the extended resources that InstaSlice rewrites.
    """

    def __init__(self, manifest: Json, rewritten: Resources) -> None:
        self.spec: Json = manifest["spec"]
        self.metadata: Json = manifest["metadata"]
        self.status: Json = manifest.get("status") or {}
        self.namespace: str = self.metadata.get("namespace") or ""  #: empty in a file without one
        self.full_name = full_name(manifest)
        self.node: str = self.spec.get("nodeName") or ""  #: the node that it is bound to, or empty
        self.phase = str(self.status.get("phase") or "Unknown")
        self._rewritten = rewritten

    @cached_property
    def extended(self) -> dict[str, str]:
        """Extended resources in its limits, with their sums; limits of 0 ask for nothing."""
        found: dict[str, str] = {}
        for each in (*dig(self.spec, "containers"), *dig(self.spec, "initContainers")):
            for name, amount in dig(each, "resources", "limits").items():
                if "/" in name and amount is not None and not is_zero(amount):
                    found[name] = total(found.get(name), str(amount))
        return found

    @property
    def limits(self) -> dict[str, str]:
        """Those of them that could be rewritten."""
        return {name: n for name, n in self.extended.items() if self._rewritten.find(name)}

    @cached_property
    def claims(self) -> list[PodClaim]:
        """Its claims from templates that are named as InstaSlice names them."""
        named = [(each, template_name(each)) for each in dig(self.spec, "resourceClaims")]
        return [
            PodClaim(each["name"], template, from_template(template, self._rewritten) or _NOTHING)
            for each, template in named
            if isinstance(template, str) and is_ours(template, self._rewritten)
        ]

    @property
    def names_its_node(self) -> bool:
        """Whether its author has bound it, past the scheduler.

        What the scheduler binds is in no `managedFields`, unlike what somebody has written.
        """
        if not self.node or is_mirror({"metadata": self.metadata}):
            return False
        written = dig(self.metadata, "managedFields")
        if not written:
            return "uid" not in self.metadata  # a file
        return any("f:nodeName" in dig(each, "fieldsV1", "f:spec") for each in written)


def choices(request: DeviceRequest) -> str:
    """The choices of a request, in words: "3g.20gb or 4g.20gb", "1g.5gb or bigger"."""
    first, *others = (c.profile.attribute if c.profile else "" for c in request.choices)
    names = [first or request.resource.name, *filter(None, others)]
    return " or ".join([*names, "bigger"] if "" in others else names)


@dataclass(frozen=True)
class Snapshot:
    """The parts of a cluster that the checks look at, as decoded JSON.

    Whatever is asked of it raises ClusterError where what it takes could not be read.
    """

    kubernetes: str  #: "v1.36.3"
    api: ResourceAPI | Unavailable
    lists: dict[str, list[Json]] = field(default_factory=dict)  #: by the names of `reading.LISTS`
    failures: dict[str, ClusterError] = field(default_factory=dict)  #: by name, why it is not there
    resources: Resources = field(default_factory=Resources)  #: those that are rewritten
    probes: tuple[Probe, ...] = ()
    gates: Mapping[str, Known] = field(default_factory=dict)  #: by name, as in `cluster.gates`
    _named: dict[str, dict[str, Json]] = field(default_factory=dict, init=False, compare=False)

    def all(self, name: str) -> list[Json]:
        """A list by its name."""
        if name in self.failures:
            failure = self.failures[name]
            raise ClusterError(f"{name} could not be read: {failure}", failure.status)
        return self.lists.get(name, [])

    @cached_property
    def readable(self) -> "Snapshot":
        """The snapshot in which what could not be read is empty, for those who say so elsewhere."""
        return replace(self, failures={})

    @property
    def webhook(self) -> Json | None:
        """InstaSlice's webhook in its MutatingWebhookConfiguration."""
        for configuration in self.all("webhooks"):
            for webhook in dig(configuration, "webhooks"):
                if webhook.get("name") == WEBHOOK:
                    return dict(webhook)
        return None

    @property
    def is_classic(self) -> bool:
        """Whether only the driver knows its devices, as in v1alpha2."""
        return isinstance(self.api, ResourceAPI) and self.api.is_classic

    @property
    def minor(self) -> int:
        """34, of "v1.34.1"; 0 for anything that is not a version of Kubernetes."""
        digits = self.kubernetes.partition("1.")[2].partition(".")[0].rstrip("+")
        return int(digits) if digits.isdecimal() else 0

    @cached_property
    def pods(self) -> list[Pod]:
        """The pods that have not ended."""
        every = (Pod(each, self.resources) for each in self.all("pods"))
        return [pod for pod in every if pod.phase not in ("Succeeded", "Failed")]

    @cached_property
    def users(self) -> list[tuple[Pod, PodClaim]]:
        """The claims of InstaSlice's that those have."""
        return [(pod, claim) for pod in self.pods for claim in pod.claims]

    def named(self, kind: str) -> dict[str, Json]:
        """A list by the full names of its objects."""
        if kind not in self._named:
            self._named[kind] = {full_name(each): each for each in self.all(kind)}
        return self._named[kind]

    def claim_of(self, pod: Pod, own: PodClaim) -> Json:
        """The ResourceClaim that was made for a pod's claim; empty for none."""
        for status in dig(pod.status, "resourceClaimStatuses"):
            if status["name"] == own.name:
                name = f"{pod.namespace}/{status.get('resourceClaimName')}"
                return self.named("claims").get(name) or {}
        return {}

    def is_past_scheduler(self, pod: Pod) -> bool:
        """Whether a pod has a node, and a claim without devices."""
        if not pod.node or pod.phase == "Running":
            return False
        claims = (self.claim_of(pod, own) for own in pod.claims)
        return not all(dig(claim, "status", "allocation") for claim in claims)

    def is_on(self, gate: str, *, otherwise: bool) -> bool:
        """Whether a feature gate is on. otherwise: the answer where nobody knows."""
        found = self.gates.get(gate)
        return otherwise if found is None or found.on is None else found.on

    @cached_property
    def inventory(self) -> Inventory:
        """The driver's devices; none in v1alpha2."""
        if self.is_classic:
            return Inventory([], [])
        return Inventory(self.all("slices"), self.all("claims"), self.lists.get("rules", []))

    @cached_property
    def served_by_scheduler(self) -> dict[str, list[str]]:
        """Extended resources that are rewritten, and the classes that map them (KEP-5004)."""
        every = self.named("classes").items()
        named = ((dig(each, "spec", "extendedResourceName") or "", name) for name, each in every)
        return grouped(each for each in named if self.resources.find(each[0]) or each[0] == GPU)


def advertised(node: Json) -> dict[str, str]:
    """The resources that device plugins offer on a node; the kubelet keeps a lost one at 0."""
    amounts = dig(node, "status", "allocatable").items()
    return {name: str(n) for name, n in amounts if "/" in name and not is_zero(n)}


def is_zero(amount: object) -> bool:
    """Whether an amount asks for nothing. What is no quantity does not."""
    try:
        return nanos(amount) == 0
    except InvalidQuantity:
        return False


def total(before: str | None, amount: str) -> str:
    """Two amounts in one; those that are no plain numbers are written side by side."""
    if before is None:
        return amount
    if before.isdecimal() and amount.isdecimal():
        return str(int(before) + int(amount))
    return f"{before} + {amount}"


def full_name(manifest: Json) -> str:
    """An object as "namespace/name", or by its name where it has no namespace."""
    metadata = manifest["metadata"]
    return "/".join(filter(None, (metadata.get("namespace"), metadata.get("name"))))


def some(names: Iterable[str]) -> str:
    """A few of many names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
