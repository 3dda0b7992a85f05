"""Background programs that end with this one, and waiting with a deadline.

This module needs only the standard library: hack/run.py uses it too.
"""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, TypeVar

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
HOST = "127.0.0.1"
#: Seconds to wait for what takes well under one on an idle machine.
PATIENCE = 30.0

#: Has the kernel kill a program when the thread that started it ends (util-linux; Linux only).
#: Python 3.12 warns of `preexec_fn` in a process with threads.
_BOUND = ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()

#: The most bytes of a log that are read: the program under test decides how long it is.
MAX_LOG = 64 << 20
#: Bytes that hold the last 30 lines of a log, of at most 8 KiB each, as gunicorn bounds a header.
MAX_TAIL = 30 * 8192


class Process:
    """A running program, which ends at the latest with the thread that started it (Linux)."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path | None,
        environment: Mapping[str, str] | None = None,
        cpu: int | None = None,
    ) -> None:
        """Start it in the root of the repository.

        log: the file for its output; None for this process's output.
        environment: added to this process's. cpu: the only one that it may use.
        Raises FileNotFoundError if the program is missing.
        """
        self.name = Path(command[0]).name
        if not shutil.which(command[0]):
            raise FileNotFoundError(f"{self.name} is not on PATH")
        self.log = log
        pinned = () if cpu is None else ("taskset", "--cpu-list", str(cpu))
        output = log.open("ab") if log else None
        try:
            self._popen = subprocess.Popen(
                [*_BOUND, *pinned, *command],
                cwd=ROOT,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C reaches only this process
            )
        finally:
            if output:
                output.close()

    @property
    def pid(self) -> int:
        return self._popen.pid

    def poll(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._popen.poll()

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; returns its exit code. Raises subprocess.TimeoutExpired."""
        return self._popen.wait(timeout)

    def send_signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def check(self) -> None:
        """Raise RuntimeError, with the end of its log, if it has ended."""
        code = self.poll()
        if code is not None:
            raise RuntimeError(f"{self.name} ended with {code}:\n{self.tail()}")

    def printed(self, limit: int = MAX_LOG) -> str:
        """The last `limit` bytes of its log; empty unless that is a regular file.

        A log may be a device: reading /dev/full to its end fills the memory.
        """
        if self.log is None or not self.log.is_file():
            return ""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - limit))
            return log.read(limit).decode(errors="replace")

    def tail(self, lines: int = 30) -> str:
        """The last lines of its log."""
        return "\n".join(self.printed(MAX_TAIL).splitlines()[-lines:])

    def stop(self, grace: float = 5) -> None:
        """Ask it to end, and kill it after `grace` seconds; no error if it is gone."""
        self._popen.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.wait(grace)
        self.kill()

    def kill(self) -> None:
        """Kill it and what it has started; no error if they are gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()


@contextmanager
def running(
    command: Sequence[str | Path],
    log: Path | None,
    environment: Mapping[str, str] | None = None,
    grace: float = 5,
) -> Iterator[Process]:
    """Run a program until the block ends, and at most `grace` seconds longer."""
    process = Process(command, log, environment)
    try:
        yield process
    finally:
        process.stop(grace)


def until(
    probe: Callable[..., T | Literal[False] | None],
    what: str = "the condition",
    *checks: Callable[[], object],
    seconds: float = PATIENCE,
    every: float = 0.02,
) -> T:
    """Call `probe` until its result is true; returns that result.

    what: the condition, for the message. checks: called in between; they raise if waiting is in
    vain (`Process.check`). Raises TimeoutError, with the last result.
    """
    deadline = time.monotonic() + seconds
    while not (result := probe()):
        for check in checks:
            check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s; the last answer was {result!r}")
        time.sleep(every)
    return result


#: The number of ports of each test process.
_OWN_PORTS = 1000


def _own_ports() -> Iterator[int]:
    """The ports of this process, in an endless cycle; other test processes have others.

    They are below those that Linux gives to clients (ip_local_port_range, from 32,768), so that no
    connection takes one before its server does, and above those of Kubernetes' components.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 11_000 + worker % 20 * _OWN_PORTS
    # Another test run on the same machine begins with another port.
    start = os.getpid()
    return itertools.cycle([first + (start + i) % _OWN_PORTS for i in range(_OWN_PORTS)])


_ports = _own_ports()


def free_port() -> int:
    """A free TCP port of loopback, which is not returned again soon. Raises OSError."""
    for port in itertools.islice(_ports, _OWN_PORTS):
        with suppress(OSError), socket.create_server((HOST, port)):
            return port
    raise OSError(f"none of {_OWN_PORTS} ports of {HOST} is free")


def free_ports(number: int) -> list[int]:
    """Some free ports."""
    return [free_port() for _ in range(number)]
