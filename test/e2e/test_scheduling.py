"""Rewritten pods and the scheduler: two A100s that exist only as ResourceSlices.

Kubernetes 1.27 to 1.30 leave the allocation to a controller of the driver's, so there is nothing
to be seen without a driver.
"""

from collections.abc import Iterator

import pytest

from test.e2e import gpus
from test.e2e.cluster import Cluster, Json
from test.e2e.pods import container, pod, slices
from test.support import a100
from test.support.process import until

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
    # Whole GPUs are not for who asks for a slice.
    devices = [device(cluster, f"gpu-{number}", type="gpu") for number in range(2)]
    devices += [device(cluster, name, type="mig", profile=each) for name, each in DEVICES.items()]
    slices = {**a100.resource_slice(NODE, 0, 1, devices=devices), "apiVersion": api_version}
    with gpus.node(cluster, NODE, device_class, slices):
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


def scheduled(cluster: Cluster, manifest: Json) -> Json:
    """Create a pod, and return it once it is bound to the node."""
    return gpus.start(cluster, gpus.tolerating(manifest, NODE))


def profiles(cluster: Cluster, placed: Json) -> dict[str, list[str]]:
    """Container -> profiles of the devices that it has, sorted."""
    return {
        name: sorted(DEVICES[device] for device in own)
        for name, own in gpus.given(cluster, placed).items()
    }


def test_each_claim_gets_a_device_of_its_profile_and_gives_it_back(team: Cluster) -> None:
    manifest = pod(
        "p",
        container("a", {"mig-1g.5gb": 2, "mig-3g.20gb": 1}),
        container("b", {"mig-1g.5gb": 2, "mig-2g.10gb": 1}),
        container("c", {"mig-1g.5gb": 0}),
    )
    placed = scheduled(team, manifest)
    assert placed["spec"]["nodeName"] == NODE
    assert profiles(team, placed) == {
        "a": ["1g.5gb", "1g.5gb", "3g.20gb"],
        "b": ["1g.5gb", "1g.5gb", "2g.10gb"],
        "c": [],
    }
    devices = gpus.held(team, placed)
    assert len(set(devices)) == len(devices), "no device twice"
    team.delete("Pod", "p")
    until(lambda: not team.list("ResourceClaim"), "the claims are gone")


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
    assert len(gpus.held(team, placed)) == 1


def test_what_does_not_fit_waits_until_it_does(team: Cluster) -> None:
    scheduled(team, pod("first", container(limits={"mig-3g.20gb": 1})))
    for name, profile in (("second", "mig-3g.20gb"), ("never", "mig-7g.40gb")):
        team.create(gpus.tolerating(pod(name, container(limits={profile: 1})), NODE))
        gpus.waits(team, name)
    assert slices(team.get("Pod", "second")) == {"main": ["mig-3g.20gb"]}
    team.delete("Pod", "first")
    gpus.bound(team, "second")
