"""What is read off ResourceSlices."""

from typing import Any

import pytest

from instaslice.doctor import devices
from test.support import a100
from test.support.snapshots import slice_

Json = dict[str, Any]


def problem(*slices: Json) -> str:
    (pool,) = devices.pools(slices)
    return pool.problem


@pytest.mark.parametrize("basic", [False, True])
def test_devices_in_either_shape(basic: bool) -> None:
    (pool,) = devices.pools([slice_("1g.5gb", "1g.5gb+me", basic=basic)])
    assert [(d.name.device, d.profile, d.node) for d in pool.devices] == [
        ("mig-0", "1g.5gb", "node-1"),
        ("mig-1", "1g.5gb+me", "node-1"),
        ("gpu-0", "", "node-1"),
    ]


def test_attributes_may_be_qualified() -> None:
    slice__ = slice_("1g.5gb")
    attributes = slice__["spec"]["devices"][0]["attributes"]
    attributes["gpu.nvidia.com/profile"] = attributes.pop("profile")
    assert devices.pools([slice__])[0].devices[0].profile == "1g.5gb"


def test_only_the_newest_generation_of_a_pool_counts() -> None:
    slices = [slice_("1g.5gb"), slice_("2g.10gb", generation=2), slice_("7g.40gb", pool="node-2")]
    found = {pool.name: pool.devices[0].profile for pool in devices.pools(slices)}
    assert found == {"node-1": "2g.10gb", "node-2": "7g.40gb"}


def test_other_drivers_do_not_count() -> None:
    other = slice_("1g.5gb")
    other["spec"]["driver"] = "gpu.example.com"
    assert devices.pools([other]) == []


@pytest.mark.parametrize(
    ("slices", "overlap"),
    [
        (a100.resource_slices(), False),
        (a100.resource_slices(combined=True), False),
        (a100.static_slices("node-1", ("3g.20gb", 0), ("1g.5gb", 4)), False),
        (a100.resource_slices(counted=False), True),
    ],
    ids=["counted", "1.34", "static", "the counters were dropped"],
)
def test_slices_that_nothing_keeps_apart(slices: list[Json], overlap: bool) -> None:
    (pool,) = devices.pools(slices)
    assert {device.may_overlap for device in pool.devices} == {overlap}


def test_a_gpu_overlaps_with_nothing() -> None:
    gpu = a100.whole_gpu(0)
    del gpu["consumesCounters"]
    (pool,) = devices.pools([a100.resource_slice("node-1", 0, 1, devices=[gpu])])
    assert not pool.devices[0].may_overlap
    assert pool.devices[0].gpu == "GPU-00000000-0000-0000-0000-000000000000"


def test_pools_that_the_scheduler_takes_nothing_from() -> None:
    counters, first, second = a100.resource_slices()
    assert problem(counters, first, second) == ""
    assert problem(counters, first) == "2 of its 3 ResourceSlices are there"
    second["spec"]["devices"][0]["name"] = first["spec"]["devices"][0]["name"]
    assert problem(counters, first, second) == "two of its devices have one name"
    counters, first, second = a100.resource_slices()
    del counters["spec"]["sharedCounters"][1]
    assert problem(counters, first, second) == (
        "gpu-1-mig-1g10gb-15-0 consumes copy-engines, which no ResourceSlice has"
    )


def taint(effect: str) -> Json:
    return {"key": "gpu.nvidia.com/health", "value": "xid", "effect": effect}


@pytest.mark.parametrize(
    ("effect", "found"),
    [
        ("NoSchedule", "gpu.nvidia.com/health:NoSchedule"),
        ("NoExecute", "gpu.nvidia.com/health:NoExecute"),
        ("None", ""),
    ],
)
def test_taints_that_keep_claims_away(effect: str, found: str) -> None:
    slice__ = slice_("1g.5gb")
    slice__["spec"]["devices"][0]["taints"] = [taint("Other"), taint(effect)]
    assert devices.pools([slice__])[0].devices[0].taint == found


@pytest.mark.parametrize(
    ("spec", "tainted"),
    [
        ({"deviceSelector": {}}, 3),
        ({"deviceSelector": {"driver": "gpu.nvidia.com", "pool": "node-1"}}, 3),
        ({"deviceSelector": {"device": "mig-1"}}, 1),
        ({"deviceSelector": {"pool": "node-2"}}, 0),
        ({"deviceSelector": None}, 0),
        ({}, 0),
    ],
)
def test_taints_of_rules(spec: Json, tainted: int) -> None:
    rule = {"spec": {**spec, "taint": taint("NoExecute")}}
    (pool,) = devices.pools([slice_("1g.5gb", "1g.5gb")], [rule])
    assert sum(bool(device.taint) for device in pool.devices) == tainted


def test_amounts_that_are_none_are_nothing() -> None:
    counters, first, second = a100.resource_slices()
    counters["spec"]["sharedCounters"][0]["counters"]["memory"] = {"value": "much"}
    (pool,) = devices.pools([counters, first, second])
    assert pool.counters["node-1", "gpu-0-counter-set", "memory"] == 0


def test_an_amount_may_be_a_quantity_alone() -> None:
    """So it is in v1alpha3."""
    counters, first, second = a100.resource_slices()
    counters["spec"]["sharedCounters"][0]["counters"]["memory"] = "2k"
    (pool,) = devices.pools([counters, first, second])
    assert pool.counters["node-1", "gpu-0-counter-set", "memory"] == 2000 * 10**9
