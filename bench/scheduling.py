"""`make bench-cluster`: measure how long pods with MIG slices wait for a node, in four ways.

Each way has a new control plane (KUBEBUILDER_ASSETS, Kubernetes 1.36 or later) with 32 nodes of two
A100s, cut into 14 slices of 1g.5gb: 448 in all. Pods are created over four connections, and a watch
reports when each has a node. Prints a Markdown table.

    device plugin     nodes offer the slices as an extended resource
    scheduler         the scheduler serves the extended resource by a device class (KEP-5004)
    claims by hand    pods name a ResourceClaimTemplate
    InstaSlice        pods ask for the extended resource, and InstaSlice rewrites them
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench.cluster import NAMESPACE, PODS, assets, connect, create, percentile
from bench.results import record
from instaslice.profiles import from_attribute
from instaslice.resource_api import NEWEST
from instaslice.templates import claim_of, device_class, objects
from test.e2e.cluster import Cluster
from test.e2e.controlplane import ControlPlane, control_plane
from test.e2e.gpus import FIRST_WITH_EXTENDED_RESOURCES
from test.e2e.installation import serving
from test.e2e.pods import container, pod
from test.support.a100 import DRIVER, device_classes
from test.support.process import until

Json = dict[str, Any]

NODES: Final = 32
SLICES: Final = 14  #: of a node: two A100s of seven
CONNECTIONS: Final = 4
PROFILE: Final = "1g.5gb"
RESOURCE: Final = f"mig-{PROFILE}"

_asked = from_attribute(PROFILE)
assert _asked
ASKED: Final = _asked


class Load(NamedTuple):
    """Pods that are created at once, and the slices of each."""

    pods: int
    slices: int


LOADS: Final = (Load(200, 1), Load(60, 7))


class Found(NamedTuple):
    """The measurements of a load."""

    seconds: float  #: from the first create to the last node
    waits: list[float]  #: seconds from a pod's create to its node


def nodes(cluster: Cluster, *, plugin: bool) -> None:
    """Create the nodes, with their slices as extended resources or as ResourceSlices."""
    for n in range(NODES):
        name = f"node-{n}"
        room = {"cpu": "64", "memory": "256Gi", "pods": "110"}
        if plugin:
            room[ASKED.name] = str(SLICES)
        ready = [{"type": "Ready", "status": "True"}]
        status = {"capacity": room, "allocatable": room, "conditions": ready}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}
        cluster.create({**node, "status": status})
        cluster.patch("Node", name, {"spec": {"taints": None}}, "merge")
        if not plugin:
            pool = {"name": name, "generation": 1, "resourceSliceCount": 1}
            spec = {"nodeName": name, "driver": DRIVER, "pool": pool, "devices": devices(n)}
            kind = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice"}
            cluster.create({**kind, "metadata": {"name": name}, "spec": spec})


def devices(node: int) -> list[Json]:
    """The devices of a node whose GPUs have been cut."""
    return [
        {
            "name": f"gpu-{n // 7}-mig-1g5gb-19-{n % 7}",
            "attributes": {
                "type": {"string": "mig"},
                "profile": {"string": PROFILE},
                "uuid": {"string": f"MIG-{node}-{n}"},
                "parentUUID": {"string": f"GPU-{node}-{n // 7}"},
            },
        }
        for n in range(SLICES)
    ]


def by_limit(load: Load) -> Json:
    return pod("", container(limits={RESOURCE: load.slices}))


def by_hand(load: Load) -> Json:
    template = claim_of(ASKED, load.slices).template
    claims = [{"name": "slices", "resourceClaimTemplateName": template}]
    one = container(resources={"claims": [{"name": "slices"}]})
    return pod("", one, resourceClaims=claims)


@contextmanager
def device_plugin(cluster: Cluster, folder: Path) -> Iterator[None]:
    nodes(cluster, plugin=True)
    yield


@contextmanager
def scheduler(cluster: Cluster, folder: Path) -> Iterator[None]:
    nodes(cluster, plugin=False)
    cluster.create(device_class(NEWEST, ASKED))
    yield


@contextmanager
def claims(cluster: Cluster, folder: Path) -> Iterator[None]:
    nodes(cluster, plugin=False)
    cluster.create(device_class(NEWEST, ASKED))
    for load in LOADS:
        *_, template = objects(NEWEST, claim_of(ASKED, load.slices), NAMESPACE)
        cluster.create(template)
    yield


@contextmanager
def instaslice(cluster: Cluster, folder: Path) -> Iterator[None]:
    nodes(cluster, plugin=False)
    for manifest in device_classes():
        if not cluster.find("DeviceClass", manifest["metadata"]["name"]):
            cluster.create(manifest)
    with serving(cluster, folder):
        yield


Way = Callable[[Cluster, Path], Any]
WAYS: Final[dict[str, tuple[Way, Callable[[Load], Json]]]] = {
    "device plugin": (device_plugin, by_limit),
    "scheduler": (scheduler, by_limit),
    "claims by hand": (claims, by_hand),
    "InstaSlice": (instaslice, by_limit),
}


class Watch:
    """Notes when each pod of the namespace is first seen with a node."""

    def __init__(self, plane: ControlPlane) -> None:
        self._connection = connect(plane, timeout=300)
        self._connection.request("GET", PODS)
        version = json.loads(self._connection.getresponse().read())["metadata"]["resourceVersion"]
        self._connection.request("GET", f"{PODS}?watch=true&resourceVersion={version}")
        self._answer = self._connection.getresponse()
        self.seen: dict[str, float] = {}
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        # An iteration over HTTPResponse would read ahead; readline() does not.
        while line := self._answer.readline():
            now = time.perf_counter()
            event = json.loads(line)
            assert event["type"] != "ERROR", event
            found = event["object"]
            if found.get("spec", {}).get("nodeName"):
                self.seen.setdefault(found["metadata"]["name"], now)


def measure(cluster: Cluster, load: Load, manifest: Json, prefix: str) -> Found:
    """Create the pods of a load, wait until all have a node, then delete them."""
    watch = Watch(cluster.plane)
    names = [f"{prefix}-{n}" for n in range(load.pods)]
    created: dict[str, float] = {}

    def send(share: list[str]) -> None:
        for name in share:
            created[name] = time.perf_counter()
            create(cluster.plane, [json.dumps({**manifest, "metadata": {"name": name}}).encode()])

    start = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as threads:
        list(threads.map(send, [names[first::CONNECTIONS] for first in range(CONNECTIONS)]))
    until(lambda: len(watch.seen) >= load.pods, "every pod has a node", seconds=240)
    waits = [watch.seen[name] - created[name] for name in names]
    found = Found(max(watch.seen.values()) - start, waits)
    team = cluster.within(NAMESPACE)
    selector = f"metadata.namespace={NAMESPACE}"
    team.send("delete", "Pod", field_selector=selector, body={"gracePeriodSeconds": 0})
    until(lambda: not team.list("ResourceClaim"), "the claims are gone", seconds=120)
    return found


def play(way: str) -> tuple[str, dict[Load, Found]]:
    """Measure a way on a new control plane; returns the version of Kubernetes, too."""
    setting, manifest = WAYS[way]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plane = stack.enter_context(control_plane(assets(), folder / "plane"))
        if plane.version.minor < FIRST_WITH_EXTENDED_RESOURCES:
            sys.exit(f"bench: Kubernetes {plane.version} cannot do all four; 1.36 can")
        cluster = Cluster(plane, folder / "discovery")
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        cluster.create(namespace)
        team = cluster.within(NAMESPACE)
        until(lambda: team.find("ServiceAccount", "default"), "the service account")
        stack.enter_context(setting(cluster, folder / "webhook"))
        measure(cluster, Load(8, LOADS[-1].slices), manifest(LOADS[-1]), "warm")
        run = partial(measure, cluster)
        found = {load: run(load, manifest(load), f"p{load.slices}") for load in LOADS}
        return str(plane.version), found


def table(results: dict[str, dict[Load, Found]]) -> str:
    lines = []
    for load in LOADS:
        many = "a slice" if load.slices == 1 else f"{load.slices} slices"
        lines += [
            f"| {load.pods} pods of {many} | all have a node after | pods/s | p50 | p99 |",
            "|---|---|---|---|---|",
        ]
        for way, found in results.items():
            seconds, waits = found[load]
            p50, p99 = percentile(waits, 50), percentile(waits, 99)
            rate = load.pods / seconds
            lines.append(f"| {way} | {seconds:.1f} s | {rate:.0f} | {p50:.2f} s | {p99:.2f} s |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1, help="of each way, in turn; the median")
    rounds = parser.parse_args().rounds
    every: dict[str, list[dict[Load, Found]]] = {way: [] for way in WAYS}
    version = ""
    for _ in range(rounds):
        for way in WAYS:
            version, found = play(way)
            every[way].append(found)
    results = {
        way: {
            load: sorted((found[load] for found in runs), key=lambda f: f.seconds)[len(runs) // 2]
            for load in LOADS
        }
        for way, runs in every.items()
    }
    where = f"Kubernetes {version}, {platform.machine()}, {os.cpu_count()} CPUs for everything."
    record("How long a pod waits for a node", f"{where}\n\n{table(results)}")


if __name__ == "__main__":
    main()
