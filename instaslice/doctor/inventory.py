"""The slices that NVIDIA's DRA driver publishes, and which the scheduler can allocate. Pure.

A driver either lists the slices that a GPU has been cut into, or all that it could be cut into,
each saying which of the GPU's shared counters it consumes (KEP-4815, partitionable devices). A
device is taken by one claim, unless it may be shared; what admin access was granted takes nothing;
counters that are consumed are gone for every other device; tainted devices and incomplete pools
are passed over.

Source: ResourceSlice of resource.k8s.io, v1alpha3 to v1; the scheduler's allocator
(dynamic-resource-allocation/structured, pools_stable.go).
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

from instaslice.patch import Json
from instaslice.quantity import InvalidQuantity, nanos
from instaslice.resources import DRIVER

#: Taints that keep claims without a toleration away, as those of InstaSlice are (DeviceTaint).
_KEEPS_AWAY: Final = frozenset({"NoSchedule", "NoExecute"})

#: A counter: pool, counter set, counter. Amounts are in nano-units.
CounterName = tuple[str, str, str]
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def dig(value: Json, *keys: str) -> Any:
    """What lies that deep in an object; something empty where it is missing, null or empty."""
    for key in keys:
        value = value.get(key) or {}
    return value


def grouped(pairs: Iterable[tuple[K, V]]) -> dict[K, list[V]]:
    """Values by their keys, in the order in which the keys came."""
    found: dict[K, list[V]] = defaultdict(list)
    for key, value in pairs:
        found[key].append(value)
    return dict(found)


class DeviceName(NamedTuple):
    """A device, as an allocation names it."""

    driver: str
    pool: str
    device: str


@dataclass(slots=True)
class Device:
    """A GPU, or a MIG slice that is there or could be made."""

    name: DeviceName
    is_gpu: bool
    profile: str  #: as the driver prints it, "1g.5gb+me"; empty for what is not a MIG slice
    node: str  #: empty where the slice names none
    gpu: str  #: the UUID of its GPU; empty where the driver does not say
    taint: str  #: the first that keeps claims away, "key:NoSchedule"; empty for none
    is_shared: bool  #: several claims may have it at once (KEP-5075, consumable capacity)
    consumes: dict[CounterName, int]
    capacity: Json  #: as it is published
    #: Whether nothing keeps the scheduler from handing out its place twice. With the gate
    #: DRAPartitionableDevices off the API server drops the counters of slices that could be made.
    #: A slice that somebody has cut, which has a UUID of its own, needs none.
    may_overlap: bool


@dataclass(slots=True)
class Pool:
    """The newest generation of a driver's devices under one name, mostly a node's."""

    name: str
    devices: list[Device]
    counters: dict[CounterName, int]
    problem: str = ""  #: why the scheduler takes nothing from it; empty where it does


class Supply(NamedTuple):
    """How many slices of a profile there are."""

    published: int
    free: int  #: that pods could have now, if no other profile were asked for
    tainted: int = 0  #: of those published
    shared: int = 0  #: of those published, for several claims at once


class Inventory:
    """The driver's devices in a cluster, and what is left of them.

    slices, claims, rules: ResourceSlices, ResourceClaims and DeviceTaintRules, decoded.
    """

    def __init__(
        self, slices: Iterable[Json], claims: Iterable[Json], rules: Iterable[Json] = ()
    ) -> None:
        selected = [rule.get("spec") or {} for rule in rules]
        specs = [each["spec"] for each in slices if each["spec"].get("driver") == DRIVER]
        by_name = grouped((spec["pool"]["name"], spec) for spec in specs)
        #: In the order in which their first slices are listed.
        self.pools = [_pool(name, found, selected) for name, found in by_name.items()]
        self.devices = [each for pool in self.pools for each in pool.devices]
        taken: set[DeviceName] = set()
        shares: dict[DeviceName, Counter[str]] = defaultdict(Counter)  # what is taken of them
        for name, result in (each for claim in claims for each in given(claim)):
            if result.get("shareID") and not result.get("adminAccess"):
                amounts = dig(result, "consumedCapacity").items()
                shares[name].update({key: _amount(amount) for key, amount in amounts})
            elif not result.get("adminAccess"):
                taken.add(name)
        self._left: Counter[object] = Counter()
        for pool in self.pools:
            self._left.update(pool.counters)
        for device in self.devices:
            if device.name in taken or device.name in shares:
                self._left.subtract(device.consumes)
                device.consumes = {}  # who shares it, too, takes no more of them
        #: Those that the scheduler would look at for one more claim.
        self._usable = {
            device.name: device
            for pool in self.pools
            if not pool.problem
            for device in pool.devices
            if not device.taint and device.name not in taken
            if _has_room(device, shares.get(device.name, {}))
        }

    def nodes(self) -> set[str]:
        """The nodes for which MIG slices are published."""
        return {device.node for device in self.devices if device.profile and device.node}

    @cached_property
    def supply(self) -> dict[str, Supply]:
        """Published and free slices by profile, as the driver prints it."""
        found = grouped((each.profile, each) for each in self.devices if each.profile)
        return {profile: self._supply(every) for profile, every in found.items()}

    def whole(self) -> Supply:
        """Published and free GPUs that are not cut."""
        return self._supply([device for device in self.devices if device.is_gpu])

    def _supply(self, every: Sequence[Device]) -> Supply:
        left = Counter(self._left)
        return Supply(
            published=len(every),
            free=sum(_take(each, left) for each in every if each.name in self._usable),
            tainted=sum(bool(device.taint) for device in every),
            shared=sum(device.is_shared for device in every),
        )

    def most(self, wanted: Iterable[tuple[str, int]], *, on_one_gpu: bool = False) -> int:
        """How many of `wanted`, profiles with a count, the best node or GPU could have at once."""
        usable = self._usable.values()
        by_place = grouped((each.gpu if on_one_gpu else each.node, each) for each in usable)
        # The largest first: what is left between them has room for small ones only.
        ordered = sorted(wanted, key=lambda one: int(one[0].partition("g.")[0] or 0), reverse=True)
        return max((self._fit(devices, ordered) for devices in by_place.values()), default=0)

    def _fit(self, devices: list[Device], wanted: Iterable[tuple[str, int]]) -> int:
        """How many of `wanted` fit beside one another."""
        left, count = Counter(self._left), 0
        for profile, most in wanted:
            taken = (each for each in devices if each.profile == profile and _take(each, left))
            count += sum(1 for _ in islice(taken, most))
        return count

    def gpus_with(self, profile: str) -> int:
        """How many GPUs have a free slice of a profile."""
        usable = (each for each in self._usable.values() if each.profile == profile)
        return len({each.gpu for each in usable if _fits(each, self._left)})


def _fits(device: Device, left: Mapping[object, int]) -> bool:
    return all(left[name] >= amount for name, amount in device.consumes.items())


def _take(device: Device, left: Counter[object]) -> bool:
    """Take a device's counters, if there is enough of each."""
    if fits := _fits(device, left):
        left.subtract(device.consumes)
    return fits


