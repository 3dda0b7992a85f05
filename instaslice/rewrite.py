"""A pod that asks for MIG slices as extended resources, rewritten to ask for them through DRA.

The rules, as they are numbered where the code applies them:

R1  A MIG resource is `nvidia.com/mig-` and a well-spelt profile (`profiles`). Any other name with
    that prefix is left as it is, with a warning. A profile that no known GPU has is rewritten, with
    a warning.
R2  A limit of n slices becomes n claims of one slice, each named by a fresh UUID (version 4), each
    from the template named like the resource.
R3  The resource leaves limits and requests, and a map left empty goes too.
R4  Claims that the pod already has stay, in their order; new ones follow.
R5  A limit of 0 is removed and gives no claim.
R6  Claims are held as the scheduler holds devices; see below.
R7  What the API server would refuse is refused in the API server's words, never repaired.
R8  A pod of more than 112 slices is refused.
R9  Mirror pods are left alone: the API server refuses claims on them.
R10 Rewriting the result changes nothing, also where another webhook ran in between. Limits that
    came back are taken out again: what a container's own claims stand for counts towards them.
R11 On update, limits that only return to where claims already stand for them are taken out.
R12 The patch touches nothing else.

Theory of operation of R6. Containers, and sidecars (init containers with restartPolicy Always; they
start in order and stay), run at the same time, so each has claims of its own. An ordinary init
container has ended before anything after it starts, so it can use the claims of all containers and
of the sidecars after it, though not of the sidecars before it. Only what it needs beyond those is
new, and since ordinary init containers run one after the other, they all share these extras. Per
profile the pod then holds

    max(containers + sidecars, max over ordinary init containers of (own + sidecars before it))

claims, which is what the scheduler and the device plugin count for an extended resource
(KEP-753, "resources calculation").
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from os import urandom
from typing import Any, Final, NamedTuple

from instaslice import profiles
from instaslice.invalid import FieldError, InvalidPod, invalid, required, shorten, wrong_type
from instaslice.patch import Json, Operation, escape, extend, remove
from instaslice.profiles import Profile
from instaslice.quantity import MALFORMED, NANO, InvalidQuantity, nanos
from instaslice.resource_api import ResourceAPI, template_name

#: 16 GPUs, the most that one machine is sold with, of 7 slices, the most that one GPU is cut into.
MAX_SLICES: Final = 112
#: Ordinary init containers share claims, so claims do not bound what the patch says of them. 16
#: init containers that use every slice of the largest pod are more than anyone means to write.
MAX_REFERENCES: Final = 16 * MAX_SLICES

TOO_MANY: Final = f"must be less than or equal to {MAX_SLICES}, 16 GPUs of 7 slices"
#: Errors, and warnings, that a person reads before mending the first of them.
MOST_TOLD: Final = 8

MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"

_UUID4: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII
)


class Rewrite(NamedTuple):
    """What to do to a pod, and what was understood of it."""

    operations: list[Operation]  #: RFC 6902; empty where nothing is to be done
    claims: dict[Profile, int]  #: new claims by profile
    warnings: list[str]  #: for the person who wrote the pod


UNTOUCHED: Final = Rewrite([], {}, [])


@dataclass(slots=True)
class _Container:
    """A container and the MIG slices that it asks for."""

    kind: str  #: "containers" or "initContainers"
    index: int
    path: str  #: of its resources, "spec.containers[0].resources"
    resources: Json
    limits: Json
    requests: Json
    claims: list[Any]  #: those that it uses already
    ordinary_init: bool  #: an init container that is no sidecar
    mig: dict[str, Profile] = field(default_factory=dict)  #: of limits, then of requests
    slices: dict[Profile, int] = field(default_factory=dict)  #: asked for as limits
    fresh: list[str] = field(default_factory=list)  #: claims to add, by name


def _member(holder: Json, key: str, kind: type, where: str = "") -> Any:
    """holder[key], an empty `kind` where it is missing or null; raises InvalidPod for others.

    where: the path of the holder, for the error.
    """
    value = holder.get(key)
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise wrong_type(f"{where}.{key}".removeprefix("."), kind)
    return value


def _containers(pod: Json) -> Iterator[_Container]:
    """Every container, of `containers` and then of `initContainers`."""
    spec = _member(pod, "spec", dict)
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(_member(spec, kind, list, "spec")):
            here = f"spec.{kind}[{index}]"
            if not isinstance(container, dict):
                raise wrong_type(here, dict)
            resources = _member(container, "resources", dict, here)
            path = here + ".resources"
            limits = _member(resources, "limits", dict, path)
            requests = _member(resources, "requests", dict, path)
            claims = _member(resources, "claims", list, path)
            ordinary = kind == "initContainers" and container.get("restartPolicy") != "Always"
            yield _Container(kind, index, path, resources, limits, requests, claims, ordinary)


def _survey(pod: Json) -> tuple[list[_Container], list[str]]:
    """The pod's containers with their MIG resources (R1), and the names that are none."""
    containers = list(_containers(pod))
    odd: dict[str, None] = {}
    for container in containers:
        for amounts in (container.limits, container.requests):
            for name in amounts:
                if not name.startswith(profiles.RESOURCE_PREFIX) or name in container.mig:
                    continue
                profile = profiles.from_resource(name)
                if profile:
                    container.mig[name] = profile
                else:
                    odd[name] = None
    return containers, list(odd)


