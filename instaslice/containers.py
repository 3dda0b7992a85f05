"""A pod's containers, and the devices that each of them asks for by extended resources.

A container goes through stages, each a value of its own: it names resources (`Surveyed`), by
amounts that are right (`Counted`), of which some are claimed (`Settled`). What the API server would
refuse is refused here, in its words and with the field's path (R7). Every bound is checked before
any loop over what was typed (R8).
"""

from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from instaslice import profiles
from instaslice.invalid import FieldError, InvalidPod, Path, invalid, required, shorten, wrong_type
from instaslice.patch import Json
from instaslice.quantity import MALFORMED, NANO, InvalidQuantity, nanos
from instaslice.resources import Resource, Resources

#: 16 GPUs, the most that one machine is sold with, of 7 slices, the most that one GPU is cut into.
MAX_DEVICES: Final = 112
#: Ordinary init containers share devices, so these do not bound what the patch says of them. 16
#: init containers that use every slice of the largest pod are more than anyone means to write.
MAX_USES: Final = 16 * MAX_DEVICES
#: Entries in limits and requests, those of 0 among them, and names that begin like a MIG resource
#: and are none: as many as uses.
MAX_ENTRIES: Final = MAX_USES

TOO_MANY: Final = f"must be less than or equal to {MAX_DEVICES}, 16 GPUs of 7 slices"
#: Errors, and warnings, that a person reads before mending the first of them.
MAX_TOLD: Final = 8


class Container(NamedTuple):
    """A container as the pod has it."""

    kind: str  #: "containers" or "initContainers"
    number: int  #: its place among those of its kind
    name: str  #: empty where it has none
    resources: Json
    limits: Json
    requests: Json
    claims: list[Any]  #: those that it refers to already
    is_ordinary_init: bool  #: an init container that is not a sidecar

    @property
    def path(self) -> Path:
        """Where its resources are."""
        return ("spec", self.kind, self.number, "resources")

    @property
    def pointer(self) -> str:
        """A JSON Pointer to its resources."""
        return f"/spec/{self.kind}/{self.number}/resources"

    @property
    def is_sidecar(self) -> bool:
        """Whether it is an init container that stays (KEP-753)."""
        return self.kind == "initContainers" and not self.is_ordinary_init


class Surveyed(NamedTuple):
    """A container that names resources which InstaSlice knows."""

    container: Container
    asks: dict[str, Resource]  #: by name, of limits, then of requests


class Amount(NamedTuple):
    """How many devices of a resource."""

    resource: Resource
    devices: int


class Counted(NamedTuple):
    """A container whose amounts are right."""

    container: Container
    amounts: dict[str, Amount]  #: by name, where not 0


class Settled(NamedTuple):
    """A container of which it is known what becomes of each amount."""

    container: Container
    claimed: dict[str, Amount]  #: by name; it leaves limits and requests
    declined: list[str]  #: names whose amounts become "0" (R10)

    @property
    def wants(self) -> dict[Resource, int]:
        """What it is to have by new claims."""
        found: dict[Resource, int] = {}
        for resource, count in self.claimed.values():
            found[resource] = found.get(resource, 0) + count
        return found


def member(holder: Json, key: str, kind: type, *where: str | int) -> Any:
    """holder[key], an empty `kind` where it is missing or null; raises InvalidPod for others.

    where: the path of the holder, for the error.
    """
    value = holder.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise wrong_type((*where, key), kind)
    return value


def _lists(pod: Json) -> Iterator[tuple[str, list[Any]]]:
    spec = member(pod, "spec", dict)
    for kind in ("containers", "initContainers"):
        yield kind, member(spec, kind, list, "spec")


def _container(kind: str, number: int, holder: Json) -> Container:
    here = ("spec", kind, number)
    resources = member(holder, "resources", dict, *here)
    path = (*here, "resources")
    limits = member(resources, "limits", dict, *path)
    requests = member(resources, "requests", dict, *path)
    claims = member(resources, "claims", list, *path)
    ordinary = kind == "initContainers" and holder.get("restartPolicy") != "Always"
    name = holder.get("name")
    text = name if isinstance(name, str) else ""
    return Container(kind, number, text, resources, limits, requests, claims, ordinary)


def containers(pod: Json) -> Iterator[Container]:
    """The containers that have resources, of `containers` and then of `initContainers`.

    Raises InvalidPod (R7).
    """
    for kind, holders in _lists(pod):
        for number, holder in enumerate(holders):
            if not isinstance(holder, dict):
                raise wrong_type(("spec", kind, number), dict)
            if holder.get("resources"):
                yield _container(kind, number, holder)


def container_at(pod: Json, kind: str, number: int) -> Container | None:
    """A container that has resources, or None. Raises InvalidPod (R7)."""
    holders = dict(_lists(pod))[kind]
    holder = holders[number] if number < len(holders) else None
    if isinstance(holder, dict) and holder.get("resources"):
        return _container(kind, number, holder)
    return None


