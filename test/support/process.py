"""Programs in the background that end with this one, and waiting without luck."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_PR_SET_PDEATHSIG = 1  # prctl(2)


def _die_with_parent() -> None:
    """Between fork and exec: have the kernel kill the child when this process is gone."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Process:
    """A running program; what it prints is in the file `log`.

    It ends at the latest with the thread that started it, also where that is killed (Linux).
    """

    def __init__(self, command: Sequence[str | Path], log: Path) -> None:
        self.name = Path(command[0]).name
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for pytest, which then stops the rest in order
                preexec_fn=_die_with_parent,
            )

    def check(self) -> None:
        """Raise RuntimeError, with the end of its log, if it has ended by itself."""
        code = self._popen.poll()
        if code is not None:
            raise RuntimeError(f"{self.name} ended with {code}:\n{self.tail()}")

    def tail(self, lines: int = 30) -> str:
        """The end of what it printed."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def stop(self, grace: float = 5) -> None:
        """Ask it to end, and kill it after `grace` seconds; no error if it is gone."""
        self._popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._popen.wait(grace)
        self.kill()

    def kill(self) -> None:
        """End it and whatever it started at once; no error if they are gone."""
        with suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()


@contextmanager
def running(command: Sequence[str | Path], log: Path, grace: float = 5) -> Iterator[Process]:
    """A program that runs while the context does, and at most `grace` seconds longer."""
    process = Process(command, log)
    try:
        yield process
    finally:
        process.stop(grace)


def wait_for(
    what: str,
    probe: Callable[[], T],
    *checks: Callable[[], object],
    seconds: float = 30,
    pause: float = 0.1,
) -> T:
    """The first true result of `probe`, which is asked again and again.

    checks: are called in between, and raise where there is no hope (`Process.check`).
    Raises TimeoutError, with the last result.
    """
    deadline = time.monotonic() + seconds
    while not (result := probe()):
        for check in checks:
            check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s; the last answer was {result!r}")
        time.sleep(pause)
    return result


def free_ports(number: int) -> list[int]:
    """TCP ports of loopback that nobody listens on now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
