import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import instaslice
from instaslice.cli.main import COMMANDS, main


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"instaslice {instaslice.__version__}\n"


def test_help_and_version_are_commands_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    bare = capsys.readouterr().out
    assert bare.startswith("usage: instaslice")
    assert main(["help"]) == 0
    assert capsys.readouterr().out == bare
    with pytest.raises(SystemExit):
        main(["version"])
    assert capsys.readouterr().out == f"instaslice {instaslice.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_every_help_has_examples(command: Any, capsys: pytest.CaptureFixture[str]) -> None:
    name = command.__name__.rpartition(".")[2].replace("_", "-")
    assert main(["help", name]) == 0
    text = capsys.readouterr().out
    assert "\nexamples:\n  instaslice " + name in text
    with pytest.raises(SystemExit):
        main([name, "--help"])
    assert capsys.readouterr().out == text


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        (["docter"], "there is no 'docter'; did you mean doctor? (see instaslice --help)"),
        (["help", "plann"], "there is no 'plann'; did you mean plan? (see instaslice --help)"),
        (
            ["doctor", "--kubconfig=x"],
            "'--kubconfig=x' is not understood; did you mean --kubeconfig? "
            "(see instaslice doctor --help)",
        ),
        (
            ["plan", "-o", "jsn"],
            "argument --output/-o: there is no 'jsn'; did you mean json? (see instaslice plan "
            "--help)",
        ),
        (["plan", "x"], "'x' is not understood (see instaslice plan --help)"),
        (["templates", "-n", "ml"], "--namespace means nothing without --apply"),
        (["templates", "-A"], "--all-namespaces means nothing without --apply"),
    ],
)
def test_a_mistake_is_one_line(
    typed: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(typed) == 2
    assert capsys.readouterr() == ("", f"instaslice: {line}\n")


def installed(name: str) -> Path:
    """A program that the package brings, beside this Python."""
    return Path(sys.executable).parent / name


def test_kubectl_finds_it_as_a_plugin() -> None:
    done = subprocess.run(
        [installed("kubectl-instaslice"), "doctor", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert done.stdout.startswith("usage: kubectl instaslice doctor")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("instaslice d", {"deviceclasses", "doctor"}),
        ("instaslice doctor --con", {"--context"}),
        ("instaslice plan -o m", {"markdown"}),
        ("instaslice webhook-configuration --mode o", {"opt-in"}),
    ],
)
def test_a_shell_is_told_what_may_follow(typed: str, offered: set[str], tmp_path: Path) -> None:
    """As the function that `register-python-argcomplete` prints asks."""
    answer = tmp_path / "answer"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": typed,
        "COMP_POINT": str(len(typed)),
        "COMP_TYPE": "9",
    }
    program = installed("instaslice")
    done = subprocess.run([program], env=os.environ | asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {each.strip() for each in answer.read_text().split("\n")} == offered
