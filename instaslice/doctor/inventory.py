"""The devices that NVIDIA's DRA driver publishes, and those that the scheduler can allocate. Pure.

A driver publishes either the slices that exist on a GPU, or all that it can create. Each of the
latter names the shared counters of the GPU that it consumes (KEP-4815, partitionable devices). One
claim takes a device, unless the device may be shared. Claims with admin access take nothing. An
allocated device takes its counters from all others. The scheduler skips tainted devices and
incomplete pools.

Source: ResourceSlice of resource.k8s.io, v1alpha3 to v1; the scheduler's allocator
(dynamic-resource-allocation/structured, pools_stable.go).
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeVar

from instaslice.patch import Json
from instaslice.profiles import DRIVER
from instaslice.quantity import InvalidQuantity, nanos
from instaslice.resource_api import DIFFERENT_GPUS, SAME_GPU
from instaslice.templates import DeviceClaim

#: Effects of taints that keep claims away. InstaSlice's claims have no tolerations (DeviceTaint).
_KEEPS_AWAY: Final = frozenset({"NoSchedule", "NoExecute"})

#: A counter: pool, counter set, counter; or a device's name, and its capacity. Amounts are in
#: nano-units.
CounterName = tuple[str, ...]
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def dig(value: Json, *keys: str) -> Any:
    """The value at a path in an object; {} if it is missing, null or empty."""
    for key in keys:
        value = value.get(key) or {}
    return value


def grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """Group values by key; the keys keep their order."""
    found: dict[K, list[V]] = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return dict(found)


class DeviceName(NamedTuple):
    """The full name of a device, as in an allocation."""

    driver: str
    pool: str
    device: str


class Device:
    """A GPU, or a MIG slice that exists or could be created.

    listed: as in the spec of a ResourceSlice. rules: the specs of the DeviceTaintRules.
    """

    def __init__(self, listed: Json, spec: Json, rules: Iterable[Json]) -> None:
        body = listed.get("basic") or listed  # one level deeper in v1alpha3 and v1beta1
        pool, attributes = spec["pool"]["name"], dig(body, "attributes")
        uuid = _text(attributes, "uuid")
        self.name = DeviceName(DRIVER, pool, listed["name"])
        self.is_gpu = _text(attributes, "type") == "gpu"
        self.profile = _text(attributes, "profile")  #: as published, "1g.5gb+me"; or empty
        self.node: str = spec.get("nodeName") or body.get("nodeName") or ""  #: may be empty
        self.gpu = _text(attributes, "parentUUID") if self.profile else uuid  #: its GPU's UUID
        ruled = (dig(rule, "taint") for rule in rules if _selects(rule, self.name))
        taints = (*dig(body, "taints"), *ruled)
        away = (f"{t['key']}:{t['effect']}" for t in taints if t.get("effect") in _KEEPS_AWAY)
        self.taint = next(away, "")  #: "key:NoSchedule"; or empty
        self.is_usable = not self.taint  #: whether the scheduler considers it
        #: Whether several claims may have it (KEP-5075, consumable capacity).
        self.is_shared = body.get("allowMultipleAllocations") is True
        self.consumes: dict[CounterName, int] = {
            (pool, consumption.get("counterSet") or "", counter): _amount(amount)
            for consumption in dig(body, "consumesCounters")
            for counter, amount in dig(consumption, "counters").items()
        }
        capacity = dig(body, "capacity") if self.is_shared else {"": 1}
        #: The part of the device that claims can take: its capacity if it may be shared, else all.
        self.counters = {(*self.name, key): _amount(each) for key, each in capacity.items()}
        #: The part that a claim takes if it requests no amount.
        self.takes = {(*self.name, key): _amount(_default(each)) for key, each in capacity.items()}
        #: Whether the scheduler could allocate its part of the GPU twice. With the gate
        #: DRAPartitionableDevices off, the API server drops the counters of slices that could be
        #: created. An existing slice, which has its own UUID, needs none.
        self.may_overlap = bool(self.profile) and not uuid and not self.consumes


class Pool:
    """The newest generation of a driver's pool, which usually covers one node."""

    def __init__(self, name: str, specs: Iterable[Json], rules: Iterable[Json]) -> None:
        generations = grouped((int(spec["pool"].get("generation") or 0), spec) for spec in specs)
        newest = generations[max(generations)]
        self.name = name
        self.devices = [
            Device(each, spec, rules) for spec in newest for each in dig(spec, "devices")
        ]
        self.counters: dict[CounterName, int] = {
            (name, counters["name"], counter): _amount(amount)
            for spec in newest
            for counters in dig(spec, "sharedCounters")
            for counter, amount in dig(counters, "counters").items()
        }
        count = newest[0]["pool"].get("resourceSliceCount") or len(newest)
        self.problem = next(self._problems(len(newest), count), "")  #: why it is skipped, or empty
        for device in self.devices:
            device.is_usable = not self.problem and not device.taint

    def _problems(self, found: int, count: int) -> Iterator[str]:
        if found != count:
            yield f"{found} of its {count} ResourceSlices exist"
        if len({device.name for device in self.devices}) < len(self.devices):
            yield "two of its devices have the same name"
        for device in self.devices:
            for counter in device.consumes:
                if counter not in self.counters:
                    yield f"{device.name.device} consumes {counter[2]}, which no ResourceSlice has"


