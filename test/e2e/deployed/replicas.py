"""InstaSlice's own pods."""

from typing import Any

from test.e2e.cluster import Cluster
from test.e2e.runs import PATIENCE
from test.support.process import until

Json = dict[str, Any]

SELECTOR = "app.kubernetes.io/name=instaslice"


def pods_of(deployed: Cluster) -> dict[str, Json]:
    """InstaSlice's pods that stay, by name."""
    pods = deployed.list("Pod", label_selector=SELECTOR)
    return {
        each["metadata"]["name"]: each
        for each in pods
        if "deletionTimestamp" not in each["metadata"]
    }


def ready(deployed: Cluster, number: int = 2) -> dict[str, Json]:
    """InstaSlice's pods by name, once so many are ready and no other is there."""

    def found() -> dict[str, Json] | None:
        pods = pods_of(deployed)
        conditions = [
            condition["status"]
            for each in pods.values()
            for condition in each["status"].get("conditions", [])
            if condition["type"] == "Ready"
        ]
        return pods if conditions == ["True"] * number == ["True"] * len(pods) else None

    return until(found, f"{number} pods are ready", seconds=PATIENCE)
