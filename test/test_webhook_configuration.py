"""The configuration for each mode; `config/` has the one for mode `all`."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from instaslice.webhook_configuration import (
    ALL,
    BESIDE,
    MODES,
    OPT_IN,
    match_conditions,
    webhook_configuration,
)

CONFIG = Path(__file__).parents[1] / "config"

Json = dict[str, Any]


def webhook(mode: str = ALL, *resources: str, **more: str) -> Json:
    (found,) = webhook_configuration(mode, resources, **more)["webhooks"]
    assert isinstance(found, dict)
    return found


def test_the_base_in_config_is_mode_all() -> None:
    assert yaml.safe_load((CONFIG / "base/webhook.yaml").read_text()) == webhook_configuration()


@pytest.mark.parametrize(
    ("mode", "operator", "conditions"),
    [(ALL, "NotIn", []), (OPT_IN, "In", []), (BESIDE, "NotIn", ["is-too-much-for-the-scheduler"])],
)
def test_modes(mode: str, operator: str, conditions: list[str]) -> None:
    names = [each["name"] for each in match_conditions(mode)]
    assert names == ["has-a-mig-limit", "is-new-or-has-another-spec", *conditions]
    selector = webhook(mode)["namespaceSelector"]
    assert selector["matchExpressions"][1]["operator"] == operator


@pytest.mark.parametrize("mode", MODES)
def test_conditions_name_mapped_resources_once_and_sorted(mode: str) -> None:
    conditions = match_conditions(mode, ["nvidia.com/gpu", "amd.com/gpu", "nvidia.com/gpu"])
    assert "name in ['amd.com/gpu', 'nvidia.com/gpu']" in conditions[0]["expression"]
    assert ("name in [" in conditions[-1]["expression"]) == (mode == BESIDE)


def test_the_namespace_of_the_service_is_never_rewritten() -> None:
    found = webhook(namespace="gpu")
    assert found["clientConfig"]["service"]["namespace"] == "gpu"
    expressions = found["namespaceSelector"]["matchExpressions"]
    assert expressions[0]["values"] == ["kube-system", "gpu"]


def test_beside_the_scheduler_leaves_32_devices_to_the_scheduler() -> None:
    """32 is AllocationResultsMaxSize of resource.k8s.io; `test/e2e` tries 32 and 33 slices."""
    (*_, condition) = match_conditions(BESIDE)
    assert condition["expression"].endswith(".sum() > 32")
