"""A plan as text, Markdown and JSON."""

import json

import pytest

from instaslice.doctor import plan_report
from instaslice.doctor.plan import Node, Plan, Policy, Workload
from instaslice.doctor.steps import Step

PLAN = Plan(
    kubernetes="v1.35.6",
    resource_api="v1",
    minor=35,
    has_driver=True,
    gates={"DRAPartitionableDevices": False, "DRAExtendedResource": None},
    components={"device plugin": "v0.17.1 in gpu-operator"},
    installed="",
    workloads=[Workload("ml", "Deployment/web", 2, {"nvidia.com/mig-1g.5gb": "1"}, "limits")],
    nodes=[Node("n", "A100", {"nvidia.com/mig-1g.5gb": "7"}, "all success", "mixed", True)],
    policies=[Policy("ResourceQuota ml/q", "limits x", "kubectl patch")],
    unknown={"queues": "403 no"},
    notes=["7g slices are in use"],
)
STEPS = [Step("Install", "why", ("kubectl apply",), ("kubectl delete",)), Step("Wait", "for it")]


def test_text() -> None:
    assert (
        plan_report.as_text(PLAN, STEPS)
        == f"""\
Cluster
  Kubernetes v1.35.6, resource.k8s.io/v1
  feature gate DRAPartitionableDevices: off
  feature gate DRAExtendedResource: unknown
  NVIDIA's DeviceClass mig.nvidia.com: there
  device plugin: v0.17.1 in gpu-operator
  InstaSlice: not installed

Workloads
  ml Deployment/web: 2 pods, nvidia.com/mig-1g.5gb: 1

Nodes
  n: A100; mig.config all success; strategy mixed; the device plugin offers \
nvidia.com/mig-1g.5gb: 7; MIG slices are published for DRA

Quotas and limits
  ResourceQuota ml/q limits x

To know
  7g slices are in use

Unknown
  queues: 403 no

Steps
  1. Install
     why
       $ kubectl apply
     back: kubectl delete
  2. Wait
     for it

{plan_report.TRIED}
"""
    )


def test_markdown() -> None:
    text = plan_report.as_markdown(PLAN, STEPS)
    assert text.startswith("# From the device plugin to DRA\n\n## Cluster\n\n- Kubernetes v1.35.6")
    assert "### 1. Install\n\nwhy.\n\n```\nkubectl apply\n```\n\nBack:\n\n```\nkubectl del" in text
    assert text.endswith(f"### 2. Wait\n\nfor it.\n\n{plan_report.TRIED}\n")


def test_json() -> None:
    found = json.loads(plan_report.as_json(PLAN, STEPS))
    assert found["workloads"][0]["owner"] == "Deployment/web"
    assert found["steps"][0]["back"] == ["kubectl delete"]
    assert found["note"] == plan_report.TRIED


@pytest.mark.parametrize("print_", [plan_report.as_text, plan_report.as_markdown])
def test_nothing_to_do_is_said(print_: object) -> None:
    assert callable(print_)
    assert "nothing to do" in print_(PLAN, [])


def test_what_was_not_tried_on_a_gpu_is_said_once() -> None:
    assert plan_report.as_text(PLAN, STEPS).count("not been tried on a GPU") == 1
