"""The free devices, as the scheduler counts them. `test/e2e` compares with a real scheduler."""

import pytest

from instaslice.doctor.inventory import Inventory, Pool, Supply
from instaslice.resources import MIG
from instaslice.templates import from_template
from test.support import a100
from test.support.snapshots import Json, claim, slice_


def pools(slices: list[Json], *rules: Json) -> list[Pool]:
    return Inventory(slices, [], rules).pools


def free(slices: list[Json], *claims: Json) -> dict[str, int]:
    return {profile: found.free for profile, found in Inventory(slices, claims).supply.items()}


def test_existing_slices() -> None:
    slices = [slice_("1g.5gb", "1g.5gb", "3g.20gb"), slice_("1g.5gb", pool="node-2")]
    claims = [claim("mig-0"), claim("mig-0", driver="other"), {}, {"status": {"allocation": {}}}]
    inventory = Inventory(slices, claims)
    assert inventory.supply == {"1g.5gb": Supply(3, 2), "3g.20gb": Supply(1, 1)}
    assert inventory.nodes == {"node-1", "node-2"}
    assert inventory.whole_gpus() == Supply(2, 2)


@pytest.mark.parametrize("combined", [False, True])
def test_slices_that_two_gpus_have_room_for(combined: bool) -> None:
    slices = a100.resource_slices(combined=combined)
    assert free(slices) == {profile: 2 * count for profile, count in a100.ROOM.items()}


def test_slices_that_overlap_an_allocated_one_are_not_free() -> None:
    taken = claim("gpu-0-mig-3g20gb-9-0", "gpu-1-mig-1g5gb-me-20-3")
    assert free(a100.resource_slices(), taken) == {
        "1g.5gb": 3 + 6,  # of seven, three are outside memory slices 0 to 3
        "1g.5gb+me": 1 + 0,
        "1g.10gb": 2 + 3,
        "2g.10gb": 1 + 2,
        "3g.20gb": 1 + 1,
        "4g.20gb": 0,
        "7g.40gb": 0,
    }


def test_a_whole_gpu_and_its_slices_exclude_one_another() -> None:
    slices = a100.resource_slices()
    for gpu, slice__ in enumerate(slices[1:]):
        slice__["spec"]["devices"].insert(0, a100.whole_gpu(gpu))
    assert free(slices, claim("gpu-1")) == a100.ROOM
    assert Inventory(slices, [claim("gpu-1")]).whole_gpus() == Supply(2, 1)
    assert Inventory(slices, [claim("gpu-1-mig-1g5gb-19-0")]).whole_gpus() == Supply(2, 1)


def test_admin_access_takes_nothing() -> None:
    watching = claim("gpu-0-mig-7g40gb-0-0")
    watching["status"]["allocation"]["devices"]["results"][0]["adminAccess"] = True
    assert free(a100.resource_slices(), watching) == free(a100.resource_slices())


@pytest.mark.parametrize(
    ("consumed", "default", "left"),
    [
        ((), "10Gi", 2),
        (("10Gi",), "10Gi", 2),  # one more claim fits, and the other placement is free
        (("10Gi", "10Gi"), "10Gi", 1),
        (("5Gi",), "16Gi", 1),
        (("1Gi",), None, 1),  # without a policy, a claim takes all of it
    ],
)
def test_shared_slices(consumed: tuple[str, ...], default: str | None, left: int) -> None:
    """Two slices of which one has 20Gi of shared memory. consumed: the amount of each claim."""
    counters, slice__ = a100.resource_slices(models=[a100.A100])
    policy = {"requestPolicy": {"default": default}} if default else {}
    (device,) = (d for d in slice__["spec"]["devices"] if d["name"] == "gpu-0-mig-3g20gb-9-0")
    memory = {"value": "20Gi", **policy}
    device |= {"allowMultipleAllocations": True, "capacity": {"memory": memory}}
    claims = [claim("gpu-0-mig-3g20gb-9-0") for _ in consumed]
    for number, (one, amount) in enumerate(zip(claims, consumed, strict=True)):
        more = {"shareID": f"s-{number}", "consumedCapacity": {"memory": amount}}
        one["status"]["allocation"]["devices"]["results"][0] |= more
    supply = Inventory([counters, slice__], claims).supply
    assert supply["3g.20gb"] == Supply(2, left, shared=1)
    # Even a shared slice occupies its part of the GPU once a claim has it.
    assert supply["4g.20gb"].free == (0 if consumed else 1)


