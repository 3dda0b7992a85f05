"""`make soak`: cause the faults of test/serve/test_faults.py for longer, and measure their cost.

`python -m bench.soak NAME...` runs some sections. SOAK_MINUTES (default 10) is the approximate
duration. Prints a Markdown table. The exit code is 1 if a bound is broken.
"""

import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import hostile
from bench.place import MIB, MINUTES, Place, Row, admit, count, percentiles
from test.support import worst
from test.support.apiserver import FAULTS, APIServer, reaching
from test.support.process import until
from test.support.serving import (
    NOT_CONNECTED,
    SAMPLE,
    STALLS,
    Load,
    Server,
    hung_up,
    memory,
    replace_pair,
)

SEVEN = SAMPLE + b" " * (7 * 1024 * 1024 - len(SAMPLE))
DENSE = worst.dense()


# -- the faults ----------------------------------------------------------------------------------


def requests(place: Place) -> Iterator[Row]:
    few, many = 2000, count(200_000)
    with place.serve() as server:
        with Load(server) as clients:
            until(lambda: clients.answered >= few)
            before = server.resident()
            until(lambda: clients.answered >= many, seconds=60 * MINUTES, every=0.2)
            after = server.resident()
        grown = (after - before) / MIB
        what = f"Resident memory after {few:,} and after {many:,} requests"
        yield Row(what, f"{before / MIB:.1f} and {after / MIB:.1f} MiB", "5 MiB apart", grown < 5)
        failures = len(clients.failures)
        yield Row("... requests that failed", str(failures), "0", failures == 0)


def stalls(place: Place) -> Iterator[Row]:
    end = time.monotonic() + count(150)
    longest, dropped = 0.0, 0
    with place.serve() as server, Load(server, clients=2, reconnect=True) as honest:
        while time.monotonic() < end:
            with contextlib.ExitStack() as stack:
                start = time.monotonic()
                stalled = [stack.enter_context(s(server)) for s in STALLS for _ in range(200)]
                opened = time.monotonic()
                until(lambda all_of=stalled: all(map(hung_up, all_of)))
                longest = max(longest, time.monotonic() - opened)
                assert opened - start < 10
                dropped += len(stalled)
    what = f"Honest requests beside 600 stalled clients ({len(honest.seconds):,}): p50 / p99 / max"
    yield Row(what, percentiles(honest.seconds), "max 1 s", max(honest.seconds) < 1)
    yield Row("... requests that failed", str(len(honest.failures)), "0", not honest.failures)
    yield Row(
        f"{dropped:,} stalled clients dropped within", f"{longest:.1f} s", "10 s", longest < 10
    )


def rotations(place: Place) -> Iterator[Row]:
    times = count(500)
    pairs = [place.authority.mint(place.folder / str(number)) for number in range(2)]
    with (
        place.serve() as server,
        Load(server),
        Load(server, clients=2, reconnect=True) as fresh,
    ):
        for number in range(times):
            replace_pair(place.folder / "certs", pairs[number % 2])
            time.sleep(0.05)
    what = f"{times} certificate rotations: failed of {fresh.answered:,} new connections"
    yield Row(what, str(len(fresh.failures)), "0", not fresh.failures)


def departures(place: Place) -> Iterator[Row]:
    times, lost, answered, longest = count(20), 0, 0, 0.0
    for _ in range(times):
        with place.serve() as server, Load(server, clients=8) as clients:
            until(lambda c=clients: c.answered > 100)
            start = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(timeout=15) == 0
            longest = max(longest, time.monotonic() - start)
        lost += sum(failure != NOT_CONNECTED for failure in clients.failures)
        answered += clients.answered
    what = f"{times} SIGTERMs under load: replies lost of {answered:,}"
    yield Row(what, str(lost), "0", lost == 0)
    yield Row("... and the longest exit", f"{longest:.1f} s", "10 s", longest < 10)


def kills(place: Place) -> Iterator[Row]:
    times, longest = count(20), 0.0
    with place.serve() as server:
        for _ in range(times):
            [worker] = until(lambda: len(server.workers()) == 1 and server.workers())
            os.kill(worker, signal.SIGKILL)
            start = time.monotonic()
            assert server.call("POST", "/mutate", SAMPLE)[0] == 200
            longest = max(longest, time.monotonic() - start)
            until(lambda gone=worker: gone not in server.workers())
    what = f"{times} workers killed: longest time to the next answer"
    yield Row(what, f"{longest:.2f} s", "2 s", longest < 2)


def api_server(place: Place) -> Iterator[Row]:
    account = place.account()
    cert_dir = place.authority.mint(place.folder / "certs")
    for fault in ("hang", "drip", "hang_up", "endless", "500", "closed"):
        seconds: list[float] = []
        with contextlib.ExitStack() as stack:
            cluster = APIServer(cert_dir, "v1")
            closing = stack.enter_context(contextlib.ExitStack())
            closing.callback(cluster.close)
            options = ["--provision-templates", *reaching(cluster, account)]
            server = stack.enter_context(place.serve(*options))
            cluster.fault = FAULTS.get(fault)
            if fault == "closed":
                closing.close()
            end = time.monotonic() + count(10)
            threads = [
                threading.Thread(target=admit, args=(server, f"{fault}-{i}", end, seconds))
                for i in range(20)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        what = f"API server `{fault}`: admission of {len(seconds):,} pods, p50 / p99 / max"
        yield Row(what, percentiles(seconds), "max 3 s", max(seconds) < 3)


def sizes(place: Place) -> Iterator[Row]:
    """Measure the memory that reviews of 7 MiB take, one and many."""
    with place.serve() as server:
        master, [worker] = server.process.pid, server.workers()
        steps: tuple[tuple[str, Callable[[], object]], ...] = (
            ("at the start", lambda: None),
            ("after 10,000 sample reviews", lambda: several(server, SAMPLE, 4, 10_000)),
            ("after a review of 7 MiB, mostly blanks", lambda: several(server, SEVEN, 1, 1)),
            ("after 16 of them at once", lambda: several(server, SEVEN, 16, 16)),
            ("after the densest accepted review", lambda: several(server, DENSE, 1, 1)),
            ("after 16 of them at once", lambda: several(server, DENSE, 16, 16)),
        )
        for what, step in steps:
            step()
            here, peak = memory(worker)["VmRSS"], memory(worker)["VmHWM"]
            parts = f"{memory(master)['VmRSS'] / MIB:.0f}, {here / MIB:.0f}, {peak / MIB:.0f} MiB"
            yield Row(f"Master, worker, worker's peak {what}", parts, "400 MiB", peak < 400 * MIB)
        assert server.workers() == [worker]


def several(server: Server, body: bytes, clients: int, requests: int) -> None:
    """Send a body `requests` times, by several clients at once; some requests may be refused."""
    with Load(server, clients, body=body) as running:
        until(lambda: running.answered >= requests, seconds=120)


SECTIONS = (
    *(sizes, requests, stalls, rotations, departures, kills, api_server),
    *hostile.SECTIONS,
)


def main() -> int:
    rows = []
    print("| Fault | Measured | Bound | |\n|---|---|---|---|", flush=True)
    chosen = sys.argv[1:]
    for section in SECTIONS:
        if chosen and section.__name__ not in chosen:
            continue
        with tempfile.TemporaryDirectory() as folder:
            for row in section(Place(Path(folder))):
                rows.append(row)
                verdict = "held" if row.held else "BROKEN"
                cells = (row.what, row.measured, row.bound, verdict)
                print(f"| {' | '.join(cells)} |", flush=True)
    return 0 if all(row.held for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