class Supply(NamedTuple):
    """Numbers of devices, mostly of one profile."""

    published: int
    free: int  #: how many pods could have now if none asks for another profile
    tainted: int = 0  #: how many of the published are tainted
    shared: int = 0  #: how many of the published several claims may have


class Inventory:
    """The driver's devices in a cluster, and which of them are free.

    slices, claims, rules: decoded ResourceSlices, ResourceClaims and DeviceTaintRules.
    """

    def __init__(
        self, slices: Iterable[Json], claims: Iterable[Json], rules: Iterable[Json] = ()
    ) -> None:
        selected = [dig(rule, "spec") for rule in rules]
        specs = [each["spec"] for each in slices if each["spec"].get("driver") == DRIVER]
        by_name = grouped((spec["pool"]["name"], spec) for spec in specs)
        self.pools = [Pool(name, found, selected) for name, found in by_name.items()]
        self.devices = [each for pool in self.pools for each in pool.devices]
        self._left: Counter[object] = Counter()
        counted = [pool.counters for pool in self.pools] + [each.counters for each in self.devices]
        for counters in counted:
            self._left.update(counters)
        devices = {device.name: device for device in self.devices}
        for name, result in (each for claim in claims for each in allocated(claim)):
            if name in devices and not result.get("adminAccess"):
                amounts = dig(result, "consumedCapacity").items()
                consumed = {(*name, key): _amount(amount) for key, amount in amounts}
                device = devices[name]
                self._left.subtract(consumed if result.get("shareID") else device.counters)
                self._left.subtract(device.consumes)
                device.consumes = {}  # another claim that shares it takes no more of the GPU

    @cached_property
    def nodes(self) -> set[str]:
        """The nodes for which MIG slices are published."""
        return {device.node for device in self.devices if device.profile and device.node}

    @cached_property
    def supply(self) -> dict[str, Supply]:
        """Published and free slices by profile, in the driver's spelling."""
        found = grouped((each.profile, each) for each in self.devices if each.profile)
        return {profile: self._supply(every) for profile, every in found.items()}

    def whole_gpus(self) -> Supply:
        """Published and free whole GPUs."""
        return self._supply([device for device in self.devices if device.is_gpu])

    def _supply(self, every: Sequence[Device]) -> Supply:
        left = Counter(self._left)
        return Supply(
            published=len(every),
            free=sum(_take(each, left) for each in every),
            tainted=sum(bool(device.taint) for device in every),
            shared=sum(device.is_shared for device in every),
        )

    def has_room(self, claim: DeviceClaim) -> bool:
        """Whether the free devices of one node, or GPU, can serve a claim for slices."""
        place = "gpu" if claim.placement == SAME_GPU else "node"
        places = grouped((getattr(each, place), each) for each in self.devices)
        wanted = [(each.profiles(self.supply), each.count) for each in claim.requests]
        # Trying every combination of alternatives would be slow. It is enough to try all first
        # choices together, all second ones, and so on, since most claims have one list of them.
        for index in range(max(len(names) for names, _ in wanted)):
            chosen = [(names[min(index, len(names) - 1)], count) for names, count in wanted]
            if any(self._serve(each, chosen, claim.placement) for each in places.values()):
                return True
        return False

    def _serve(
        self, devices: Iterable[Device], wanted: Iterable[tuple[str, int]], placement: str
    ) -> bool:
        """Whether devices can serve `wanted`, profiles with counts, together."""
        left, used = Counter(self._left), set()
        # The largest first: the gaps between them have room for small ones only.
        for profile, count in sorted(wanted, key=_compute_slices, reverse=True):
            for device in devices:
                fits = placement != DIFFERENT_GPUS or device.gpu not in used
                if count and device.profile == profile and fits and _take(device, left):
                    count -= 1
                    used.add(device.gpu)
            if count:
                return False
        return True


def _compute_slices(wanted: tuple[str, int]) -> int:
    return int(wanted[0].partition("g.")[0] or 0)


def _take(device: Device, left: Counter[object]) -> bool:
    """Subtract what a claim takes if the scheduler would allocate it; returns whether it would."""
    takes = device.consumes | device.takes
    if fits := device.is_usable and all(left[name] >= amount for name, amount in takes.items()):
        left.subtract(takes)
    return fits


def allocated(claim: Json) -> list[tuple[DeviceName, Json]]:
    """A claim's devices, each with its DeviceRequestAllocationResult."""
    results = dig(claim, "status", "allocation", "devices", "results")
    return [(DeviceName(each["driver"], each["pool"], each["device"]), each) for each in results]


def _text(attributes: Mapping[str, Json], name: str) -> str:
    value = attributes.get(name) or attributes.get(f"{DRIVER}/{name}") or {}
    return str(value.get("string") or "")


def _default(capacity: object) -> object:
    policy = dig(capacity, "requestPolicy") if isinstance(capacity, dict) else {}
    return policy.get("default") or capacity


def _selects(rule: Json, device: DeviceName) -> bool:
    """Whether a rule applies to a device; one without a selector applies to none."""
    selector, mine = rule.get("deviceSelector"), device._asdict().items()
    return selector is not None and all(selector.get(key) in (None, name) for key, name in mine)


def _amount(counter: object) -> int:
    """Nano-units of {"value": quantity}, or of a plain quantity as in v1alpha3; 0 if invalid."""
    try:
        return nanos(counter.get("value") if isinstance(counter, dict) else counter)
    except InvalidQuantity:
        return 0
