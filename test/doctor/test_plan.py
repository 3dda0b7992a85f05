"""What a change-over meets in a cluster."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from instaslice.cluster.client import ClusterError
from instaslice.cluster.gates import PARTITIONABLE, Known
from instaslice.doctor import plan
from instaslice.doctor.plan import Node, Plan, Workload
from instaslice.doctor.snapshot import Snapshot
from instaslice.resource_api import VERSIONS, Unavailable
from instaslice.webhook_configuration import OPT_IN
from test.support import a100
from test.support.snapshots import HEALTHY, named, pod, webhook, with_lists

Json = dict[str, Any]


def empty(**lists: list[Json]) -> Snapshot:
    """A cluster that has nothing but these."""
    return replace(HEALTHY, lists=lists, probes=())


def owned(manifest: Json, kind: str, name: str, hash_: str = "") -> Json:
    owner = {"kind": kind, "name": name, "controller": True}
    metadata = {**manifest["metadata"], "ownerReferences": [owner]}
    if hash_:
        metadata["labels"] = {"pod-template-hash": hash_}
    return {**manifest, "metadata": metadata}


def test_workloads_by_namespace_and_owner() -> None:
    two = pod("c", limit="mig-1g.5gb")
    two["spec"]["containers"] *= 2
    elsewhere = pod("z", limit="mig-1g.5gb")
    elsewhere["metadata"]["namespace"] = "alone"
    das = pod("old")
    das["spec"]["containers"][0]["resources"] = {"limits": {"mig.das.com/1g.5gb": "1"}}
    declining = pod("declines", limit="mig-1g.5gb")
    declining["spec"]["containers"][0]["resources"]["limits"] = {"nvidia.com/mig-1g.5gb": "0"}
    pods = [
        *(owned(pod(f"d-{n}", limit="mig-2g.10gb"), "ReplicaSet", "web-5f", "5f") for n in (1, 2)),
        owned(two, "RayCluster", "ray"),
        owned(pod("gpu", limit="gpu"), "StatefulSet", "db"),
        owned(pod("done", limit="mig-1g.5gb", phase="Succeeded"), "Job", "j"),
        pod("new", template="mig-1g.5gb.x2"),
        pod("none"),
        declining,
        owned(pod("hashed", limit="mig-2g.10gb"), "Rollout", "roll-5f", "5f"),
        das,
        elsewhere,
    ]
    assert plan.make(empty(pods=pods)).workloads == [
        Workload("alone", "Pod/z", 1, {"nvidia.com/mig-1g.5gb": "1"}, "limits"),
        Workload("ml", "Deployment/web", 2, {"nvidia.com/mig-2g.10gb": "1"}, "limits"),
        Workload("ml", "Pod/new", 1, {"mig-1g.5gb.x2": "1"}, "claims"),
        Workload("ml", "Pod/old", 1, {"mig.das.com/1g.5gb": "1"}, "das"),
        Workload("ml", "RayCluster/ray", 1, {"nvidia.com/mig-1g.5gb": "2"}, "limits"),
        Workload("ml", "Rollout/roll-5f", 1, {"nvidia.com/mig-2g.10gb": "1"}, "limits"),
        Workload("ml", "StatefulSet/db", 1, {"nvidia.com/gpu": "1"}, "limits"),
    ]


def node(name: str, product: str = "", strategy: str = "", **amounts: str) -> Json:
    labels = {"nvidia.com/gpu.product": product, "nvidia.com/mig.strategy": strategy}
    labels |= {"nvidia.com/mig.config": "balanced", "nvidia.com/mig.config.state": "success"}
    if not product:
        labels = {}
    allocatable = {f"nvidia.com/{key}": amount for key, amount in amounts.items()} | {"cpu": "8"}
    return {"metadata": {"name": name, "labels": labels}, "status": {"allocatable": allocatable}}


def test_nodes() -> None:
    nodes = [
        node("a", "NVIDIA-A100-SXM4-40GB", "mixed", **{"mig-1g.5gb": "7", "gpu": "0"}),
        node("b", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "single", gpu="7"),
        node("node-1"),
        node("cpu-only"),
    ]
    found = plan.make(empty(nodes=nodes, slices=a100.resource_slices(), claims=[])).nodes
    config = "balanced success"
    assert found == [
        Node("a", "NVIDIA-A100-SXM4-40GB", {"nvidia.com/mig-1g.5gb": "7"}, config, "mixed", False),
        Node(
            *("b", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", {"nvidia.com/gpu": "7"}),
            *(config, "single", False),
        ),
        Node("node-1", "", {}, "", "", published=True),
    ]
    assert [each.single for each in found] == ["", "1g.10gb", ""]


@pytest.mark.parametrize(
    ("product", "strategy", "offers", "section"),
    [
        ("NVIDIA-A100-SXM4-40GB", "mixed", "nvidia.com/mig-1g.5gb", 7),
        ("NVIDIA-A30-MIG-1g.6gb", "single", "nvidia.com/gpu", 7),
        ("NVIDIA-A30", "mixed", "nvidia.com/gpu", 8),
        ("NVIDIA-H100-80GB-HBM3", "", "nvidia.com/gpu", 8),
        ("NVIDIA-H100-80GB-HBM3", "mixed", "nvidia.com/mig-1g.10gb", 6),
        ("NVIDIA-RTX-A3000", "", "nvidia.com/mig-1g.10gb", 6),
    ],
)
def test_the_section_for_a_node(product: str, strategy: str, offers: str, section: int) -> None:
    """MIG is never switched on where whole GPUs are served."""
    found = Node("n", product, {offers: "1"}, "", strategy, published=False)
    assert found.section == section


def runs(image: str, **environment: str) -> Json:
    one = pod(image)
    env = [{"name": name, "value": value} for name, value in environment.items()]
    one["spec"]["containers"] = [{"name": "c", "image": image, "env": env}]
    return one


def test_what_runs() -> None:
    driver = "registry.k8s.io/dra-driver-nvidia/dra-driver-nvidia-gpu:v0.5.0"
    pods = [
        runs(driver, FEATURE_GATES="DynamicMIG=true"),
        runs(driver),
        runs("nvcr.io/nvidia/k8s-device-plugin:v0.17.1@sha256:00"),
        runs("nvcr.io/nvidia/cloud-native/k8s-mig-manager"),
        runs("public.ecr.aws/karpenter/controller:1.9"),
    ]
    found = plan.make(empty(pods=pods))
    assert found.components == {
        "NVIDIA's DRA driver": "v0.5.0 in ml, DynamicMIG=true",
        "device plugin": "v0.17.1 in ml",
        "MIG manager": "of an unknown version in ml",
        "Karpenter": "1.9 in ml",
    }
    assert "IGNORE_DRA_REQUESTS=false" in told(found)


def told(found: Plan) -> str:
    return "\n".join(f"{each.section}: {each.text}" for each in (*found.blocks, *found.decisions))


GPU_POD = owned(pod("g", limit="gpu"), "StatefulSet", "db")
SELECTING = pod("s", limit="mig-1g.5gb")
SELECTING["spec"]["nodeSelector"] = {"nvidia.com/gpu.product": "NVIDIA-A30-MIG-1g.6gb"}
BOUND = pod("b", limit="mig-1g.5gb", node="n")
BOUND["metadata"] |= {"uid": "u", "managedFields": [{"fieldsV1": {"f:spec": {"f:nodeName": {}}}}]}
SINGLE = node("a", "NVIDIA-A30-MIG-1g.6gb", "single", gpu="4")
OTHER = node("b", "NVIDIA-A30-MIG-2g.12gb", "single", gpu="2")
ONE_SLICE = "nvidia.com/mig-1g.5gb"


@pytest.mark.parametrize(
    ("lists", "part"),
    [
        ({"nodes": [node("a", "NVIDIA-H100", gpu="8")]}, "8: a: whole GPUs are served there"),
        (
            {"nodes": [SINGLE], "pods": [GPU_POD]},
            "3: ml StatefulSet/db: nvidia.com/gpu means 1g.6gb there .. to mig-1g.6gb",
        ),
        (
            {"nodes": [SINGLE, OTHER], "pods": [GPU_POD]},
            "3: ml StatefulSet/db: nvidia.com/gpu means 1g.6gb or 2g.12gb there",
        ),
        ({"pods": [GPU_POD]}, "3: ml StatefulSet/db: no DeviceClass has the extended"),
        (
            {"pods": [pod("p", limit="mig-7g.40gb")]},
            "5: ml Pod/p: the driver's 0.4.1",
        ),
        (
            {"nodes": [node("a", **{"mig-1g.5gb.shared": "4"})]},
            "5: nvidia.com/mig-1g.5gb.shared",
        ),
        (
            {"pods": [SELECTING]},
            "10: ml Pod/s: they choose nodes by the label nvidia.com/gpu.product= .. to mig-1g.6gb",
        ),
        ({"pods": [BOUND]}, "10: ml Pod/b: only the scheduler allocates claims"),
        ({"pods": [runs("nvcr.io/nvidia/gpu-operator:v26")]}, "11: GPU operator: its validator"),
        (
            {"limits": [named("l", spec={"limits": [{"type": "Pod", "max": {ONE_SLICE: "1"}}]})]},
            "4: LimitRange ml/l has nvidia.com/mig-1g.5gb in its max for type Pod, which no",
        ),
        (
            {"nodes": [node("node-1", **{"mig-1g.5gb": "7"})], "slices": a100.resource_slices()},
            "6: node-1: the device plugin and the DRA driver give out the same GPUs",
        ),
    ],
)
def test_what_blocks_and_what_is_to_be_decided(lists: Json, part: str) -> None:
    found = told(plan.make(empty(**{"claims": [], "classes": [], **lists})))
    assert all(each in found for each in part.split(" .. "))


def test_nothing_is_to_be_decided_of_pods_that_the_scheduler_has_bound() -> None:
    bound = pod("b", limit="mig-1g.5gb", node="n")
    bound["metadata"] |= {"uid": "u", "managedFields": [{"fieldsV1": {"f:spec": {}}}]}
    (found,) = plan.make(empty(pods=[bound])).workloads
    assert found.node_name == ""


@pytest.mark.parametrize(
    ("api", "gate", "part"),
    [
        (VERSIONS["v1"], True, ""),
        (VERSIONS["v1"], False, "1: the feature gate DRAPartitionableDevices is off"),
        (VERSIONS["v1"], None, "1: find out whether the feature gate"),
        (VERSIONS["v1beta2"], None, "DRAPartitionableDevices, which that needs, is off by default"),
        (Unavailable("no"), None, "1: DRA is not served"),
    ],
)
def test_the_control_plane(api: Any, gate: bool | None, part: str) -> None:
    snapshot = replace(empty(), api=api, gates={PARTITIONABLE: Known(gate)})
    found = plan.make(snapshot).blocks
    assert [each.section for each in found] == ([1] if part else [])
    assert part in told(plan.make(snapshot))


def test_sections_name_the_nodes_and_namespaces_they_are_for() -> None:
    nodes = [node("a", "NVIDIA-A100-SXM4-40GB", "mixed", **{"mig-1g.5gb": "7"}), node("x")]
    made = plan.make(empty(nodes=nodes, pods=[pod("p", limit="mig-1g.5gb")]))
    assert made.sections == {2: [], 5: [], 7: ["a"], 9: ["ml"], 11: []}
    text = plan.as_text(made, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert "  7. A node with A100 or A30 that is cut: a\n" in text
    assert "- 9. A namespace: ml\n" in plan.as_markdown(made)
    assert json.loads(plan.as_json(made))["sections"][2] == {
        "section": 7,
        "title": plan.SECTIONS[7],
        "for": ["a"],
    }
    assert plan.make(empty()).sections == {}


def test_the_page_has_the_sections() -> None:
    page = (Path(__file__).parents[2] / "docs/migrate.md").read_text()
    found = re.findall(r"^### ([0-9]+)\. (.+)$", page, re.MULTILINE)
    assert {int(number): title for number, title in found} == plan.SECTIONS


def test_the_cluster() -> None:
    found = plan.make(with_lists(webhooks=[webhook(OPT_IN)]))
    assert (found.kubernetes, found.resource_api, found.minor) == ("v1.36.3", "v1", 36)
    assert (found.has_driver, found.installed) == (True, "opt-in")
    assert set(found.gates.values()) == {True}
    assert found.unknown == {}


def test_what_could_not_be_read_is_said() -> None:
    failures = dict.fromkeys(
        ("webhooks", "pods", "nodes", "classes", "slices", "claims", "templates", "queues"),
        ClusterError("403", 403),
    )
    blind = replace(HEALTHY, api=Unavailable("no DRA"), lists={}, failures=failures)
    found = plan.make(blind)
    assert found.unknown == {**dict.fromkeys(failures, "403"), "DRA": "no DRA"}
    assert (found.resource_api, found.installed, found.has_driver) == ("", "", False)


def test_the_oldest_version_has_a_plan_too() -> None:
    classic = replace(HEALTHY, api=VERSIONS["v1alpha2"], kubernetes="v1.27.16", gates={})
    assert plan.make(classic).resource_api == "v1alpha2"
