"""A cluster as `instaslice doctor` sees it, and what can be read off it. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Any, Final, NamedTuple

from instaslice import profiles
from instaslice.cluster.gates import Known
from instaslice.doctor.inventory import Inventory, Supply
from instaslice.doctor.modes import Registered, read
from instaslice.patch import Json
from instaslice.quantity import InvalidQuantity, nanos
from instaslice.resource_api import ResourceAPI, Unavailable, template_name
from instaslice.resources import Resource, Resources
from instaslice.templates import DeviceClaim, from_template, is_ours
from instaslice.webhook_configuration import WEBHOOK

#: The device plugin's resource for a whole GPU; with its strategy "single", for a slice.
GPU: Final = "nvidia.com/gpu"
#: How `serve` is told what to map.
_FLAG: Final = "--resource"
_VARIABLE: Final = "INSTASLICE_RESOURCES"


#: On pods that a kubelet made of a file of its own (R9).
MIRROR: Final = "kubernetes.io/config.mirror"
#: Of HTTP: nobody is logged in, or who is may not.
UNAUTHORIZED: Final = 401
FORBIDDEN: Final = 403
#: What to do where an API server says that somebody may not.
RIGHTS: Final = "the rights that this needs are in config/components/doctor"


class Unreadable(Exception):
    """A part of the cluster could not be read; `str()` of it says what and why, in one line.

    status: of HTTP, by which the API server refused it; 0 where it did not answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status

    @property
    def advice(self) -> str:
        """What to do about it; empty for nothing."""
        return advice_on(self.status)


class Probe(NamedTuple):
    """What became of a pod that was created as a dry run."""

    namespace: str
    resource: str  #: what it asks for, "nvidia.com/mig-1g.5gb"
    pod: Json | None
    error: str  #: why it was refused; empty where it was not
    status: int  #: of HTTP; 0 where there was no answer
    annotation: str = ""  #: the one of InstaSlice's that it has


@dataclass(frozen=True)
class Snapshot:
    """The parts of a cluster that the checks look at, as decoded JSON."""

    now: datetime
    kubernetes: str  #: "v1.36.3"
    api: ResourceAPI | Unavailable
    #: By name: webhooks, namespaces, nodes, pods, quotas, limits, slices, rules, claims, templates,
    #: classes, queues, kueue, endpoints.
    lists: dict[str, list[Json]] = field(default_factory=dict)
    failures: dict[str, Unreadable] = field(default_factory=dict)  #: by name, why it is not there
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: API groups, versions
    resources: Resources = field(default_factory=Resources)  #: those that are rewritten
    probes: tuple[Probe, ...] = ()
    gates: Mapping[str, Known] = field(
        default_factory=dict
    )  #: by the names of `cluster.gates.GATES`

    def all(self, name: str) -> list[Json]:
        """A list by its name. Raises Unreadable."""
        if name in self.failures:
            failure = self.failures[name]
            raise Unreadable(f"{name} could not be read: {failure}", failure.status)
        return self.lists.get(name, [])

    @property
    def webhook(self) -> Json | None:
        """InstaSlice's webhook in its MutatingWebhookConfiguration. Raises Unreadable."""
        for configuration in self.all("webhooks"):
            for webhook in configuration.get("webhooks") or []:
                if webhook.get("name") == WEBHOOK:
                    return dict(webhook)
        return None

    @property
    def registered(self) -> Registered | None:
        """Which pods that webhook is sent. Raises Unreadable."""
        webhook = self.webhook
        return read(webhook) if webhook else None

    @property
    def is_classic(self) -> bool:
        """Whether only the driver knows its devices, as in v1alpha2."""
        return isinstance(self.api, ResourceAPI) and self.api.is_classic

    @property
    def minor(self) -> int:
        """34, of "v1.34.1"; 0 for anything that is not a version of Kubernetes."""
        _, _, rest = self.kubernetes.partition("1.")
        digits = rest.partition(".")[0].rstrip("+")
        return int(digits) if digits.isdecimal() else 0

    @cached_property
    def _claims(self) -> dict[str, Json]:
        return {full_name(claim): claim for claim in self.all("claims")}

    def claim_of(self, pod: Json, own: "PodClaim") -> Json | None:
        """The ResourceClaim that was made for a pod's claim, or None. Raises Unreadable."""
        for status in (pod.get("status") or {}).get("resourceClaimStatuses") or []:
            if status["name"] == own.name:
                where = pod["metadata"]["namespace"]
                return self._claims.get(f"{where}/{status.get('resourceClaimName')}")
        return None

    @cached_property
    def inventory(self) -> Inventory:
        """The driver's devices; none in v1alpha2. Raises Unreadable."""
        if self.is_classic:
            return Inventory([], [])
        return Inventory(self.all("slices"), self.all("claims"), self.lists.get("rules", []))

    @cached_property
    def supply(self) -> dict[str, Supply]:
        """Slices by profile, as the driver prints it; empty in v1alpha2. Raises Unreadable."""
        return self.inventory.supply()

    @cached_property
    def served_by_scheduler(self) -> dict[str, list[str]]:
        """Extended resources that are rewritten, and the classes that map them. Raises Unreadable.

        Source: DeviceClass.spec.extendedResourceName, KEP-5004.
        """
        found: dict[str, list[str]] = {}
        for each in self.all("classes"):
            name = (each.get("spec") or {}).get("extendedResourceName") or ""
            if self.resources.find(name) or name == GPU:
                found.setdefault(name, []).append(each["metadata"]["name"])
        return found


