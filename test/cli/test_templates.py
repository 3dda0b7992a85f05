"""`instaslice templates`, as a user types it."""

import contextlib
import io
from pathlib import Path

import pytest
import yaml

from instaslice import profiles
from instaslice.cli.main import main
from instaslice.resource_api import VERSIONS
from test.support import apiserver
from test.support.apiserver import APIServer

HACK = Path(__file__).parents[2] / "hack"


def printed(*arguments: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(list(arguments)) == 0
    return output.getvalue()


@pytest.mark.parametrize("version", VERSIONS)
def test_every_known_profile_has_a_template(version: str) -> None:
    text = printed("templates", "--resource-api", version)
    if version == "v1alpha2":  # for users of Kubernetes 1.27 to 1.30, who apply the file
        assert (HACK / "mig-profiles.yaml").read_text() == text
    found = [m for m in yaml.safe_load_all(text) if m["kind"] == "ResourceClaimTemplate"]
    names = [manifest["metadata"]["name"] for manifest in found]
    assert names == [known.template for known in profiles.known_profiles()]


@pytest.mark.parametrize(
    "spelling", ["1g.5gb+me", "1g.5gb.me", "mig-1g.5gb.me", "nvidia.com/mig-1g.5gb.me"]
)
def test_profiles_may_be_named_in_any_spelling(spelling: str) -> None:
    made, template = yaml.safe_load_all(printed("templates", spelling))
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
        (["--resource", "nvidia.com/gpu=gpu.nvidia.com", "nvidia.com/gpu"], ["gpu.nvidia.com"]),
        (
            ["--resource", "nvidia.com/gpu=gpu.nvidia.com", "gpu.nvidia.com.x2"],
            ["gpu.nvidia.com.x2"],
        ),
    ],
)
def test_what_a_claim_may_ask_for(arguments: list[str], names: list[str]) -> None:
    found = yaml.safe_load_all(printed("templates", *arguments))
    assert [manifest["metadata"]["name"] for manifest in found] == names


def test_without_names_everything_that_is_known_is_meant() -> None:
    mapped = "--resource=nvidia.com/gpu=gpu.nvidia.com"
    found = yaml.safe_load_all(printed("templates", "--count", "2", mapped))
    names = [m["metadata"]["name"] for m in found if m["kind"] == "ResourceClaimTemplate"]
    known = [f"{profile.template}.x2" for profile in profiles.known_profiles()]
    assert names == [*known, "gpu.nvidia.com.x2"]


def test_the_command_that_made_them_makes_them_again() -> None:
    mapped = ["--resource", "nvidia.com/gpu=gpu.nvidia.com"]
    text = printed("templates", "--count", "2", *mapped, "1g.5gb", "nvidia.com/gpu")
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


def test_what_the_cluster_does_not_take_is_one_line(
    api_server: APIServer, reached: str, capsys: pytest.CaptureFixture[str]
) -> None:
    api_server.fault = apiserver.FAULTS["403"]
    assert main(["templates", "--apply", "1g.5gb", reached, "--resource-api", "v1"]) == 1
    line = "instaslice: cluster: DeviceClass mig-1g.5gb.nvidia.com: 403 Forbidden\n"
    assert capsys.readouterr() == ("", line)
