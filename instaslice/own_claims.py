"""The claims that an earlier pass added to a pod, and the limits they replaced (R10, R11)."""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final

from instaslice import annotations
from instaslice.containers import (
    MAX_DEVICES,
    MAX_USES,
    Container,
    Decision,
    asking,
    member,
    same_places,
)
from instaslice.invalid import InvalidPod, too_many
from instaslice.patch import Json, Operation, change
from instaslice.profiles import Resource
from instaslice.quantity import NANO, InvalidQuantity, nanos
from instaslice.resource_api import template_name
from instaslice.resources import MIG, Resources
from instaslice.templates import is_placed, of_request, stands_for

#: A UUID (RFC 9562) of version 4, or of version 5 from `instaslice rewrite`.
_UUID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[45][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII
)
#: Each claim holds at least one device, and each reference is one use. A later pass may add as many
#: again, for containers that another webhook added.
MAX_CLAIMS: Final = 2 * MAX_DEVICES
MAX_REFERENCES: Final = 2 * MAX_USES

#: By claim name: the resource and the count that it holds; None if the request's name tells.
OwnClaims = Mapping[str, tuple[Resource, int] | None]


def own_claims(pod: Json, resources: Resources) -> OwnClaims:
    """Find the claims that InstaSlice declared: named by a UUID, from one of its templates.

    pod: with a spec. Raises InvalidPod (R7, R8).
    """
    declared = member(pod["spec"], "resourceClaims", list, ("spec",))
    if not declared:
        return {}
    templates: dict[str, str] = {}
    for claim in declared:
        name = claim.get("name") if isinstance(claim, dict) else None
        if isinstance(name, str) and _UUID.fullmatch(name):
            template = template_name(claim)
            if isinstance(template, str):
                templates[name] = template
    if len(templates) > MAX_CLAIMS:
        raise InvalidPod(too_many(("spec", "resourceClaims"), len(templates), MAX_CLAIMS))
    shares = {name: stands_for(each, None, resources) for name, each in templates.items()}
    return {name: share for name, share in shares.items() if share or is_placed(templates[name])}


def devices_of(containers: Iterable[Container], own: OwnClaims) -> Iterator[dict[Resource, int]]:
    """For each container, count the devices of each resource that it has by own claims.

    Raises InvalidPod if the containers have too many references (R8).
    """
    left = MAX_REFERENCES
    for container in containers:
        found: dict[Resource, int] = {}
        if own:
            left -= len(container.claims)
            if left < 0:
                path = (*container.path, "claims")
                raise InvalidPod(too_many(path, len(container.claims), MAX_REFERENCES))
            for name, request in container.references():
                if name in own and (share := own[name] or of_request(request)):
                    found[share[0]] = found.get(share[0], 0) + share[1]
        yield found


def decline(decisions: list[Decision], own: OwnClaims) -> Iterator[Decision]:
    """Let containers decline what they have by own claims (R10). Raises InvalidPod (R8).

    After a webhook has changed a pod, the API server calls its own plugins and then the webhook
    again. In between, a LimitRange's default may bring a limit back.
    """
    each_has = devices_of([container for container, _, _ in decisions], own)
    for (container, counts, _), has in zip(decisions, each_has, strict=True):
        declined = [name for name in counts if container.asks[name] in has]
        claimed = {name: count for name, count in counts.items() if name not in declined}
        yield Decision(container, claimed, declined)


def restore(pod: Json, old: Json, resources: Resources = MIG) -> list[Operation]:
    """Undo what an update changed in a rewritten pod: its limits (R11) and its annotation.

    `kubectl apply` of the original manifest sets the limits again, beside the claims that replaced
    them; the API server would refuse that as a change of an immutable field. If the limits do not
    match the claims, or the old pod already had them, the decision is left to the API server.
    """
    operations: list[Operation] = []
    if not annotations.is_mirror(pod):
        with suppress(InvalidPod):  # the API server reports it
            operations += _put_back(pod, old, resources)
        with suppress(InvalidPod):
            was, now = (annotations.of(each).get(annotations.REQUESTED) for each in (old, pod))
            is_lost = isinstance(was, str) and was != now
            if is_lost and isinstance(old.get("spec"), dict) and own_claims(old, resources):
                operations += annotations.annotate(pod, was)
    return operations


def _put_back(pod: Json, old: Json, resources: Resources) -> list[Operation]:
    """Remove limits that claims replaced, from all containers or from none (R11)."""
    now, _ = asking(pod, resources)
    if not now:
        return []
    before = same_places(old, now)
    operations: list[Operation] = []
    for container, has in zip(now, devices_of(now, own_claims(pod, resources)), strict=True):
        was = before.get(container[:2])
        if was is None:
            return []
        pairs = ((container.limits, was.limits), (container.requests, was.requests))
        names = [
            name
            for name in container.asks
            if any(new.get(name) not in (None, then.get(name)) for new, then in pairs)
        ]
        if not _stand_for(container, was, names, has):
            return []
        for key, (new, then) in zip(("limits", "requests"), pairs, strict=True):
            gone = [name for name in names if name not in then]
            changed = {n: then[n] for n in names if n in then and new.get(n) != then[n]}
            operations += change(f"{container.pointer}/{key}", new, gone, changed)
    return operations


def _stand_for(
    container: Container, was: Container, names: Iterable[str], has: Mapping[Resource, int]
) -> bool:
    """Whether claims replaced exactly these limits, which were 0 or missing before the update.

    was: the container before the update. has: its devices by claims.
    """
    wanted: dict[Resource, int] = {}
    try:
        for name in names:
            amount = nanos(container.limits[name])
            request = container.requests.get(name, container.limits[name])
            if any(nanos(then.get(name, 0)) for then in (was.limits, was.requests)):
                return False
            # kubectl keeps a request that is not in the manifest.
            if nanos(request) != amount and request != was.requests.get(name):
                return False
            resource = container.asks[name]
            wanted[resource] = wanted.get(resource, 0) + amount
    except (InvalidQuantity, KeyError):  # not a quantity, or a request without a limit
        return False
    return all(has.get(resource, 0) * NANO == amount for resource, amount in wanted.items())
