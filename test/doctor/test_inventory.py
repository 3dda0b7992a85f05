"""What is free, as the scheduler counts. `test/e2e` compares it with a real scheduler."""

from typing import Any

import pytest

from instaslice.doctor.devices import DeviceName
from instaslice.doctor.inventory import Given, Inventory, Supply, given
from test.support import a100
from test.support.snapshots import claim, slice_

Json = dict[str, Any]


def free(slices: list[Json], *claims: Json, rules: list[Json] | None = None) -> dict[str, int]:
    supply = Inventory(slices, claims, rules or []).supply()
    return {profile: found.free for profile, found in supply.items()}


def test_slices_that_are_there() -> None:
    slices = [slice_("1g.5gb", "1g.5gb", "3g.20gb"), slice_("1g.5gb", pool="node-2")]
    claims = [claim("mig-0"), claim("mig-0", driver="other"), {}, {"status": {"allocation": {}}}]
    inventory = Inventory(slices, claims)
    assert inventory.supply() == {"1g.5gb": Supply(3, 2), "3g.20gb": Supply(1, 1)}
    assert inventory.nodes() == {"node-1", "node-2"}
    assert inventory.whole() == Supply(2, 2)


def test_what_claims_were_given() -> None:
    taken = claim("a", "b")
    taken["status"]["allocation"]["devices"]["results"][0]["request"] = "mig/1g-5gb"
    first, second = (DeviceName("gpu.nvidia.com", "node-1", name) for name in "ab")
    assert given(taken) == [Given(first, "mig/1g-5gb"), Given(second, "")]


@pytest.mark.parametrize("combined", [False, True])
def test_what_two_gpus_could_be_cut_into(combined: bool) -> None:
    slices = a100.resource_slices(combined=combined)
    assert free(slices) == {profile: 2 * count for profile, count in a100.ROOM.items()}


def test_what_overlaps_is_free_no_more() -> None:
    taken = claim("gpu-0-mig-3g20gb-9-0", "gpu-1-mig-1g5gb-me-20-3")
    assert free(a100.resource_slices(), taken) == {
        "1g.5gb": 3 + 6,  # of seven, three lie beside memory slices 0 to 3
        "1g.5gb+me": 1 + 0,
        "1g.10gb": 2 + 3,
        "2g.10gb": 1 + 2,
        "3g.20gb": 1 + 1,
        "4g.20gb": 0,
        "7g.40gb": 0,
    }


def with_whole_gpus() -> list[Json]:
    counters, *others = a100.resource_slices()
    for gpu, slice__ in enumerate(others):
        slice__["spec"]["devices"].insert(0, a100.whole_gpu(gpu))
    return [counters, *others]


def test_a_whole_gpu_and_its_slices_exclude_one_another() -> None:
    slices = with_whole_gpus()
    taken = free(slices, claim("gpu-1"))
    assert taken == a100.ROOM
    assert Inventory(slices, [claim("gpu-1")]).whole() == Supply(2, 1)
    assert Inventory(slices, [claim("gpu-1-mig-1g5gb-19-0")]).whole() == Supply(2, 1)


def test_admin_access_takes_nothing() -> None:
    watching = claim("gpu-0-mig-7g40gb-0-0")
    watching["status"]["allocation"]["devices"]["results"][0]["adminAccess"] = True
    assert free(a100.resource_slices(), watching) == free(a100.resource_slices())


def test_what_is_tainted_is_not_free() -> None:
    slices = a100.resource_slices(gpus=1)
    (device,) = (d for d in slices[1]["spec"]["devices"] if d["name"] == "gpu-0-mig-4g20gb-5-0")
    device["taints"] = [{"key": "x", "effect": "NoExecute"}]
    assert Inventory(slices, []).supply()["4g.20gb"] == Supply(1, 0, tainted=1)
    every = {"deviceSelector": {}, "taint": {"key": "x", "effect": "NoSchedule"}}
    assert set(free(slices, rules=[{"spec": every}]).values()) == {0}


def test_an_incomplete_pool_gives_nothing() -> None:
    counters, first, _ = a100.resource_slices()
    assert set(free([counters, first]).values()) == {0}
    whole = Inventory([counters, first], []).supply()
    assert whole["7g.40gb"] == Supply(1, 0)


def shared(*consumed: str, default: str | None = "10Gi") -> Inventory:
    """A slice that claims share by its memory of 20Gi, and what they have of it."""
    counters, slice__ = a100.resource_slices(gpus=1)
    policy = {"requestPolicy": {"default": default}} if default else {}
    (device,) = (d for d in slice__["spec"]["devices"] if d["name"] == "gpu-0-mig-3g20gb-9-0")
    device |= {
        "allowMultipleAllocations": True,
        "capacity": {"memory": {"value": "20Gi", **policy}},
    }
    claims: list[Json] = []
    for amount in consumed:
        one = claim("gpu-0-mig-3g20gb-9-0")
        more = {"shareID": f"s-{len(claims)}", "consumedCapacity": {"memory": amount}}
        one["status"]["allocation"]["devices"]["results"][0] |= more
        claims.append(one)
    return Inventory([counters, slice__], claims)


@pytest.mark.parametrize(
    ("consumed", "default", "left"),
    [
        ((), "10Gi", 2),
        (("10Gi",), "10Gi", 2),  # room for one more, and the other place
        (("10Gi", "10Gi"), "10Gi", 1),
        (("5Gi",), "16Gi", 1),
        (("1Gi",), None, 1),  # without a policy a claim takes all of it
    ],
)
def test_shared_slices(consumed: tuple[str, ...], default: str | None, left: int) -> None:
    supply = shared(*consumed, default=default).supply()
    assert supply["3g.20gb"] == Supply(2, left, shared=1)
    # Shared or not, its place is taken as soon as somebody has it.
    assert supply["4g.20gb"].free == (0 if consumed else 1)


def test_together_on_one_gpu() -> None:
    inventory = Inventory(a100.resource_slices(), [claim("gpu-0-mig-4g20gb-5-0")])
    assert inventory.most_on_one_gpu([("1g.5gb", 7)]) == 7
    assert inventory.most_on_one_gpu([("1g.5gb", 8)]) == 7
    assert inventory.most_on_one_gpu([("4g.20gb", 1), ("3g.20gb", 1)]) == 2
    assert inventory.most_on_one_node([("1g.5gb", 20)]) == 3 + 7
    assert inventory.gpus_with("4g.20gb") == 1
    assert inventory.gpus_with("1g.5gb") == 2
    nothing = Inventory([], [])
    assert (nothing.most_on_one_gpu([("1g.5gb", 1)]), nothing.gpus_with("1g.5gb")) == (0, 0)
