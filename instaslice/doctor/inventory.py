"""What of a driver's devices is free, counted as the scheduler allocates. Pure.

Source: the scheduler's allocator (dynamic-resource-allocation/structured): a device is taken by
one claim, unless it may be shared; what admin access was granted takes nothing; counters that are
consumed are gone for every other device; tainted devices and incomplete pools are passed over.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from instaslice.doctor.devices import Device, DeviceName, Pool, pools
from instaslice.patch import Json
from instaslice.quantity import InvalidQuantity, nanos


class Supply(NamedTuple):
    """How many slices of a profile there are."""

    published: int
    free: int  #: that pods could have now, if no other profile were asked for
    tainted: int = 0  #: of those published
    shared: int = 0  #: of those published, for several claims at once


class Given(NamedTuple):
    """A device that a claim has been given."""

    name: DeviceName
    request: str  #: "mig-1g-5gb", or "request/subrequest" of a list of alternatives


class Inventory:
    """The devices of a cluster, and what is left of them.

    slices, claims, rules: ResourceSlices, ResourceClaims and DeviceTaintRules, decoded.
    """

    def __init__(
        self, slices: Iterable[Json], claims: Iterable[Json], rules: Iterable[Json] = ()
    ) -> None:
        self.pools: list[Pool] = pools(slices, rules)
        self._taken, self._consumed = _allocated(claims)
        self._left: Counter[object] = Counter()
        for pool in self.pools:
            self._left.update(pool.counters)
        for device in self.devices:
            if device.name in self._taken or device.name in self._consumed:
                self._left.subtract(device.consumes)

    @property
    def devices(self) -> Iterator[Device]:
        """Every device that is published."""
        for pool in self.pools:
            yield from pool.devices

    def nodes(self) -> set[str]:
        """The nodes for which MIG slices are published."""
        return {device.node for device in self.devices if device.profile and device.node}

    def supply(self) -> dict[str, Supply]:
        """Published and free slices by profile, as the driver prints it."""
        found: dict[str, list[Device]] = defaultdict(list)
        for device in self.devices:
            if device.profile:
                found[device.profile].append(device)
        usable = list(self._usable())
        return {
            profile: Supply(
                published=len(every),
                free=self._fitting(usable, profile, Counter(self._left), len(every)),
                tainted=sum(bool(device.taint) for device in every),
                shared=sum(device.is_shared for device in every),
            )
            for profile, every in found.items()
        }

    def whole(self, kind: str = "gpu") -> Supply:
        """Published and free devices of another kind than MIG slices."""
        every = [device for device in self.devices if device.kind == kind]
        left, free = Counter(self._left), 0
        for device in self._usable():
            if device.kind == kind and self._take(device, left):
                free += 1
        tainted = sum(bool(device.taint) for device in every)
        return Supply(len(every), free, tainted, sum(device.is_shared for device in every))

    def most_on_one_gpu(self, wanted: Sequence[tuple[str, int]]) -> int:
        """How many of `wanted`, profiles with a count, the best GPU could have at once."""
        return self._most(wanted, lambda device: device.gpu)

    def most_on_one_node(self, wanted: Sequence[tuple[str, int]]) -> int:
        """Likewise of a node; a claim's devices are all of one."""
        return self._most(wanted, lambda device: device.node)

    def _most(self, wanted: Sequence[tuple[str, int]], place: Callable[[Device], str]) -> int:
        by_place: dict[str, list[Device]] = defaultdict(list)
        for device in self._usable():
            by_place[place(device)].append(device)
        # The largest first: what is left between them has room for small ones only.
        ordered = sorted(wanted, key=lambda one: int(one[0].partition("g.")[0] or 0), reverse=True)
        return max((self._fit(devices, ordered) for devices in by_place.values()), default=0)

    def gpus_with(self, profile: str) -> int:
        """How many GPUs have a free slice of a profile."""
        left = Counter(self._left)
        usable = [device for device in self._usable() if device.profile == profile]
        return len({device.gpu for device in usable if self._fits(device, left)})

    def _fit(self, devices: list[Device], wanted: Sequence[tuple[str, int]]) -> int:
        left = Counter(self._left)
        return sum(self._fitting(devices, profile, left, count) for profile, count in wanted)

    def _fitting(
        self, devices: Iterable[Device], profile: str, left: Counter[object], most: int
    ) -> int:
        """How many of a profile fit beside one another, at most `most`; takes them from `left`."""
        count = 0
        for device in devices:
            if count < most and device.profile == profile and self._take(device, left):
                count += 1
        return count

    def _take(self, device: Device, left: Counter[object]) -> bool:
        """Take a device's counters, if there is enough of each."""
        fits = self._fits(device, left)
        if fits and device.name not in self._consumed:
            left.subtract(device.consumes)
        return fits

    def _fits(self, device: Device, left: Counter[object]) -> bool:
        # Those of a shared device that somebody has were taken with the first claim.
        return device.name in self._consumed or all(
            left[name] >= amount for name, amount in device.consumes.items()
        )

    def _usable(self) -> Iterator[Device]:
        """Devices that the scheduler would look at for one more claim."""
        for pool in self.pools:
            for device in () if pool.problem else pool.devices:
                if not device.taint and device.name not in self._taken and self._has_room(device):
                    yield device

    def _has_room(self, device: Device) -> bool:
        """Whether a shared device has capacity left for a claim that names no amount."""
        consumed: Mapping[str, int] = self._consumed.get(device.name, {})
        return all(
            whole - consumed.get(name, 0) >= default
            for name, (whole, default) in (device.capacity if device.is_shared else {}).items()
        )


def given(claim: Json) -> list[Given]:
    """The devices that a claim has been given."""
    return [
        Given(DeviceName(r["driver"], r["pool"], r["device"]), str(r.get("request") or ""))
        for r in _results(claim)
    ]


def _results(claim: Json) -> list[Json]:
    allocation = (claim.get("status") or {}).get("allocation") or {}
    return (allocation.get("devices") or {}).get("results") or []


def _allocated(
    claims: Iterable[Json],
) -> tuple[set[DeviceName], dict[DeviceName, Counter[str]]]:
    """The devices that are taken whole, and what is consumed of shared ones."""
    taken: set[DeviceName] = set()
    consumed: dict[DeviceName, Counter[str]] = {}
    for claim in claims:
        for result in _results(claim):
            if result.get("adminAccess"):
                continue
            name = DeviceName(result["driver"], result["pool"], result["device"])
            if not result.get("shareID"):
                taken.add(name)
                continue
            mine = consumed.setdefault(name, Counter())
            for capacity, amount in (result.get("consumedCapacity") or {}).items():
                try:
                    mine[capacity] += nanos(amount)
                except InvalidQuantity:
                    continue
    return taken, consumed
