"""`make bench`: measure InstaSlice beside servers that do nothing, each on one core.

The machine is noisy, so servers take turns, and ratios are computed within a round. The output is
also written to bench/RESULTS.md, with a plot beside it.
"""

import argparse
import contextlib
import copy
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench import plot
from bench.results import record
from bench.servers import CONNECTIONS, App, Load, Place, Server, in_turn, running
from instaslice import review
from instaslice.resource_api import NEWEST
from instaslice.serve.judge import parse
from test.support import serving
from test.support.certs import Authority

HERE = Path(__file__).parent
REVIEWS = HERE.parent / "test" / "data" / "reviews" / "create"
NAMES = ("sample", "deployment", "many")

#: The servers that take turns. The two floors read the body and answer a constant, with the
#: settings of `instaslice serve`: one on gunicorn's own threaded worker, one on InstaSlice's.
GUNICORN, WORKER, OURS = "gunicorn, nothing", "our worker, nothing", "InstaSlice"
SERVERS = {
    GUNICORN: App("floor", ("--worker", "gthread")),
    WORKER: App("floor"),
    OURS: App("instaslice"),
}

Row = list[str]


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


# -- measurements --------------------------------------------------------------------------------


def beside_the_floor(place: Place, files: dict[str, Path], rounds: int, seconds: float) -> str:
    """Measure InstaSlice and the floors in turn."""
    measures = {
        f"{name} ({path.stat().st_size / 1000:.0f} KB)": partial(
            Server.load, body=path, seconds=seconds
        )
        for name, path in files.items()
    }
    memory: dict[str, list[float]] = {name: [] for name in SERVERS}

    def weigh(servers: list[Server]) -> None:
        for found, server in zip(memory.values(), servers, strict=True):
            found.append(server.rss())

    measured = in_turn(place, SERVERS, rounds, measures, weigh)
    rows = []
    for review_name, loads in measured.items():
        for server_name, found in loads.items():
            rows.append([review_name, server_name, *_medians(found)])
            for floor in (GUNICORN, WORKER):
                same = floor == server_name
                rows[-1] += [
                    "1" if same else ratios(found, loads[floor], lambda load: load.rate),
                    "1" if same else ratios(found, loads[floor], lambda load: load.p99),
                ]
            rows[-1].append(str(sum(load.errors for load in found)))
    head = ["review", "server", *COLUMNS, "ratio to gunicorn", "p99 to gunicorn"]
    head += ["ratio to our worker", "p99 to our worker", "errors"]
    weights = ", ".join(f"{name} {statistics.median(mb):.0f} MB" for name, mb in memory.items())
    return table(head, rows) + f"\nResident memory of a worker: {weights}.\n"


def before_and_after(
    checkout: Path, place: Place, files: dict[str, Path], rounds: int, seconds: float
) -> str:
    """Measure InstaSlice and an earlier InstaSlice in turn."""
    apps = {"before": App("instaslice", checkout=checkout), "after": App("instaslice")}
    posts = {
        f"{name}, {number} connections": partial(
            Server.load, body=path, seconds=seconds, connections=number
        )
        for name, path in files.items()
        for number in (4, CONNECTIONS)
    }
    rows = []
    for label, loads in in_turn(place, apps, rounds, posts).items():
        for name, found in loads.items():
            ratio = ratios(found, loads["before"], lambda load: load.rate)
            rows.append([label, name, *_medians(found), "1" if name == "before" else ratio])
    before, after = commit(checkout), commit(HERE)
    return f"Before: {before}. After: {after}.\n\n" + table(
        ["review", "InstaSlice", *COLUMNS, "ratio to before"], rows
    )


def commit(checkout: Path) -> str:
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def ratios(found: list[Load], base: list[Load], field: Callable[[Load], float]) -> str:
    """The median, the least and the most of the ratios within the rounds."""
    return spread([field(load) / field(low) for load, low in zip(found, base, strict=True)])


