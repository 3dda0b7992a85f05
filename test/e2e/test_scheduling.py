"""Rewritten pods and the scheduler: two A100s that exist only as ResourceSlices.

Kubernetes 1.27 to 1.30 leave the allocation to a controller of the driver's, so there is nothing
to be seen without a driver.
"""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from test.e2e import gpus
from test.e2e.cluster import Cluster
from test.e2e.gpus import bound, verdict
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
    if cluster.plane.resource_api == "v1alpha2":
        pytest.skip("needs a scheduler that allocates by itself: Kubernetes 1.31")
    api_version = f"resource.k8s.io/{cluster.plane.resource_api}"
    of_its_type = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'mig'"
    device_class = {
        "apiVersion": api_version,
        "kind": "DeviceClass",
        "metadata": {"name": "mig.nvidia.com"},
        "spec": {"selectors": [{"cel": {"expression": of_its_type}}]},
    }
    resource_slice = {
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
    with gpus.node(cluster, NODE, device_class, resource_slice):
        yield


def device(cluster: Cluster, name: str, **attributes: str) -> Json:
    """A device of a ResourceSlice, in the shape of the version."""
    values = {"attributes": {key: {"string": value} for key, value in attributes.items()}}
    basic = cluster.plane.resource_api in ("v1alpha3", "v1beta1")
    return {"name": name, "basic": values} if basic else {"name": name, **values}


@pytest.fixture
def team(node: None, namespace: Cluster) -> Iterator[Cluster]:
    """A namespace whose pods may use the node; all devices are free again afterwards."""
    yield namespace
    gpus.clear(namespace)


def start(cluster: Cluster, manifest: Json) -> None:
    """Create a pod that the node takes."""
    cluster.create(gpus.tolerating(manifest, NODE))


def scheduled(cluster: Cluster, manifest: Json) -> Json:
    """Create a pod, and return it once it is bound to the node."""
    start(cluster, manifest)
    return bound(cluster, manifest["metadata"]["name"])


def profiles(cluster: Cluster, placed: Json) -> dict[str, list[str]]:
    """Container -> profiles of the devices that it has, sorted."""
    allocated = devices(cluster, placed)
    return {
        name: sorted(DEVICES[device] for claim in own for device in allocated[claim])
        for name, own in claims(placed).items()
    }


def devices(cluster: Cluster, placed: Json) -> dict[str, list[str]]:
    """Claim, as the pod names it -> the devices that it was given."""
    found = {}
    for status in placed["status"]["resourceClaimStatuses"]:
        claim = cluster.get("ResourceClaim", status["resourceClaimName"])
        results = claim["status"]["allocation"]["devices"]["results"]
        found[status["name"]] = [result["device"] for result in results]
    assert found.keys() == templates(placed).keys()
    return found


def test_a_pod_gets_a_slice(team: Cluster) -> None:
    placed = scheduled(team, pod("p"))
    assert placed["spec"]["nodeName"] == NODE
    assert profiles(team, placed) == {"main": ["1g.5gb"]}


def test_each_claim_gets_a_device_of_its_profile(team: Cluster) -> None:
    manifest = pod(
        "p",
        container("a", {"mig-1g.5gb": 2, "mig-3g.20gb": 1}),
        container("b", {"mig-1g.5gb": 2, "mig-2g.10gb": 1}),
    )
    placed = scheduled(team, manifest)
    assert profiles(team, placed) == {
        "a": ["1g.5gb", "1g.5gb", "3g.20gb"],
        "b": ["1g.5gb", "1g.5gb", "2g.10gb"],
    }
    used = Counter(device for own in devices(team, placed).values() for device in own)
    assert set(used.values()) == {1}, "no device twice"


def test_slices_with_media_engines_are_told_apart(team: Cluster) -> None:
    with_them = scheduled(team, pod("me", container(limits={"mig-1g.5gb.me": 1})))
    assert profiles(team, with_them) == {"main": ["1g.5gb+me"]}
    without = scheduled(team, pod("p", container(limits={"mig-1g.5gb": 4})))
    assert profiles(team, without) == {"main": ["1g.5gb"] * 4}


def test_an_init_container_and_a_container_share_a_device(team: Cluster) -> None:
    init = [container("i", {"mig-2g.10gb": 1})]
    manifest = pod("p", container(limits={"mig-2g.10gb": 1}), initContainers=init)
    placed = scheduled(team, manifest)  # there is only one of it
    assert profiles(team, placed) == {"i": ["2g.10gb"], "main": ["2g.10gb"]}
    assert len(devices(team, placed)) == 1


def test_what_does_not_fit_waits_until_it_does(team: Cluster) -> None:
    scheduled(team, pod("first", container(limits={"mig-3g.20gb": 1})))
    start(team, pod("second", container(limits={"mig-3g.20gb": 1})))
    said = until(lambda: verdict(team, "second"), "the scheduler's verdict")
    assert "cannot allocate all claims" in said
    second = team.get("Pod", "second")
    assert slices(second) == {"main": ["mig-3g.20gb"]}
    assert second["status"]["phase"] == "Pending"
    assert "nodeName" not in second["spec"]
    team.delete("Pod", "first")
    until(lambda: verdict(team, "second") == "True", "its turn")


def test_a_profile_that_no_gpu_has_waits(team: Cluster) -> None:
    start(team, pod("p", container(limits={"mig-7g.40gb": 1})))
    said = until(lambda: verdict(team, "p"), "the scheduler's verdict")
    assert "cannot allocate all claims" in said


def test_the_claims_of_a_deleted_pod_go_away(team: Cluster) -> None:
    scheduled(team, pod("p", container(limits={"mig-1g.5gb": 3})))
    assert len(team.list("ResourceClaim")) == 1
    team.delete("Pod", "p")
    until(lambda: not team.list("ResourceClaim"), "the claims are gone")


def test_a_limit_of_none_needs_no_device(team: Cluster) -> None:
    placed = scheduled(team, pod("p", container(limits={"mig-1g.5gb": 0})))
    assert team.list("ResourceClaim") == []
    assert claims(placed) == {"main": []}
