"""`make bench`: InstaSlice beside a server that does nothing, in one run, on one core each.

The machine is noisy, so the two alternate, and ratios are taken within a round. What is printed is
also written to bench/RESULTS.md, with a plot beside it.
"""

import argparse
import contextlib
import copy
import json
import os
import platform
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import trustme

from bench import plot
from instaslice import review
from instaslice.app import parse
from instaslice.resource_api import NEWEST

HERE = Path(__file__).parent
REVIEWS = HERE.parent / "test" / "data" / "reviews" / "create"
NAMES = ("sample", "deployment", "many")
PATH = "/mutate?timeout=5s"
CONNECTIONS = 16
TICKS = os.sysconf("SC_CLK_TCK")

Row = list[str]


class Load(NamedTuple):
    """What wrk measured in one go."""

    rate: float  #: requests a second
    p50: float  #: milliseconds
    p99: float  #: milliseconds
    cpu: float  #: the server's CPU, microseconds a request
    errors: int


class Server:
    """A server on its core."""

    def __init__(self, cert_dir: Path, app: str, *options: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "bench.serve", app, "--port", str(self.port)]
        command += ["--cert-dir", str(cert_dir), *options]
        self.process = subprocess.Popen(
            command, cwd=HERE.parent, stderr=subprocess.DEVNULL, preexec_fn=_on_first_core
        )
        started = time.monotonic()
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                if self.workers():
                    break
            if self.process.poll() is not None or time.monotonic() - started > 30:
                raise SystemExit(f"bench: {' '.join(command)} did not start")
            time.sleep(0.02)
        time.sleep(0.5)  # for the worker to be past its imports

    def workers(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def cpu(self) -> float:
        """Seconds of CPU that the workers have used."""
        total = 0
        for pid in self.workers():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])  # utime, stime: proc(5)
        return total / TICKS

    def rss(self) -> float:
        """Resident megabytes of a worker, the largest."""
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in self.workers()]
        return max(int(status.split("VmRSS:")[1].split()[0]) / 1024 for status in statuses)

    def load(
        self, body: Path | None, seconds: float, connections: int = CONNECTIONS, fresh: bool = False
    ) -> Load:
        """POST a body again and again, or, without one, ask whether the server is there."""
        environment = dict(os.environ)
        if body:
            environment["BODY"] = str(body)
        if fresh:
            environment["FRESH"] = "1"
        path = PATH if body else "/healthz"
        before = self.cpu()
        result = subprocess.run(
            [
                *("wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"),
                *("-s", str(HERE / "post.lua"), f"https://127.0.0.1:{self.port}{path}"),
            ],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            preexec_fn=_on_last_core,
        )
        [line] = [line for line in result.stdout.splitlines() if line.startswith("BENCH ")]
        requests, micros, failed, statuses, p50, p99 = map(int, line.split()[1:])
        cpu = (self.cpu() - before) / max(requests, 1) * 1e6
        rate = requests / micros * 1e6
        return Load(rate, p50 / 1000, p99 / 1000, cpu, failed + statuses)

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextlib.contextmanager
def running(cert_dir: Path, *apps: tuple[str, ...]) -> Iterator[list[Server]]:
    with contextlib.ExitStack() as stack:
        servers = []
        for app in apps:
            servers.append(Server(cert_dir, *app))
            stack.callback(servers[-1].close)
        yield servers


def _on_first_core() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def _on_last_core() -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def bodies(folder: Path) -> dict[str, Path]:
    """The recorded reviews as the API server sends them: compact."""
    found = {}
    for name in NAMES:
        compact = json.dumps(json.loads((REVIEWS / f"{name}.json").read_text()), **COMPACT)
        found[name] = folder / f"{name}.json"
        found[name].write_text(compact)
    return found


COMPACT: dict[str, Any] = {"separators": (",", ":")}