COLUMNS = ["requests/s", "p50 ms", "p99 ms", "CPU us"]


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
    """Compare the work itself with decoding and encoding its JSON."""
    rows = []
    for name, path in files.items():
        body = path.read_bytes()
        request = review.read(json.loads(body))
        verdict = review.judge(request, NEWEST)
        answer = json.loads(review.respond(request, verdict, []))
        loads, patch, envelope, ours = best(
            partial(json.loads, body),
            partial(json.dumps, verdict.rewrite.operations),
            partial(json.dumps, answer),
            partial(whole, body),
        )
        dumps = patch + envelope
        ratio = ours / (loads + dumps)
        rows.append([name, *(f"{us:.0f}" for us in (loads, dumps, ours)), f"{ratio:.2f}"])
    return table(["review", "json.loads us", "json.dumps us", "review to answer us", "ratio"], rows)


def whole(body: bytes) -> bytes:
    """Answer a review, without counting and logging it."""
    request = parse(body)
    return review.respond(request, review.judge(request, NEWEST), [])


def best(*calls: Callable[[], object]) -> list[float]:
    """The least microseconds of each call. Calls take turns, as servers do."""
    timers = [timeit.Timer(call) for call in calls]
    numbers = [max(1, int(0.02 / max(timer.timeit(1), 1e-6))) for timer in timers]
    least = [float("inf")] * len(calls)
    for _ in range(50):
        for i, (timer, number) in enumerate(zip(timers, numbers, strict=True)):
            least[i] = min(least[i], timer.timeit(number) / number * 1e6)
    return least


def choices(place: Place, files: dict[str, Path], rounds: int, seconds: float) -> str:
    """Compare worker classes, numbers of threads, and JSON parsers."""
    options = {
        "our worker, Python's parser (default)": (),
        "gunicorn's gthread, 1 thread": ("--worker", "gthread", "--threads", "1"),
        "gunicorn's gthread, 4 threads": ("--worker", "gthread", "--threads", "4"),
        "gunicorn's gthread, 8 threads": ("--worker", "gthread", "--threads", "8"),
    }
    if find_spec("orjson"):  # no extra installs it
        options["our worker, orjson"] = ("--json", "orjson")
    servers = {label: App("instaslice", option) for label, option in options.items()}
    post = partial(Server.load, body=files["deployment"], seconds=seconds)
    loads = in_turn(place, servers, rounds, {"": post})[""]
    first = next(iter(loads.values()))
    rows = [
        [label, *_medians(found), ratios(found, first, lambda load: load.rate)]
        for label, found in loads.items()
    ]
    return table(["", *COLUMNS, "ratio to the first"], rows)


def connections(place: Place, files: dict[str, Path], rounds: int, seconds: float) -> str:
    """Compare numbers of connections, kept and with a new one for each request."""
    post = partial(Server.load, body=files["sample"], seconds=seconds)
    measures = {
        f"{number} {'fresh' if fresh else 'kept'}": partial(post, connections=number, fresh=fresh)
        for fresh in (False, True)
        for number in (1, 4, 16, 64, 256)
    }
    rows = []
    points: dict[str, list[tuple[float, float]]] = {name: [] for name in SERVERS}
    for label, loads in in_turn(place, SERVERS, rounds, measures).items():
        floors = [_medians(loads[floor])[0] for floor in (GUNICORN, WORKER)]
        rows.append([label, *_medians(loads[OURS]), *floors])
        if label.endswith("kept"):
            for name, found in loads.items():
                rate = statistics.median(load.rate for load in found)
                points[name].append((rate, statistics.median(load.p99 for load in found)))
    (HERE / "latency.svg").write_text(
        plot.lines("p99 against load, 1 to 256 connections", "requests/s", "p99 ms", points)
    )
    return table(["connections", *COLUMNS, *(f"{floor}/s" for floor in (GUNICORN, WORKER))], rows)