def _has_room(device: Device, consumed: Mapping[str, int]) -> bool:
    """Whether a shared device has capacity left for a claim that names no amount."""
    for name, found in device.capacity.items() if device.is_shared else ():
        default = dig(found, "requestPolicy", "default") if isinstance(found, dict) else None
        if _amount(found) - consumed.get(name, 0) < _amount(default or found):
            return False
    return True


def given(claim: Json) -> list[tuple[DeviceName, Json]]:
    """The devices that a claim has been given, and how (DeviceRequestAllocationResult)."""
    results = dig(claim, "status", "allocation", "devices", "results")
    return [(DeviceName(each["driver"], each["pool"], each["device"]), each) for each in results]


def _pool(name: str, specs: list[Json], rules: list[Json]) -> Pool:
    generations = grouped((int(spec["pool"].get("generation") or 0), spec) for spec in specs)
    current = generations[max(generations)]
    counters = {
        (name, counters["name"], counter): _amount(amount)
        for spec in current
        for counters in dig(spec, "sharedCounters")
        for counter, amount in dig(counters, "counters").items()
    }
    pool = Pool(name, [each for spec in current for each in _devices(name, spec, rules)], counters)
    count = current[0]["pool"].get("resourceSliceCount") or len(current)
    pool.problem = next(_problems(pool, len(current), count), "")
    return pool


def _problems(pool: Pool, found: int, count: int) -> Iterator[str]:
    """Why the scheduler would take nothing from a pool."""
    if found != count:
        yield f"{found} of its {count} ResourceSlices are there"
    if len({device.name for device in pool.devices}) < len(pool.devices):
        yield "two of its devices have one name"
    for device in pool.devices:
        for counter in device.consumes:
            if counter not in pool.counters:
                yield f"{device.name.device} consumes {counter[2]}, which no ResourceSlice has"


def _devices(pool: str, spec: Json, rules: list[Json]) -> Iterator[Device]:
    for device in dig(spec, "devices"):
        body = device.get("basic") or device  # v1alpha3 and v1beta1 have it one level deeper
        attributes = body.get("attributes") or {}
        profile, uuid = _text(attributes, "profile"), _text(attributes, "uuid")
        name = DeviceName(DRIVER, pool, device["name"])
        taints = [*dig(body, "taints"), *_of_rules(name, rules)]
        away = (f"{t['key']}:{t['effect']}" for t in taints if t.get("effect") in _KEEPS_AWAY)
        consumes = {
            (pool, consumption.get("counterSet") or "", counter): _amount(amount)
            for consumption in dig(body, "consumesCounters")
            for counter, amount in dig(consumption, "counters").items()
        }
        yield Device(
            name=name,
            is_gpu=_text(attributes, "type") == "gpu",
            profile=profile,
            node=spec.get("nodeName") or body.get("nodeName") or "",
            gpu=_text(attributes, "parentUUID") if profile else uuid,
            taint=next(away, ""),
            is_shared=body.get("allowMultipleAllocations") is True,
            consumes=consumes,
            capacity=dig(body, "capacity"),
            may_overlap=bool(profile) and not uuid and not consumes,
        )


def _text(attributes: Mapping[str, Json], name: str) -> str:
    value = attributes.get(name) or attributes.get(f"{DRIVER}/{name}") or {}
    return str(value.get("string") or "")


def _of_rules(name: DeviceName, rules: list[Json]) -> Iterator[Json]:
    """The taints that DeviceTaintRules put on a device; a rule without a selector has none."""
    for rule in rules:
        selector = rule.get("deviceSelector")
        if selector is not None and all(
            selector.get(key) in (None, mine) for key, mine in name._asdict().items()
        ):
            yield rule.get("taint") or {}


def _amount(counter: object) -> int:
    """Nano-units of {"value": quantity}, or of the quantity alone, as v1alpha3 has it."""
    try:
        return nanos(counter.get("value") if isinstance(counter, dict) else counter)
    except InvalidQuantity:
        return 0
