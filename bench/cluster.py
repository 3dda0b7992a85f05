"""What InstaSlice costs a cluster: pods created per second, and the time of a create.

Against a real API server (KUBEBUILDER_ASSETS), for pods without and with MIG slices, without and
with InstaSlice. The four take turns, round by round, so that what else the machine does falls on
all of them alike. Prints a Markdown table.
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
from http.client import HTTPSConnection
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from test.e2e import installation
from test.e2e.cluster import Cluster
from test.e2e.controlplane import ControlPlane, control_plane
from test.e2e.pods import container, pod
from test.e2e.webhook import Webhook

Json = dict[str, Any]

NAMESPACE = "bench"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"


@dataclass
class Variant:
    """One row of the table, and what was measured for it."""

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


def create(plane: ControlPlane, bodies: list[bytes]) -> list[float]:
    """Create pods one after the other over one connection; returns milliseconds for each."""
    trust = ssl.create_default_context(cafile=plane.ca)
    trust.load_cert_chain(plane.admin)
    url = urlsplit(plane.url)
    assert url.hostname
    connection = HTTPSConnection(url.hostname, url.port, context=trust, timeout=30)
    connection.connect()
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


def measure(
    plane: ControlPlane, variant: Variant, names: Iterator[int], pods: int, connections: int
) -> None:
    """One round: so many pods over so many connections at once."""
    bodies = [
        json.dumps({**variant.manifest, "metadata": {"name": f"p{next(names)}"}}).encode()
        for _ in range(pods)
    ]
    with ThreadPoolExecutor(connections) as threads:
        start = time.perf_counter()
        parts = [
            threads.submit(create, plane, bodies[first::connections])
            for first in range(connections)
        ]
        times = [each for part in parts for each in part.result()]
        variant.rates.append(pods / (time.perf_counter() - start))
    variant.times += times


def delete_all(cluster: Cluster) -> None:
    """Delete the pods that a round has made, at once."""
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
        "| | pods/s, median (min to max) | p50 of a create | p99 | p50, difference |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        before = next(each for each in rows if each.manifest is row.manifest)
        difference = percentile(row.times, 50) - percentile(before.times, 50)
        lines.append(
            f"| {row.name} | {statistics.median(row.rates):.0f} "
            f"({min(row.rates):.0f} to {max(row.rates):.0f}) "
            f"| {percentile(row.times, 50):.1f} ms | {percentile(row.times, 99):.1f} ms "
            f"| {f'{difference:+.1f} ms' if row.with_instaslice else ''} |"
        )
    return "\n".join(lines)


def bench(assets: Path, folder: Path, rounds: int, pods: int, connections: int) -> None:
    rows, names = variants(), count()
    with control_plane(assets, folder / "plane", controllers=False) as plane:
        cluster = Cluster(plane, folder / "discovery")
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        cluster.create(namespace)
        kubeconfig = installation.install(cluster, folder / "webhook")
        webhook = Webhook(folder / "webhook", f"--kubeconfig={kubeconfig}", "--provision-templates")
        try:
            webhook.start()
            for turn in range(rounds + 1):
                for with_instaslice in (False, True):
                    if with_instaslice:
                        configuration = installation.register(cluster, webhook.client_config)
                    for row in rows:
                        if row.with_instaslice == with_instaslice:
                            measure(plane, row, names, pods, connections)
                            delete_all(cluster)
                installation.unregister(cluster, configuration)
                if turn == 0:  # to warm up
                    for row in rows:
                        row.rates.clear()
                        row.times.clear()
        finally:
            webhook.stop()
    print(
        f"Kubernetes {plane.version}, {platform.machine()}, {os.cpu_count()} CPUs for everything; "
        f"{rounds} rounds of {pods} pods over {connections} connections\n\n{table(rows)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="default 5")
    parser.add_argument("--pods", type=int, default=400, help="in each round; default 400")
    parser.add_argument("--connections", type=int, default=4, help="at once; default 4")
    options = parser.parse_args()
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if not assets:
        sys.exit("bench: KUBEBUILDER_ASSETS names no folder; see setup-envtest")
    with tempfile.TemporaryDirectory() as folder:
        bench(Path(assets), Path(folder), options.rounds, options.pods, options.connections)


if __name__ == "__main__":
    main()