def mapping_of(pods: Iterable[Json]) -> list[str]:
    """What InstaSlice's pods have been told to map, "nvidia.com/gpu=gpu.nvidia.com"."""
    found: list[str] = []
    for pod in pods:
        for container in pod["spec"].get("containers") or []:
            words = [*(container.get("command") or []), *(container.get("args") or [])]
            for word, following in pairwise([*words, ""]):
                if word == _FLAG:
                    found.append(following)
                elif word.startswith(_FLAG + "="):
                    found.append(word.partition("=")[2])
            for variable in container.get("env") or []:
                if variable["name"] == _VARIABLE:
                    found += filter(None, (variable.get("value") or "").split(","))
    return list(dict.fromkeys(text.strip() for text in found))


def wanted_limits(pod: Json, resources: Resources) -> dict[str, Any]:
    """What a pod's containers ask for by limits that could be rewritten; those of 0 ask nothing."""
    spec = pod["spec"]
    every = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    limits = ((container.get("resources") or {}).get("limits") or {} for container in every)
    return {
        name: amount
        for found in limits
        for name, amount in found.items()
        if resources.find(name) and not is_zero(amount)
    }


def is_zero(amount: object) -> bool:
    """Whether an amount asks for nothing. What is no quantity does not."""
    try:
        return nanos(amount) == 0
    except InvalidQuantity:
        return False


def advice_on(status: int) -> str:
    """What to do where the API server refused an answer; empty for nothing."""
    return RIGHTS if status in (UNAUTHORIZED, FORBIDDEN) else ""


class PodClaim(NamedTuple):
    """A claim of a pod that is made from a template of InstaSlice's."""

    name: str
    template: str
    asks: DeviceClaim | None  #: None where the template's name is too long to say all

    @property
    def resources(self) -> list[Resource]:
        """All that it may be given, each once."""
        requests = self.asks.requests if self.asks else ()
        return list(dict.fromkeys(choice for each in requests for choice in each.choices))


def pod_claims(pod: Json, resources: Resources) -> Iterator[PodClaim]:
    """A pod's claims from templates that are named as InstaSlice names them."""
    for claim in pod["spec"].get("resourceClaims") or []:
        template = template_name(claim)
        if isinstance(template, str) and is_ours(template, resources):
            yield PodClaim(claim["name"], template, from_template(template, resources))


def binds_itself(pod: Json) -> bool:
    """Whether a pod's author has named its node, past the scheduler.

    What the scheduler binds is in no `managedFields`, unlike what somebody has written.
    """
    metadata = pod["metadata"]
    written = metadata.get("managedFields")
    if not pod["spec"].get("nodeName") or MIRROR in (metadata.get("annotations") or {}):
        return False
    if not written:
        return "uid" not in metadata  # a file
    fields = [((each.get("fieldsV1") or {}).get("f:spec") or {}) for each in written]
    return any("f:nodeName" in each for each in fields)


def living(pods: Iterable[Json]) -> Iterator[Json]:
    """The pods that have not ended."""
    for pod in pods:
        if (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            yield pod


def is_mig(name: str) -> bool:
    """Whether a resource is a MIG slice, as the device plugin spells one."""
    return profiles.from_resource(name) is not None


def full_name(manifest: Json) -> str:
    """An object as "namespace/name"."""
    return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"


#: How many names a finding lists.
_SHOWN: Final = 3


def some(names: Iterable[str]) -> str:
    """A few of many names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - _SHOWN} more" if len(every) > _SHOWN else ""
    return ", ".join(every[:_SHOWN]) + more
