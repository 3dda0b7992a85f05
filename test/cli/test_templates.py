"""`instaslice templates`, as a user types it."""

import contextlib
import io
from pathlib import Path

import pytest
import yaml

from instaslice import profiles
from instaslice.cli.main import main
from instaslice.resource_api import VERSIONS

HACK = Path(__file__).parents[2] / "hack"


def printed(*arguments: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as output:
        assert main(list(arguments)) == 0
    return output.getvalue()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_manifests_in_hack_are_what_the_command_prints(version: str) -> None:
    name = "mig-profiles.yaml" if version == "v1alpha2" else f"mig-profiles-{version}.yaml"
    text = printed("templates", "--resource-api", version)
    assert (HACK / name).read_text() == text
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
    ("arguments", "line"),
    [
        (["templates", "banana"], "'banana' is not a MIG profile, such as 1g.5gb or 1g.10gb+me"),
        (
            ["templates", "--apply", "-A", "-n", "ml"],
            "--namespace and --all-namespaces exclude one another",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr() == ("", f"instaslice: {line}\n")
