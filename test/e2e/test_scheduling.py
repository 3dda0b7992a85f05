"""Rewritten pods and the scheduler, from Kubernetes 1.31 on, with existing slices.

From 1.34 on, test_gpus has more tests. Kubernetes 1.27 to 1.30 leave the allocation to the driver's
controller, so there is no allocation without a driver.
"""

import pytest

from test.e2e import gpus
from test.e2e.cluster import Cluster, Json
from test.e2e.pods import container, pod
from test.support import a100

NODE = "two-a100s"
DRIVER = "gpu.nvidia.com"

#: The MIG slices of each GPU, by device name.
DEVICES = {
    **{f"gpu-0-mig-1g5gb-{n}": "1g.5gb" for n in range(4)},
    "gpu-0-mig-3g20gb-0": "3g.20gb",
    "gpu-1-mig-1g5gb-me-0": "1g.5gb+me",
    "gpu-1-mig-2g10gb-0": "2g.10gb",
}


def device(cluster: Cluster, name: str, **attributes: str) -> Json:
    """A device of a ResourceSlice, in the shape of the API version."""
    values = {"attributes": {key: {"string": value} for key, value in attributes.items()}}
    basic = cluster.plane.resource_api in ("v1alpha3", "v1beta1")
    return {"name": name, "basic": values} if basic else {"name": name, **values}


def test_each_claim_gets_devices_of_its_profile_and_gives_them_back(namespace: Cluster) -> None:
    if namespace.plane.resource_api == "v1alpha2":
        pytest.skip("needs a scheduler that allocates by itself: Kubernetes 1.31")
    api_version = f"resource.k8s.io/{namespace.plane.resource_api}"
    of_its_type = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'mig'"
    device_class = {
        "apiVersion": api_version,
        "kind": "DeviceClass",
        "metadata": {"name": "mig.nvidia.com"},
        "spec": {"selectors": [{"cel": {"expression": of_its_type}}]},
    }
    # Pods that request a slice do not get whole GPUs.
    devices = [device(namespace, f"gpu-{number}", type="gpu") for number in range(2)]
    devices += [device(namespace, name, type="mig", profile=each) for name, each in DEVICES.items()]
    slices = {**a100.resource_slice(NODE, 0, 1, devices=devices), "apiVersion": api_version}
    asks: list[Json] = [
        {"mig-1g.5gb": 2, "mig-3g.20gb": 1},
        {"mig-1g.5gb": 1},
        {"mig-1g.5gb.me": 1},
    ]
    containers = [container(f"c{n}", each) for n, each in enumerate(asks)]
    # There is only one such slice.
    shared = {"mig-2g.10gb": 1}
    containers.append(container("shares", shared))
    manifest = pod("p", *containers, initContainers=[container("init", shared)])
    with gpus.node(namespace, NODE, device_class, slices):
        placed = gpus.start(namespace, gpus.tolerating(manifest, NODE))
        has = gpus.given(namespace, placed)
        assert {name: sorted(DEVICES[each] for each in own) for name, own in has.items()} == {
            "c0": ["1g.5gb", "1g.5gb", "3g.20gb"],
            "c1": ["1g.5gb"],
            "c2": ["1g.5gb+me"],
            "init": ["2g.10gb"],
            "shares": ["2g.10gb"],
        }
        assert len({*gpus.held(namespace, placed)}) == 6, "no device twice"
        late = pod("late", container(limits={"mig-3g.20gb": 1}))
        namespace.create(gpus.tolerating(late, NODE))
        gpus.waits(namespace, "late")
        namespace.delete("Pod", "p")
        gpus.bound(namespace, "late")
        gpus.clear(namespace)
