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
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Demand:
    """A container that wants devices of a resource."""

    user: int  #: which container, in the order of the pod
    count: int
    #: Its place among the init containers; None for a container.
    init: int | None = None
    is_sidecar: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Devices that the same containers use."""

    users: tuple[int, ...]  #: the owner first, if it is not an extra; ascending after it
    count: int


def held(demands: Sequence[Demand]) -> int:
    """How many devices of a resource the pod holds."""
    lasting = sum(d.count for d in demands if d.init is None or d.is_sidecar)
    return lasting + _extras(demands)


def groups(demands: Sequence[Demand], max_devices: int) -> list[Group]:
    """The groups in which the devices of a resource are held, in the order of the line.

    demands: in the order of the pod, at most one of a container.
    max_devices: that one group can hold; a larger one is cut.
    """
    owners: list[tuple[int | None, int]] = [(d.user, d.count) for d in demands if d.init is None]
    owners.append((None, _extras(demands)))
    owners += [(d.user, d.count) for d in reversed(demands) if d.is_sidecar]
    inits = [d for d in demands if _is_ordinary(d)]
    uses = sorted({d.count for d in inits})
    found: list[Group] = []
    start = 0
    for owner, count in owners:
        end = start + count
        cuts = [start, *(use for use in uses if start < use < end), end]
        for low, high in pairwise(cuts):
            users = [d.user for d in inits if d.count > low]
            if owner is not None:
                users.insert(0, owner)
            sizes = [max_devices] * ((high - low) // max_devices)
            if rest := (high - low) % max_devices:
                sizes.append(rest)
            found += [Group(tuple(users), size) for size in sizes]
        start = end
    return found


def _is_ordinary(demand: Demand) -> bool:
    return demand.init is not None and not demand.is_sidecar


def _extras(demands: Sequence[Demand]) -> int:
    """What ordinary init containers need beyond the devices of containers and later sidecars."""
    usable = sum(d.count for d in demands if d.init is None)
    extras = 0
    # From the last init container to the first, so that sidecars after it are known.
    for demand in reversed(demands):
        if demand.is_sidecar:
            usable += demand.count
        elif _is_ordinary(demand):
            extras = max(extras, demand.count - usable)
    return extras
