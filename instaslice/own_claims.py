"""Claims that an earlier pass put into a pod, and what they stand for (R10, R11)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from instaslice.containers import MAX_DEVICES, MAX_USES, Container, Settled, member, references
from instaslice.invalid import InvalidPod, too_many
from instaslice.patch import Json, Operation, escape, remove, replace
from instaslice.quantity import NANO, InvalidQuantity, nanos
from instaslice.resource_api import template_name
from instaslice.resources import MIG, Resource, Resources
from instaslice.templates import is_ours, stands_for

#: A UUID (RFC 9562) of version 4, or of version 5, by which `instaslice rewrite` names claims.
_UUID: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[45][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", re.ASCII
)
_UUID_LENGTH: Final = 36
#: A claim holds a device or more, and a container that refers to it has a use of it. A later pass,
#: for containers that another webhook added, may add as many again.
MAX_CLAIMS: Final = 2 * MAX_DEVICES
MAX_REFERENCES: Final = 2 * MAX_USES

_Share = tuple[Resource, int]


@dataclass(slots=True)
class OwnClaims:
    """The claims that a pod declares as InstaSlice does: named by a UUID, from its templates.

    Each is understood once, and so is each request of those that are placed.
    """

    _shares: dict[str, _Share | None]  #: by claim; None where its request tells
    _templates: dict[str, str]
    _resources: Resources
    _requested: dict[str, _Share | None] = field(default_factory=dict)
    _left: int = MAX_REFERENCES

    def __bool__(self) -> bool:
        return bool(self._shares)

    def devices_of(self, container: Container) -> dict[Resource, int]:
        """How many devices of each resource a container has by them.

        Raises InvalidPod where the containers that were asked about refer to too many (R8).
        """
        found: dict[Resource, int] = {}
        if not self._shares:
            return found
        self._left -= len(container.claims)
        if self._left < 0:
            where = (*container.path, "claims")
            raise InvalidPod(too_many(where, len(container.claims), MAX_REFERENCES))
        for name, request in references(container):
            if name in self._shares:
                share = self._shares[name] or self._placed(self._templates[name], request)
                if share:
                    found[share[0]] = found.get(share[0], 0) + share[1]
        return found

    def _placed(self, template: str, request: object) -> _Share | None:
        """What a request of a placed claim stands for: its name says so, whatever the template."""
        if not isinstance(request, str):
            return None
        if request not in self._requested:
            self._requested[request] = stands_for(template, request, self._resources)
        return self._requested[request]

    def settle(self, container: Container, counts: dict[str, int]) -> Settled:
        """Decide what a container claims, and what it has already and so declines (R10).

        After a webhook has changed a pod, the API server calls its own plugins and then the webhook
        once more. A LimitRange with a default brings the limit back in between.
        """
        has = self.devices_of(container)
        if not has:
            return Settled(container, counts, [])
        declined = [name for name in counts if container.asks[name] in has]
        claimed = {name: count for name, count in counts.items() if name not in declined}
        return Settled(container, claimed, declined)


_NONE: Final = OwnClaims({}, {}, MIG)


def own_claims(pod: Json, resources: Resources) -> OwnClaims:
    """Find a pod's claims of an earlier pass. Raises InvalidPod (R7, R8).

    pod: with a spec.
    """
    declared = member(pod["spec"], "resourceClaims", list, ("spec",))
    if not declared:
        return _NONE
    found: dict[str, str] = {}
    for claim in declared:
        name = claim.get("name") if type(claim) is dict else None
        if type(name) is str and len(name) == _UUID_LENGTH:
            template = template_name(claim)
            if isinstance(template, str) and _UUID.fullmatch(name):
                found[name] = template
    if len(found) > MAX_CLAIMS:
        raise InvalidPod(too_many(("spec", "resourceClaims"), len(found), MAX_CLAIMS))
    shares = {name: stands_for(template, None, resources) for name, template in found.items()}
    ours = {n: share for n, share in shares.items() if share or is_ours(found[n], resources)}
    return OwnClaims(ours, found, resources)


def put_back(
    container: Container, was: Container, has: dict[Resource, int]
) -> list[Operation] | None:
    """Give the resources that an update brought back the amounts that they had, or none (R11).

    was: the container before the update. has: what it has by claims.
    None where they do not stand for just what came back.
    """
    pairs = (
        ("limits", container.limits, was.limits),
        ("requests", container.requests, was.requests),
    )
    names = [
        name
        for name in container.asks
        if any(now.get(name) not in (None, then.get(name)) for _, now, then in pairs)
    ]
    if not _stand_for(container, was, names, has):
        return None
    operations: list[Operation] = []
    for key, now, then in pairs:
        path = f"{container.pointer}/{key}"
        gone = [name for name in names if name in now and name not in then]
        if gone and len(gone) == len(now):
            operations.append(remove(path))
        else:
            operations += [remove(f"{path}/{escape(name)}") for name in gone]
        operations += [
            replace(f"{path}/{escape(name)}", then[name])
            for name in names
            if name in now and name in then and now[name] != then[name]
        ]
    return operations


def _stand_for(
    container: Container, was: Container, names: Sequence[str], has: dict[Resource, int]
) -> bool:
    """Whether claims stand for just the limits of these names, which were 0 or missing before."""
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