def is_mirror(pod: Json) -> bool:
    """Whether the pod is the API server's image of a static pod (R9)."""
    metadata = pod.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    return isinstance(annotations, dict) and MIRROR_ANNOTATION in annotations


def new_uuid() -> str:
    """A UUID of version 4 (RFC 9562, section 5.4), at a third of what `str(uuid.uuid4())` costs."""
    digits = urandom(16).hex()
    variant = "89ab"[int(digits[16], 16) & 3]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def rewrite(pod: Json, api: ResourceAPI, new_name: Callable[[], str] = new_uuid) -> Rewrite:
    """What makes a new pod ask for its MIG slices through DRA.

    pod: a v1 Pod as decoded JSON; it is not modified.
    new_name: names a claim.
    Raises InvalidPod (R7, R8).
    """
    if is_mirror(pod):
        return UNTOUCHED
    containers, odd = _survey(pod)
    asking = [container for container in containers if container.mig]
    warnings = [_left_alone(name) for name in odd[:MOST_TOLD]]
    if not asking:
        return Rewrite([], {}, warnings)
    _read_slices(asking)
    spec = pod["spec"]
    declared = _own_claims(pod)
    if declared:
        _discount(asking, declared)
    claims = _hold(containers, declared, new_name)
    operations: list[Operation] = []
    for container in asking:
        operations += _container_operations(container)
    operations += extend(
        "/spec/resourceClaims",
        spec.get("resourceClaims"),
        [api.pod_claim(name, profile.template) for name, profile in claims.items()],
    )
    counts: dict[Profile, int] = {}
    for profile in claims.values():
        counts[profile] = counts.get(profile, 0) + 1
    warnings += [_unknown(profile) for profile in counts if not profile.known]
    return Rewrite(operations, counts, warnings[:MOST_TOLD])


def restore(pod: Json, old: Json) -> Rewrite:
    """What takes limits out again that an update brought back to a rewritten pod (R11).

    `kubectl apply` of the original manifest sets the limits anew, beside the claims that stand for
    them; the API server would refuse that as a change of an immutable field. A pod whose limits are
    not what its claims stand for is left to the API server, and so is whatever the old pod had.
    """
    if is_mirror(pod):
        return UNTOUCHED
    try:
        before = {(c.kind, c.index): c for c in _containers(old)}
        containers, _ = _survey(pod)
        declared = _own_claims(pod)
    except InvalidPod:
        return UNTOUCHED
    operations: list[Operation] = []
    for container in containers:
        was = before.get((container.kind, container.index))
        if was is None:
            return UNTOUCHED
        came_back = {
            name: profile
            for name, profile in container.mig.items()
            if name not in was.limits and name not in was.requests
        }
        if not came_back:
            continue
        held = [declared.get(name) for name in _references(container)]
        for name, profile in came_back.items():
            slices = held.count(profile)
            for quantity in (container.limits.get(name), container.requests.get(name, slices)):
                try:
                    if nanos(quantity) != slices * NANO:
                        return UNTOUCHED
                except InvalidQuantity:
                    return UNTOUCHED
        container.mig = came_back
        operations += _container_operations(container)
    return Rewrite(operations, {}, [])


def _read_slices(asking: list[_Container]) -> None:
    """Fill in `slices` from the quantities; raises InvalidPod with what is wrong (R7, R8)."""
    errors: list[FieldError] = []
    for container in asking:
        for name, profile in container.mig.items():
            container.slices[profile] = _slices(container, name, errors)
        if len(errors) >= MOST_TOLD:
            break
    if errors:
        raise InvalidPod(*errors[:MOST_TOLD])


def _slices(container: _Container, name: str, errors: list[FieldError]) -> int:
    """How many slices a container's limit of a resource is; what is wrong with it joins `errors`.

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
    """A number of slices in nano-units, and what is wrong with it, in the API server's words."""
    try:
        amount = nanos(value)
    except InvalidQuantity:
        return 0, [MALFORMED]
    details = []
    if amount < 0:
        details.append("must be greater than or equal to 0")
    if amount % NANO:
        details.append("must be an integer")
    if amount > MAX_SLICES * NANO and not details:
        details.append(TOO_MANY)
    return amount, details


def _discount(asking: list[_Container], declared: dict[str, Profile]) -> None:
    """Take off `slices` what a container's own claims stand for already (R10).

    After a webhook has changed a pod, the API server calls its own plugins and then the webhook
    once more. A LimitRange with a default for a MIG resource brings the limit back in between.
    """
    for container in asking:
        held = [declared.get(name) for name in _references(container)]
        for profile, slices in container.slices.items():
            container.slices[profile] = max(0, slices - held.count(profile))