@pytest.mark.parametrize(
    ("name", "has_room"),
    [
        *(("mig-1g.5gb.x10", True), ("mig-1g.5gb.x11", False)),  # 3 + 7
        *(("same-gpu-mig-1g.5gb.x7", True), ("same-gpu-mig-1g.5gb.x8", False)),
        ("same-gpu-mig-4g.20gb-and-mig-3g.20gb", True),
        ("same-gpu-mig-4g.20gb-and-mig-4g.20gb", False),
        *(("different-gpus-mig-1g.5gb.x2", True), ("different-gpus-mig-4g.20gb.x2", False)),
        *(("mig-4g.20gb-or-3g.20gb.x3", True), ("mig-7g.40gb-or-4g.20gb.x2", False)),
    ],
)
def test_room_for_a_claim_beside_a_slice_of_one_gpu(name: str, has_room: bool) -> None:
    asks = from_template(name, MIG)
    assert asks
    inventory = Inventory(a100.resource_slices(), [claim("gpu-0-mig-4g20gb-5-0")])
    assert inventory.has_room(asks) is has_room
    assert not Inventory([], []).has_room(asks)


# -- reading ResourceSlices


@pytest.mark.parametrize("basic", [False, True])
@pytest.mark.parametrize("prefix", ["", "gpu.nvidia.com/"])
def test_devices_in_old_and_new_versions(basic: bool, prefix: str) -> None:
    slice__ = slice_("1g.5gb", "1g.5gb+me", basic=basic)
    body = slice__["spec"]["devices"][0]
    attributes = body.get("basic", body)["attributes"]
    attributes[f"{prefix}profile"] = attributes.pop("profile")
    (pool,) = pools([slice__])
    assert [(d.name.device, d.profile, d.node) for d in pool.devices] == [
        ("mig-0", "1g.5gb", "node-1"),
        ("mig-1", "1g.5gb+me", "node-1"),
        ("gpu-0", "", "node-1"),
    ]


def test_old_generations_and_other_drivers_are_ignored() -> None:
    other = slice_("1g.5gb", pool="node-3")
    other["spec"]["driver"] = "gpu.example.com"
    slices = [slice_("1g.5gb"), slice_("2g.10gb", generation=2), slice_("7g.40gb", pool="node-2")]
    found = {pool.name: pool.devices[0].profile for pool in pools([*slices, other])}
    assert found == {"node-1": "2g.10gb", "node-2": "7g.40gb"}


def test_pools_that_the_scheduler_skips() -> None:
    counters, first, second = slices = a100.resource_slices()
    assert pools(slices)[0].problem == ""
    assert pools([counters, first])[0].problem == "2 of its 3 ResourceSlices exist"
    second["spec"]["devices"][0]["name"] = first["spec"]["devices"][0]["name"]
    assert pools(slices)[0].problem == "two of its devices have the same name"
    slices = a100.resource_slices()
    del slices[0]["spec"]["sharedCounters"][1]
    text = "gpu-1-mig-1g10gb-15-0 consumes copy-engines, which no ResourceSlice has"
    assert pools(slices)[0].problem == text
    assert set(free(slices).values()) == {0}


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
def test_taints_by_rules(spec: Json, tainted: int) -> None:
    rule = {"spec": {**spec, "taint": {"key": "health", "effect": "NoExecute"}}}
    (pool,) = pools([slice_("1g.5gb", "1g.5gb")], rule)
    assert sum(bool(device.taint) for device in pool.devices) == tainted


@pytest.mark.parametrize(("amount", "nanos"), [({"value": "much"}, 0), ("2k", 2000 * 10**9)])
def test_amounts(amount: object, nanos: int) -> None:
    """An invalid quantity counts as 0; v1alpha3 has plain quantities."""
    counters, first, second = a100.resource_slices()
    counters["spec"]["sharedCounters"][0]["counters"]["memory"] = amount
    (pool,) = pools([counters, first, second])
    assert pool.counters["node-1", "gpu-0-counter-set", "memory"] == nanos
