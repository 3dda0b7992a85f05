"""`make bench-node`: measure how long pods take to start on a real node, also with claims by hand.

The two kinds of pods take turns, so that other load affects both alike. Each pod is gone, and its
slice free, before the next one is created. Prints a Markdown table. Needs what the tests of a real
node need (test/e2e/node.py).
"""

import argparse
import os
import platform
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from bench.cluster import assets, percentile
from test.e2e.cluster import Cluster
from test.e2e.installation import serving
from test.e2e.node import Node, missing, real_node_of_tests
from test.e2e.pods import pod
from test.e2e.runs import stays
from test.support.process import until

Json = dict[str, Any]

NAMESPACE = "bench"
PROFILE = "mig-1g.5gb"
BY_HAND = "by-hand"
#: Seconds between two looks at a pod.
PERIOD = 0.01


@dataclass
class Variant:
    """One row of the table: a pod, and milliseconds of every run."""

    name: str
    manifest: Json
    created: list[float] = field(default_factory=list)  #: until the API server answers
    scheduled: list[float] = field(default_factory=list)  #: until it has a node
    running: list[float] = field(default_factory=list)  #: until its phase is Running


def variants() -> list[Variant]:
    asks = {**stays(), "resources": {"claims": [{"name": "slice"}]}}
    claims = [{"name": "slice", "resourceClaimTemplateName": BY_HAND}]
    return [
        Variant("claims by hand", pod("", asks, resourceClaims=claims)),
        Variant("a limit, InstaSlice", pod("", stays(limits={PROFILE: 1}))),
    ]


def measure(row: Variant, cluster: Cluster, name: str) -> None:
    """Run a pod of a variant, then delete it."""
    start = time.perf_counter()

    def milliseconds() -> float:
        return (time.perf_counter() - start) * 1000

    def has_node() -> bool:
        return "nodeName" in cluster.get("Pod", name)["spec"]

    def runs() -> bool:
        return bool(cluster.get("Pod", name)["status"].get("phase") == "Running")

    cluster.create({**row.manifest, "metadata": {"name": name}})
    row.created.append(milliseconds())
    until(has_node, f"{name} has a node", every=PERIOD)
    row.scheduled.append(milliseconds())
    until(runs, f"{name} runs", every=PERIOD)
    row.running.append(milliseconds())
    cluster.delete("Pod", name)
    until(lambda: not cluster.list("ResourceClaim"), f"the claim of {name} is gone")


def prepare(cluster: Cluster) -> None:
    """Create the template for claims by hand: a copy of InstaSlice's with another name."""
    cluster.create(pod("first", stays(limits={PROFILE: 1})))
    found = until(lambda: cluster.find("ResourceClaimTemplate", PROFILE), "the template exists")
    same = {key: found[key] for key in ("apiVersion", "kind", "spec")}
    cluster.create({**same, "metadata": {"name": BY_HAND}})
    cluster.delete("Pod", "first")
    until(lambda: not cluster.list("ResourceClaim"), "the first claim is gone")


def play(node: Node, pods: int) -> list[Variant]:
    """Measure all pods of both variants, after one of each to warm up, which does not count."""
    rows = variants()
    everywhere = node.cluster
    everywhere.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    cluster = everywhere.within(NAMESPACE)
    until(lambda: cluster.find("ServiceAccount", "default"), "the service account")
    with serving(everywhere, node.folder / "webhook"):
        prepare(cluster)
        for turn in range(pods + 1):
            for row in rows if turn % 2 else reversed(rows):
                measure(row, cluster, f"p{turn}-{rows.index(row)}")
                if turn == 0:
                    for times in (row.created, row.scheduled, row.running):
                        times.clear()
    return rows


def table(rows: list[Variant]) -> str:
    lines = [
        "| | created, p50 and p99 | has a node, p50 and p99 | runs, p50 and p99 |",
        "|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            f"{percentile(times, 50):.0f} and {percentile(times, 99):.0f} ms"
            for times in (row.created, row.scheduled, row.running)
        ]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--pods", type=int, default=50, help="of either kind; default 50")
    options = parser.parse_args()
    if lacks := missing(assets()):
        sys.exit(f"bench: {lacks}")
    with real_node_of_tests(Node) as node:
        rows = play(node, options.pods)
        version = node.plane.version
    print(
        f"Kubernetes {version}, {platform.machine()}, {os.cpu_count()} CPUs for everything; "
        f"{options.pods} pods of either kind, one after the other\n\n{table(rows)}"
    )


if __name__ == "__main__":
    main()
