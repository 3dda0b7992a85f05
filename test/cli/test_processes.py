"""The command line as a process: its streams, Ctrl-C, and missing packages."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from instaslice.serve import settings
from test.support import command
from test.support.process import ROOT, until

PATIENCE = 60

#: Commands whose output argparse and `print` write.
HELP, REWRITE = ["--help"], ["rewrite", "samples/sample.yaml"]
#: A command that ends with a one-line error.
REFUSED = ["rewrite", "/none"]


def run(typed: list[str], redirect: str, unbuffered: str = "") -> tuple[int, list[str]]:
    """Run a command with redirections; return its exit code and the lines of standard error."""
    done = subprocess.run(
        ["bash", "-c", f'"$@" {redirect}', "bash", sys.executable, "-m", "instaslice", *typed],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": unbuffered, "KUBECONFIG": "/none"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode, done.stderr.splitlines()


FULL = (2, ["instaslice: standard output: No space left on device"])
CLOSED = (2, ["instaslice: standard output: is closed"])


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("command", "redirect", "expected"),
    [
        (HELP, ">/dev/full", FULL),
        (HELP, ">&-", CLOSED),
        (REWRITE, ">/dev/full", FULL),
        (REWRITE, ">&-", CLOSED),
    ],
)
def test_an_output_that_cannot_be_written_gives_a_one_line_error(
    command: list[str], redirect: str, expected: tuple[int, list[str]], unbuffered: str
) -> None:
    code, (*_, last) = run(command, redirect, unbuffered)
    assert (code, [last]) == expected


@pytest.mark.parametrize("command", [HELP, REWRITE], ids=" ".join)
def test_a_closed_pipe_ends_silently(command: list[str]) -> None:
    # The reader closes the pipe before the command begins.
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "instaslice", *command],
        cwd=ROOT,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=PATIENCE,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize(
    ("command", "redirect", "expected"),
    [
        (HELP, "2>&-", 0),
        (REFUSED, "2>&-", 2),
        (HELP, ">/dev/full 2>/dev/full", 2),
        (REFUSED, ">/dev/full 2>/dev/full", 2),
        (REWRITE, "<&- >&- 2>&-", 2),
    ],
)
def test_a_closed_standard_error_keeps_the_exit_code(
    command: list[str], redirect: str, expected: int
) -> None:
    assert run(command, redirect) == (expected, [])


def test_a_command_without_output_gives_its_own_error() -> None:
    code, (line,) = run(["doctor"], ">&-")
    assert (code, line) == (2, "instaslice: kubeconfig: /none: No such file or directory")


def test_a_closed_standard_input_gives_a_one_line_error() -> None:
    assert run(["rewrite"], "<&-") == (2, ["instaslice: -: is closed"])


def test_ctrl_c() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "instaslice", "rewrite", "samples/sample.yaml", "-"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    with process:
        _wait_until_it_reads(process.pid)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (130, "instaslice: interrupted\n")


def _wait_until_it_reads(pid: int) -> None:
    """Wait until a process blocks while it reads standard input."""

    def reads() -> bool:
        # "0 0x0 ...": the system call read (0 on amd64, 63 on arm64), of file 0.
        text = Path(f"/proc/{pid}/syscall").read_text().split()
        return text[:2] in (["0", "0x0"], ["63", "0x0"])

    until(reads, "it reads its standard input")


# -- installed and missing packages ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("package", "typed", "what"),
    [
        ("kubernetes", "doctor", "doctor needs the kubernetes client"),
        ("yaml", "rewrite", "rewrite needs PyYAML"),
        ("yaml", "templates", "this needs PyYAML"),
    ],
)
def test_a_missing_extra_is_named(package: str, typed: str, what: str) -> None:
    line = f"instaslice: {what}: pip install '.[cli]' in its source\n"
    assert command.without(package, typed) == (2, "", line)


@pytest.mark.parametrize("ignored", [(), settings.GUNICORN_VARIABLES])
def test_a_server_that_cannot_start_gives_a_one_line_error(
    ignored: tuple[str, ...], tmp_path: Path
) -> None:
    """Also with environment variables that gunicorn would read."""
    environment = dict.fromkeys(ignored, "1")
    line = f"instaslice: {tmp_path}/tls.crt: No such file or directory\n"
    typed = ("serve", "--resource-api", "v1", "--cert-dir", str(tmp_path), "--bind", "127.0.0.1:0")
    assert command.instaslice(*typed, **environment) == (2, "", line)


def installed(name: str) -> Path:
    """The path of a program that the package installs."""
    return Path(sys.executable).parent / name


def test_kubectl_finds_the_plugin() -> None:
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
        ("instaslice webhook-configuration --mode o", {"opt-in"}),
    ],
)
def test_shell_completion(typed: str, offered: set[str], tmp_path: Path) -> None:
    """It runs the command like the function that `register-python-argcomplete` prints."""
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
