"""Plans for a migration: snapshots are here, the expected plans in plan.txt."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from instaslice.cluster.client import ClusterError
from instaslice.cluster.gates import PARTITIONABLE, Known
from instaslice.doctor import plan
from instaslice.doctor.snapshot import Snapshot
from instaslice.resource_api import VERSIONS, Unavailable
from instaslice.webhook_configuration import OPT_IN
from test.support import a100
from test.support.snapshots import HEALTHY, Json, named, pod, recorded, webhook, with_lists


def only(**lists: list[Json]) -> Snapshot:
    """A cluster with only these objects."""
    return replace(HEALTHY, lists=lists, probes=(), gates={PARTITIONABLE: Known(True)})


def owned(manifest: Json, kind: str, name: str, hash_: str = "") -> Json:
    owner = {"kind": kind, "name": name, "controller": True}
    metadata = {**manifest["metadata"], "ownerReferences": [owner]}
    if hash_:
        metadata["labels"] = {"pod-template-hash": hash_}
    return {**manifest, "metadata": metadata}


def limited(name: str, limits: Json, namespace: str = "ml") -> Json:
    found = pod(name)
    found["metadata"]["namespace"] = namespace
    found["spec"]["containers"][0]["resources"] = {"limits": limits}
    return found


def bound(*fields: str) -> Json:
    """A bound pod. fields: those of its spec in `managedFields`, if it has any."""
    found = pod("b", limit="mig-1g.5gb", node="n")
    spec: Json = {field: {} for field in fields}
    written = [{"fieldsV1": {"f:spec": spec}}] if fields else []
    found["metadata"] |= {"uid": "u", "managedFields": written}
    return found


def node(name: str, product: str = "", strategy: str = "", **amounts: str) -> Json:
    labels = {"nvidia.com/gpu.product": product, "nvidia.com/mig.strategy": strategy}
    labels |= {"nvidia.com/mig.config": "balanced", "nvidia.com/mig.config.state": "success"}
    if not product:
        labels = {}
    allocatable = {f"nvidia.com/{key}": amount for key, amount in amounts.items()} | {"cpu": "8"}
    return {"metadata": {"name": name, "labels": labels}, "status": {"allocatable": allocatable}}


def runs(image: str, **environment: str) -> Json:
    one = pod(image)
    env = [{"name": name, "value": value} for name, value in environment.items()]
    one["spec"]["containers"] = [{"name": "c", "image": image, "env": env}]
    return one


ONE_SLICE = "nvidia.com/mig-1g.5gb"
TWICE = pod("c", limit="mig-1g.5gb")
TWICE["spec"]["containers"] *= 2
LARGE = limited("large", {"nvidia.com/gpu": "1k", ONE_SLICE: "many"})
LARGE["spec"]["containers"] *= 2
SEVERAL = pod("several", limit="mig-1g.5gb")
SEVERAL["spec"]["initContainers"] = [
    {"resources": {"limits": {"nvidia.com/mig-3g.20gb": "2", "example.com/gpu": "1"}}},
    {"resources": {"limits": {"nvidia.com/mig-3g.20gb": 1, "nvidia.com/mig-2g.10gb": "0"}}},
    *({"resources": None}, {}),
]
NEW = pod("new", template="mig-1g.5gb.x2")
NEW["spec"]["resourceClaims"] += [
    {"name": "theirs", "resourceClaimTemplateName": "training"},
    {"name": "made", "resourceClaimName": "mig-1g.5gb"},
    {"name": "old", "source": {"resourceClaimTemplateName": "mig-2g.10gb"}},
]
PODS = [
    *(LARGE, SEVERAL),
    *(owned(pod(f"d-{n}", limit="mig-2g.10gb"), "ReplicaSet", "web-5f", "5f") for n in (1, 2)),
    owned(TWICE, "RayCluster", "ray"),
    owned(pod("gpu", limit="gpu"), "StatefulSet", "db"),
    owned(pod("done", limit="mig-1g.5gb", phase="Succeeded"), "Job", "j"),
    NEW,
    pod("none"),
    limited("declines", {ONE_SLICE: "0"}),
    owned(pod("hashed", limit="mig-2g.10gb"), "Rollout", "roll-5f", "5f"),
    limited("old", {"mig.das.com/1g.5gb": "1"}),
    limited("z", {ONE_SLICE: "1"}, namespace="alone"),
]
A100 = node("a", "NVIDIA-A100-SXM4-40GB", "mixed", **{"mig-1g.5gb": "7", "gpu": "0"})
H100 = node("b", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "single", gpu="7")
DRIVER = "registry.k8s.io/dra-driver-nvidia/dra-driver-nvidia-gpu:v0.5.0"
COMPONENTS = [
    runs(DRIVER, FEATURE_GATES="DynamicMIG=true"),
    runs(DRIVER),
    runs("nvcr.io/nvidia/k8s-device-plugin:v0.17.1@sha256:00"),
    runs("nvcr.io/nvidia/cloud-native/k8s-mig-manager"),
    runs("public.ecr.aws/karpenter/controller:1.9"),
    runs("nvcr.io/nvidia/gpu-operator:v26"),
]
GPU_POD = owned(pod("g", limit="gpu"), "StatefulSet", "db")
SELECTING = pod("s", limit="mig-1g.5gb")
SELECTING["spec"]["nodeSelector"] = {"nvidia.com/gpu.product": "NVIDIA-A30-MIG-1g.6gb"}
SINGLE = node("a", "NVIDIA-A30-MIG-1g.6gb", "single", gpu="4")
OTHER = node("b", "NVIDIA-A30-MIG-2g.12gb", "single", gpu="2")
LIMITS = [named("l", spec={"limits": [{"type": "Pod", "max": {ONE_SLICE: "1"}}]})]
BOTH = [node("node-1", **{"mig-1g.5gb": "7"})]
FAILURES = dict.fromkeys(
    ("webhooks", "pods", "nodes", "classes", "slices", "claims", "templates", "queues"),
    ClusterError("403", 403),
)

CASES = {
    "an empty cluster": only(),
    "a cluster with InstaSlice": with_lists(webhooks=[webhook(OPT_IN)]),
    "workloads by namespace and owner": only(pods=PODS),
    "nodes": only(
        nodes=[A100, H100, node("node-1"), node("cpu-only")], slices=a100.resource_slices()
    ),
    # MIG mode stays off on a node that serves whole GPUs.
    "nodes of each section": only(
        nodes=[
            node("cut", "NVIDIA-A100-SXM4-40GB", "mixed", **{"mig-1g.5gb": "1"}),
            node("single", "NVIDIA-A30-MIG-1g.6gb", "single", gpu="1"),
            *(node("whole", "NVIDIA-A30", "mixed", gpu="1"), node("h100", "NVIDIA-H100", gpu="1")),
            node("hopper", "NVIDIA-H100-80GB-HBM3", "mixed", **{"mig-1g.10gb": "1"}),
            node("a3000", "NVIDIA-RTX-A3000", **{"mig-1g.10gb": "1"}),
        ]
    ),
    "components": only(pods=COMPONENTS),
    "a node that serves whole GPUs": only(nodes=[node("a", "NVIDIA-H100", gpu="8")]),
    "strategy single with one profile": only(nodes=[SINGLE], pods=[GPU_POD]),
    "strategy single with two profiles": only(nodes=[SINGLE, OTHER], pods=[GPU_POD]),
    "whole GPUs without a class": only(pods=[GPU_POD]),
    "a 7g slice": only(pods=[pod("p", limit="mig-7g.40gb")]),
    "a time-sliced resource": only(nodes=[node("a", **{"mig-1g.5gb.shared": "4"})]),
    "a pod that selects nodes by a label": only(pods=[SELECTING]),
    "a pod whose author set nodeName": only(pods=[bound("f:nodeName")]),
    "a pod that the scheduler bound": only(pods=[bound("f:containers"), bound()]),
    "a LimitRange": only(limits=LIMITS),
    "both the driver and the device plugin": only(nodes=BOTH, slices=a100.resource_slices()),
    "the gate is off": replace(only(), gates={PARTITIONABLE: Known(False)}),
    "the gate is unknown": replace(only(), gates={PARTITIONABLE: Known(None)}),
    "v1beta2": replace(only(), api=VERSIONS["v1beta2"], gates={}),
    "v1alpha2": replace(HEALTHY, api=VERSIONS["v1alpha2"], kubernetes="v1.27.16"),
    "no DRA": replace(only(), api=Unavailable("no DRA"), gates={}),
    "no right to read": replace(HEALTHY, lists={}, failures=FAILURES),
}
PLANS = recorded("plan.txt")
assert PLANS.keys() == {*CASES, "as JSON"}


@pytest.mark.parametrize("case", CASES)
def test_the_plan_for_a_cluster(case: str) -> None:
    made = plan.Plan(CASES[case])
    assert made.as_text() == PLANS[case]
    titles = re.findall("^(?! ).+$", PLANS[case], re.MULTILINE)
    assert re.findall("^## (.*)$", made.as_markdown(), re.MULTILINE) == titles


def test_the_formats() -> None:
    made = plan.Plan(only(nodes=[A100], pods=PODS[-1:]))
    text = made.as_text(80)
    assert max(map(len, text.splitlines())) <= 80
    assert "- 9. A namespace: alone\n" in made.as_markdown()
    assert made.as_json() == PLANS["as JSON"]


def test_the_sections_are_those_of_the_page() -> None:
    page = (Path(__file__).parents[2] / "docs/migrate.md").read_text()
    found = re.findall(r"^### ([0-9]+)\. (.+)$", page, re.MULTILINE)
    assert {int(number): title for number, title in found} == plan.SECTIONS
