"""Who holds which devices (R6): numbers in, groups of devices out. It knows no pod.

Theory of operation. Containers, and sidecars (init containers with restartPolicy Always; they start
in order and stay), run at the same time, so each has devices of its own. An ordinary init container
has ended before anything after it starts, so it can use the devices of all containers and of the
sidecars after it, though not of the sidecars before it. Only what it needs beyond those is extra,
and since ordinary init containers run one after the other, they all share the extras. Of each
resource the pod then holds

    max(containers + sidecars, max over ordinary init containers of (own + sidecars before it))

devices, which is what the scheduler and the device plugin count for an extended resource (KEP-753,
"resources calculation").

Put all these devices in a line: first those of containers, in order, then the extras, then those
of sidecars, the last sidecar first. What an ordinary init container may use is then always the
beginning of the line, and it uses as many from there as it needs. So the line is cut where an
owner's devices end, and where an init container's use ends. Between two cuts are devices that the
same containers use: a group, which becomes one claim. An owner's devices are in more than one group
only where an init container uses a part of them.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

Role = Literal["container", "sidecar", "init"]  #: "init": an ordinary init container


class Demand(NamedTuple):
    """A container that wants devices of a resource."""

    user: int  #: which container, in the order of the pod
    devices: int
    role: Role


class Group(NamedTuple):
    """Devices that the same containers use."""

    users: tuple[int, ...]  #: ascending
    devices: int


def held(demands: Sequence[Demand]) -> int:
    """How many devices of a resource the pod holds. demands: in the order of the pod."""
    # From the last to the first: sidecars before an init container are not free for it. Containers
    # come first in the pod, and are free for all.
    free = extras = 0
    for demand in demands:
        if demand.role == "container":
            free += demand.devices
    for demand in reversed(demands):
        if demand.role == "sidecar":
            free += demand.devices
        elif demand.role == "init":
            extras = max(extras, demand.devices - free)
    return free + extras


def groups(demands: Sequence[Demand], max_devices: int) -> list[Group]:
    """The groups in which the devices of a resource are held, in the order of the line.

    demands: in the order of the pod, at most one of a container.
    max_devices: that one group can hold; a larger one is cut.
    """
    by_role: dict[Role, list[Demand]] = {"container": [], "sidecar": [], "init": []}
    for demand in demands:
        by_role[demand.role].append(demand)
    owners, inits = by_role["container"], by_role["init"]
    sidecars = by_role["sidecar"][::-1]
    if not inits:  # as nearly always: nobody uses what another owns
        return [
            Group((d.user,), n) for d in owners + sidecars for n in _cut(d.devices, max_devices)
        ]
    extras = held(demands) - sum(owner.devices for owner in owners + sidecars)
    uses = sorted({init.devices for init in inits})
    found: list[Group] = []
    start = 0
    for owner in (*owners, Demand(-1, extras, "init"), *sidecars):
        last = start + owner.devices
        for end in (*[use for use in uses if start < use < last], last):
            users = [owner.user] if owner.user >= 0 else []
            users += [init.user for init in inits if init.devices > start]
            found += [Group(tuple(sorted(users)), n) for n in _cut(end - start, max_devices)]
            start = end
    return found


def _cut(devices: int, most: int) -> list[int]:
    """Devices in groups that are as large as may be."""
    whole, rest = divmod(devices, most)
    return [most] * whole + [rest] * (rest > 0)
