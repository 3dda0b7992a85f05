"""`instaslice webhook-configuration`, as a user types it."""

import pytest
import yaml

from instaslice.cli.main import main
from instaslice.webhook_configuration import BESIDE, webhook_configuration


def test_it_prints_the_configuration_and_the_command_that_made_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = ["--mode", BESIDE, "--resource", "nvidia.com/gpu=gpu.nvidia.com", "-n", "gpu"]
    assert main(["webhook-configuration", *arguments]) == 0
    printed = capsys.readouterr().out
    assert yaml.safe_load(printed) == webhook_configuration(BESIDE, ["nvidia.com/gpu"], "gpu")
    command = "--mode beside-the-scheduler --resource nvidia.com/gpu=gpu.nvidia.com --namespace gpu"
    assert printed.startswith(f"# Made by: instaslice webhook-configuration {command}\n")


def test_an_expression_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["webhook-configuration"]) == 0
    assert "\n    expression: |-\n" in capsys.readouterr().out
