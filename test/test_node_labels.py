"""Pods that select nodes by labels that describe MIG slices."""

from typing import Any

import pytest

from instaslice.node_labels import selected

PRODUCT = "nvidia.com/gpu.product"


def affinity(key: str, operator: str, *values: str, required: bool = True) -> dict[str, Any]:
    term = {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}
    name = "requiredDuringSchedulingIgnoredDuringExecution"
    found: Any = {name: {"nodeSelectorTerms": [term]}}
    if not required:
        found = {"preferredDuringSchedulingIgnoredDuringExecution": [{"preference": term}]}
    return {"affinity": {"nodeAffinity": found}}


@pytest.mark.parametrize(
    ("spec", "text", "single"),
    [
        ({"nodeSelector": {"nvidia.com/mig.config": "all-1g.5gb"}}, "mig.config=all-1g.5gb", ""),
        ({"nodeSelector": {"nvidia.com/mig-1g.5gb.count": "7"}}, "mig-1g.5gb.count=7", ""),
        ({"nodeSelector": {PRODUCT: "A100-MIG-1g.5gb"}}, "gpu.product=A100-MIG-1g.5gb", "1g.5gb"),
        (affinity("nvidia.com/mig.strategy", "Exists"), "mig.strategy", ""),
        (
            affinity(PRODUCT, "In", "A-MIG-1g.5gb.me", "B-MIG-1g.5gb.me", required=False),
            "A-MIG-1g.5gb.me or B-MIG-1g.5gb.me",
            "1g.5gb.me",
        ),
        (
            affinity("cloud.google.com/gke-gpu-partition-size", "In", "1g.5gb"),
            "gke-gpu-partition-size=1g.5gb",
            "",
        ),
    ],
)
def test_a_selector_for_labels_of_the_device_plugin_is_found(
    spec: Any, text: str, single: str
) -> None:
    (found,) = selected(spec)
    assert str(found).endswith(text)
    assert found.single == single
    assert found.is_required == ("preferred" not in str(spec))


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"nodeSelector": {PRODUCT: "NVIDIA-A100-SXM4-40GB", "nvidia.com/mig.capable": "true"}},
        affinity("nvidia.com/mig.config", "NotIn", "all-disabled"),
        affinity("nvidia.com/mig.config", [], "all-disabled"),  # type: ignore[arg-type]
        affinity(PRODUCT, "In", "A100-MIG-1g.5gb", "A100"),
        {"nodeSelector": ["nvidia.com/mig.config"], "affinity": {"nodeAffinity": 1}},
        {"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [None]}}},
    ],
)
def test_other_selectors_are_not_found(spec: Any) -> None:
    assert list(selected(spec)) == []
