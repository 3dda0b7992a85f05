"""What a change-over meets in a cluster."""

from dataclasses import replace
from typing import Any

import pytest

from instaslice.cluster.gates import EXTENDED, Known
from instaslice.doctor import plan
from instaslice.doctor.plan import Node, Policy, Workload
from instaslice.doctor.snapshot import Snapshot, Unreadable
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
    ("product", "needs"),
    [
        ("NVIDIA-A100-SXM4-40GB", True),
        ("NVIDIA-A30", True),
        ("NVIDIA-A30-MIG-1g.6gb", True),
        ("NVIDIA-H100-80GB-HBM3", False),
        ("NVIDIA-RTX-A3000", False),
    ],
)
def test_gpus_that_need_mig_mode_first(product: str, needs: bool) -> None:
    assert Node("n", product, {}, "", "", published=False).needs_mig_mode == needs


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
    assert any("karpenter, issue 3231" in note for note in found.notes)


def test_notes() -> None:
    nodes = [node("a", **{"mig-7g.40gb": "1", "mig-1g.5gb.shared": "4"})]
    (issue,) = plan.make(empty(nodes=nodes)).notes
    assert "1480" in issue


def test_policies() -> None:
    key = "requests.nvidia.com/mig-1g.5gb"
    snapshot = empty(
        quotas=[
            named("q", spec={"hard": {key: "4"}}),
            named("other", spec={"hard": {"pods": "1"}}),
        ],
        limits=[named("l", spec={"limits": [{"type": "Pod", "max": {key[9:]: "1"}}]})],
        queues=[{"spec": {"resourceGroups": [{"coveredResources": [key[9:]]}]}}],
        classes=[],
    )
    counting = plan.make(snapshot).policies
    assert counting[0] == Policy("ResourceQuota ml/q", f"counts on: {key}")
    quota, limit, kueue = plan.make(replace(snapshot, gates={EXTENDED: Known(False)})).policies
    assert quota.becomes == f"limits {key}, which rewritten pods do not use"
    hard = "mig-1g.5gb.nvidia.com.deviceclass.resource.k8s.io/devices"
    assert quota.command.endswith(f'{{"spec":{{"hard":{{"{hard}":"4"}}}}}}\'')
    assert quota.back.endswith(f'{{"spec":{{"hard":{{"{hard}":null}}}}}}\'')
    assert limit.what == "LimitRange ml/l"
    assert limit.becomes.startswith("has a max of nvidia.com/mig-1g.5gb for type Pod")
    assert limit.command.endswith("kubectl -n ml edit limitrange l")
    assert kueue.command == "instaslice deviceclasses --kueue 1g.5gb"


def test_the_cluster() -> None:
    found = plan.make(with_lists(webhooks=[webhook(OPT_IN)]))
    assert (found.kubernetes, found.resource_api, found.minor) == ("v1.36.3", "v1", 36)
    assert (found.has_driver, found.installed) == (True, "opt-in")
    assert set(found.gates.values()) == {True}
    assert found.unknown == {}


def test_what_could_not_be_read_is_said() -> None:
    failures = dict.fromkeys(
        ("webhooks", "pods", "nodes", "classes", "slices", "claims", "templates", "queues"),
        Unreadable("403", 403),
    )
    blind = replace(HEALTHY, api=Unavailable("no DRA"), lists={}, failures=failures)
    found = plan.make(blind)
    assert found.unknown == {**dict.fromkeys(failures, "403"), "DRA": "no DRA"}
    assert (found.resource_api, found.installed, found.has_driver) == ("", "", False)
    half = with_lists(replace(HEALTHY, failures={"slices": Unreadable("403", 403)}), quotas=[])
    assert plan.make(half).nodes == []


def test_the_oldest_version_has_a_plan_too() -> None:
    classic = replace(HEALTHY, api=VERSIONS["v1alpha2"], kubernetes="v1.27.16", gates={})
    assert plan.make(classic).resource_api == "v1alpha2"