def new_connections(place: Place, rounds: int, seconds: float) -> str:
    """Measure the cost of a new connection: a TLS handshake for each GET /healthz."""
    get = partial(Server.load, body=None, seconds=seconds, fresh=True)
    loads = in_turn(place, SERVERS, rounds, {"": get})[""]
    rows = [
        [name, *_medians(found), ratios(found, loads[WORKER], lambda load: load.cpu)]
        for name, found in loads.items()
    ]
    return table(["", "connections/s", *COLUMNS[1:], "CPU to our worker"], rows)


def containers(place: Place, seconds: float) -> str:
    """Measure how the cost grows with the number of containers; the first 112 have a slice each."""
    rows = []
    with running(place, App("instaslice")) as (ours,):
        for number in (1, 2, 5, 10, 20, 50, 100, 200):
            recorded = json.loads((REVIEWS / "one.json").read_text())
            spec = recorded["request"]["object"]["spec"]
            [container] = spec["containers"]
            spec["containers"] = [copy.deepcopy(container) for _ in range(number)]
            for i, made in enumerate(spec["containers"]):
                made["name"] = f"c{i}"
                if i >= 112:
                    made["resources"] = {}
            path = place.folder / f"containers-{number}.json"
            path.write_text(json.dumps(recorded, **COMPACT))
            load = ours.load(path, seconds)
            size = path.stat().st_size
            each = load.cpu / number
            rows.append([str(number), f"{size / 1000:.1f}", *_medians([load]), f"{each:.1f}"])
    return table(["containers", "KB", *COLUMNS, "CPU us a container"], rows)


def start_up(place: Place) -> str:
    """Measure the seconds from the start of the process to its first answer."""
    times = []
    for _ in range(5):
        start = time.monotonic()
        with serving.serve(place.folder, place.context):
            times.append(time.monotonic() - start)
    return f"Seconds from the start of the process to its first answer: {spread(times)}.\n"


def measure_files() -> str:
    """Run bench.files in a new process: a child's peak memory includes its parent's at the fork."""
    command = [sys.executable, "-m", "bench.files"]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def machine() -> str:
    model = "an unnamed CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    versions = []
    for package in ("gunicorn", "orjson"):
        with contextlib.suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    return (
        f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {', '.join(versions)}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3)
    earlier = "a checkout of an earlier InstaSlice: measure only the two, in turn"
    parser.add_argument("--before", type=Path, metavar="FOLDER", help=earlier)
    arguments = parser.parse_args()
    rounds, seconds = arguments.rounds, arguments.seconds
    if not shutil.which("wrk"):
        raise SystemExit("bench: wrk is missing; on Debian: apt-get install wrk")
    with tempfile.TemporaryDirectory(prefix="instaslice-bench-") as name:
        folder = Path(name)
        authority = Authority()
        place = Place(authority.mint(folder), authority.trusting())
        reviews = bodies(folder)
        if arguments.before:
            checkout = arguments.before.resolve()
            text = before_and_after(checkout, place, reviews, rounds, seconds)
            record("Beside an earlier InstaSlice", text)
            return
        few = max(1, rounds // 2)
        sections: list[tuple[str, Callable[[], str]]] = [
            ("Beside the floor", lambda: beside_the_floor(place, reviews, rounds, seconds)),
            ("The work itself", lambda: pure(reviews)),
            ("Worker class, threads, parser", lambda: choices(place, reviews, rounds, seconds)),
            ("Connections", lambda: connections(place, reviews, few, seconds)),
            ("New connections", lambda: new_connections(place, rounds, seconds)),
            ("Containers in a pod", lambda: containers(place, seconds)),
            ("Start", lambda: start_up(place)),
            ("Files, by `instaslice rewrite`", measure_files),
        ]
        record("Machine", machine())
        for title, measure in sections:
            record(title, measure())


if __name__ == "__main__":
    main()
