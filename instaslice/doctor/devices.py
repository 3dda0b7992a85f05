"""What NVIDIA's DRA driver publishes and what of it is free, by MIG profile. Pure.

Source: ResourceSlice and ResourceClaim of resource.k8s.io, v1alpha3 to v1. A driver either lists
the slices that a GPU has been cut into, or all that it could be cut into, each saying which of the
GPU's shared counters it consumes (KEP-4815, partitionable devices).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from instaslice.patch import Json
from instaslice.quantity import InvalidQuantity, nanos

DRIVER: Final = "gpu.nvidia.com"

#: A counter: driver, pool, counter set, counter.
_CounterName = tuple[str, str, str, str]


class DeviceName(NamedTuple):
    """A device, as an allocation names it."""

    driver: str
    pool: str
    device: str


@dataclass(slots=True)
class Device:
    """A MIG slice that is, or could be made."""

    name: DeviceName
    profile: str  #: as the driver prints it, "1g.5gb+me"
    node: str  #: empty where the slice names none
    consumes: dict[_CounterName, int] = field(default_factory=dict)  #: in nano-units


class Supply(NamedTuple):
    """How many slices of a profile there are."""

    published: int
    free: int  #: that pods could have now, if no other profile were asked for


def supply(slices: Iterable[Json], claims: Iterable[Json]) -> dict[str, Supply]:
    """Published and free slices by profile.

    slices, claims: ResourceSlices and ResourceClaims, decoded. Devices that could be made of the
    same part of a GPU are each published, but free is what fits beside one another.
    """
    slices = list(_newest(slices))
    every = [device for slice_ in slices for device in _devices(slice_)]
    mig = [device for device in every if device.profile]
    taken = allocated(claims)
    left = Counter(dict(_counters(slices)))
    for device in every:
        if device.name in taken:
            left.subtract(device.consumes)
    found = {}
    for profile in dict.fromkeys(device.profile for device in mig):
        here = Counter(left)
        free = 0
        for device in mig:
            fits = all(here[name] >= amount for name, amount in device.consumes.items())
            if device.profile == profile and device.name not in taken and fits:
                here.subtract(device.consumes)
                free += 1
        found[profile] = Supply(sum(device.profile == profile for device in mig), free)
    return found


def nodes(slices: Iterable[Json]) -> set[str]:
    """The nodes for which MIG slices are published."""
    found = (device for slice_ in _newest(slices) for device in _devices(slice_))
    return {device.node for device in found if device.profile and device.node}


def allocated(claims: Iterable[Json]) -> set[DeviceName]:
    """The devices that claims have been given."""
    return {device for claim in claims for device in given(claim)}


def given(claim: Json) -> list[DeviceName]:
    """The devices that a claim has been given."""
    allocation = (claim.get("status") or {}).get("allocation") or {}
    results = (allocation.get("devices") or {}).get("results") or []
    return [DeviceName(r["driver"], r["pool"], r["device"]) for r in results]


def _newest(slices: Iterable[Json]) -> Iterator[Json]:
    """The slices of each pool's newest generation; older ones are about to go."""
    slices = [slice_ for slice_ in slices if slice_["spec"].get("driver") == DRIVER]
    newest: Counter[str] = Counter()
    for slice_ in slices:
        pool = slice_["spec"]["pool"]
        newest[pool["name"]] = max(newest[pool["name"]], pool.get("generation") or 0)
    for slice_ in slices:
        pool = slice_["spec"]["pool"]
        if (pool.get("generation") or 0) == newest[pool["name"]]:
            yield slice_


def _devices(slice_: Json) -> Iterator[Device]:
    spec = slice_["spec"]
    pool = spec["pool"]["name"]
    for device in spec.get("devices") or []:
        body = device.get("basic") or device  # v1alpha3 and v1beta1 have it one level deeper
        attributes = body.get("attributes") or {}
        profile = attributes.get("profile") or attributes.get(f"{DRIVER}/profile") or {}
        yield Device(
            DeviceName(DRIVER, pool, device["name"]),
            profile.get("string") or "",
            spec.get("nodeName") or body.get("nodeName") or "",
            {
                (DRIVER, pool, consumption["counterSet"], name): _amount(counter)
                for consumption in body.get("consumesCounters") or []
                for name, counter in (consumption.get("counters") or {}).items()
            },
        )


def _counters(slices: Iterable[Json]) -> Iterator[tuple[_CounterName, int]]:
    for slice_ in slices:
        spec = slice_["spec"]
        for counters in spec.get("sharedCounters") or []:
            for name, counter in (counters.get("counters") or {}).items():
                yield (DRIVER, spec["pool"]["name"], counters["name"], name), _amount(counter)


def _amount(counter: Json) -> int:
    try:
        return nanos(counter.get("value"))
    except InvalidQuantity:
        return 0
