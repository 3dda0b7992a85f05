"""Sections of the soak: attacks on a real server, each beside an honest client."""

import contextlib
import http.client
import json
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from bench.place import MIB, MINUTES, Json, Place, Row, admit, count, percentiles
from bench.servers import cpu
from instaslice.serve.limits import Limits
from test.support import attacks, worst
from test.support.apiserver import FAULTS, APIServer, reaching
from test.support.limits import memory_limit
from test.support.process import until
from test.support.reviews import load, pod_review
from test.support.serving import SAMPLE, Load, Server, exchange, memory


def shapes(size: int) -> dict[str, Json]:
    """Specs of pods of about `size` bytes, each filled with one thing that a user can type."""
    mig = "nvidia.com/mig-1g.5gb"

    def repeat(member: Callable[[int], Any]) -> list[Any]:
        return [member(number) for number in range(size // len(json.dumps(member(10_000))))]

    def entries(name: Callable[[int], str], amount: str) -> dict[str, str]:
        return {name(i): amount for i in range(size // len(f'"{name(10_000)}": "{amount}", '))}

    def limits(found: dict[str, str]) -> Json:
        return {"containers": [{"name": "c", "resources": {"limits": found}}]}

    zero = {"resources": {"limits": {mig: "0"}}}
    nest: Any = "x"
    for _ in range(400):
        nest = [nest]
    return {
        "MIG entries of 0 in one container": limits(
            entries(lambda i: f"nvidia.com/mig-{i % 9 + 1}g.{i}gb", "0")
        ),
        "containers": {"containers": repeat(lambda i: {"name": f"c{i}", **zero})},
        "init containers": {
            "initContainers": repeat(lambda i: {"name": f"i{i}", **zero}),
            "containers": [{"name": "c", "resources": {"limits": {mig: "1"}}}],
        },
        "claims": {
            "resourceClaims": repeat(lambda i: {"name": f"x{i}", "resourceClaimName": "y"}),
            "containers": [{"name": "c", "resources": {"limits": {mig: "1"}}}],
        },
        "resources that are not MIG": limits(entries(lambda i: f"example.com/x{i}", "1")),
        "MIG resources of no known profile": limits(entries(lambda i: f"nvidia.com/mig-x{i}", "1")),
        "long names": limits(entries(lambda i: f"nvidia.com/mig-{i}{'g' * 10_000}", "1")),
        "lists in lists": {**limits({mig: "1"}), "x": repeat(lambda i: nest)},
    }


def long_pods(place: Place) -> Iterator[Row]:
    """Measure the CPU time of one pod of 3 MiB at a time, and its growth with the size.

    Tests count operations, which grow linearly. This measurement includes the processor's caches:
    decoding JSON alone costs up to 3 times as much for twice the size, and quadratic work 4 times.
    """
    # Two doublings, since Python's own tables grow in steps.
    quarter, whole = shapes(3 << 18), shapes(3 << 20)
    times = 15  # a tick of the kernel's clock is a hundredth of a second
    longest, slowest, ratio = 0.0, "", 0.0
    with place.serve() as server:
        [worker] = server.workers()
        for shape in whole:
            seconds = []
            for spec in (quarter[shape], whole[shape]):
                body = json.dumps(pod_review({"spec": spec}), separators=(",", ":")).encode()
                before = cpu(worker)
                for _ in range(times):
                    assert server.call("POST", "/mutate", body)[0] == 200
                seconds.append((cpu(worker) - before) / times)
            longest, slowest = max((longest, slowest), (seconds[1], shape))
            ratio = max(ratio, math.sqrt(seconds[1] / max(seconds[0], 0.001)))
    what = f"CPU of the slowest of {len(whole)} shapes of a pod of 3 MiB ({slowest})"
    yield Row(what, f"{longest:.2f} s", "0.5 s", longest < 0.5)
    yield Row("... and the most for twice the size", f"{ratio:.1f} times", "2.3", ratio <= 2.3)


def dialled_ahead(place: Place) -> Iterator[Row]:
    """Use connections long after they were opened, and after SIGTERM."""
    number = 100
    lost = 0
    with place.serve() as server, contextlib.ExitStack() as stack:
        ahead = [stack.enter_context(contextlib.closing(server.connect())) for _ in range(number)]
        for each in ahead:
            each.connect()
        time.sleep(min(90, count(60) + 10))  # this section is about the time itself
        lost += sum(not answers(each) for each in ahead)
    what = f"{number} connections used {min(90, count(60) + 10)} s after they were opened: lost"
    yield Row(what, str(lost), "0", lost == 0)
    lost, latest = 0, 0.0
    with place.serve() as server, contextlib.ExitStack() as stack:
        ahead = [stack.enter_context(contextlib.closing(server.connect())) for _ in range(70)]
        for each in ahead:
            each.connect()
        server.process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        for each in ahead:
            latest = time.monotonic() - start
            lost += not answers(each)
            time.sleep(0.1)
    what = f"{len(ahead)} requests up to {latest:.1f} s after SIGTERM: lost"
    yield Row(what, str(lost), "0", lost == 0)


def answers(connection: http.client.HTTPConnection) -> bool:
    """Whether the sample is answered on an open connection."""
    try:
        return exchange(connection, "POST", "/mutate", SAMPLE)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def unread_log(place: Place) -> Iterator[Row]:
    """Log into a pipe, as a container does, that nobody reads."""
    many = max(20_000, count(100_000))  # 4 MiB of lines may wait
    pipe = place.folder / "log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR)
    try:
        with place.serve(stderr=str(pipe)) as server, Load(server) as clients:
            until(lambda: clients.answered >= many, seconds=60 + 60 * MINUTES)
            dropped = server.metric("instaslice_log_lines_dropped_total")
    finally:
        os.close(reader)
    failed = len(clients.failures)
    what = f"{many:,} admissions while nobody reads the log: failed"
    yield Row(what, str(failed), "0", failed == 0)
    yield Row("... log lines dropped and counted", f"{dropped:,.0f}", "some", dropped > 0)


def unread_replies(place: Place) -> Iterator[Row]:
    """Serve clients that ask for the longest replies and read none."""
    spec = {
        "initContainers": [slices(f"i{number}", 16) for number in range(111)],
        "containers": [slices("c", 16)],
    }
    body = json.dumps(pod_review({"spec": spec})).encode()
    head = "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with place.serve("--resource-api", "v1alpha2") as server, contextlib.ExitStack() as stack:
        [worker] = server.workers()
        for _ in range(40):
            connection = stack.enter_context(server.raw())
            connection.settimeout(0.2)
            with contextlib.suppress(OSError):
                for _ in range(200):
                    connection.sendall(request)
        honest = server.call("POST", "/mutate", SAMPLE)[0] == 200
        peak = memory(worker)["VmHWM"] / MIB
    what = "Worker's peak with 40 clients that read no reply"
    yield Row(what, f"{peak:.0f} MiB", "200 MiB", honest and peak < 200)


def slices(name: str, number: int) -> Json:
    return {"name": name, "resources": {"limits": {"nvidia.com/mig-1g.5gb": str(number)}}}


def the_worst(place: Place) -> Iterator[Row]:
    """Serve the worst clients together, within the Deployment's memory."""
    account = place.account()
    size = 512 * MIB * MIB
    with contextlib.ExitStack() as stack:
        cluster = APIServer(place.authority.mint(place.folder / "certs"), "v1")
        stack.callback(cluster.close)
        limit = stack.enter_context(memory_limit(size))
        options = ["--provision-templates", *reaching(cluster, account)]
        server = stack.enter_context(place.serve(*options, within=limit.command))
        [worker] = server.workers()
        worst.hold_idle(server, stack, Limits().connections - 100)
        cluster.fault = FAULTS["hang"]
        clients = [
            stack.enter_context(Load(server, clients=1, body=worst.dense(f"n{number}")))
            for number in range(6)
        ]
        until(lambda: sum(each.answered for each in clients) > 6, seconds=120)
        worst.hold_unfinished(server, stack, Limits().large)
        until(lambda: sum(each.answered for each in clients) > 12, seconds=120)
        honest = server.call("POST", "/mutate", SAMPLE)[0] == 200
        survived = server.workers() == [worker]
        apart = sum(memory(pid)["VmHWM"] for pid in (server.process.pid, worker)) * MIB
        peak = limit.peak() or apart
    what = (
        f"Peak of all processes: {Limits().connections - 100:,} idle connections, "
        f"{Limits().large >> 20} MiB of unfinished requests, "
        "6 clients with the densest reviews, an API server that hangs"
    )
    held = honest and survived and peak < size
    yield Row(what, f"{peak >> 20} MiB", "512 MiB, and it lives", held)


def silent_api_server(place: Place) -> Iterator[Row]:
    """Serve beside an API server that accepts connections and never does the handshake."""
    account = place.account()
    seconds: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where: Any = SimpleNamespace(port=silent.getsockname()[1])
        options = ["--provision-templates", *reaching(where, account)]
        with place.serve(*options) as server:
            end = time.monotonic() + count(30)
            admit(server, "silent", end, seconds)
    what = (
        f"API server without a TLS handshake: admission of {len(seconds):,} pods, p50 / p99 / max"
    )
    yield Row(what, percentiles(seconds), "max 3 s", max(seconds) < 3)


def tried_again(place: Place) -> Iterator[Row]:
    """Create a failed template when another pod asks, not after the doubled pause."""
    account = place.account()
    longest = 0.0
    with contextlib.ExitStack() as stack:
        cluster = APIServer(place.authority.mint(place.folder / "certs"), "v1")
        stack.callback(cluster.close)
        options = ["--provision-templates", *reaching(cluster, account)]
        server = stack.enter_context(place.serve(*options))
        for number in range(count(5)):
            namespace = f"again-{number}"
            review = load("create", "sample")
            review["request"]["namespace"] = namespace
            body = json.dumps(review).encode()
            cluster.fault = FAULTS["500"]
            for _ in range(6):
                server.call("POST", "/mutate", body)
            cluster.fault = None
            cluster.namespaces.add(namespace)
            start = time.monotonic()
            until(lambda b=body: not warnings(server, b), every=0.1)
            longest = max(longest, time.monotonic() - start)
    what = "After an API server's fault is over, a pod has its template within"
    yield Row(what, f"{longest:.1f} s", "3 s", longest < 3)


def warnings(server: Server, body: bytes) -> list[str]:
    """The warnings in the answer to a review."""
    found: list[str] = json.loads(server.call("POST", "/mutate", body)[1])["response"].get(
        "warnings", []
    )
    return found


def attacked(place: Place) -> Iterator[Row]:
    """Run each attack, and all of them, beside an honest client of the same address, in 512 MiB."""
    for names in [*([name] for name in attacks.ATTACKS), [*attacks.ATTACKS]]:
        seconds: list[float] = []
        lost = 0
        with contextlib.ExitStack() as stack:
            limit = stack.enter_context(memory_limit(512 * MIB * MIB))
            server = stack.enter_context(place.serve(within=limit.command))
            [worker] = server.workers()
            kept = stack.enter_context(contextlib.closing(server.connect()))
            for name in names:
                stack.enter_context(attacks.attack(name, server.port))
            time.sleep(len(names))
            end = time.monotonic() + count(30)
            while time.monotonic() < end:
                with contextlib.closing(server.connect()) as new:
                    for connection in (new, kept):
                        start = time.monotonic()
                        lost += not answers(connection)
                        seconds.append(time.monotonic() - start)
            peak = (limit.peak() or memory(worker)["VmHWM"] * MIB) >> 20
            held = lost == 0 and max(seconds) < 0.5 and server.workers() == [worker]
        who = names[0] if len(names) == 1 else "all of these at once"
        what = f"{who}: an honest request, p50 / p99 / max; lost; peak of all processes"
        measured = f"{percentiles(seconds)}; {lost}; {peak} MiB"
        yield Row(what, measured, "max 0.5 s; 0; 512 MiB", held)


SECTIONS = (
    attacked,
    *(long_pods, dialled_ahead, unread_log, unread_replies, the_worst),
    *(silent_api_server, tried_again),
)
