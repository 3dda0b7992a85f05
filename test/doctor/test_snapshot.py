"""Pods and versions in a snapshot."""

from dataclasses import replace

import pytest

from instaslice.doctor.snapshot import Pod
from instaslice.resources import MIG, read_mapping
from test.support.snapshots import HEALTHY, pod


def test_a_pods_limits_that_could_be_rewritten() -> None:
    one = pod(limit="mig-1g.5gb")
    one["spec"]["initContainers"] = [
        {"resources": {"limits": {"nvidia.com/mig-3g.20gb": "2", "nvidia.com/gpu": "1"}}},
        {"resources": {"limits": {"nvidia.com/mig-3g.20gb": 1, "nvidia.com/mig-2g.10gb": "0"}}},
        {"resources": None},
        {},
    ]
    slices = {"nvidia.com/mig-1g.5gb": "1", "nvidia.com/mig-3g.20gb": "3"}
    assert Pod(one, MIG).limits == slices
    mapped = read_mapping(["nvidia.com/gpu=gpu.nvidia.com"])
    assert Pod(one, mapped).limits == {**slices, "nvidia.com/gpu": "1"}


@pytest.mark.parametrize(
    ("kubernetes", "minor"),
    [("v1.36.3", 36), ("v1.34+", 34), ("v1.33.4-eks-1", 33), ("an unknown version", 0)],
)
def test_the_minor_version(kubernetes: str, minor: int) -> None:
    assert replace(HEALTHY, kubernetes=kubernetes).minor == minor


def test_a_pods_claims_from_instaslices_templates() -> None:
    one = pod(template="mig-1g.5gb.x2")
    one["spec"]["resourceClaims"] += [
        {"name": "theirs", "resourceClaimTemplateName": "training"},
        {"name": "made", "resourceClaimName": "mig-1g.5gb"},
        {"name": "old", "source": {"resourceClaimTemplateName": "mig-2g.10gb"}},
    ]
    found = {claim.name: claim.template for claim in Pod(one, MIG).claims}
    assert found == {"0123456789": "mig-1g.5gb.x2", "old": "mig-2g.10gb"}
