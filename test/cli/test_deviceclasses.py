"""`instaslice deviceclasses`, as a user types it."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from instaslice.cli.main import main

PATH = Path(__file__).parents[2] / "config/components/beside-the-scheduler/deviceclasses.yaml"


def test_the_device_classes_in_config_are_what_the_command_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["deviceclasses"]) == 0
    assert PATH.read_text() == capsys.readouterr().out


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[Any]:
    assert main(["deviceclasses", *arguments]) == 0
    return list(yaml.safe_load_all(capsys.readouterr().out))


@pytest.mark.parametrize("version", ["v1alpha3", "v1beta1", "v1beta2", "v1"])
def test_every_version_that_has_classes(version: str, capsys: pytest.CaptureFixture[str]) -> None:
    (found,) = printed(capsys, "--resource-api", version, "1g.5gb")
    assert found["apiVersion"] == f"resource.k8s.io/{version}"
    assert ("extendedResourceName" in found["spec"]) == (version == "v1")


def test_the_version_without_classes_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["deviceclasses", "--resource-api", "v1alpha2"]) == 2
    assert "there is no 'v1alpha2'" in capsys.readouterr().err


def test_a_mapped_resource_has_a_class_already(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(
        capsys, "--resource", "nvidia.com/gpu=gpu.nvidia.com", "nvidia.com/gpu", "1g.5gb"
    ) == printed(capsys, "1g.5gb")


def test_what_kueue_is_to_be_told(capsys: pytest.CaptureFixture[str]) -> None:
    mapped = ["--resource", "nvidia.com/gpu=gpu.nvidia.com"]
    (found,) = printed(capsys, "--kueue", *mapped, "1g.5gb+me", "nvidia.com/gpu")
    assert found["kind"] == "Configuration"
    assert found["resources"]["deviceClassMappings"] == [
        {"name": "nvidia.com/mig-1g.5gb.me", "deviceClassNames": ["mig-1g.5gb.me.nvidia.com"]},
        {"name": "nvidia.com/gpu", "deviceClassNames": ["gpu.nvidia.com"]},
    ]


def test_kueue_is_told_of_all_profiles_in_as_many_mappings_as_it_takes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    (found,) = printed(capsys, "--kueue", "--resource", "nvidia.com/gpu=gpu.nvidia.com")
    own, *groups = found["resources"]["deviceClassMappings"]
    assert own == {"name": "nvidia.com/gpu", "deviceClassNames": ["gpu.nvidia.com"]}
    names = [name for group in groups for name in group["deviceClassNames"]]
    assert sorted(names) == sorted(each["metadata"]["name"] for each in printed(capsys))
    assert (len(names), len(groups)) == (84, 11)
    assert max(len(group["deviceClassNames"]) for group in groups) == 8
    assert groups[0]["name"] == "instaslice.io/mig-1g.5gb_to_1g.12gb.me"
    assert len({group["name"] for group in groups}) == 11


MANY = [w for i in range(17) for w in ("--resource", f"example.com/gpu{i}=gpu{i}.example.com")]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--kueue", *MANY], "--kueue: Kueue takes at most 16 mappings, and these would be 28"),
        (["mig-1g.5gb.x2"], "'mig-1g.5gb.x2' is not a MIG profile"),
        (["nvidia.com/gpu"], "'nvidia.com/gpu' is not a MIG profile"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["deviceclasses", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"instaslice: {line}")
    assert captured.err.count("\n") == 1
