"""The steps of a change-over, in their order."""

from dataclasses import replace
from typing import Any

import pytest

from instaslice.cluster.gates import EXTENDED, PARTITIONABLE
from instaslice.doctor.plan import Node, Plan, Policy, Workload
from instaslice.doctor.steps import Step, steps

A100 = Node(
    *("node-a", "NVIDIA-A100-SXM4-40GB", {"nvidia.com/mig-1g.5gb": "7"}),
    *("all-1g.5gb success", "mixed", False),
)
H100 = Node("node-h", "NVIDIA-H100", {"nvidia.com/mig-1g.10gb": "7"}, "", "", published=False)
WEB = Workload("ml", "Deployment/web", 2, {"nvidia.com/mig-1g.5gb": "1"}, "limits")
JOB = Workload("batch", "RayCluster/ray", 1, {"nvidia.com/mig-1g.5gb": "1"}, "limits")


def plan(**fields: Any) -> Plan:
    """A cluster of 1.36 with a node of two A100s and one Deployment."""
    usual: dict[str, Any] = {
        "kubernetes": "v1.36.3",
        "resource_api": "v1",
        "minor": 36,
        "has_driver": False,
        "gates": {PARTITIONABLE: True, EXTENDED: True},
        "components": {},
        "installed": "",
        "workloads": [WEB],
        "nodes": [A100],
        "policies": [],
    }
    return Plan(**(usual | fields))


def titles(made: Plan) -> list[str]:
    return [step.title for step in steps(made)]


def step(made: Plan, part: str) -> Step:
    (found,) = (each for each in steps(made) if part in each.title)
    return found


def test_the_order() -> None:
    policy = Policy("ResourceQuota ml/q", "limits x", "kubectl patch", "kubectl patch back")
    made = plan(
        workloads=[WEB, JOB],
        nodes=[A100, H100],
        policies=[policy, Policy("ResourceQuota ml/other", "counts on: y")],
        components={"GPU operator": "v26.3 in gpu-operator"},
    )
    assert titles(made) == [
        "Install InstaSlice, for namespaces that opt in",
        "Adapt ResourceQuota ml/q",
        "Install NVIDIA's DRA driver, on nodes that are labelled for it",
        "Change node node-a over",
        "Change node node-h over",
        "Change namespace ml over",
        "Change namespace batch over",
        "Leave the labels behind",
        "Take the device plugin and MIG manager away for good",
    ]
    assert all(each.back for each in steps(made)), "there is a way back from each"


def test_the_plugin_leaves_a_node_before_the_driver_comes() -> None:
    commands = "\n".join(step(plan(), "node node-a").commands)
    order = [
        "drain",
        "mig.config=all-enabled",
        "state",
        "device-plugin=false",
        "dra-kubelet-plugin",
    ]
    places = [commands.index(part) for part in [*order, "uncordon"]]
    assert places == sorted(places)
    back = "\n".join(step(plan(), "node node-a").back)
    order = ["drain", "dra-kubelet-plugin-", "device-plugin=true", "mig.config=all-1g.5gb"]
    places = [back.index(part) for part in [*order, "uncordon"]]
    assert places == sorted(places)


def test_mig_mode_is_for_ampere_alone() -> None:
    made = plan(nodes=[H100])
    assert "mig.config" not in "\n".join(step(made, "node node-h").commands)


def test_why_a_node_is_changed_over() -> None:
    assert step(plan(nodes=[H100]), "node node-h").why == (
        "NVIDIA-H100, which offers nvidia.com/mig-1g.10gb: 7"
    )
    both = replace(H100, published=True)
    assert "both give out the same GPUs" in step(plan(nodes=[both]), "node node-h").why


def test_the_mode_that_is_left_fits_the_version() -> None:
    leave = "Leave the labels behind"
    assert step(plan(), leave).commands == (
        'make deploy IMG=... COMPONENTS="cert-manager kubernetes-1.36"',
    )
    before = step(plan(minor=35), leave)
    assert before.commands == ('make deploy IMG=... COMPONENTS="cert-manager"',)
    assert before.why == "Every namespace is rewritten from here on"


