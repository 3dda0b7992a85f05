"""`instaslice plan` on a real API server, with objects like those of NVIDIA's components."""

import json
from collections.abc import Iterator

import pytest

from test.e2e.cluster import Cluster
from test.e2e.gpus import PLUGIN_LABELS
from test.e2e.pods import container, pod
from test.support.command import instaslice

NODE = "plan-node"


@pytest.fixture
def old_cluster(bare_namespace: Cluster) -> Iterator[Cluster]:
    """A node with the device plugin's resources, and a namespace that uses them."""
    room = {"cpu": "8", "memory": "32Gi", "pods": "110", "nvidia.com/mig-1g.5gb": "14"}
    status = {"capacity": room, "allocatable": room}
    bare_namespace.make("Node", NODE, labels=PLUGIN_LABELS, status=status)
    plugin = pod("plugin", {"name": "c", "image": "nvcr.io/nvidia/k8s-device-plugin:v0.17.1"})
    bare_namespace.create(plugin)
    hard = {"requests.nvidia.com/mig-1g.5gb": "7"}
    bare_namespace.make("ResourceQuota", "gpus", spec={"hard": hard})
    limits = [{"type": "Pod", "max": {"nvidia.com/mig-1g.5gb": "4"}}]
    bare_namespace.make("LimitRange", "gpus", spec={"limits": limits})
    yield bare_namespace
    bare_namespace.delete("Node", NODE)


def planned(cluster: Cluster, *arguments: str) -> str:
    done = instaslice("plan", f"--kubeconfig={cluster.plane.kubeconfig}", *arguments)
    assert (done.code, done.err) == (0, "")
    return done.out


def test_plan_lists_objects_and_changes_none(old_cluster: Cluster) -> None:
    old_cluster.create(pod("alone", container(limits={"mig-1g.5gb": 2})))
    kinds = ["pods,resourcequotas,limitranges,secrets", "nodes"]
    if old_cluster.plane.resource_api == "v1":
        kinds += ["resourceclaimtemplates", "resourceslices,deviceclasses"]

    def names() -> list[str]:
        return [old_cluster.kubectl("get", kind, "-o", "name").stdout for kind in kinds]

    before = names()
    for output in ("text", "markdown"):
        planned(old_cluster, "-o", output)
    found = json.loads(planned(old_cluster, "-o", "json"))
    assert names() == before
    name = old_cluster.namespace
    assert found["resource_api"] == old_cluster.plane.resource_api
    (mine,) = [each for each in found["workloads"] if each["namespace"] == name]
    assert (mine["owner"], mine["pods"], mine["how"]) == ("Pod/alone", 1, "limits")
    assert mine["asks"] == {"nvidia.com/mig-1g.5gb": "2"}
    (node,) = (each for each in found["nodes"] if each["name"] == NODE)
    assert node["advertised"] == {"nvidia.com/mig-1g.5gb": "14"}
    assert node["product"] == PLUGIN_LABELS["nvidia.com/gpu.product"]
    assert node["config"] == "all-1g.5gb success"
    assert found["components"]["device plugin"] == f"v0.17.1 in {name}"
    policies = [each["kind"] for each in found["policies"] if each["name"] == f"{name}/gpus"]
    assert policies == ["ResourceQuota", "LimitRange"]
    sections = {each["section"]: each["for"] for each in found["sections"]}
    assert sections[7] == [NODE]
    assert name in sections[9]
    assert 4 in [each["section"] for each in found["blocks"]], "the LimitRange"
    assert found["unknown"] == {}
