"""`instaslice deviceclasses` and `webhook-configuration`, as a user types them."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from instaslice.cli.main import main
from instaslice.webhook_configuration import BESIDE, webhook_configuration

PATH = Path(__file__).parents[2] / "config/components/beside-the-scheduler/deviceclasses.yaml"
MAPPED = "--resource=nvidia.com/gpu=gpu.nvidia.com"


def text(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(list(arguments)) == 0
    return capsys.readouterr().out


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[Any]:
    return list(yaml.safe_load_all(text(capsys, "deviceclasses", *arguments)))


def test_the_device_classes_in_config_are_what_the_command_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert PATH.read_text() == text(capsys, "deviceclasses")


@pytest.mark.parametrize("version", ["v1alpha3", "v1beta1", "v1beta2", "v1"])
def test_every_version_that_has_classes(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = printed(capsys, "--resource-api", version, "1g.5gb")
    assert found["apiVersion"] == f"resource.k8s.io/{version}"
    assert ("extendedResourceName" in found["spec"]) == (version == "v1")


def test_a_mapped_resource_has_a_class_already(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, MAPPED, "nvidia.com/gpu", "1g.5gb") == printed(capsys, "1g.5gb")


def test_what_kueue_is_to_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = printed(capsys, "--kueue", MAPPED, "1g.5gb+me", "nvidia.com/gpu")
    assert found["kind"] == "Configuration"
    assert found["resources"]["deviceClassMappings"] == [
        {"name": "nvidia.com/mig-1g.5gb.me", "deviceClassNames": ["mig-1g.5gb.me.nvidia.com"]},
        {"name": "nvidia.com/gpu", "deviceClassNames": ["gpu.nvidia.com"]},
    ]


def test_kueue_is_told_of_all_profiles_in_as_many_mappings_as_it_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (found,) = printed(capsys, "--kueue", MAPPED)
    own, *groups = found["resources"]["deviceClassMappings"]
    assert own == {"name": "nvidia.com/gpu", "deviceClassNames": ["gpu.nvidia.com"]}
    names = [name for group in groups for name in group["deviceClassNames"]]
    assert sorted(names) == sorted(each["metadata"]["name"] for each in printed(capsys))
    assert (len(names), len(groups)) == (84, 11)
    assert max(len(group["deviceClassNames"]) for group in groups) == 8
    assert groups[0]["name"] == "instaslice.io/mig-1g.5gb_to_1g.12gb.me"
    assert len({group["name"] for group in groups}) == 11


def test_the_webhook_of_a_mode_and_a_mapping(capsys: pytest.CaptureFixture[str]) -> None:
    command = "webhook-configuration --mode beside-the-scheduler --resource nvidia.com/gpu="
    command += "gpu.nvidia.com --namespace gpu"
    found = text(capsys, *command.split())
    assert yaml.safe_load(found) == webhook_configuration(BESIDE, ["nvidia.com/gpu"], "gpu")
    assert found.startswith(f"# Made by: instaslice {command}\n")
    assert "\n    expression: |-\n" in found, "several lines are shown as they are"
    assert "&id001" not in found, "what is there twice is written twice"