def test_without_the_gpu_operator_nothing_is_said_of_it() -> None:
    made = plan()
    assert not any("for good" in title for title in titles(made))
    (command,) = step(made, "DRA driver").commands
    assert "nvidiaDriverRoot" not in command


def test_namespaces() -> None:
    found = step(plan(workloads=[WEB, WEB]), "namespace ml")
    assert found.commands == (
        "kubectl label namespace ml instaslice.io/rewrite=enabled",
        "kubectl -n ml rollout restart deployment/web",
        "instaslice doctor -n ml",
    )
    assert found.back[0] == "kubectl label namespace ml instaslice.io/rewrite-"
    assert "Create anew what no rollout restarts: RayCluster/ray" in (
        step(plan(workloads=[JOB]), "namespace batch").why
    )
    das = Workload("ml", "Deployment/web", 1, {"mig.das.com/1g.5gb": "1"}, "das")
    assert "OpenShift's removed operator" in step(plan(workloads=[das]), "namespace ml").why
    before = plan(minor=35, gates={})
    assert "must be changed over before" in step(before, "namespace ml").why


@pytest.mark.parametrize(
    ("fields", "first"),
    [
        ({"resource_api": ""}, "Switch DRA on"),
        ({"resource_api": "v1beta1", "minor": 32}, "Upgrade to Kubernetes 1.34 or later"),
        ({"gates": {PARTITIONABLE: False}}, f"Switch on the feature gate {PARTITIONABLE}"),
        ({"installed": "all"}, "Have InstaSlice rewrite only the namespaces that opted in"),
    ],
)
def test_what_comes_first(fields: dict[str, Any], first: str) -> None:
    assert titles(plan(**fields))[0] == first


def test_a_driver_that_is_there_already() -> None:
    there = {"NVIDIA's DRA driver": "v0.5.0 in dra"}
    assert any(
        title.startswith("Switch on DynamicMIG in") for title in titles(plan(components=there))
    )
    ready = {"NVIDIA's DRA driver": "v0.5.0 in dra, DynamicMIG=true"}
    assert not any("DRA driver" in title for title in titles(plan(components=ready)))
    operator = plan(components={"GPU operator": "v26"})
    (command,) = step(operator, "DRA driver").commands
    assert "nvidiaDriverRoot=/run/nvidia/driver" in command
    assert (
        r"--set-string 'kubeletPlugin.nodeSelector.nvidia\.com/dra-kubelet-plugin=true'" in command
    )


GPUS = Workload("ml", "Deployment/web", 2, {"nvidia.com/gpu": "1"}, "limits")
SINGLE = Node(
    *("n", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", {"nvidia.com/gpu": "7"}, "", "single", False),
)


@pytest.mark.parametrize(
    ("fields", "mapping"),
    [
        ({"workloads": [GPUS]}, ""),
        ({"workloads": [GPUS], "gates": {}, "minor": 36}, ""),
        ({"workloads": [GPUS], "gates": {EXTENDED: False}}, "nvidia.com/gpu=gpu.nvidia.com"),
        ({"workloads": [GPUS], "gates": {}, "minor": 35}, "nvidia.com/gpu=gpu.nvidia.com"),
        ({"workloads": [GPUS], "nodes": [SINGLE]}, "nvidia.com/gpu=mig-1g.10gb"),
        ({"gates": {}, "minor": 35}, ""),
    ],
)
def test_whole_gpus(fields: dict[str, Any], mapping: str) -> None:
    made = plan(**fields)
    assert any(title == "Map nvidia.com/gpu" for title in titles(made)) == bool(mapping)
    if mapping:
        (command,) = step(made, "Map nvidia.com/gpu").commands
        assert (
            command == f'make deploy IMG=... COMPONENTS="cert-manager opt-in" RESOURCES={mapping}'
        )


def test_nothing_to_do() -> None:
    claims = Workload("ml", "Deployment/web", 2, {"mig-1g.5gb": "1"}, "claims")
    assert steps(plan(workloads=[claims], nodes=[])) == []
