"""What a command says where its streams are closed, full or cut, and where it is interrupted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from test.support.process import PATIENCE, Process, until

TEMPLATES = (sys.executable, "-m", "instaslice", "templates")


def shell(script: str) -> subprocess.CompletedProcess[bytes]:
    """Run a script in which "$@" is a command that prints much."""
    command = ["sh", "-c", script, "sh", *TEMPLATES]
    return subprocess.run(command, capture_output=True, timeout=PATIENCE)


@pytest.mark.parametrize(
    ("script", "code", "line"),
    [
        ('"$@" >/dev/full', 2, b"instaslice: standard output: No space left on device\n"),
        ('"$@" >&-', 2, b"instaslice: standard output: is closed\n"),
        ('{ "$@"; echo $? >&3; } 3>&1 >/dev/full 2>/dev/full', 0, b""),
        ('"$@" >/dev/full 2>&-', 2, b""),
    ],
)
def test_output_that_cannot_be_written_is_one_line_at_most(
    script: str, code: int, line: bytes
) -> None:
    done = shell(script)
    assert (done.returncode, done.stderr) == (code, line)


def test_a_reader_that_has_enough_is_told_of_as_a_shell_tells_of_it() -> None:
    done = shell('{ "$@"; echo "code $?" >&2; } | head -n 1')
    assert done.stdout.startswith(b"# Made by: instaslice templates")
    assert done.stderr == b"instaslice: nobody reads the output any more\ncode 141\n"


def test_ctrl_c_is_one_line(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    command = [sys.executable, "-m", "instaslice", "rewrite", str(pipe)]
    process = Process(command, tmp_path / "log")
    try:
        with pipe.open("wb"):  # opens once it is open for reading, too
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE) == 130
        assert process.printed() == "instaslice: interrupted\n"
    finally:
        process.kill()


def test_standard_error_that_is_closed_takes_no_files_place(tmp_path: Path) -> None:
    """Else a file that is opened would be number 2, and a message would be written into it."""
    manifest = tmp_path / "pod.yaml"
    manifest.write_text("kind: Pod\nspec: {containers: 1}\n")
    before = manifest.read_bytes()
    command = [sys.executable, "-m", "instaslice", "rewrite", "--in-place", str(manifest)]
    done = subprocess.run(["sh", "-c", '"$@" 2>&-', "sh", *command], timeout=PATIENCE)
    assert done.returncode not in (0, 1) or manifest.read_bytes() == before
    assert manifest.read_bytes() == before
    until(lambda: sorted(path.name for path in tmp_path.iterdir()) == ["pod.yaml"], "nothing else")
