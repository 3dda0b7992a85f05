"""A pod's containers, and the devices that each of them asks for by extended resources.

What the API server would refuse is refused here, in its words and with the field's path (R7). Every
bound is checked before any loop over what was typed (R8).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from instaslice import profiles
from instaslice.invalid import FieldError, InvalidPod, invalid, required, shorten, wrong_type
from instaslice.patch import Json
from instaslice.quantity import MALFORMED, NANO, InvalidQuantity, nanos
from instaslice.resources import Resource, Resources

#: 16 GPUs, the most that one machine is sold with, of 7 slices, the most that one GPU is cut into.
MAX_DEVICES: Final = 112
#: Ordinary init containers share devices, so these do not bound what the patch says of them. 16
#: init containers that use every slice of the largest pod are more than anyone means to write.
MAX_USES: Final = 16 * MAX_DEVICES
#: Entries in limits and requests, those of 0 among them: as many as uses.
MAX_ENTRIES: Final = MAX_USES

TOO_MANY: Final = f"must be less than or equal to {MAX_DEVICES}, 16 GPUs of 7 slices"
#: Errors, and warnings, that a person reads before mending the first of them.
MAX_TOLD: Final = 8


@dataclass(slots=True)
class Container:
    """A container, and what it asks for."""

    kind: str  #: "containers" or "initContainers"
    index: int
    name: str  #: empty where it has none
    path: str  #: of its resources, "spec.containers[0].resources"
    resources: Json
    limits: Json
    requests: Json
    claims: list[Any]  #: those that it refers to already
    is_ordinary_init: bool  #: an init container that is not a sidecar
    asks: dict[str, Resource] = field(default_factory=dict)  #: by name, of limits, then of requests
    wants: dict[Resource, int] = field(default_factory=dict)  #: by its limits, where not 0
    wanted: list[str] = field(default_factory=list)  #: the names by which it wants them
    declined: Sequence[str] = ()  #: the names whose amounts become "0" (R10)
    fresh: list[Json] = field(default_factory=list)  #: its references to new claims

    @property
    def pointer(self) -> str:
        """A JSON Pointer to its resources."""
        return f"/spec/{self.kind}/{self.index}/resources"

    @property
    def is_sidecar(self) -> bool:
        """Whether it is an init container that stays (KEP-753)."""
        return self.kind == "initContainers" and not self.is_ordinary_init


def member(holder: Json, key: str, kind: type, where: str = "") -> Any:
    """holder[key], an empty `kind` where it is missing or null; raises InvalidPod for others.

    where: the path of the holder, for the error.
    """
    value = holder.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise wrong_type(f"{where}.{key}".removeprefix("."), kind)
    return value


def containers(pod: Json) -> Iterator[Container]:
    """The containers that have resources, of `containers` and then of `initContainers`.

    Raises InvalidPod (R7).
    """
    spec = member(pod, "spec", dict)
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(member(spec, kind, list, "spec")):
            here = f"spec.{kind}[{index}]"
            if not isinstance(container, dict):
                raise wrong_type(here, dict)
            resources = member(container, "resources", dict, here)
            if not resources:
                continue  # there may be many, and nothing is to be done with them
            path = here + ".resources"
            limits = member(resources, "limits", dict, path)
            requests = member(resources, "requests", dict, path)
            claims = member(resources, "claims", list, path)
            ordinary = kind == "initContainers" and container.get("restartPolicy") != "Always"
            name = container.get("name")
            text = name if isinstance(name, str) else ""
            yield Container(kind, index, text, path, resources, limits, requests, claims, ordinary)


def survey(pod: Json, resources: Resources) -> tuple[list[Container], list[str]]:
    """The containers with what they ask for (R1), and names that are spelt like no MIG profile.

    Raises InvalidPod (R7, R8).
    """
    found = list(containers(pod))
    known: dict[str, Resource | None] = {}  # containers ask for the same few
    odd: list[str] = []
    left = MAX_ENTRIES
    for container in found:
        for amounts in (container.limits, container.requests):
            for name in amounts:
                if name in known:
                    resource = known[name]
                else:
                    resource = known[name] = resources.find(name)
                    if not resource and name.startswith(profiles.RESOURCE_PREFIX):
                        odd.append(name)
                if resource:
                    container.asks[name] = resource
                    left -= 1
                    if left < 0:
                        raise InvalidPod(_too_many_entries(container))
    return found, odd[:MAX_TOLD]


def _too_many_entries(container: Container) -> FieldError:
    detail = f"limits and requests of a pod may name such resources {MAX_ENTRIES} times"
    return invalid(container.path, f"more than {MAX_ENTRIES} amounts", detail)


def read_amounts(asking: Iterable[Container]) -> None:
    """Fill in `wants` from the quantities; raises InvalidPod with what is wrong (R7, R8)."""
    errors: list[FieldError] = []
    for container in asking:
        for name, resource in container.asks.items():
            count = _count(container, name, errors)
            if count:
                container.wants[resource] = container.wants.get(resource, 0) + count
                container.wanted.append(name)
        if len(errors) >= MAX_TOLD:
            break
    if errors:
        raise InvalidPod(*errors[:MAX_TOLD])


def _count(container: Container, name: str, errors: list[FieldError]) -> int:
    """How many devices a container's limit asks for; what is wrong with it joins `errors`.

    The words and their order are those of `ValidateContainerResourceRequirements` in Kubernetes'
    `pkg/apis/core/validation`.
    """
    limits, requests = container.limits, container.requests
    if name not in limits:
        detail = "Limit must be set for non overcommitable resources"
        errors.append(required(container.path + ".limits", detail))
        return 0
    limit = limits[name]
    request = requests.get(name, limit)
    amount, details = _amount(limit)
    errors += [invalid(f"{container.path}.limits[{name}]", limit, detail) for detail in details]
    # The API server copies limits into requests: one line for one mistake.
    if request != limit:
        path = f"{container.path}.requests"
        requested, wrong = _amount(request)
        wrong = [detail for detail in wrong if detail != TOO_MANY]
        errors += [invalid(f"{path}[{name}]", request, detail) for detail in wrong]
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
