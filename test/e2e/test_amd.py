"""AMD's GPUs and partitions, mapped to classes: a real scheduler allocates its driver's devices.

Source of the devices: ROCm/k8s-gpu-dra-driver, docs/driver-attributes.md.
"""

from collections.abc import Iterator

import pytest
import yaml

from test.e2e import gpus
from test.e2e.cluster import Cluster, Json
from test.e2e.pods import all_containers, container, pod, templates
from test.support import a100
from test.support.process import ROOT

NODE, DRIVER = "amd", "gpu.amd.com"


def device(name: str, **attributes: str) -> Json:
    values = {key: {"string": value} for key, value in attributes.items()}
    return {"name": name, "attributes": values, "capacity": {"memory": {"value": "24Gi"}}}


def auto(compute: str, memory: str, partitions: int) -> Json:
    """One way to partition a GPU with AutoPartition, which excludes the other ways."""
    kind = "amdgpu" if partitions == 1 else "amdgpu-partition"
    name = f"gpu-0-{compute}-{memory}"
    found = device(name, type=kind, computePartition=compute, memoryPartition=memory)
    policy = {"default": "1", "validValues": ["1"]}
    found["capacity"]["partitions"] = {"value": str(partitions), "requestPolicy": policy}
    mode = {"counterSet": "mutex", "counters": {"partition-mode": {"value": "1"}}}
    return {**found, "allowMultipleAllocations": True, "consumesCounters": [mode]}


@pytest.fixture(scope="module")
def devices(cluster: Cluster) -> Iterator[None]:
    """A GPU with AutoPartition, a GPU that is partitioned already, and a whole GPU."""
    if cluster.plane.version.minor < gpus.FIRST_WITH_EXTENDED_RESOURCES:
        pytest.skip("AMD's AutoPartition needs Kubernetes 1.36")
    counters = [{"name": "mutex", "counters": {"partition-mode": {"value": "1"}}}]
    ways = (("spx", "nps1", 1), ("cpx", "nps1", 8), ("cpx", "nps4", 8))
    cut = {"type": "amdgpu-partition", "partitionProfile": "cpx_nps4"}
    gpus_ = [
        *(auto(*way) for way in ways),
        *(device(f"gpu-1-{n}", **cut) for n in range(8)),
        device("gpu-2-136", type="amdgpu", partitionProfile="spx_nps1"),
    ]
    slices = [
        a100.resource_slice(NODE, number, 2, driver=DRIVER, **part)
        for number, part in enumerate(({"sharedCounters": counters}, {"devices": gpus_}))
    ]
    page = (ROOT / "docs/resources.md").read_text()
    (ours,) = [text for text in page.split("```") if "name: cpx-nps4" in text]
    documented = yaml.safe_load(ours.removeprefix("yaml"))
    spx = "device.attributes['gpu.amd.com'].?computePartition.orValue('spx') == 'spx'"
    kind = "device.attributes['gpu.amd.com'].type == 'amdgpu'"
    selectors = [{"cel": {"expression": f"device.driver == 'gpu.amd.com' && {kind} && {spx}"}}]
    theirs = {**documented, "metadata": {"name": "gpu.amd.com-spx"}}
    theirs["spec"] = {"selectors": selectors}
    with gpus.node(cluster, NODE, documented, theirs, *slices):
        yield


def asking(name: str, **amounts: int) -> Json:
    limits = {f"amd.com/{resource}": str(n) for resource, n in amounts.items()}
    return gpus.tolerating(pod(name, container(resources={"limits": limits})), NODE)


def test_partitions_and_whole_gpus(team: Cluster) -> None:
    """A GPU in partition mode is not allocated as a whole one."""
    created = gpus.start(team, asking("p", cpx_nps4=9, gpu=1))
    assert "limits" not in all_containers(created)[0]["resources"]
    partitions = ["gpu-0-cpx-nps4", *(f"gpu-1-{n}" for n in range(8))]
    assert gpus.held(team, created) == [*partitions, "gpu-2-136"]
    assert sorted(templates(created).values()) == [
        "cpx-nps4.amd.com-02f8827500427936.x9",
        "gpu.amd.com",
    ]
    team.create(asking("waits", gpu=1))
    gpus.waits(team, "waits")
