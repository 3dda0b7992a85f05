"""The differences between the versions of resource.k8s.io."""

from typing import Any

import pytest

from instaslice.resource_api import DIFFERENT_GPUS, VERSIONS, template_name


@pytest.mark.parametrize(
    "claim",
    [
        {"name": "c", "resourceClaimName": "made"},
        {"name": "c", "source": {"resourceClaimName": "made"}},
        {"name": "c"},
        {"name": "c", "source": {}, "resourceClaimTemplateName": "mig-1g.5gb"},
        ["c"],
        "c",
        None,
    ],
)
def test_a_claim_without_a_template_gives_none(claim: Any) -> None:
    assert template_name(claim) is None


def test_different_gpus_needs_proof() -> None:
    """1.34 keeps the constraint, although its scheduler may ignore it."""
    without = VERSIONS["v1"].without_proof
    assert DIFFERENT_GPUS in VERSIONS["v1"].features
    assert without.features == VERSIONS["v1"].features - {DIFFERENT_GPUS}
    assert VERSIONS["v1beta1"].without_proof == VERSIONS["v1beta1"]
