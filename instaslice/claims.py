"""The claims that replace a pod's limits (R2, R6, R8, R13).

Theory of operation. Containers and sidecars (init containers with restartPolicy Always, which start
in order and keep running) run at the same time, so each needs separate devices. An ordinary init
container ends before anything after it starts, so it can use the devices of all containers and of
the sidecars after it, but not those of the sidecars before it. Only what it needs beyond those is
extra. Ordinary init containers run one after another, so they share the extras. Of each resource
the pod then holds

    max(containers + sidecars, max over ordinary init containers of (own + sidecars before it))

devices, which is what the scheduler and the device plugin count for an extended resource (KEP-753,
"resources calculation").

Put all these devices in a line: first those of the containers, in order, then the extras, then
those of the sidecars, the last sidecar first. An ordinary init container then always uses the
beginning of the line. The line is cut where an owner's devices end and where an init container's
use ends. The devices between two cuts are used by the same containers: they are a group, which
becomes one claim. An owner's devices are in more than one group only if an init container uses
some of them.
"""

from collections.abc import Sequence
from typing import NamedTuple

from instaslice import annotations
from instaslice.annotations import Wishes
from instaslice.containers import MAX_DEVICES, MAX_USES, Decision, Role
from instaslice.invalid import InvalidPod, Notice, forbidden, invalid
from instaslice.profiles import Resource
from instaslice.resource_api import ALTERNATIVES, ResourceAPI
from instaslice.resources import MAX_NAME
from instaslice.templates import DeviceClaim, DeviceRequest, claim_of, serves


class Demand(NamedTuple):
    """The devices of a resource that one container asks for."""

    user: int  #: the container's index, in the order of the pod
    devices: int
    role: Role


#: A claim to be added to a pod, before it has a name; and each container that uses it, in the order
#: of the pod, with the request that it uses, "" for all of it.
NewClaim = tuple[DeviceClaim, list[tuple[int, str]]]
#: The containers that use the same devices, ascending, and the number of these devices.
Group = tuple[tuple[int, ...], int]
#: The demands for each resource: in the order of the pod, each container once.
Demands = dict[Resource, list[Demand]]


def held(demands: Sequence[Demand]) -> int:
    """The number of devices of a resource that the pod holds."""
    # Demands are read backwards: an init container cannot use the devices of sidecars before it.
    # It can use those of all containers, which come first in `demands`.
    free = sum([demand.devices for demand in demands if demand.role == "container"])
    extras = 0
    for demand in reversed(demands):
        if demand.role == "sidecar":
            free += demand.devices
        elif demand.role == "init":
            extras = max(extras, demand.devices - free)
    return free + extras


def groups(demands: Sequence[Demand], max_devices: int) -> list[Group]:
    """Divide the devices of a resource into groups, in the order of the line.

    max_devices: the most that one group can hold; larger groups are cut.
    """
    by_role: dict[Role, list[Demand]] = {"container": [], "sidecar": [], "init": []}
    for demand in demands:
        by_role[demand.role].append(demand)
    owners, inits, sidecars = by_role["container"], by_role["init"], by_role["sidecar"][::-1]
    if not inits:  # the usual case: no container uses another's devices
        return [
            ((user,), number)
            for user, devices, _ in owners + sidecars
            for number in _cut(devices, max_devices)
        ]
    extras = held(demands) - sum(owner.devices for owner in owners + sidecars)
    uses = sorted({init.devices for init in inits})
    found: list[Group] = []
    start = 0
    for user, devices, _ in (*owners, Demand(-1, extras, "init"), *sidecars):
        last = start + devices
        for end in (*[use for use in uses if start < use < last], last):
            users = [user] if user >= 0 else []
            users += [init.user for init in inits if init.devices > start]
            found += [(tuple(sorted(users)), n) for n in _cut(end - start, max_devices)]
            start = end
    return found


def _cut(devices: int, most: int) -> list[int]:
    """Cut a number of devices into groups of at most `most`."""
    whole, rest = divmod(devices, most)
    return [most] * whole + [rest] * (rest > 0)


