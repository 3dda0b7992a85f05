from pathlib import Path
from typing import Any

import pytest
import yaml

from instaslice.doctor import devices
from instaslice.doctor.devices import DeviceName, Supply
from test.support.snapshots import claim, slice_

Json = dict[str, Any]

DEMO = Path(__file__).parents[2] / "demo" / "a100s.yaml"


@pytest.mark.parametrize("basic", [False, True])
def test_slices_that_are_there(basic: bool) -> None:
    slices = [slice_("1g.5gb", "1g.5gb", "3g.20gb", basic=basic), slice_("1g.5gb", pool="node-2")]
    claims = [claim("mig-0"), claim("mig-0", driver="other"), {}, {"status": {"allocation": {}}}]
    assert devices.supply(slices, claims) == {"1g.5gb": Supply(3, 2), "3g.20gb": Supply(1, 1)}
    assert devices.nodes(slices) == {"node-1", "node-2"}


def test_only_the_newest_generation_of_a_pool_counts() -> None:
    slices = [slice_("1g.5gb"), slice_("2g.10gb", generation=2), slice_("7g.40gb", pool="node-2")]
    assert devices.supply(slices, []) == {"2g.10gb": Supply(1, 1), "7g.40gb": Supply(1, 1)}


def test_other_drivers_do_not_count() -> None:
    other = slice_("1g.5gb")
    other["spec"]["driver"] = "gpu.example.com"
    assert devices.supply([other], []) == {}


def test_what_a_claim_was_given() -> None:
    assert devices.given(claim("a", "b")) == [
        DeviceName("gpu.nvidia.com", "node-1", "a"),
        DeviceName("gpu.nvidia.com", "node-1", "b"),
    ]


#: What each of two A100 40GB can be cut into (MIG User Guide, "Supported MIG Profiles").
A100 = {"1g.5gb": 7, "1g.5gb+me": 1, "1g.10gb": 4, "2g.10gb": 3, "3g.20gb": 2, "4g.20gb": 1}
A100 |= {"7g.40gb": 1}


def test_what_two_gpus_could_be_cut_into() -> None:
    slices = [d for d in yaml.safe_load_all(DEMO.read_text()) if d["kind"] == "ResourceSlice"]
    supply = devices.supply(slices, [])
    assert {profile: free for profile, (_, free) in supply.items()} == {
        profile: 2 * count for profile, count in A100.items()
    }


def test_what_overlaps_is_free_no_more() -> None:
    slices = [d for d in yaml.safe_load_all(DEMO.read_text()) if d["kind"] == "ResourceSlice"]
    taken = claim("gpu-0-mig-3g20gb-0", "gpu-1-mig-1g5gb-me-3", pool="instaslice-demo")
    free = {profile: found.free for profile, found in devices.supply(slices, [taken]).items()}
    assert free == {
        "1g.5gb": 3 + 6,  # of seven, three lie beside memory slices 0 to 3
        "1g.5gb+me": 1 + 0,
        "1g.10gb": 2 + 3,
        "2g.10gb": 1 + 2,
        "3g.20gb": 1 + 1,
        "4g.20gb": 0,
        "7g.40gb": 0,
    }
