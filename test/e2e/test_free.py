"""What `doctor` calls free is what a real scheduler gives out, for every profile of two A100s."""

from collections.abc import Iterator
from typing import Any

import pytest

from instaslice.doctor.inventory import Inventory
from test.e2e import gpus
from test.e2e.cluster import Cluster
from test.e2e.pods import container, pod
from test.support import a100
from test.support.process import until

NODE = "free-a100s"
CLASS = "free.test"


@pytest.fixture(scope="module")
def node(cluster: Cluster) -> Iterator[None]:
    """A node of its own, which only pods of this module tolerate."""
    plane = cluster.plane
    if plane.version.minor < gpus.FIRST_WITH_COUNTERS:
        pytest.skip(f"Kubernetes {plane.version} drops counters")
    (mig,) = (c for c in a100.device_classes() if c["metadata"]["name"] == "mig.nvidia.com")
    slices = a100.resource_slices(NODE, combined=plane.version.minor < gpus.FIRST_APART)
    # One that a health check has tainted.
    (device,) = (d for d in slices[-1]["spec"]["devices"] if d["name"] == "gpu-1-mig-4g20gb-5-0")
    device["taints"] = [{"key": "health", "effect": "NoExecute"}]
    with gpus.node(cluster, NODE, {**mig, "metadata": {"name": CLASS}}, *slices):
        yield


@pytest.fixture
def ours(node: None, bare_namespace: Cluster) -> Iterator[Cluster]:
    yield bare_namespace
    for kind in ("Pod", "ResourceClaim"):
        for each in bare_namespace.list(kind):
            bare_namespace.delete(kind, each["metadata"]["name"])
    until(lambda: not bare_namespace.list("ResourceClaim"), "the claims are gone")


def start(cluster: Cluster, name: str, profile: str, **more: Any) -> None:
    """A pod with a claim of its own for a slice of a profile."""
    selector = f"device.attributes['{a100.DRIVER}'].profile == '{profile}'"
    request = {"deviceClassName": CLASS, "selectors": [{"cel": {"expression": selector}}], **more}
    requests = [{"name": "slice", "exactly": request}]
    cluster.make("ResourceClaim", name, spec={"devices": {"requests": requests}})
    one = container(resources={"claims": [{"name": "slice"}]})
    claims = [{"name": "slice", "resourceClaimName": name}]
    cluster.create(gpus.tolerating(pod(name, one, resourceClaims=claims), NODE))


def scheduled(cluster: Cluster, names: list[str]) -> int:
    """How many of the pods have a node, once the scheduler has looked at all of them."""

    def verdicts() -> list[str]:
        pods = [each for each in cluster.list("Pod") if each["metadata"]["name"] in names]
        conditions = [c for each in pods for c in each.get("status", {}).get("conditions", [])]
        found = [c["status"] for c in conditions if c["type"] == "PodScheduled"]
        return found if len(found) == len(names) else []

    until(verdicts, "the scheduler has looked at every pod")
    return verdicts().count("True")


def free(cluster: Cluster, profile: str) -> int:
    slices = cluster.list("ResourceSlice")
    claims = cluster.send("get", "ResourceClaim", namespace=None).body["items"]
    return Inventory(slices, claims).supply[profile].free


@pytest.mark.parametrize("profile", a100.ROOM)
@pytest.mark.parametrize("taken", [(), ("3g.20gb", "1g.5gb+me")], ids=["empty", "taken"])
def test_what_is_free_is_what_is_given(ours: Cluster, taken: tuple[str, ...], profile: str) -> None:
    for other in taken:
        name = other.replace(".", "-").replace("+", "-")
        start(ours, name, other)
        assert scheduled(ours, [name]) == 1
    expected = free(ours, profile)
    names = [f"p-{number}" for number in range(expected + 1)]
    for name in names:
        start(ours, name, profile)
    assert scheduled(ours, names) == expected
    assert free(ours, profile) == 0


def test_admin_access_takes_nothing(ours: Cluster) -> None:
    labels = {"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}}
    ours.patch("Namespace", ours.namespace, labels)
    before = free(ours, "1g.5gb")
    start(ours, "watching", "7g.40gb", adminAccess=True)
    assert scheduled(ours, ["watching"]) == 1
    assert free(ours, "1g.5gb") == before
