"""`instaslice templates`, `deviceclasses` and `webhook-configuration`, as a user types them."""

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from instaslice import profiles
from instaslice.cli.main import main
from instaslice.resource_api import VERSIONS
from instaslice.webhook_configuration import BESIDE, webhook_configuration
from test.support import apiserver
from test.support.apiserver import APIServer
from test.support.manifests import documents

ROOT = Path(__file__).parents[2]
CLASSES = ROOT / "config/components/beside-the-scheduler/deviceclasses.yaml"
MAPPED = "--resource=nvidia.com/gpu=gpu.nvidia.com"


def printed(*arguments: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(list(arguments)) == 0
    return output.getvalue()


def classes(*arguments: str) -> list[Any]:
    return documents(printed("deviceclasses", *arguments))


@pytest.mark.parametrize("version", VERSIONS)
def test_every_known_profile_has_a_template(version: str) -> None:
    text = printed("templates", "--resource-api", version)
    if version == "v1alpha2":  # for users of Kubernetes 1.27 to 1.30, who apply the file
        assert (ROOT / "hack/mig-profiles.yaml").read_text() == text
    found = [m for m in documents(text) if m["kind"] == "ResourceClaimTemplate"]
    names = [manifest["metadata"]["name"] for manifest in found]
    assert names == [known.template for known in profiles.known_profiles()]


@pytest.mark.parametrize(
    "spelling", ["1g.5gb+me", "1g.5gb.me", "mig-1g.5gb.me", "nvidia.com/mig-1g.5gb.me"]
)
def test_profiles_may_be_named_in_any_spelling(spelling: str) -> None:
    made, template = documents(printed("templates", spelling))
    assert made["metadata"]["name"] == "mig-1g.5gb.me.nvidia.com"
    assert template["metadata"]["name"] == "mig-1g.5gb.me"


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["1g.5gb", "--count", "2"], ["mig-1g.5gb.nvidia.com", "mig-1g.5gb.x2"]),
        (["mig-1g.5gb.x3"], ["mig-1g.5gb.nvidia.com", "mig-1g.5gb.x3"]),
        (
            ["mig-3g.20gb-or-4g.20gb"],
            ["mig-3g.20gb.nvidia.com", "mig-4g.20gb.nvidia.com", "mig-3g.20gb-or-4g.20gb"],
        ),
        (
            ["1g.5gb", "mig-1g.5gb.x2", "same-gpu-mig-1g.5gb.x2"],
            ["mig-1g.5gb.nvidia.com", "mig-1g.5gb", "mig-1g.5gb.x2", "same-gpu-mig-1g.5gb.x2"],
        ),
        ([MAPPED, "nvidia.com/gpu"], ["gpu.nvidia.com"]),
        ([MAPPED, "gpu.nvidia.com.x2"], ["gpu.nvidia.com.x2"]),
    ],
)
def test_names_and_counts_of_templates(arguments: list[str], names: list[str]) -> None:
    found = documents(printed("templates", *arguments))
    assert [manifest["metadata"]["name"] for manifest in found] == names


def test_without_names_all_known_resources_are_printed() -> None:
    found = documents(printed("templates", "--count", "2", MAPPED))
    names = [m["metadata"]["name"] for m in found if m["kind"] == "ResourceClaimTemplate"]
    known = [f"{profile.template}.x2" for profile in profiles.known_profiles()]
    assert names == [*known, "gpu.nvidia.com.x2"]


def test_the_printed_command_gives_the_same_output() -> None:
    text = printed("templates", "--count", "2", MAPPED, "1g.5gb", "nvidia.com/gpu")
    command = text.partition("\n")[0].removeprefix("# Made by: instaslice ")
    assert printed(*command.split()) == text


def test_applying_to_the_contexts_namespace_or_to_all(
    api_server: APIServer, reached: str, capsys: pytest.CaptureFixture[str]
) -> None:
    api_server.terminating = {"default"}
    for arguments in ([], ["--all-namespaces"], ["-n", "other"]):
        assert main(["templates", "--apply", "1g.5gb", reached, *arguments]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "cluster: DeviceClass mig-1g.5gb.nvidia.com created",
        "ml: ResourceClaimTemplate mig-1g.5gb created",
        "cluster: DeviceClass mig-1g.5gb.nvidia.com unchanged",
        "ml: ResourceClaimTemplate mig-1g.5gb unchanged",
        "cluster: DeviceClass mig-1g.5gb.nvidia.com unchanged",
        "other: ResourceClaimTemplate mig-1g.5gb created",
    ]


def test_an_object_that_the_cluster_refuses_gives_a_one_line_error(
    api_server: APIServer, reached: str, capsys: pytest.CaptureFixture[str]
) -> None:
    api_server.fault = apiserver.FAULTS["403"]
    assert main(["templates", "--apply", "1g.5gb", reached, "--resource-api", "v1"]) == 1
    line = "instaslice: cluster: DeviceClass mig-1g.5gb.nvidia.com: 403 Forbidden\n"
    assert capsys.readouterr() == ("", line)


def test_the_device_classes_in_config_equal_the_output_of_the_command() -> None:
    assert CLASSES.read_text() == printed("deviceclasses")


def test_no_class_is_printed_for_a_mapped_resource() -> None:
    assert classes(MAPPED, "nvidia.com/gpu", "1g.5gb") == classes("1g.5gb")


def test_the_configuration_for_kueue() -> None:
    (found,) = classes("--kueue", MAPPED, "1g.5gb+me", "nvidia.com/gpu")
    assert found["kind"] == "Configuration"
    assert found["resources"]["deviceClassMappings"] == [
        {"name": "nvidia.com/mig-1g.5gb.me", "deviceClassNames": ["mig-1g.5gb.me.nvidia.com"]},
        {"name": "nvidia.com/gpu", "deviceClassNames": ["gpu.nvidia.com"]},
    ]


def test_the_configuration_for_kueue_covers_all_profiles() -> None:
    (found,) = classes("--kueue", MAPPED)
    own, *groups = found["resources"]["deviceClassMappings"]
    assert own == {"name": "nvidia.com/gpu", "deviceClassNames": ["gpu.nvidia.com"]}
    names = [name for group in groups for name in group["deviceClassNames"]]
    assert sorted(names) == sorted(each["metadata"]["name"] for each in classes())
    assert (len(names), len(groups)) == (84, 11)
    assert max(len(group["deviceClassNames"]) for group in groups) == 8
    assert groups[0]["name"] == "instaslice.io/mig-1g.5gb_to_1g.12gb.me"
    assert len({group["name"] for group in groups}) == 11


def test_the_webhook_of_a_mode_and_a_mapping() -> None:
    command = "webhook-configuration --mode beside-the-scheduler --resource nvidia.com/gpu="
    command += "gpu.nvidia.com --namespace gpu"
    found = printed(*command.split())
    assert yaml.safe_load(found) == webhook_configuration(BESIDE, ["nvidia.com/gpu"], "gpu")
    assert found.startswith(f"# Made by: instaslice {command}\n")
    assert "\n    expression: |-\n" in found, "a text of several lines is a literal block"
    assert "&id001" not in found, "repeated objects have no aliases"