def spread(values: list[float]) -> str:
    """The median, the least and the most of some ratios."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def table(head: Row, rows: list[Row]) -> str:
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


# -- what is measured ----------------------------------------------------------------------------


def beside_the_floor(cert_dir: Path, files: dict[str, Path], rounds: int, seconds: float) -> str:
    """InstaSlice and the floor, one after the other, again and again."""
    rows = []
    with running(cert_dir, ("floor",), ("instaslice",)) as (floor, ours):
        for server in (floor, ours):
            server.load(files["sample"], 1)  # warm
        for name, path in files.items():
            base, loads = [], []
            for _ in range(rounds):
                base.append(floor.load(path, seconds))
                loads.append(ours.load(path, seconds))
            rates = [load.rate / low.rate for load, low in zip(loads, base, strict=True)]
            tails = [load.p99 / low.p99 for load, low in zip(loads, base, strict=True)]
            for label, found, ratio, tail in (
                ("floor", base, "1", "1"),
                ("InstaSlice", loads, spread(rates), spread(tails)),
            ):
                rows.append(
                    [
                        f"{name} ({path.stat().st_size / 1000:.0f} KB)",
                        label,
                        *_medians(found),
                        ratio,
                        tail,
                        str(sum(load.errors for load in found)),
                    ]
                )
        memory = f"Resident memory of a worker: {ours.rss():.0f} MB, the floor's {floor.rss():.0f}."
    head = ["review", "server", "requests/s", "p50 ms", "p99 ms", "CPU us", "ratio", "p99 ratio"]
    return table([*head, "errors"], rows) + "\n" + memory + "\n"


def _medians(loads: list[Load]) -> Row:
    def middle(field: Callable[[Load], float]) -> float:
        return statistics.median(map(field, loads))

    return [
        f"{middle(lambda load: load.rate):.0f}",
        f"{middle(lambda load: load.p50):.1f}",
        f"{middle(lambda load: load.p99):.1f}",
        f"{middle(lambda load: load.cpu):.0f}",
    ]


def pure(files: dict[str, Path]) -> str:
    """The work itself beside the JSON that it cannot do without."""
    rows = []
    for name, path in files.items():
        body = path.read_bytes()
        request = review.read(json.loads(body))
        verdict = review.judge(request, NEWEST)
        answer = json.loads(review.respond(request, verdict, []))
        loads = best(json.loads, body)
        dumps = best(json.dumps, verdict.rewrite.operations) + best(json.dumps, answer)
        ours = best(whole, body)
        ratio = ours / (loads + dumps)
        rows.append([name, *(f"{us:.0f}" for us in (loads, dumps, ours)), f"{ratio:.2f}"])
    return table(["review", "json.loads us", "json.dumps us", "review to answer us", "ratio"], rows)


def whole(body: bytes) -> bytes:
    """All that is done with a review but counting and logging it."""
    request = parse(body)
    return review.respond(request, review.judge(request, NEWEST), [])


def best(function: Callable[[Any], object], argument: object) -> float:
    """Microseconds of a call when nothing disturbs it."""
    timer = timeit.Timer(lambda: function(argument))
    number = max(1, int(0.02 / max(timer.timeit(1), 1e-6)))
    return min(timer.repeat(30, number)) / number * 1e6


def choices(cert_dir: Path, files: dict[str, Path], rounds: int, seconds: float) -> str:
    """What the worker class, its threads and the parser make of the same application."""
    options = {
        "stall-free (default)": (),
        "gunicorn's gthread, 4 threads": ("--worker", "gthread"),
    }
    if find_spec("gunicorn_h1c"):  # it has to be compiled, so nothing installs it
        options["stall-free, gunicorn_h1c"] = ("--parser", "fast")
    rows = []
    with running(cert_dir, *(("instaslice", *option) for option in options.values())) as servers:
        loads: list[list[Load]] = [[] for _ in servers]
        for _ in range(rounds):
            for found, server in zip(loads, servers, strict=True):
                found.append(server.load(files["deployment"], seconds))
        for label, found in zip(options, loads, strict=True):
            ratios = [load.rate / first.rate for load, first in zip(found, loads[0], strict=True)]
            rows.append([label, *_medians(found), spread(ratios)])
    return table(["", "requests/s", "p50 ms", "p99 ms", "CPU us", "ratio to the first"], rows)


def connections(cert_dir: Path, files: dict[str, Path], rounds: int, seconds: float) -> str:
    """A new TLS connection for each request, beside the floor's; and how many at once matter."""
    rows = []
    points: dict[str, list[tuple[float, float]]] = {"floor": [], "InstaSlice": []}
    with running(cert_dir, ("floor",), ("instaslice",)) as (floor, ours):
        for fresh in (False, True):
            for number in (1, 4, 16, 64, 256):
                base, loads = [], []
                for _ in range(rounds):
                    base.append(floor.load(files["sample"], seconds, number, fresh))
                    loads.append(ours.load(files["sample"], seconds, number, fresh))
                ratio = [load.cpu / low.cpu for load, low in zip(loads, base, strict=True)]
                kind = "fresh" if fresh else "kept"
                rows.append([f"{number} {kind}", *_medians(loads), _medians(base)[0]])
                rows[-1].append(spread(ratio))
                if not fresh:
                    for label, found in (("floor", base), ("InstaSlice", loads)):
                        rate = statistics.median(load.rate for load in found)
                        points[label].append((rate, statistics.median(load.p99 for load in found)))
    (HERE / "latency.svg").write_text(
        plot.lines("p99 against load, 1 to 256 connections", "requests/s", "p99 ms", points)
    )
    head = ["connections", "requests/s", "p50 ms", "p99 ms", "CPU us", "floor's requests/s"]
    return table([*head, "CPU ratio to the floor"], rows)


