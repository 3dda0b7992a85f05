"""What the commands share."""

import argparse

import pytest
import yaml

from instaslice import profiles
from instaslice.cli import usage
from instaslice.cli.usage import UsageError


def chosen(*typed: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    usage.add_resource_options(parser)
    return parser.parse_args(typed)


def templates(*typed: str, count: int = 1) -> list[str]:
    return [claim.template for claim in usage.named_claims(chosen(*typed), count)]


def test_without_names_everything_that_is_known_is_meant() -> None:
    known = [profile.template for profile in profiles.known_profiles()]
    assert templates() == known
    assert templates("--resource", "nvidia.com/gpu=gpu.nvidia.com") == [*known, "gpu.nvidia.com"]
    assert templates(count=2) == [f"{name}.x2" for name in known]


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("1g.10gb+me", "mig-1g.10gb.me"),
        ("nvidia.com/mig-1g.10gb.me", "mig-1g.10gb.me"),
        ("mig-1g.5gb.x2", "mig-1g.5gb.x2"),
        ("mig-3g.20gb-or-4g.20gb", "mig-3g.20gb-or-4g.20gb"),
    ],
)
def test_a_name_may_be_spelt_in_any_way(name: str, template: str) -> None:
    assert templates(name) == [template]


def test_a_mapped_resource_may_be_named() -> None:
    mapped = ("--resource", "nvidia.com/gpu=gpu.nvidia.com")
    assert templates("nvidia.com/gpu", *mapped, count=3) == ["gpu.nvidia.com.x3"]
    with pytest.raises(UsageError, match=r"; nvidia[.]com/gpu may be named too"):
        templates("banana", *mapped)


@pytest.mark.parametrize(
    ("typed", "count", "message"),
    [
        (["banana"], 1, "'banana' is not a MIG profile, such as 1g.5gb or 1g.10gb[+]me$"),
        (["mig-1g.5gb.x2"], 2, "'mig-1g.5gb.x2' says by itself how many it asks for"),
        (["--resource", "gpu"], 1, "^--resource: "),
    ],
)
def test_what_cannot_be_meant_is_one_line(typed: list[str], count: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        templates(*typed, count=count)


def test_a_package_that_is_not_installed_is_named_with_its_cure() -> None:
    with (
        pytest.raises(UsageError, match=r"^this needs x: pip install '\.\[cli\]' in its source$"),
        usage.needing("this needs x"),
    ):
        import instaslice.no_such_module  # type: ignore[import-not-found]  # noqa: F401


def test_yaml_names_the_command_and_repeats_rather_than_refers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shared = {"a": "one\ntwo\n"}
    usage.print_yaml([{"x": shared, "y": shared}, {"z": "3"}], "templates 1g.5gb")
    text = capsys.readouterr().out
    assert text.startswith("# Made by: instaslice templates 1g.5gb\n---\n")
    assert "x:\n  a: |\n    one\n    two\ny:\n  a: |\n    one\n    two\n---\n" in text
    assert list(yaml.safe_load_all(text)) == [{"x": shared, "y": shared}, {"z": "3"}]
