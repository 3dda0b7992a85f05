"""A pod's containers, and the devices that each one asks for as extended resources.

This module refuses what the API server would refuse, in its words and with the field's path (R7).
It checks every bound before it loops over user input (R8).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

from instaslice import profiles
from instaslice.invalid import MAX_MESSAGES, FieldError, InvalidPod, Path, invalid, shorten
from instaslice.patch import Json
from instaslice.profiles import Resource
from instaslice.quantity import MALFORMED, NANO, InvalidQuantity, nanos
from instaslice.resources import Resources

#: The largest machine sold has 16 GPUs, and a GPU has at most 7 slices.
MAX_DEVICES: Final = 112
#: Ordinary init containers share devices, so MAX_DEVICES does not bound the patch's references to
#: claims. No real pod has 16 init containers that use every slice of the largest pod.
MAX_USES: Final = 16 * MAX_DEVICES
#: The most entries in limits and requests, including those of 0, together with misspelt MIG names.
MAX_ENTRIES: Final = MAX_USES

_TOO_MANY: Final = f"must be less than or equal to {MAX_DEVICES}, 16 GPUs of 7 slices"
_TOO_MUCH: Final = (
    f"more than {MAX_ENTRIES} amounts",
    f"limits and requests of a pod may name such resources {MAX_ENTRIES} times",
)

Role = Literal["container", "sidecar", "init"]  #: "init": an ordinary init container


class Container(NamedTuple):
    """A container of a pod that has resources, and those of them that InstaSlice rewrites."""

    kind: str  #: "containers" or "initContainers"
    number: int  #: index in its list
    json: Json  #: the container as decoded JSON
    resources: Json
    limits: Json
    requests: Json
    claims: list[Any]  #: existing references to claims
    #: The resources named in limits, then in requests, by name.
    asks: Mapping[str, Resource]

    @property
    def path(self) -> Path:
        """The path of its resources."""
        return ("spec", self.kind, self.number, "resources")

    @property
    def pointer(self) -> str:
        """The JSON Pointer to its resources."""
        return f"/spec/{self.kind}/{self.number}/resources"

    @property
    def name(self) -> str:
        """Its name; empty if missing."""
        name = self.json.get("name")
        return name if isinstance(name, str) else ""

    @property
    def role(self) -> Role:
        """Its role (KEP-753)."""
        if self.kind == "containers":
            return "container"
        return "sidecar" if self.json.get("restartPolicy") == "Always" else "init"

    def references(self) -> Iterator[tuple[str, object]]:
        """The names of the claims that it refers to already, each with the request."""
        for claim in self.claims:
            if isinstance(claim, dict) and isinstance(name := claim.get("name"), str):
                yield name, claim.get("request")


class Decision(NamedTuple):
    """A container, with the decision on each of its amounts that is not 0."""

    container: Container
    claimed: dict[str, int]  #: devices by resource name; the patch removes these entries
    declined: Sequence[str] = ()  #: resource names whose amounts the patch sets to "0" (R10)


def member(holder: Json, key: str, kind: type, where: Path = ()) -> Any:
    """Return holder[key], or an empty `kind` if null or missing. Raises InvalidPod for others.

    where: the path of the holder, for the error.
    """
    value = holder.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise _wrong_type((*where, key), kind)
    return value


def _wrong_type(path: Path, kind: type = dict) -> InvalidPod:
    word = "an object" if kind is dict else "an array"
    return InvalidPod(FieldError(path, "FieldValueTypeInvalid", f"must be {word}"))


#: The first fields of a Container: kind, number, json, resources, limits, requests.
_Found = tuple[str, int, Json, Json, Json, Json]


def _with_resources(pod: Json) -> Iterator[_Found]:
    """Find the containers that have resources. Raises InvalidPod.

    A pod may have a million containers without, so it creates no values for those.
    """
    spec = member(pod, "spec", dict)
    for kind in ("containers", "initContainers"):
        for number, container in enumerate(member(spec, kind, list, ("spec",))):
            if type(container) is not dict:
                raise _wrong_type(("spec", kind, number))
            if "resources" not in container:
                continue
            resources = container["resources"]
            if resources is None or resources == {}:
                continue
            if type(resources) is not dict:
                raise _wrong_type(("spec", kind, number, "resources"))
            limits, requests = resources.get("limits"), resources.get("requests")
            if limits is not None and type(limits) is not dict:
                raise _wrong_type(("spec", kind, number, "resources", "limits"))
            if requests is not None and type(requests) is not dict:
                raise _wrong_type(("spec", kind, number, "resources", "requests"))
            yield kind, number, container, resources, limits or {}, requests or {}


def _container(found: _Found, asks: Mapping[str, Resource]) -> Container:
    claims = member(found[3], "claims", list, ("spec", *found[:2], "resources"))
    return Container(*found, claims, asks)


def containers(pod: Json) -> Iterator[Container]:
    """The containers that have resources: first `containers`, then `initContainers`.

    Raises InvalidPod (R7).
    """
    return (_container(found, {}) for found in _with_resources(pod))


def same_places(pod: Json, others: Iterable[Container]) -> dict[tuple[str, int], Container]:
    """A pod's containers at the same places as others, by kind and number. Raises InvalidPod."""
    places = {each[:2] for each in others}
    return {each[:2]: _container(each, {}) for each in _with_resources(pod) if each[:2] in places}


