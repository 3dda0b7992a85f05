"""`instaslice doctor` finds on real API servers what only they make so."""

import json
import subprocess
from typing import Any

import pytest

from instaslice.doctor import installed
from instaslice.webhook_configuration import MODES, webhook_configuration
from test.e2e.cluster import Cluster
from test.e2e.pods import container, pod
from test.support import a100
from test.support.command import instaslice

Json = dict[str, Any]

ONE_SLICE = "nvidia.com/mig-1g.5gb"
#: Since which minor version quotas on extended resources count claims (KEP-5004, on by default).
COUNTING_SINCE = 36


def doctor(cluster: Cluster, *arguments: str) -> list[Json]:
    """All findings about a namespace."""
    kubeconfig = f"--kubeconfig={cluster.plane.kubeconfig}"
    done = instaslice("doctor", kubeconfig, "-o", "json", "-n", cluster.namespace, *arguments)
    assert done.err == ""
    return list(json.loads(done.out))


def texts(found: list[Json], check: str, part: str = "") -> list[str]:
    return [
        f"{each['state']}: {each['text']}"
        for each in found
        if each["check"] == check and part in each["text"]
    ]


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_is_known_again_once_it_is_registered(cluster: Cluster, mode: str) -> None:
    """The API server fills in defaults."""
    if cluster.plane.version.minor < 28:
        pytest.skip("Kubernetes 1.27 drops matchConditions")
    manifest = webhook_configuration(mode, ["nvidia.com/gpu"])
    manifest["metadata"]["name"] = "known-again"
    (kept,) = cluster.create(manifest, dry_run=True)["webhooks"]
    found = installed.read(kept)
    assert (found.mode, found.differences) == (mode, ())
    assert found.resources == {"nvidia.com/gpu"}


def quota(namespace: Cluster, **hard: str) -> None:
    spec = {"hard": {key.replace("__", "."): amount for key, amount in hard.items()}}
    metadata = {"name": "gpus"}
    namespace.create(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": spec}
    )


def test_a_quota_that_counts_and_the_command_that_has_it_count(namespace: Cluster) -> None:
    quota(namespace, **{f"requests.{ONE_SLICE}": "4"})
    name = namespace.namespace
    minor = namespace.plane.version.minor
    mine = [f for f in doctor(namespace) if f["check"] == "quotas" and f"{name}/gpus" in f["text"]]
    if minor >= COUNTING_SINCE:
        assert [f["state"] for f in mine] == ["good"]
        return
    (found,) = mine
    assert found["state"] == "unsure"
    # kubectl is not on PATH here, and knows another cluster.
    kubectl = f"{namespace.plane.kubectl} --kubeconfig={namespace.plane.kubeconfig}"
    command = found["advice"].replace("kubectl", kubectl, 1)
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
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
    manifest = {"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "gpus"}}
    namespace.create({**manifest, "spec": {"limits": limits}})
    name = namespace.namespace
    found = doctor(namespace)
    assert texts(found, "limit ranges", name) == [
        f"wrong: LimitRange {name}/gpus has {ONE_SLICE} in its {field} for type {kind}, which no "
        "rewritten pod can satisfy: all are refused"
        for field, kind in (("max", "Pod"), ("min", "Container"))
    ]
    # And it is so.
    assert texts(found, "dry run")[0].startswith(
        f"wrong: a pod with {ONE_SLICE} in {name} is refused"
    )


def test_a_template_and_a_class_that_somebody_else_made(namespace: Cluster) -> None:
    """What InstaSlice makes is as doctor expects it, the API server's defaults included."""
    if namespace.plane.resource_api != "v1":
        pytest.skip("the objects of this test are of resource.k8s.io/v1")
    name = namespace.namespace
    kubeconfig = f"--kubeconfig={namespace.plane.kubeconfig}"
    args = ("templates", "--apply", kubeconfig, "-n", name)
    made = instaslice(*args, "1g.12gb", "mig-1g.12gb.x2", "same-gpu-mig-1g.12gb.x2")
    assert made.code == 0, made.err
    own = "mig-1g.12gb.nvidia.com"
    found = doctor(namespace)
    assert texts(found, "templates", f"{name}/") == []
    assert texts(found, "device classes", own) == []
    request = {"name": "r", "exactly": {"deviceClassName": own, "allocationMode": "All"}}
    theirs = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "mig-2g.24gb"},
        "spec": {"spec": {"devices": {"requests": [request]}}},
    }
    namespace.create(theirs)
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
    assert class_.startswith(f"wrong: DeviceClass {own} is not as InstaSlice makes it")


def test_a_node_that_its_author_has_named(namespace: Cluster) -> None:
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


@pytest.mark.parametrize("kind", ["gpu", "none"])
def test_what_a_mapping_leads_to(namespace: Cluster, kind: str) -> None:
    if namespace.plane.resource_api != "v1":
        pytest.skip("the device classes of this test are of resource.k8s.io/v1")
    (gpu, _) = a100.device_classes()
    namespace.create(gpu)
    try:
        target = f"{kind}.nvidia.com"
        found = doctor(namespace, "--resource", f"nvidia.com/gpu={target}")
    finally:
        namespace.delete("DeviceClass", "gpu.nvidia.com")
    what = f"wrong: nvidia.com/gpu is mapped to {target}, "
    said = {
        "gpu": "and gpu.nvidia.com publishes no device of it",
        "none": "which does not exist",
    }
    assert texts(found, "mapped") == [what + said[kind]]


def test_slices_that_overlap_since_the_counters_were_dropped(empty_cluster: Cluster) -> None:
    """The API server keeps devices whose counters its gate has dropped."""
    if empty_cluster.plane.resource_api != "v1":
        pytest.skip("the devices of this test are of resource.k8s.io/v1")
    minor = empty_cluster.plane.version.minor
    slices = a100.resource_slices("node-1", combined=minor == 34)
    for slice_ in slices:
        empty_cluster.create(slice_)
    try:
        found = doctor(empty_cluster)
    finally:
        for slice_ in slices:
            empty_cluster.delete("ResourceSlice", slice_["metadata"]["name"])
    dropped = minor < COUNTING_SINCE
    assert len(texts(found, "overlap")) == int(dropped)
    if dropped:
        (each,) = (f for f in found if f["check"] == "overlap")
        assert each["state"] == "wrong"
        assert "DRAPartitionableDevices" in each["advice"]
    assert any("7g.40gb: 2 free" in text for text in texts(found, "slices"))


def test_a_pod_that_waits_says_for_what(namespace: Cluster) -> None:
    if namespace.plane.resource_api == "v1alpha2":
        pytest.skip("only the driver knows its devices")
    namespace.create(pod("p", container(limits={"mig-1g.5gb": 2})))
    kubeconfig = f"--kubeconfig={namespace.plane.kubeconfig}"
    done = instaslice("doctor", "p", kubeconfig, "-o", "json", "-n", namespace.namespace)
    found = {each["check"]: each for each in json.loads(done.out)}
    assert found["asks for"]["text"] == "2 x 1g.5gb"
    if namespace.plane.has_controllers:
        (claim,) = (each for check, each in found.items() if check.startswith("claim "))
        assert claim["text"].startswith("asks for 2 x 1g.5gb")
