"""The claims that take the place of a pod's limits (R2, R6, R8, R13)."""

from collections.abc import Sequence
from typing import NamedTuple

from instaslice import annotations
from instaslice.annotations import NO_WISHES, Wishes
from instaslice.containers import MAX_DEVICES, MAX_USES, Settled
from instaslice.device_groups import Demand, Group, groups, held
from instaslice.invalid import InvalidPod, Notice, forbidden, invalid
from instaslice.resource_api import ALTERNATIVES, ResourceAPI
from instaslice.resources import Resource
from instaslice.templates import DeviceClaim, DeviceRequest, claim_of, serves

#: By resource, who wants how many of it.
Demands = dict[Resource, list[Demand]]


class NewClaim(NamedTuple):
    """A claim that a pod is to have, before it has a name."""

    asks: DeviceClaim
    #: Which containers use it, in the order of the pod; of a placed claim, which request of it.
    uses: list[tuple[int, str]]


def demands(containers: Sequence[Settled], api: ResourceAPI) -> Demands:
    """The containers' requests, by resource.

    Raises InvalidPod where that is too much, or what the API cannot ask for (R8).
    """
    found: Demands = {}
    uses = 0
    for user, (container, claimed, _) in enumerate(containers):
        for name, count in claimed.items():
            uses += count
            each = found.setdefault(container.asks[name], [])
            if each and each[-1].user == user:  # by another of its names
                count += each.pop().devices
            each.append(Demand(user, count, container.role))
    if uses > MAX_USES:
        detail = f"may use devices at most {MAX_USES} times"
        raise InvalidPod(
            invalid(("spec", "initContainers"), f"{len(containers)} containers", detail)
        )
    total = sum(map(held, found.values()))
    if total > MAX_DEVICES:
        detail = f"InstaSlice lets a pod hold {MAX_DEVICES}"
        raise InvalidPod(invalid(("spec",), f"{total} devices", detail))
    for resource in found:
        if not serves(api, resource):
            detail = f"resource.k8s.io/{api.version} cannot ask for {resource.device_class}"
            errors = [
                forbidden((*container.path, "limits", name), detail)
                for container, claimed, _ in containers
                for name in claimed
                if container.asks[name] == resource
            ]
            raise InvalidPod(*errors)
    return found


def new_claims(wanted: Demands, api: ResourceAPI, wishes: Wishes) -> list[NewClaim]:
    """The claims, in the order in which the pod is to declare them.

    wishes: those that can be kept.
    """
    claims: list[NewClaim] = []
    placed: list[tuple[DeviceRequest, Group]] = []
    for resource, each in wanted.items():
        others = wishes.alternatives.get(resource, ())
        for group in groups(each, api.max_devices):
            asks = claim_of(resource, group.devices, *others)
            if wishes.placement and resource.profile:
                placed.append((asks.requests[0], group))
            else:
                claims.append(NewClaim(asks, [(user, "") for user in group.users]))
    if placed:
        asks = DeviceClaim(tuple(request for request, _ in placed), wishes.placement)
        named = zip(asks.request_names, placed, strict=True)
        uses = [(user, name) for name, (_, group) in named for user in group.users]
        claims.append(NewClaim(asks, sorted(uses, key=lambda use: use[0])))
    claims.sort(key=lambda claim: claim.uses[0][0])
    return claims


def promised(
    wishes: Wishes, wanted: Demands, api: ResourceAPI, *, again: bool
) -> tuple[Wishes, list[Notice]]:
    """A pod's wishes as far as they can be kept, and notices of the rest (R13).

    again: whether an earlier pass made claims for the pod.
    Raises InvalidPod for a placement that cannot be promised: the pod would silently mean less.
    """
    if not wanted or wishes is NO_WISHES:
        return NO_WISHES, []
    alternatives, placement, is_default = wishes
    notices = [
        Notice(annotations.ALTERNATIVES, f"no container asks for {first.name}")
        for first in alternatives
        if first not in wanted and not again and not is_default
    ]
    if ALTERNATIVES not in api.features and not alternatives.keys().isdisjoint(wanted):
        why = f"this cluster's resource.k8s.io/{api.version} has no alternatives"
        if not is_default:  # about which the pod's author can do nothing
            text = f"{why}; only the first is asked for"
            notices.append(Notice(annotations.ALTERNATIVES, text))
        alternatives = {}
    slices = sum(held(each) for resource, each in wanted.items() if resource.profile)
    if placement and slices <= 1 and not again:
        what = "one MIG slice" if slices else "no MIG slice"
        text = f"{placement} is pointless for a pod of {what}"
        notices.append(Notice(annotations.PLACEMENT, text))
        placement = ""
    if placement and slices:
        if why := _no_placement(placement, slices, api, again):
            raise InvalidPod(forbidden(annotations.path(annotations.PLACEMENT), why))
        if any(resource.profile is None for resource in wanted):
            text = "MIG slices are placed, and nothing else"
            notices.append(Notice(annotations.PLACEMENT, text))
    return Wishes(alternatives, placement), notices


def _no_placement(placement: str, slices: int, api: ResourceAPI, again: bool) -> str:
    """Why a placement cannot be promised, or ""."""
    if placement not in api.features:
        return f"this cluster's resource.k8s.io/{api.version} cannot promise {placement}"
    if slices > api.max_devices:
        return f"{placement} takes one claim, of at most {api.max_devices} slices, not {slices}"
    if again:
        return "another webhook added a container with MIG limits after the slices were placed"
    return ""
