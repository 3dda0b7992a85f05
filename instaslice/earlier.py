"""Claims that an earlier pass put into a pod, and what they stand for (R10, R11)."""

import re
from collections.abc import Iterable, Sequence
from typing import Final

from instaslice.containers import Container, member, references
from instaslice.patch import Json, Operation, escape, remove, replace
from instaslice.quantity import NANO, InvalidQuantity, nanos
from instaslice.resource_api import template_name
from instaslice.resources import Resource, Resources
from instaslice.templates import is_ours, stands_for

#: A UUID (RFC 9562) of version 4, or of version 5, by which `instaslice rewrite` names claims.
_UUID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[45][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII
)


def own_claims(pod: Json, resources: Resources) -> dict[str, str]:
    """The template of each claim that the pod declares as InstaSlice does: named by a UUID.

    Raises InvalidPod where the claims are no list.
    """
    own: dict[str, str] = {}
    spec = member(pod, "spec", dict)
    for claim in member(spec, "resourceClaims", list, "spec"):
        template = template_name(claim)
        name = claim.get("name") if isinstance(claim, dict) else None
        if not (isinstance(name, str) and isinstance(template, str)):
            continue
        if _UUID.fullmatch(name) and is_ours(template, resources):
            own[name] = template
    return own


def devices_of(
    container: Container, own: dict[str, str], resources: Resources
) -> dict[Resource, int]:
    """How many devices of each resource a container has by claims of an earlier pass."""
    found: dict[Resource, int] = {}
    for name, request in references(container) if own else ():
        stands = stands_for(own[name], request, resources) if name in own else None
        if stands:
            found[stands[0]] = found.get(stands[0], 0) + stands[1]
    return found


def settle(asking: Iterable[Container], own: dict[str, str], resources: Resources) -> None:
    """Turn what containers want, and have already, into what they decline (R10).

    After a webhook has changed a pod, the API server calls its own plugins and then the webhook
    once more. A LimitRange with a default brings the limit back in between.
    """
    for container in asking if own else ():
        has = devices_of(container, own, resources)
        container.declined = [name for name in container.wanted if container.asks[name] in has]
        for name in container.declined:
            container.wanted.remove(name)
            container.wants.pop(container.asks[name], None)


def came_back(container: Container, was: Container) -> list[str]:
    """The resources whose amounts an update set or changed in a container."""
    both = ((container.limits, was.limits), (container.requests, was.requests))
    return [
        name
        for name in container.asks
        if any(now.get(name) not in (None, then.get(name)) for now, then in both)
    ]


def stand_for(
    container: Container, was: Container, names: Sequence[str], has: dict[Resource, int]
) -> bool:
    """Whether a container's claims stand for just the limits that came back.

    was: the container before the update, in which those limits were 0 or missing.
    """
    wanted: dict[Resource, int] = {}
    try:
        for name in names:
            amount = nanos(container.limits[name])
            request = container.requests.get(name, container.limits[name])
            if any(nanos(then.get(name, 0)) for then in (was.limits, was.requests)):
                return False
            # kubectl leaves a request that no manifest has as it is.
            if nanos(request) != amount and request != was.requests.get(name):
                return False
            resource = container.asks[name]
            wanted[resource] = wanted.get(resource, 0) + amount
    except (InvalidQuantity, KeyError):  # no quantity, or a request without its limit
        return False
    return all(has.get(resource, 0) * NANO == amount for resource, amount in wanted.items())


def put_back(container: Container, was: Container, names: Sequence[str]) -> list[Operation]:
    """Give the resources that came back the amounts that they had, or none (R11)."""
    operations: list[Operation] = []
    for key, now, then in (
        ("limits", container.limits, was.limits),
        ("requests", container.requests, was.requests),
    ):
        path = f"{container.pointer}/{key}"
        gone = [name for name in names if name in now and name not in then]
        if gone and len(gone) == len(now):
            operations.append(remove(path))
        else:
            operations += [remove(f"{path}/{escape(name)}") for name in gone]
        kept = [name for name in names if name in now and name in then]
        operations += [
            replace(f"{path}/{escape(name)}", then[name])
            for name in kept
            if now[name] != then[name]
        ]
    return operations