def demands(containers: Sequence[Decision], api: ResourceAPI) -> Demands:
    """The containers' demands, by resource.

    Raises InvalidPod if they are too many, or the API cannot ask for a resource (R8).
    """
    found: Demands = {}
    uses = 0
    for user, (container, claimed, _) in enumerate(containers):
        role = container.role
        for name, count in claimed.items():
            uses += count
            each = found.setdefault(container.asks[name], [])
            if each and each[-1].user == user:  # two names can mean one resource
                count += each.pop().devices
            each.append(Demand(user, count, role))
    if uses > MAX_USES:
        path, what = ("spec", "initContainers"), f"{len(containers)} containers"
        raise InvalidPod(invalid(path, what, f"may use devices at most {MAX_USES} times"))
    if uses > MAX_DEVICES and (total := sum(map(held, found.values()))) > MAX_DEVICES:
        detail = f"InstaSlice lets a pod hold {MAX_DEVICES}"
        raise InvalidPod(invalid(("spec",), f"{total} devices", detail))
    for resource in found:
        if not serves(api, resource):
            detail = f"{api.group_version} cannot ask for {resource.device_class}"
            errors = [
                forbidden((*container.path, "limits", name), detail)
                for container, claimed, _ in containers
                for name in claimed
                if container.asks[name] == resource
            ]
            raise InvalidPod(*errors)
    return found


def new_claims(wanted: Demands, api: ResourceAPI, wishes: Wishes) -> list[NewClaim]:
    """Make the claims, in the order in which the pod will declare them.

    wishes: those that can be kept (`promised`).
    Raises InvalidPod if the name of a placed claim's template could not say all its alternatives:
    a LimitRange's policy reads them there. Default alternatives are left out instead.
    """
    claims: list[NewClaim] = []
    placed: list[tuple[DeviceRequest, tuple[int, ...]]] = []
    for resource, each in wanted.items():
        others = wishes.alternatives.get(resource, ())
        for users, devices in groups(each, api.max_devices):
            asks = claim_of(resource, devices, *others)
            if wishes.placement and resource.profile:
                placed.append((asks.requests[0], users))
            else:
                claims.append((asks, [(user, "") for user in users]))
    if placed:
        asks = DeviceClaim(tuple(request for request, _ in placed), wishes.placement)
        if asks.has_alternatives and (length := len(asks.long_name)) > MAX_NAME:
            if wishes.is_default:  # the pod's author cannot change the default
                return new_claims(wanted, api, Wishes({}, wishes.placement))
            detail = (
                f"with {wishes.placement}, the claim's template would need a name of {length} "
                f"characters, of at most {MAX_NAME}; name fewer profiles, or remove this "
                f"annotation or {annotations.PLACEMENT}"
            )
            raise InvalidPod(forbidden(annotations.path(annotations.ALTERNATIVES), detail))
        named = zip(asks.request_names, placed, strict=True)
        uses = [(user, name) for name, (_, users) in named for user in users]
        claims.append((asks, sorted(uses, key=lambda use: use[0])))
    claims.sort(key=lambda claim: claim[1][0])
    return claims


def promised(
    wishes: Wishes, wanted: Demands, api: ResourceAPI, *, again: bool
) -> tuple[Wishes, list[Notice]]:
    """Return the wishes that can be kept, and notices about the rest (R13).

    again: whether an earlier pass made claims for the pod.
    Raises InvalidPod for a placement that cannot be kept, which must not be dropped silently.
    """
    alternatives, placement, is_default = wishes
    if not wanted or not (alternatives or placement):
        return wishes, []
    this = f"this cluster's {api.group_version}"
    notices = [
        Notice(annotations.ALTERNATIVES, f"no container asks for {first.name}")
        for first in alternatives
        if first not in wanted and not again and not is_default
    ]
    if ALTERNATIVES not in api.features and not alternatives.keys().isdisjoint(wanted):
        alternatives = {}
        if not is_default:  # the pod's author cannot change the default
            text = f"{this} has no alternatives; only the first is asked for"
            notices.append(Notice(annotations.ALTERNATIVES, text))
    slices = sum(held(each) for resource, each in wanted.items() if resource.profile)
    if placement and slices <= 1 and not again:
        what = "one MIG slice" if slices else "no MIG slice"
        text = f"{placement} is pointless for a pod of {what}"
        notices.append(Notice(annotations.PLACEMENT, text))
        placement = ""
    if placement and slices:
        if why := _no_placement(placement, slices, api, again):
            raise InvalidPod(forbidden(annotations.path(annotations.PLACEMENT), why))
        if not all(resource.profile for resource in wanted):
            text = "it applies only to MIG slices"
            notices.append(Notice(annotations.PLACEMENT, text))
    return Wishes(alternatives, placement, is_default), notices


def _no_placement(placement: str, slices: int, api: ResourceAPI, again: bool) -> str:
    """The reason why a placement cannot be kept, or ""."""
    if placement not in api.features:
        return f"this cluster's {api.group_version} cannot promise {placement}"
    if slices > api.max_devices:
        return f"{placement} takes one claim, of at most {api.max_devices} slices, not {slices}"
    if again:
        return "another webhook added a container with MIG limits after the slices were placed"
    return ""
