"""`instaslice doctor` and `demo/run.sh` on a real API server."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from instaslice.doctor import checks
from instaslice.webhook_configuration import MODES, webhook_configuration
from test.e2e.checkout import Reader, doctor
from test.e2e.cluster import Cluster, Json
from test.e2e.gpus import FIRST_WITH_EXTENDED_RESOURCES
from test.e2e.installation import kubeconfig_of, render
from test.e2e.pods import container, pod
from test.e2e.webhook import Webhook
from test.support.command import instaslice
from test.support.process import ROOT

ONE_SLICE = "nvidia.com/mig-1g.5gb"
NODE = "demo-node"


def texts(found: list[Json], check: str, part: str = "") -> list[str]:
    return [
        f"{each['state']}: {each['text']}"
        for each in found
        if each["check"] == check and part in each["text"]
    ]


def test_doctor_finds_problems_and_leaves_no_objects(namespace: Cluster) -> None:
    found = doctor(namespace)
    (dra, *_) = texts(found, "DRA")
    assert dra.startswith("good: ")
    assert namespace.plane.resource_api in dra
    assert texts(found, "webhook")[-1].startswith("good: ")
    assert texts(found, "dry run")[-1].startswith("good: ")
    assert texts(found, "driver")[-1].startswith("wrong: "), "there is none here"
    assert namespace.list("Pod") == namespace.list("ResourceClaimTemplate") == []


def test_doctors_roles_suffice_and_are_read_only(namespace: Cluster, tmp_path: Path) -> None:
    """The roles of config/components/doctor: first the one that reads, then the dry runs', too."""
    rendered = render(namespace.plane, "doctor")
    roles = {m["metadata"]["name"]: m for m in rendered if "doctor" in m["metadata"]["name"]}
    reading, trying = "instaslice-doctor", "instaslice-doctor-dry-run"
    assert {verb for rule in roles[reading]["rules"] for verb in rule["verbs"]} == {"get", "list"}
    namespace.make("ServiceAccount", "looker")
    path = kubeconfig_of(namespace, "looker", tmp_path / "looker")

    def bind(name: str) -> None:
        namespace.create(roles[name])
        bound = ["--clusterrole", name, f"--serviceaccount={namespace.namespace}:looker"]
        namespace.kubectl("create", "clusterrolebinding", name, *bound).check_returncode()

    def look(command: str, *arguments: str) -> Any:
        done = instaslice(command, f"--kubeconfig={path}", "-o", "json", *arguments)
        assert done.err == ""
        return json.loads(done.out)

    try:
        bind(reading)
        found = look("doctor", "-n", namespace.namespace)
        assert not [each for each in found if "could not be read" in each["text"]]
        tried = {f["check"]: f["state"] for f in found if "cannot create" in f["text"]}
        assert tried.pop("gates", "unsure") == "unsure"
        assert tried == {"dry run": "unsure"}
        assert look("plan")["unknown"] == {}
        bind(trying)
        found = look("doctor", "-n", namespace.namespace)
        assert not [each for each in found if "cannot create" in each["text"]]
        assert {f["state"] for f in found if f["check"] == "dry run"} == {"good"}
    finally:
        kinds = "clusterrolebinding,clusterrole"
        namespace.kubectl("delete", kinds, reading, trying, "--ignore-not-found")


@pytest.mark.parametrize("mode", MODES)
def test_doctor_recognizes_each_registered_mode(cluster: Cluster, mode: str) -> None:
    """The API server adds defaults to it."""
    if cluster.plane.version.minor < 28:
        pytest.skip("Kubernetes 1.27 drops matchConditions")
    manifest = webhook_configuration(mode, ["nvidia.com/gpu"])
    manifest["metadata"]["name"] = "known-again"
    (kept,) = cluster.create(manifest, dry_run=True)["webhooks"]
    found = checks.Registered(kept)
    assert (found.mode, found.differences) == (mode, [])
    assert found.resources == {"nvidia.com/gpu"}


def test_quotas_and_the_suggested_command(namespace: Cluster) -> None:
    namespace.make("ResourceQuota", "gpus", spec={"hard": {f"requests.{ONE_SLICE}": "4"}})
    name = namespace.namespace
    minor = namespace.plane.version.minor
    mine = [f for f in doctor(namespace) if f["check"] == "quotas" and f"{name}/gpus" in f["text"]]
    if minor >= FIRST_WITH_EXTENDED_RESOURCES:
        assert [f["state"] for f in mine] == ["good"]
        return
    (found,) = mine
    assert found["state"] == "unsure"
    Reader(namespace).follow(found["advice"])
    hard = namespace.get("ResourceQuota", "gpus")["spec"]["hard"]
    classic = namespace.plane.resource_api == "v1alpha2"
    key = (
        "count/resourceclaims.resource.k8s.io"
        if classic
        else "mig-1g.5gb.nvidia.com.deviceclass.resource.k8s.io/devices"
    )
    assert hard[key] == "4"


