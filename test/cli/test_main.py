import os
import subprocess
import sys
from pathlib import Path

import pytest

import instaslice
from instaslice.cli.main import main


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"instaslice {instaslice.__version__}\n"


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