def new_connections(cert_dir: Path, rounds: int, seconds: float) -> str:
    """A TLS handshake for each GET /healthz: what a new connection costs, and nothing else."""
    with running(cert_dir, ("floor",), ("instaslice",)) as (floor, ours):
        base, loads = [], []
        for _ in range(rounds):
            base.append(floor.load(None, seconds, fresh=True))
            loads.append(ours.load(None, seconds, fresh=True))
    ratios = [load.cpu / low.cpu for load, low in zip(loads, base, strict=True)]
    rows = [["floor", *_medians(base), "1"], ["InstaSlice", *_medians(loads), spread(ratios)]]
    return table(["", "connections/s", "p50 ms", "p99 ms", "CPU us", "CPU ratio"], rows)


def containers(cert_dir: Path, folder: Path, seconds: float) -> str:
    """How the cost grows with the pod: containers with a slice each (at most 112 hold one)."""
    rows = []
    with running(cert_dir, ("instaslice",)) as (ours,):
        for number in (1, 2, 5, 10, 20, 50, 100, 200):
            recorded = json.loads((REVIEWS / "one.json").read_text())
            spec = recorded["request"]["object"]["spec"]
            [container] = spec["containers"]
            spec["containers"] = [copy.deepcopy(container) for _ in range(number)]
            for i, made in enumerate(spec["containers"]):
                made["name"] = f"c{i}"
                if i >= 112:
                    made["resources"] = {}
            path = folder / f"containers-{number}.json"
            path.write_text(json.dumps(recorded, **COMPACT))
            load = ours.load(path, seconds)
            size = path.stat().st_size
            each = load.cpu / number
            rows.append([str(number), f"{size / 1000:.1f}", *_medians([load]), f"{each:.1f}"])
    head = ["containers", "KB", "requests/s", "p50 ms", "p99 ms", "CPU us", "CPU us a container"]
    return table(head, rows)


def workers(cert_dir: Path, files: dict[str, Path], seconds: float) -> str:
    """One worker and two, on the one core that the server has here."""
    rows = []
    for number in (1, 2):
        with running(cert_dir, ("instaslice", "--workers", str(number))) as (ours,):
            rows.append([str(number), *_medians([ours.load(files["sample"], seconds)])])
    return table(["workers", "requests/s", "p50 ms", "p99 ms", "CPU us"], rows)


def start_up(cert_dir: Path) -> str:
    """Seconds from the start of the process to its first answer."""
    times = []
    for _ in range(5):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [sys.executable, "-m", "instaslice", "serve", "--resource-api", "v1"]
        command += ["--cert-dir", str(cert_dir), "--bind", f"127.0.0.1:{port}"]
        start = time.monotonic()
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        get = b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n"
        context = plain_context()
        while True:
            with contextlib.suppress(OSError):
                raw = socket.create_connection(("127.0.0.1", port), 5)
                with context.wrap_socket(raw) as connection:
                    connection.sendall(get)
                    if connection.recv(100):
                        break
            if time.monotonic() - start > 30:
                raise SystemExit("bench: instaslice serve did not start")
            time.sleep(0.005)
        times.append(time.monotonic() - start)
        process.terminate()
        process.wait()
    return f"Seconds from the start of the process to its first answer: {spread(times)}.\n"


def plain_context() -> Any:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def machine() -> str:
    model = "an unnamed CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    parsers = "gunicorn_h1c"
    try:
        parsers += " " + version("gunicorn_h1c")
    except PackageNotFoundError:
        parsers += " not installed"
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, gunicorn {version('gunicorn')}, {parsers}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    rounds, seconds = arguments.rounds, arguments.seconds
    if not shutil.which("wrk"):
        raise SystemExit("bench: wrk is missing; on Debian: apt-get install wrk")
    with tempfile.TemporaryDirectory(prefix="instaslice-bench-") as name:
        folder = Path(name)
        authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        certificate = authority.issue_cert("127.0.0.1", key_type=trustme.KeyType.ECDSA)
        certificate.private_key_pem.write_to_path(str(folder / "tls.key"))
        certificate.cert_chain_pems[0].write_to_path(str(folder / "tls.crt"))
        files = bodies(folder)
        few = max(1, rounds // 2)
        sections: list[tuple[str, Callable[[], str]]] = [
            ("Beside the floor", lambda: beside_the_floor(folder, files, rounds, seconds)),
            ("The work itself", lambda: pure(files)),
            ("Worker class, threads, parser", lambda: choices(folder, files, rounds, seconds)),
            ("Connections", lambda: connections(folder, files, few, seconds)),
            ("New connections", lambda: new_connections(folder, rounds, seconds)),
            ("Containers in a pod", lambda: containers(folder, folder, seconds)),
            ("Workers", lambda: workers(folder, files, seconds)),
            ("Start", lambda: start_up(folder)),
        ]
        text = "# Results of `make bench`\n\n" + machine()
        print(text, flush=True)
        for title, measure in sections:
            section = f"\n## {title}\n\n{measure()}"
            print(section, flush=True)
            text += section
    (HERE / "RESULTS.md").write_text(text)


if __name__ == "__main__":
    main()
