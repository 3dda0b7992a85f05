"""Servers, each on one core, that wrk measures in turn."""

import contextlib
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from test.support import serving
from test.support.process import Process, free_port, until

HERE = Path(__file__).parent
PATH = "/mutate?timeout=5s"
CONNECTIONS = 16


class Load(NamedTuple):
    """One measurement by wrk."""

    rate: float  #: requests a second
    p50: float  #: milliseconds
    p99: float  #: milliseconds
    cpu: float  #: the server's CPU, microseconds a request
    errors: int


class Place(NamedTuple):
    """A folder with a certificate, and a context that trusts it."""

    folder: Path
    context: ssl.SSLContext


class App(NamedTuple):
    """The program of a server: see `bench.serve`."""

    name: str
    options: tuple[str, ...] = ()
    checkout: Path = HERE.parent  #: of InstaSlice, this one or an earlier


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used: utime and stime of proc(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Server:
    """A server on its core."""

    def __init__(self, place: Place, app: App) -> None:
        self.port = free_port()
        command = ["env", "-C", str(app.checkout), sys.executable, "-m", "bench.serve", app.name]
        command += ["--port", str(self.port), "--cert-dir", str(place.folder), *app.options]
        self.process = Process(command, Path(os.devnull), cpu=min(os.sched_getaffinity(0)))
        self._client = serving.Server(self.process, self.port, place.context)
        until(partial(serving.answers, self._client), f"{app.name} answers", self.process.check)

    def workers(self) -> list[int]:
        return self._client.workers()

    def cpu(self) -> float:
        """Seconds of CPU that the workers have used."""
        return sum(map(cpu, self.workers()))

    def rss(self) -> float:
        """Resident megabytes of the largest worker."""
        return max(serving.memory(pid)["VmRSS"] for pid in self.workers()) / 1024

    def load(
        self, body: Path | None, seconds: float, connections: int = CONNECTIONS, fresh: bool = False
    ) -> Load:
        """POST a body again and again; without one, GET /healthz."""
        environment = dict(os.environ)
        if body:
            environment["BODY"] = str(body)
        if fresh:
            environment["FRESH"] = "1"
        path = PATH if body else "/healthz"
        before = self.cpu()
        result = subprocess.run(
            [
                *("taskset", "--cpu-list", str(max(os.sched_getaffinity(0)))),
                *("wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"),
                *("-s", str(HERE / "post.lua"), f"https://127.0.0.1:{self.port}{path}"),
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        [line] = [line for line in result.stdout.splitlines() if line.startswith("BENCH ")]
        requests, micros, failed, statuses, p50, p99 = map(int, line.split()[1:])
        cpu = (self.cpu() - before) / max(requests, 1) * 1e6
        rate = requests / micros * 1e6
        return Load(rate, p50 / 1000, p99 / 1000, cpu, failed + statuses)


@contextlib.contextmanager
def running(place: Place, *apps: App) -> Iterator[list[Server]]:
    with contextlib.ExitStack() as stack:
        servers = []
        for app in apps:
            servers.append(Server(place, app))
            stack.callback(servers[-1].process.stop, grace=20)
        yield servers


def in_turn(
    place: Place,
    apps: Mapping[str, App],
    rounds: int,
    measures: Mapping[str, Callable[[Server], Load]],
    after: Callable[[list[Server]], None] = lambda servers: None,
) -> dict[str, dict[str, list[Load]]]:
    """Measure servers in turn; returns a load for each round, by measure and by server.

    Each round starts new processes, since a process keeps its speed, and two of the same program
    differed by a fifth.
    """
    measured: dict[str, dict[str, list[Load]]] = {
        label: {name: [] for name in apps} for label in measures
    }
    for _ in range(rounds):
        with running(place, *apps.values()) as servers:
            for server in servers:
                server.load(None, 1)  # warm up
            for label, measure in measures.items():
                for name, server in zip(apps, servers, strict=True):
                    measured[label][name].append(measure(server))
            after(servers)
    return measured
