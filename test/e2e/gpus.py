"""A node with two A100s that exist only as ResourceSlices, and the devices of its pods."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from test.e2e.cluster import Cluster, Json, Refused
from test.e2e.pods import all_containers
from test.support import a100
from test.support.process import until

#: The node of the A100s.
NODE = "a100s"

#: The resource for whole GPUs, which the tests' InstaSlice maps to the driver's class.
GPU = "nvidia.com/gpu"
GPU_CLASS = "gpu.nvidia.com"
MAPPING = f"{GPU}={GPU_CLASS}"
#: Resources whose templates' names end in a digest, for they would be invalid or too long.
DIGESTED = ("nvidia.com/gpu__a", f"{'.'.join(['a' * 60] * 3)}.{'b' * 50}.com/{'gpu' * 10}")
#: All mappings of the tests' InstaSlice. Some are for AMD (test_amd).
MAPPINGS = (
    MAPPING,
    "amd.com/gpu=gpu.amd.com-spx",
    "amd.com/cpx_nps4=cpx-nps4.example.com",
    *(f"{name}={GPU_CLASS}-{i}" for i, name in enumerate(DIGESTED)),
)

#: The labels that GPU Feature Discovery, MIG manager and the GPU operator set on a node with MIG.
PLUGIN_LABELS = {
    "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB",
    "nvidia.com/gpu.count": "2",
    "nvidia.com/gpu.present": "true",
    "nvidia.com/mig.capable": "true",
    "nvidia.com/mig.strategy": "mixed",
    "nvidia.com/mig.config": "all-1g.5gb",
    "nvidia.com/mig.config.state": "success",
    "nvidia.com/gpu.deploy.device-plugin": "true",
    "nvidia.com/gpu.deploy.mig-manager": "true",
}

#: The first Kubernetes whose scheduler has shared counters (KEP-4815), by a gate.
FIRST_WITH_COUNTERS = 34
#: The first with counters in separate ResourceSlices.
FIRST_APART = 35
#: The first whose scheduler serves extended resources by itself (KEP-5004).
FIRST_WITH_EXTENDED_RESOURCES = 36
#: The first whose scheduler applies `distinctAttribute` (KEP-5075); 1.34 only stores it.
FIRST_WITH_DISTINCT = 36


@contextmanager
def node(cluster: Cluster, name: str, *objects: Json) -> Iterator[None]:
    """A node without a kubelet, only for pods of `tolerating`.

    objects: created and deleted with it. Skips the test if there is no scheduler.
    """
    if not (cluster.plane.has_scheduler and cluster.plane.has_controllers):
        pytest.skip("needs kube-scheduler and kube-controller-manager, beside kube-apiserver")
    room = {"cpu": "64", "memory": "256Gi", "pods": "500"}
    ready = [{"type": "Ready", "status": "True"}]
    status = {"capacity": room, "allocatable": room, "conditions": ready}
    cluster.make("Node", name, status=status)
    # A new node has a taint that the node lifecycle controller would remove, which does not run
    # here. Another taint keeps away the pods of other tests.
    taint = {"key": name, "effect": "NoSchedule"}
    cluster.patch("Node", name, {"spec": {"taints": [taint]}}, "merge")
    for each in objects:
        cluster.create(each)
    yield
    for each in objects:
        cluster.delete(each["kind"], each["metadata"]["name"])
    cluster.delete("Node", name)


@contextmanager
def a100s(cluster: Cluster) -> Iterator[None]:
    """A node with two A100s, as slices and as whole GPUs, and the driver's classes.

    Skips the test if the cluster cannot schedule them.
    """
    minor = cluster.plane.version.minor
    if minor < FIRST_WITH_COUNTERS:
        pytest.skip(f"Kubernetes {cluster.plane.version} has no counters")
    slices = a100.resource_slices(NODE, combined=minor < FIRST_APART, whole=True)
    with node(cluster, NODE, *a100.device_classes(), *slices):
        yield


def tolerating(manifest: Json, node: str = NODE) -> Json:
    """The pod with a toleration for the node."""
    tolerations = [{"key": node, "operator": "Exists"}]
    return {**manifest, "spec": {**manifest["spec"], "tolerations": tolerations}}


def verdict(cluster: Cluster, name: str) -> str:
    """The scheduler's verdict on a pod: "True", why it has no node, or empty for none yet."""
    conditions = cluster.get("Pod", name).get("status", {}).get("conditions", [])
    (scheduled,) = [each for each in conditions if each["type"] == "PodScheduled"] or [{}]
    return str(scheduled.get("message") or scheduled.get("status", ""))


def bound(cluster: Cluster, name: str) -> Json:
    """Wait until a pod has a node, and return it."""
    try:
        until(lambda: verdict(cluster, name) == "True", f"{name} has a node")
    except TimeoutError as late:
        raise AssertionError(verdict(cluster, name)) from late
    return cluster.get("Pod", name)


def start(cluster: Cluster, manifest: Json) -> Json:
    """Create a pod, wait until it has a node, and return it."""
    cluster.create(manifest)
    return bound(cluster, manifest["metadata"]["name"])


def waits(cluster: Cluster, name: str) -> None:
    """Wait until the scheduler finds no devices for a pod."""
    said = until(lambda: verdict(cluster, name), "the scheduler's verdict")
    assert "cannot allocate all claims" in said, name


def given(cluster: Cluster, pod: Json) -> dict[str, list[str]]:
    """Container -> its devices, by its claims and their requests, sorted."""
    results: dict[tuple[str, str], list[str]] = {}
    for status in pod["status"].get("resourceClaimStatuses") or []:
        claim = cluster.get("ResourceClaim", status["resourceClaimName"])
        for result in claim["status"]["allocation"]["devices"]["results"]:
            request = result["request"].partition("/")[0]  # the chosen alternative follows
            for key in ((status["name"], request), (status["name"], "")):
                results.setdefault(key, []).append(result["device"])
    return {
        each["name"]: sorted(
            device
            for reference in each.get("resources", {}).get("claims", [])
            for device in results[reference["name"], reference.get("request", "")]
        )
        for each in all_containers(pod)
    }


def held(cluster: Cluster, pod: Json) -> list[str]:
    """The devices of a pod, each once per claim that has it, sorted.

    This includes the claim that the scheduler creates for extended resources (KEP-5004).
    """
    statuses = list(pod["status"].get("resourceClaimStatuses") or [])
    if native := pod["status"].get("extendedResourceClaimStatus"):
        statuses.append(native)
    found = []
    for status in statuses:
        claim = cluster.get("ResourceClaim", status["resourceClaimName"])
        found += [r["device"] for r in claim["status"]["allocation"]["devices"]["results"]]
    return sorted(found)


def gpu_of(device: str) -> str:
    """ "gpu-0" for "gpu-0-mig-1g5gb-19-2"."""
    return device.split("-mig-")[0]


def profile_of(device: str) -> str:
    """ "1g5gb" for "gpu-0-mig-1g5gb-19-2"."""
    return device.split("-mig-")[1].rsplit("-", 2)[0]


def clear(cluster: Cluster) -> None:
    """Delete the pods of a namespace, and wait until their devices are free.

    Waiting pods come first: if one is deleted just when the scheduler allocates a freed device to
    it, the scheduler of 1.36.2 counts that device as taken ever after (docs/compatibility.md).
    """
    for each in sorted(cluster.list("Pod"), key=lambda pod: "nodeName" in pod["spec"]):
        try:
            cluster.delete("Pod", each["metadata"]["name"])
        except Refused as refused:
            if refused.code != 404:
                raise
    until(lambda: not cluster.list("ResourceClaim"), "the claims are gone")
