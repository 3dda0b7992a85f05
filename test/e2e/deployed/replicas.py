"""InstaSlice's own pods."""

from test.e2e.cluster import Cluster, Json
from test.e2e.runs import PATIENCE
from test.support.process import until


def ready(deployed: Cluster) -> dict[str, Json]:
    """InstaSlice's pods by name, once two are ready and no other is there that stays."""

    def found() -> dict[str, Json] | None:
        pods = {
            each["metadata"]["name"]: each
            for each in deployed.list("Pod", label_selector="app.kubernetes.io/name=instaslice")
            if "deletionTimestamp" not in each["metadata"]
        }
        conditions = [
            condition["status"]
            for each in pods.values()
            for condition in each["status"].get("conditions", [])
            if condition["type"] == "Ready"
        ]
        return pods if conditions == ["True"] * 2 == ["True"] * len(pods) else None

    return until(found, "two pods are ready", seconds=PATIENCE)
