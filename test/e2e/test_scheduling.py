"""Rewritten pods and the scheduler: two A100s that exist only as ResourceSlices.

Kubernetes 1.27 to 1.30 leave the allocation to a controller of the driver's, so there is nothing
to be seen without a driver.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from test.e2e.cluster import Cluster
from test.e2e.gpus import verdict
from test.e2e.pods import claims, container, pod, slices, templates
from test.support.process import until

Json = dict[str, Any]

NODE = "two-a100s"
DRIVER = "gpu.nvidia.com"

#: The MIG slices of each GPU, by device name.
DEVICES = {
    **{f"gpu-0-mig-1g5gb-{n}": "1g.5gb" for n in range(4)},
    "gpu-0-mig-3g20gb-0": "3g.20gb",
    "gpu-1-mig-1g5gb-me-0": "1g.5gb+me",
    "gpu-1-mig-2g10gb-0": "2g.10gb",
    "gpu-1-mig-4g20gb-0": "4g.20gb",
}


@pytest.fixture(scope="module")
def node(cluster: Cluster) -> Iterator[None]:
    """A node with the devices, for the pods of this module only."""
    if not cluster.plane.has_scheduler or not cluster.plane.has_controllers:
        pytest.skip("needs kube-scheduler and kube-controller-manager, beside kube-apiserver")
    if cluster.plane.resource_api == "v1alpha2":
        pytest.skip("needs a scheduler that allocates by itself: Kubernetes 1.31")
    room = {"cpu": "64", "memory": "256Gi", "pods": "500"}
    cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": NODE},
            "status": {
                "capacity": room,
                "allocatable": room,
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }
    )
    # A new node has a taint until the node lifecycle controller, which does not run here, takes it
    # away. One of its own keeps away the pods of other tests.
    taint = {"key": "mig", "effect": "NoSchedule"}
    cluster.patch("Node", NODE, {"spec": {"taints": [taint]}}, "merge")
    api_version = f"resource.k8s.io/{cluster.plane.resource_api}"
    of_its_type = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'mig'"
    cluster.create(
        {
            "apiVersion": api_version,
            "kind": "DeviceClass",
            "metadata": {"name": "mig.nvidia.com"},
            "spec": {"selectors": [{"cel": {"expression": of_its_type}}]},
        }
    )
    cluster.create(
        {
            "apiVersion": api_version,
            "kind": "ResourceSlice",
            "metadata": {"name": NODE},
            "spec": {
                "nodeName": NODE,
                "driver": DRIVER,
                "pool": {"name": NODE, "generation": 1, "resourceSliceCount": 1},
                "devices": [
                    # Whole GPUs, which are not for who asks for a slice.
                    device(cluster, "gpu-0", type="gpu"),
                    device(cluster, "gpu-1", type="gpu"),
                    *(
                        device(cluster, name, type="mig", profile=profile)
                        for name, profile in DEVICES.items()
                    ),
                ],
            },
        }
    )
    yield
    for kind, name in (("ResourceSlice", NODE), ("DeviceClass", "mig.nvidia.com"), ("Node", NODE)):
        cluster.delete(kind, name)


def device(cluster: Cluster, name: str, **attributes: str) -> Json:
    """A device of a ResourceSlice, in the shape of the version."""
    values = {"attributes": {key: {"string": value} for key, value in attributes.items()}}
    basic = cluster.plane.resource_api in ("v1alpha3", "v1beta1")
    return {"name": name, "basic": values} if basic else {"name": name, **values}


@pytest.fixture
def gpus(node: None, namespace: Cluster) -> Iterator[Cluster]:
    """A namespace whose pods may use the node; all devices are free again afterwards."""
    yield namespace
    for each in namespace.list("Pod"):
        namespace.delete("Pod", each["metadata"]["name"])
    until(lambda: not namespace.list("ResourceClaim"), "the claims are gone")


def start(cluster: Cluster, manifest: Json) -> None:
    """Create a pod that the node takes."""
    tolerated = {"tolerations": [{"key": "mig", "operator": "Exists"}]}
    cluster.create({**manifest, "spec": {**manifest["spec"], **tolerated}})


def scheduled(cluster: Cluster, manifest: Json) -> Json:
    """Create a pod, and return it once it is bound to the node."""
    start(cluster, manifest)
    name = manifest["metadata"]["name"]
    try:
        until(lambda: verdict(cluster, name) == "True", f"{name} has a node")
    except TimeoutError as late:
        raise AssertionError(verdict(cluster, name)) from late
    return cluster.get("Pod", name)


def profiles(cluster: Cluster, bound: Json) -> dict[str, list[str]]:
    """Container -> profiles of the devices that it has, sorted."""
    allocated = devices(cluster, bound)
    return {
        name: sorted(DEVICES[device] for claim in own for device in allocated[claim])
        for name, own in claims(bound).items()
    }


def devices(cluster: Cluster, bound: Json) -> dict[str, list[str]]:
    """Claim, as the pod names it -> the devices that it was given."""
    found = {}
    for status in bound["status"]["resourceClaimStatuses"]:
        claim = cluster.get("ResourceClaim", status["resourceClaimName"])
        results = claim["status"]["allocation"]["devices"]["results"]
        found[status["name"]] = [result["device"] for result in results]
    assert found.keys() == templates(bound).keys()
    return found


def test_a_pod_gets_a_slice(gpus: Cluster) -> None:
    bound = scheduled(gpus, pod("p"))
    assert bound["spec"]["nodeName"] == NODE
    assert profiles(gpus, bound) == {"main": ["1g.5gb"]}


def test_each_claim_gets_a_device_of_its_profile(gpus: Cluster) -> None:
    manifest = pod(
        "p",
        container("a", {"mig-1g.5gb": 2, "mig-3g.20gb": 1}),
        container("b", {"mig-1g.5gb": 2, "mig-2g.10gb": 1}),
    )
    bound = scheduled(gpus, manifest)
    assert profiles(gpus, bound) == {
        "a": ["1g.5gb", "1g.5gb", "3g.20gb"],
        "b": ["1g.5gb", "1g.5gb", "2g.10gb"],
    }
    used = Counter(device for own in devices(gpus, bound).values() for device in own)
    assert set(used.values()) == {1}, "no device twice"


def test_slices_with_media_engines_are_told_apart(gpus: Cluster) -> None:
    with_them = scheduled(gpus, pod("me", container(limits={"mig-1g.5gb.me": 1})))
    assert profiles(gpus, with_them) == {"main": ["1g.5gb+me"]}
    without = scheduled(gpus, pod("p", container(limits={"mig-1g.5gb": 4})))
    assert profiles(gpus, without) == {"main": ["1g.5gb"] * 4}


def test_an_init_container_and_a_container_share_a_device(gpus: Cluster) -> None:
    init = [container("i", {"mig-2g.10gb": 1})]
    manifest = pod("p", container(limits={"mig-2g.10gb": 1}), initContainers=init)
    bound = scheduled(gpus, manifest)  # there is only one of it
    assert profiles(gpus, bound) == {"i": ["2g.10gb"], "main": ["2g.10gb"]}
    assert len(devices(gpus, bound)) == 1


def test_what_does_not_fit_waits_until_it_does(gpus: Cluster) -> None:
    scheduled(gpus, pod("first", container(limits={"mig-3g.20gb": 1})))
    start(gpus, pod("second", container(limits={"mig-3g.20gb": 1})))
    said = until(lambda: verdict(gpus, "second"), "the scheduler's verdict")
    assert "cannot allocate all claims" in said
    second = gpus.get("Pod", "second")
    assert slices(second) == {"main": ["mig-3g.20gb"]}
    assert second["status"]["phase"] == "Pending"
    assert "nodeName" not in second["spec"]
    gpus.delete("Pod", "first")
    until(lambda: verdict(gpus, "second") == "True", "its turn")


def test_a_profile_that_no_gpu_has_waits(gpus: Cluster) -> None:
    start(gpus, pod("p", container(limits={"mig-7g.40gb": 1})))
    said = until(lambda: verdict(gpus, "p"), "the scheduler's verdict")
    assert "cannot allocate all claims" in said


def test_the_claims_of_a_deleted_pod_go_away(gpus: Cluster) -> None:
    scheduled(gpus, pod("p", container(limits={"mig-1g.5gb": 3})))
    assert len(gpus.list("ResourceClaim")) == 1
    gpus.delete("Pod", "p")
    until(lambda: not gpus.list("ResourceClaim"), "the claims are gone")


def test_a_limit_of_none_needs_no_device(gpus: Cluster) -> None:
    bound = scheduled(gpus, pod("p", container(limits={"mig-1g.5gb": 0})))
    assert gpus.list("ResourceClaim") == []
    assert claims(bound) == {"main": []}