def asking(pod: Json, resources: Resources) -> tuple[list[Container], list[str]]:
    """The containers that ask for resources (R1), and misspelt names of MIG resources.

    Raises InvalidPod (R7, R8).
    """
    asking: list[Container] = []
    odd: list[str] = []
    known: dict[str, Resource | None] = {}  # pods repeat few names
    left = MAX_ENTRIES
    for found in _with_resources(pod):
        asks: dict[str, Resource] = {}
        for amounts in found[4:]:
            for name in amounts:
                if name not in known:
                    known[name] = resources.find(name)
                    if not known[name] and name.startswith(profiles.RESOURCE_PREFIX):
                        odd.append(name)
                        left -= 1
                if resource := known[name]:
                    asks[name] = resource
                    left -= 1
                if left < 0:
                    raise InvalidPod(invalid(("spec", *found[:2], "resources"), *_TOO_MUCH))
        if asks:
            asking.append(_container(found, asks))
    return asking, odd[:MAX_MESSAGES]


def count_devices(containers: Iterable[Container]) -> list[Decision]:
    """Count the devices that each container asks for by each name; leave out zeros.

    Raises InvalidPod with the errors (R7, R8).
    """
    found: list[Decision] = []
    errors: list[FieldError] = []
    for container in containers:
        counts: dict[str, int] = {}
        for name in container.asks:
            if count := _count(container, name, errors):
                counts[name] = count
        found.append(Decision(container, counts))
        if len(errors) >= MAX_MESSAGES:
            break
    if errors:
        raise InvalidPod(*errors)
    return found


def _count(container: Container, name: str, errors: list[FieldError]) -> int:
    """Count the devices that a container's limit asks for, and append its errors to `errors`.

    Source of the words and their order: `ValidateContainerResourceRequirements` in Kubernetes'
    `pkg/apis/core/validation`.
    """
    limits = container.limits
    if name not in limits:
        message = "Required value: Limit must be set for non overcommitable resources"
        errors.append(FieldError((*container.path, "limits"), "FieldValueRequired", message))
        return 0
    limit = limits[name]
    request = container.requests.get(name, limit)
    amount, details = _amount(limit)
    if not details and request == limit:
        return amount // NANO
    path = container.path
    errors += [invalid((*path, "limits", name), limit, detail) for detail in details]
    # The API server copies limits into requests, so a mistake in both is reported once.
    if request != limit:
        requested, wrong = _amount(request)
        wrong = [detail for detail in wrong if detail != _TOO_MANY]
        errors += [invalid((*path, "requests", name), request, detail) for detail in wrong]
        if MALFORMED not in (*details, *wrong) and requested != amount:
            detail = f"must be equal to {name} limit of {shorten(limit)}"
            errors.append(invalid((*path, "requests"), request, detail))
    return amount // NANO


def _amount(value: object) -> tuple[int, list[str]]:
    """An amount in nano-units, and its errors in the API server's words."""
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
        details.append(_TOO_MANY)
    return amount, details