def test_limit_ranges_that_refuse_rewritten_pods(namespace: Cluster) -> None:
    limits = [
        {"type": "Pod", "max": {ONE_SLICE: "4"}},
        {"type": "Container", "min": {ONE_SLICE: "1"}},
    ]
    namespace.make("LimitRange", "gpus", spec={"limits": limits})
    name = namespace.namespace
    found = doctor(namespace)
    assert texts(found, "limit ranges", name) == [
        f"wrong: LimitRange {name}/gpus has {ONE_SLICE} in its {field} for type {kind}, which no "
        "rewritten pod can satisfy: all are refused"
        for field, kind in (("max", "Pod"), ("min", "Container"))
    ]
    # The API server does refuse them.
    assert texts(found, "dry run")[0].startswith(
        f"wrong: a pod with {ONE_SLICE} in {name} is refused"
    )


def test_templates_and_classes_of_others_are_reported(namespace: Cluster) -> None:
    """doctor accepts InstaSlice's objects with the API server's defaults, and no others."""
    if namespace.plane.resource_api != "v1":
        pytest.skip("the objects of this test are of resource.k8s.io/v1")
    name = namespace.namespace
    args = ("templates", "--apply", *namespace.where)
    made = instaslice(*args, "1g.12gb", "mig-1g.12gb.x2", "same-gpu-mig-1g.12gb.x2")
    assert made.code == 0, made.err
    own = "mig-1g.12gb.nvidia.com"
    found = doctor(namespace)
    assert texts(found, "templates", f"{name}/") == []
    assert texts(found, "device classes", own) == []
    request = {"name": "r", "exactly": {"deviceClassName": own, "allocationMode": "All"}}
    theirs = {"spec": {"devices": {"requests": [request]}}}
    namespace.make("ResourceClaimTemplate", "mig-2g.24gb", spec=theirs)
    never = {"spec": {"selectors": [{"cel": {"expression": "false"}}]}}
    namespace.patch("DeviceClass", own, never, "merge")
    try:
        found = doctor(namespace)
    finally:
        namespace.delete("DeviceClass", own)
    (template,) = texts(found, "templates", f"{name}/mig-2g.24gb")
    assert template.startswith("wrong: ")
    assert "allocationMode is All" in template
    (class_,) = texts(found, "device classes", own)
    assert class_.startswith(f"wrong: DeviceClass {own} differs from what InstaSlice creates")


def test_pod_with_a_node_name(namespace: Cluster) -> None:
    named = pod("named", container(limits={"mig-1g.5gb": 1}))
    named["spec"]["nodeName"] = "nowhere"
    namespace.create(named)
    namespace.create(pod("free", container(limits={"mig-1g.5gb": 1})))
    bind = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "free"},
        "target": {"kind": "Node", "name": "nowhere"},
    }
    path = f"/api/v1/namespaces/{namespace.namespace}/pods/free/binding"
    done = namespace.kubectl("create", "--raw", path, "-f", "-", stdin=bind)
    assert done.returncode == 0, done.stderr
    kubeconfig = f"--kubeconfig={namespace.plane.kubeconfig}"
    planned = json.loads(instaslice("plan", kubeconfig, "-o", "json").out)
    mine = [each for each in planned["workloads"] if each["namespace"] == namespace.namespace]
    assert {each["owner"]: each["node_name"] for each in mine} == {
        "Pod/named": "nowhere",
        "Pod/free": "",
    }
    found = doctor(namespace, "named")
    assert "only the scheduler allocates claims" in texts(found, "node name")[0]


@pytest.fixture
def node(cluster: Cluster) -> Any:
    """A ready and empty node that exists only as an object."""
    room = {"cpu": "16", "memory": "64Gi", "pods": "110"}
    status: Json = {"capacity": room, "allocatable": room}
    status["conditions"] = [{"type": "Ready", "status": "True"}]
    cluster.make("Node", NODE, status=status)
    # The API server adds taints, and the controller that removes them does not run here.
    cluster.patch("Node", NODE, {"spec": {"taints": None}}, "merge")
    yield NODE
    cluster.delete("Node", NODE)


def test_the_demo(cluster: Cluster, webhook: Webhook, node: str) -> None:
    if not cluster.plane.has_scheduler or cluster.plane.version.minor < 36:
        pytest.skip("needs Kubernetes 1.36 with its controller manager and scheduler")
    environment = {
        **os.environ,
        "KUBECTL": str(cluster.plane.kubectl),
        "KUBECONFIG": str(cluster.plane.kubeconfig),
    }
    done = subprocess.run(
        ["sh", ROOT / "demo/run.sh"], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for device in ("mig-2g10gb-", "mig-3g20gb-", "mig-1g10gb-"):
        assert device in done.stdout
    assert "cannot allocate all claims" in done.stdout
    left = cluster.kubectl("get", "resourceslices,deviceclasses,namespaces", "-o", "name")
    assert "demo" not in left.stdout
    assert "mig.nvidia.com" not in left.stdout
