"""What NVIDIA's DRA driver publishes: devices, and the counters that they consume. Pure.

Source: ResourceSlice of resource.k8s.io, v1alpha3 to v1. A driver either lists the slices that a
GPU has been cut into, or all that it could be cut into, each saying which of the GPU's shared
counters it consumes (KEP-4815, partitionable devices). Which slices and devices count is what the
scheduler says of them (structured/internal/stable/pools_stable.go).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from instaslice.patch import Json
from instaslice.quantity import InvalidQuantity, nanos

DRIVER: Final = "gpu.nvidia.com"

#: Taints that keep claims without a toleration away, as those of InstaSlice are (DeviceTaint).
_KEEPS_AWAY: Final = frozenset({"NoSchedule", "NoExecute"})

#: A counter: pool, counter set, counter. Amounts are in nano-units.
CounterName = tuple[str, str, str]


class DeviceName(NamedTuple):
    """A device, as an allocation names it."""

    driver: str
    pool: str
    device: str


@dataclass(slots=True)
class Device:
    """A GPU, or a MIG slice that is there or could be made."""

    name: DeviceName
    kind: str  #: "mig", "gpu", ...
    profile: str  #: as the driver prints it, "1g.5gb+me"; empty for what is not a MIG slice
    node: str  #: empty where the slice names none
    gpu: str  #: the UUID of its GPU; empty where the driver does not say
    is_static: bool  #: somebody has cut it: it has a UUID of its own
    taint: str  #: the first that keeps claims away, "key:NoSchedule"; empty for none
    is_shared: bool  #: several claims may have it at once (KEP-5075, consumable capacity)
    consumes: dict[CounterName, int] = field(default_factory=dict)
    #: By capacity, what there is and what a claim takes that asks for no amount of it.
    capacity: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def may_overlap(self) -> bool:
        """Whether nothing keeps the scheduler from handing out its place twice.

        With the gate DRAPartitionableDevices off the API server drops the counters of slices that
        could be made. A slice that has been cut needs none.
        """
        return bool(self.profile) and not self.is_static and not self.consumes


@dataclass(slots=True)
class Pool:
    """The newest generation of a driver's devices under one name, mostly a node's."""

    name: str
    devices: list[Device] = field(default_factory=list)
    counters: dict[CounterName, int] = field(default_factory=dict)
    problem: str = ""  #: why the scheduler takes nothing from it; empty where it does


def pools(slices: Iterable[Json], rules: Iterable[Json] = ()) -> list[Pool]:
    """The driver's pools, in the order in which their first slices are listed.

    slices, rules: ResourceSlices and DeviceTaintRules, decoded.
    """
    by_name: dict[str, list[Json]] = defaultdict(list)
    for slice_ in slices:
        if slice_["spec"].get("driver") == DRIVER:
            by_name[slice_["spec"]["pool"]["name"]].append(slice_)
    selected = [rule.get("spec") or {} for rule in rules]
    return [_pool(name, found, selected) for name, found in by_name.items()]


def _pool(name: str, slices: list[Json], rules: list[Json]) -> Pool:
    newest = max(_generation(slice_) for slice_ in slices)
    current = [slice_ for slice_ in slices if _generation(slice_) == newest]
    pool = Pool(name)
    for slice_ in current:
        for counters in slice_["spec"].get("sharedCounters") or []:
            for counter, amount in (counters.get("counters") or {}).items():
                pool.counters[name, counters["name"], counter] = _amount(amount)
        pool.devices += _devices(name, slice_["spec"], rules)
    pool.problem = next(_problems(pool, current), "")
    return pool


def _generation(slice_: Json) -> int:
    return int(slice_["spec"]["pool"].get("generation") or 0)


def _problems(pool: Pool, slices: list[Json]) -> Iterator[str]:
    """Why the scheduler would take nothing from a pool."""
    count = slices[0]["spec"]["pool"].get("resourceSliceCount") or len(slices)
    if len(slices) != count:
        yield f"{len(slices)} of its {count} ResourceSlices are there"
    names = [device.name.device for device in pool.devices]
    if len(set(names)) < len(names):
        yield "two of its devices have one name"
    for device in pool.devices:
        for counter in device.consumes:
            if counter not in pool.counters:
                yield f"{device.name.device} consumes {counter[2]}, which no ResourceSlice has"


def _devices(pool: str, spec: Json, rules: list[Json]) -> Iterator[Device]:
    for device in spec.get("devices") or []:
        body = device.get("basic") or device  # v1alpha3 and v1beta1 have it one level deeper
        attributes = body.get("attributes") or {}
        kind, profile = _text(attributes, "type"), _text(attributes, "profile")
        uuid = _text(attributes, "uuid")
        is_mig = bool(profile)
        name = DeviceName(DRIVER, pool, device["name"])
        taints = [*(body.get("taints") or []), *_of_rules(name, rules)]
        yield Device(
            name=name,
            kind=kind or ("mig" if is_mig else ""),
            profile=profile,
            node=spec.get("nodeName") or body.get("nodeName") or "",
            gpu=_text(attributes, "parentUUID") if is_mig else uuid,
            is_static=is_mig and bool(uuid),
            taint=next(
                (f"{t['key']}:{t['effect']}" for t in taints if t.get("effect") in _KEEPS_AWAY), ""
            ),
            is_shared=body.get("allowMultipleAllocations") is True,
            consumes={
                (pool, consumption.get("counterSet") or "", counter): _amount(amount)
                for consumption in body.get("consumesCounters") or []
                for counter, amount in (consumption.get("counters") or {}).items()
            },
            capacity=dict(_capacity(body.get("capacity") or {})),
        )


def _text(attributes: Mapping[str, Json], name: str) -> str:
    value = attributes.get(name) or attributes.get(f"{DRIVER}/{name}") or {}
    return str(value.get("string") or "")


def _of_rules(name: DeviceName, rules: list[Json]) -> Iterator[Json]:
    """The taints that DeviceTaintRules put on a device; a rule without a selector has none."""
    for rule in rules:
        selector = rule.get("deviceSelector")
        if selector is not None and all(
            selector.get(key) in (None, mine)
            for key, mine in zip(("driver", "pool", "device"), name, strict=True)
        ):
            yield rule.get("taint") or {}


def _capacity(capacity: Mapping[str, object]) -> Iterator[tuple[str, tuple[int, int]]]:
    for name, found in capacity.items():
        whole = _amount(found)
        policy = found.get("requestPolicy") if isinstance(found, dict) else None
        default = (
            _amount({"value": policy["default"]}) if policy and policy.get("default") else whole
        )
        yield name, (whole, default)


def _amount(counter: object) -> int:
    """Nano-units of {"value": quantity}, or of the quantity alone, as v1alpha3 has it."""
    try:
        return nanos(counter.get("value") if isinstance(counter, dict) else counter)
    except InvalidQuantity:
        return 0
