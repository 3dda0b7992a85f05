"""`instaslice deviceclasses`, as a user types it."""

from pathlib import Path

import pytest

from instaslice.cli.main import main

HACK = Path(__file__).parents[2] / "hack"


def test_the_device_classes_in_hack_are_what_the_command_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["deviceclasses"]) == 0
    assert (HACK / "mig-deviceclasses.yaml").read_text() == capsys.readouterr().out
