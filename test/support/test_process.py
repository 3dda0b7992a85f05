"""Programs that tests start end with them, and waiting and reading are bounded."""

import os
import signal
import sys
from pathlib import Path

import pytest

from test.support.process import Process, running, until

#: Writes its process id into a file, then sleeps.
SLEEP = ["sh", "-c", 'echo $$ > "$0"; exec sleep 600']


def started(pid_file: Path) -> int:
    return int(until(lambda: pid_file.exists() and pid_file.read_text().strip(), "the process"))


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Killed, but its new parent has not reaped it yet.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="setpriv --pdeathsig needs Linux")
def test_a_program_ends_after_this_process_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from test.support.process import Process\n"
        "Process(sys.argv[2:], Path(sys.argv[1])); time.sleep(600)"
    )
    parent = Process(
        [sys.executable, "-c", program, tmp_path / "log", *SLEEP, tmp_path / "pid"], log=None
    )
    try:
        pid = started(tmp_path / "pid")
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    until(lambda: is_gone(pid), "its child is gone")


def test_a_program_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    deaf = ["sh", "-c", 'trap "" TERM; echo $$ > "$0"; while :; do sleep 600; done']

    def fail() -> None:
        with running([*deaf, tmp_path / "pid"], tmp_path / "log", grace=0.1):
            started(tmp_path / "pid")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert is_gone(started(tmp_path / "pid"))
