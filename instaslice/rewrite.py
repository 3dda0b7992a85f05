"""A pod that asks for devices by extended resources, rewritten to ask for them through DRA.

The rules, as they are numbered where the code applies them:

R1  A MIG resource is `nvidia.com/mig-` and a well-spelt profile (`profiles`). Any other name with
    that prefix is left as it is, with a warning. A profile that no known GPU has is rewritten,
    with a warning. Other resources are rewritten where an administrator maps them (`resources`).
R2  A limit of n devices becomes one claim of n, named by a fresh UUID, from a template that asks
    for n (`templates`). Three exceptions: a claim holds at most 32, the API's own bound, so a limit
    of 40 has two; in v1alpha2 a claim holds one; and R6 splits a limit of which an init container
    uses a part.
R3  The resource leaves limits and requests, and a map left empty goes too.
R4  Claims that the pod already has stay, in their order; new ones follow.
R5  A limit of 0 asks for nothing and stays as it is: so a container declines the default of a
    LimitRange.
R6  Devices are held as the scheduler holds them (`hold`).
R7  What the API server would refuse is refused in the API server's words, never repaired.
R8  Bounds are checked before any loop over what was typed: at most 112 devices held by a pod, 1,792
    uses of them, and 1,792 entries in limits and requests, those of 0 counted.
R9  Mirror pods are left alone: the API server refuses claims on them.
R10 A later pass over its own result changes nothing. A limit that comes back beside a container's
    own claims of that resource is a LimitRange's default and no new wish: it becomes "0", which
    LimitRanger leaves alone and its checks accept. A limit in a container without such claims is a
    wish, for another webhook may have added the container.
R11 On update, limits that only return to where claims already stand for them are taken out.
R12 The patch touches nothing else.
R13 Annotations ask for more than limits can (`annotations`).
"""

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple
from uuid import uuid4

from instaslice import annotations
from instaslice.claims import demands, kept, new_claims
from instaslice.containers import MAX_TOLD, Container, containers, read_amounts, survey
from instaslice.earlier import came_back, devices_of, own_claims, put_back, settle, stand_for
from instaslice.invalid import InvalidPod, shorten
from instaslice.patch import Json, Operation, escape, extend, remove, replace
from instaslice.resource_api import ResourceAPI
from instaslice.resources import MIG, Resources
from instaslice.templates import DeviceClaim

MIRROR_ANNOTATION: Final = "kubernetes.io/config.mirror"

#: Names a claim: given the name of the first container that uses it, and its template.
NewName = Callable[[str, str], str]


class Rewrite(NamedTuple):
    """What to do to a pod, and what was understood of it."""

    operations: list[Operation]  #: RFC 6902; empty where nothing is to be done
    claims: dict[DeviceClaim, int]  #: new claims, by what they ask for
    warnings: list[str]  #: for the person who wrote the pod


UNTOUCHED: Final = Rewrite([], {}, [])


def is_mirror(pod: Json) -> bool:
    """Whether the pod is the API server's image of a static pod (R9)."""
    return MIRROR_ANNOTATION in annotations.of(pod)


def new_uuid(container: str, template: str) -> str:
    """A UUID of version 4, whatever the claim is for."""
    return str(uuid4())


def rewrite(
    pod: Json, api: ResourceAPI, resources: Resources = MIG, new_name: NewName = new_uuid
) -> Rewrite:
    """What makes a new pod ask for its devices through DRA.

    pod: a v1 Pod as decoded JSON; it is not modified.
    Raises InvalidPod (R7, R8, R13).
    """
    if is_mirror(pod):
        return UNTOUCHED
    every, odd = survey(pod, resources)
    asking = [container for container in every if container.asks]
    warnings = [_left_alone(name) for name in odd]
    if not asking:
        return Rewrite([], {}, warnings)
    read_amounts(asking)
    own = own_claims(pod, resources)
    settle(asking, own, resources)
    wanted = demands(every, api)
    wishes, doubts = kept(annotations.read(pod, resources), wanted, api, again=bool(own))
    claims = new_claims(wanted, api, wishes)
    declared: list[Json] = []
    counts: dict[DeviceClaim, int] = {}
    for asks, uses in claims:
        name = new_name(every[uses[0][0]].name, asks.template)
        declared.append(api.pod_claim(name, asks.template))
        counts[asks] = counts.get(asks, 0) + 1
        for user, request in uses:
            reference = {"name": name, "request": request} if request else {"name": name}
            every[user].fresh.append(reference)
    operations: list[Operation] = []
    for container in asking:
        operations += _container_operations(container)
    operations += extend("/spec/resourceClaims", pod["spec"].get("resourceClaims"), declared)
    warnings += [*doubts, *_unknown(counts)]
    return Rewrite(operations, counts, warnings[:MAX_TOLD])


def restore(pod: Json, old: Json, resources: Resources = MIG) -> Rewrite:
    """What takes limits out again that an update brought back to a rewritten pod (R11).

    `kubectl apply` of the original manifest sets the limits anew, beside the claims that stand for
    them; the API server would refuse that as a change of an immutable field. A pod whose limits are
    not what its claims stand for is left to the API server, and so is whatever the old pod had.
    """
    if is_mirror(pod):
        return UNTOUCHED
    try:
        before = {(c.kind, c.index): c for c in containers(old)}
        now, _ = survey(pod, resources)
        own = own_claims(pod, resources)
    except InvalidPod:
        return UNTOUCHED
    operations: list[Operation] = []
    for container in now:
        if not container.asks:
            continue
        was = before.get((container.kind, container.index))
        names = came_back(container, was) if was else []
        has = devices_of(container, own, resources)
        if was is None or not stand_for(container, was, names, has):
            return UNTOUCHED
        operations += put_back(container, was, names)
    return Rewrite(operations, {}, [])


def _container_operations(container: Container) -> list[Operation]:
    """Take what is claimed out of a container (R3, R10) and put its new claims in (R4)."""
    here = container.pointer
    operations = extend(f"{here}/claims", container.resources.get("claims"), container.fresh)
    for key, amounts in (("limits", container.limits), ("requests", container.requests)):
        path = f"{here}/{key}"
        if amounts and not amounts.keys() - container.wanted:
            operations.append(remove(path))
            continue
        for name in container.wanted:
            if name in amounts:
                operations.append(remove(f"{path}/{escape(name)}"))
        for name in container.declined:
            if name in amounts:
                operations.append(replace(f"{path}/{escape(name)}", "0"))
    return operations


def _left_alone(name: str) -> str:
    """The warning for a name that starts like a MIG resource and is not one (R1)."""
    # Kubernetes asks for warnings of at most 120 characters, and the name is what a user typed.
    shown = ascii(shorten(name))[1:-1]
    return f"{shown} is left as it is: it is not spelt like a MIG profile, as mig-1g.5gb is"


def _unknown(claims: Iterable[DeviceClaim]) -> list[str]:
    """Warnings for profiles that no known GPU has (R1)."""
    found: dict[str, None] = {}
    for claim in claims:
        for request in claim.requests:
            for choice in request.choices:
                profile = choice.profile
                if profile and not profile.known:
                    what = f"no GPU with the MIG profile {profile.attribute}"
                    found[f"{choice.name}: InstaSlice knows {what}"] = None
    return list(found)
