"""`make bench-create`: measure what InstaSlice adds to the creation of a pod.

Pods without and with MIG slices are created on a real API server (KUBEBUILDER_ASSETS), without and
with InstaSlice. The four variants take turns, round by round, so that other load affects all alike.
Prints a Markdown table.
"""

import argparse
import json
import math
import os
import platform
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from http.client import HTTPSConnection
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from test.e2e import installation
from test.e2e.cluster import Cluster
from test.e2e.controlplane import ControlPlane, control_plane
from test.e2e.pods import container, pod
from test.e2e.webhook import Webhook
from test.support.process import until

Json = dict[str, Any]

NAMESPACE = "bench"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


class Load(NamedTuple):
    """The rounds, the pods of each, and the number of connections that create them at once."""

    rounds: int
    pods: int
    connections: int


@dataclass
class Variant:
    """A row of the table, and its measurements."""

    name: str
    manifest: Json
    with_instaslice: bool
    rates: list[float] = field(default_factory=list)  #: pods per second, by round
    times: list[float] = field(default_factory=list)  #: milliseconds of each create


def variants() -> list[Variant]:
    plain, mig = pod("", container()), pod("", container(limits={"mig-1g.5gb": 1}))
    return [
        Variant("pod without MIG, no InstaSlice", plain, with_instaslice=False),
        Variant("pod with a slice, no InstaSlice", mig, with_instaslice=False),
        Variant("pod without MIG, InstaSlice", plain, with_instaslice=True),
        Variant("pod with a slice, InstaSlice", mig, with_instaslice=True),
    ]


def assets() -> Path:
    """The folder that KUBEBUILDER_ASSETS names."""
    if named := os.environ.get("KUBEBUILDER_ASSETS"):
        return Path(named)
    sys.exit("bench: KUBEBUILDER_ASSETS names no folder; see setup-envtest")


def connect(plane: ControlPlane, timeout: float) -> HTTPSConnection:
    """A connection to the API server with the administrator's certificate."""
    trust = ssl.create_default_context(cafile=plane.ca)
    trust.load_cert_chain(plane.admin)
    url = urlsplit(plane.url)
    assert url.hostname
    connection = HTTPSConnection(url.hostname, url.port, context=trust, timeout=timeout)
    connection.connect()
    return connection


def create(plane: ControlPlane, bodies: list[bytes]) -> list[float]:
    """Create pods one after the other over one connection; returns milliseconds for each."""
    connection = connect(plane, timeout=30)
    times = []
    for body in bodies:
        start = time.perf_counter()
        connection.request("POST", PODS, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
        times.append((time.perf_counter() - start) * 1000)
        if answer.status != 201:
            raise RuntimeError(f"a pod was not created: {said.decode()}")
    connection.close()
    return times


def measure(row: Variant, cluster: Cluster, names: Iterator[int], load: Load) -> None:
    """Measure one round of a variant, then delete its pods."""
    bodies = [
        json.dumps({**row.manifest, "metadata": {"name": f"p{next(names)}"}}).encode()
        for _ in range(load.pods)
    ]
    shares = [bodies[first :: load.connections] for first in range(load.connections)]
    with ThreadPoolExecutor(load.connections) as threads:
        start = time.perf_counter()
        times = [ms for part in threads.map(partial(create, cluster.plane), shares) for ms in part]
        row.rates.append(load.pods / (time.perf_counter() - start))
    row.times += times
    delete_all(cluster)


def delete_all(cluster: Cluster) -> None:
    """Delete the pods of a round at once."""
    cluster.within(NAMESPACE).send(
        "delete",
        "Pod",
        field_selector=f"metadata.namespace={NAMESPACE}",
        body={"gracePeriodSeconds": 0},
    )


def percentile(values: list[float], percent: float) -> float:
    """The nearest-rank percentile."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]


def table(rows: list[Variant]) -> str:
    lines = [
        "| | pods/s, median (min to max) | p50 of a create | p99 | p50 and p99, difference |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        before = next(each for each in rows if each.manifest is row.manifest)
        p50, p99 = (percentile(row.times, percent) for percent in (50, 99))
        more = (p50 - percentile(before.times, 50), p99 - percentile(before.times, 99))
        difference = "{:+.2f} and {:+.1f} ms".format(*more) if row.with_instaslice else ""
        lines.append(
            f"| {row.name} | {statistics.median(row.rates):.0f} "
            f"({min(row.rates):.0f} to {max(row.rates):.0f}) "
            f"| {p50:.2f} ms | {p99:.1f} ms | {difference} |"
        )
    return "\n".join(lines)


def play(rows: list[Variant], cluster: Cluster, webhook: Webhook, load: Load) -> None:
    """Measure all rounds, after one to warm up, which does not count.

    InstaSlice is registered in the second half of one round and in the first of the next, so that
    effects of earlier pods are the same with and without it.
    """
    names = count()
    for turn in range(load.rounds + 1):
        for is_registered in (False, True) if turn % 2 == 0 else (True, False):
            if is_registered:
                configuration = installation.register(cluster, webhook.client_config)
            for row in rows:
                if row.with_instaslice is is_registered:
                    measure(row, cluster, names, load)
            if is_registered:
                cluster.delete(configuration["kind"], configuration["metadata"]["name"])
                until(lambda: not installation.is_rewriting(cluster), "InstaSlice is not called")
        if turn == 0:
            for row in rows:
                row.rates.clear()
                row.times.clear()


def counted(webhook: Webhook, name: str) -> float:
    """The sum of a metric over its labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(webhook.get("/metrics"))
        for sample in family.samples
        if sample.name == name
    )


def bench(folder: Path, load: Load) -> str:
    """Start everything, measure, stop everything; returns Markdown."""
    rows = variants()
    with control_plane(assets(), folder / "plane", controllers=False) as plane:
        cluster = Cluster(plane, folder / "discovery")
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        cluster.create(namespace)
        kubeconfig = installation.install(cluster, folder / "webhook")
        webhook = Webhook(folder / "webhook", kubeconfig)
        try:
            webhook.start()
            play(rows, cluster, webhook, load)
            milliseconds = 1000 * counted(webhook, "instaslice_admission_duration_seconds_sum")
            answers = int(counted(webhook, "instaslice_admission_requests_total"))
        finally:
            webhook.stop()
    return (
        f"Kubernetes {plane.version}, {platform.machine()}, {os.cpu_count()} CPUs for everything; "
        f"{load.rounds} rounds of {load.pods} pods over {load.connections} connections\n\n"
        f"{table(rows)}\n\n"
        f"InstaSlice gave {answers} answers, in {milliseconds / answers:.2f} ms on average.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=6, help="default 6, an even number")
    parser.add_argument("--pods", type=int, default=400, help="in each round; default 400")
    parser.add_argument("--connections", type=int, default=4, help="at once; default 4")
    options = parser.parse_args()
    load = Load(options.rounds, options.pods, options.connections)
    with tempfile.TemporaryDirectory() as folder:
        print(bench(Path(folder), load))


if __name__ == "__main__":
    main()