def _hold(
    containers: list[_Container], declared: dict[str, Profile], new_name: Callable[[], str]
) -> dict[str, Profile]:
    """Name the claims that the containers need (R2, R6) and give each container its `fresh` ones.

    declared: the claims that InstaSlice put into the pod in an earlier pass (R10).
    Returns the new claims, name to profile, in the order in which the pod is to declare them.
    Raises InvalidPod (R8).
    """
    _check_size(containers)
    claims: dict[str, Profile] = {}
    shared = False
    for container in containers:
        if container.ordinary_init:
            shared = shared or bool(container.slices)
            continue
        for profile, slices in container.slices.items():
            for _ in range(slices):
                name = new_name()
                container.fresh.append(name)
                claims[name] = profile
    if shared:
        _share(containers, declared, claims, new_name)
    return claims


def _check_size(containers: list[_Container]) -> None:
    """Refuse a pod of too many slices before a name is made for any of them (R8)."""
    lasting = references = 0
    for container in containers:
        slices = sum(container.slices.values())
        references += slices
        if not container.ordinary_init:
            lasting += slices
    if lasting > MAX_SLICES:
        raise InvalidPod(_too_many(lasting))
    if references > MAX_REFERENCES:
        detail = f"may use MIG slices at most {MAX_REFERENCES} times"
        raise InvalidPod(invalid("spec.initContainers", f"{len(containers)} containers", detail))


def _too_many(slices: int) -> FieldError:
    return invalid("spec", f"{slices} MIG slices", f"a pod may hold at most {MAX_SLICES}")


def _share(
    containers: list[_Container],
    declared: dict[str, Profile],
    claims: dict[str, Profile],
    new_name: Callable[[], str],
) -> None:
    """Give ordinary init containers their claims: those of what comes after them, and new ones.

    declared: as in `_hold`.
    claims: new claims by name; what is beyond those of containers and sidecars is added to it.
    Raises InvalidPod (R8).
    """
    known = {**declared, **claims}
    #: name -> the init container from whose start on it is in use; none for a container's.
    lasting: dict[str, int | None] = {}
    for container in containers:
        if not container.ordinary_init:
            sidecar = container.index if container.kind == "initContainers" else None
            for name in (*_references(container), *container.fresh):
                if name in known:
                    lasting[name] = sidecar
    #: What ordinary init containers hold beyond those.
    extras = [name for name in declared if name not in lasting]
    for container in containers:
        if not container.ordinary_init or not container.slices:
            continue
        refers = set(_references(container))
        free = [n for n, since in lasting.items() if since is None or since > container.index]
        for profile, slices in container.slices.items():
            usable = [n for n in (*free, *extras) if known[n] == profile and n not in refers]
            new = [new_name() for _ in range(slices - len(usable))]
            container.fresh += (usable + new)[:slices]
            extras += new
            known |= dict.fromkeys(new, profile)
            claims |= dict.fromkeys(new, profile)
        if len(claims) > MAX_SLICES:
            raise InvalidPod(_too_many(len(claims)))


def _own_claims(pod: Json) -> dict[str, Profile]:
    """The claims that the pod declares as InstaSlice does: named by a UUID, from a MIG template."""
    own: dict[str, Profile] = {}
    spec = _member(pod, "spec", dict)
    for claim in _member(spec, "resourceClaims", list, "spec"):
        template = template_name(claim)
        name = claim.get("name") if isinstance(claim, dict) else None
        if isinstance(name, str) and isinstance(template, str) and _UUID4.fullmatch(name):
            profile = profiles.from_template(template)
            if profile:
                own[name] = profile
    return own


def _references(container: _Container) -> list[str]:
    """The names of the claims that a container uses already."""
    names = (claim.get("name") for claim in container.claims if isinstance(claim, dict))
    return [name for name in names if isinstance(name, str)]


def _container_operations(container: _Container) -> list[Operation]:
    """Take the MIG resources out of a container (R3, R5) and put its new claims in (R4)."""
    resources = f"/spec/{container.kind}/{container.index}/resources"
    mig = container.mig
    operations = extend(
        resources + "/claims",
        container.resources.get("claims"),
        [{"name": name} for name in container.fresh],
    )
    emptied = set()
    for key, amounts in (("limits", container.limits), ("requests", container.requests)):
        gone = [name for name in amounts if name in mig]
        if gone and len(gone) == len(amounts):
            emptied.add(key)
            operations.append(remove(f"{resources}/{key}"))
        else:
            operations += [remove(f"{resources}/{key}/{escape(name)}") for name in gone]
    if container.fresh or any(
        value is not None and key not in emptied for key, value in container.resources.items()
    ):
        return operations
    return [remove(resources)]


def _left_alone(name: str) -> str:
    """The warning for a name that starts like a MIG resource and is none (R1)."""
    # Kubernetes asks for warnings of at most 120 characters, and the name is what a user typed.
    shown = ascii(shorten(name))[1:-1]
    return f"{shown} is left as it is: it is not spelt like a MIG profile, as mig-1g.5gb is"


def _unknown(profile: Profile) -> str:
    """The warning for a profile that no known GPU has (R1)."""
    return f"{profile.resource}: InstaSlice knows no GPU with the MIG profile {profile.attribute}"