def survey(pod: Json, resources: Resources) -> tuple[list[Surveyed], list[str]]:
    """The containers that ask for something (R1), and names that are spelt like no MIG profile.

    Raises InvalidPod (R7, R8).
    """
    found: list[Surveyed] = []
    names = _Names(resources)
    for kind, holders in _lists(pod):
        for number, holder in enumerate(holders):
            # There may be a million, and nearly none asks for anything: no value is made of those.
            if type(holder) is not dict:
                raise wrong_type(("spec", kind, number), dict)
            held = holder.get("resources")
            if held is None or held == {}:
                continue
            if type(held) is not dict:
                raise wrong_type(("spec", kind, number, "resources"), dict)
            if asks := names.asked_in(held, kind, number):
                found.append(Surveyed(_container(kind, number, holder), asks))
    return found, names.odd[:MAX_TOLD]


class _Names:
    """The names in a pod's limits and requests, each understood once: containers ask for few."""

    def __init__(self, resources: Resources) -> None:
        self._find = resources.find
        self._known: dict[str, Resource | None] = {}
        self._left = MAX_ENTRIES
        self.odd: list[str] = []  #: those that begin like a MIG resource and are none

    def asked_in(self, held: Json, kind: str, number: int) -> dict[str, Resource]:
        """What a container's resources ask for, by name. Raises InvalidPod."""
        asks: dict[str, Resource] = {}
        known = self._known
        for key in ("limits", "requests"):
            amounts = held.get(key)
            if amounts is None:
                continue
            if type(amounts) is not dict:
                raise wrong_type(("spec", kind, number, "resources", key), dict)
            for name in amounts:
                resource = known[name] if name in known else self._new(name)
                if resource:
                    asks[name] = resource
                    self._left -= 1
                if self._left < 0:
                    raise InvalidPod(_too_many_entries(("spec", kind, number, "resources")))
        return asks

    def _new(self, name: str) -> Resource | None:
        resource = self._known[name] = self._find(name)
        if not resource and name.startswith(profiles.RESOURCE_PREFIX):
            self.odd.append(name)
            self._left -= 1
        return resource


def _too_many_entries(path: Path) -> FieldError:
    detail = f"limits and requests of a pod may name such resources {MAX_ENTRIES} times"
    return invalid(path, f"more than {MAX_ENTRIES} amounts", detail)


def count_devices(surveyed: Iterable[Surveyed]) -> list[Counted]:
    """The containers with their quantities read; raises InvalidPod with what is wrong (R7, R8)."""
    found: list[Counted] = []
    errors: list[FieldError] = []
    for container, asks in surveyed:
        amounts = {}
        for name, resource in asks.items():
            count = _count(container, name, errors)
            if count:
                amounts[name] = Amount(resource, count)
            if len(errors) >= MAX_TOLD:
                raise InvalidPod(*errors[:MAX_TOLD])
        found.append(Counted(container, amounts))
    if errors:
        raise InvalidPod(*errors)
    return found


def _count(container: Container, name: str, errors: list[FieldError]) -> int:
    """How many devices a container's limit asks for; what is wrong with it joins `errors`.

    The words and their order are those of `ValidateContainerResourceRequirements` in Kubernetes'
    `pkg/apis/core/validation`.
    """
    limits, requests = container.limits, container.requests
    if name not in limits:
        detail = "Limit must be set for non overcommitable resources"
        errors.append(required((*container.path, "limits"), detail))
        return 0
    limit = limits[name]
    request = requests.get(name, limit)
    amount, details = _amount(limit)
    errors += [invalid((*container.path, "limits", name), limit, detail) for detail in details]
    # The API server copies limits into requests: one line for one mistake.
    if request != limit:
        path = (*container.path, "requests")
        requested, wrong = _amount(request)
        wrong = [detail for detail in wrong if detail != TOO_MANY]
        errors += [invalid((*path, name), request, detail) for detail in wrong]
        if MALFORMED not in (*details, *wrong) and requested != amount:
            detail = f"must be equal to {name} limit of {shorten(limit)}"
            errors.append(invalid(path, request, detail))
    return amount // NANO


def _amount(value: object) -> tuple[int, list[str]]:
    """A number of devices in nano-units, and what is wrong with it, in the API server's words."""
    try:
        amount = nanos(value)
    except InvalidQuantity:
        return 0, [MALFORMED]
    details = []
    if amount < 0:
        details.append("must be greater than or equal to 0")
    if amount % NANO:
        details.append("must be an integer")
    if amount > MAX_DEVICES * NANO and not details:
        details.append(TOO_MANY)
    return amount, details


def references(container: Container) -> Iterator[tuple[str, object]]:
    """The claims that a container refers to already, each with the request that it names."""
    for claim in container.claims:
        if isinstance(claim, dict) and isinstance(name := claim.get("name"), str):
            yield name, claim.get("request")
