"""`1g.5gb or bigger` with a real scheduler, on nodes whose GPUs have no 1g.5gb."""

import json
from collections.abc import Iterator

import pytest
import yaml

from instaslice.doctor.inventory import Inventory
from test.e2e import gpus
from test.e2e.cluster import Cluster, Json
from test.e2e.gpus import given, gpu_of, held, profile_of, start, waits
from test.e2e.pods import container, extended, pod, workload
from test.support import a100
from test.support.command import instaslice
from test.support.process import until

#: A node with two H100s, and a node with slices of unknown models.
HOPPER, STRANGE = "h100s", "strange"


def strange(name: str, profile: str, memory: str | None) -> Json:
    """A slice of a GPU with fewer attributes than NVIDIA publishes today."""
    return {
        "name": name,
        "attributes": {"type": {"string": "mig"}, "profile": {"string": profile}},
        **({"capacity": {"memory": {"value": memory}}} if memory else {}),
    }


STRANGERS = [
    strange("no-pattern", "half", "80Gi"),
    strange("nothing", "1g.0gb", "80Gi"),
    strange("small", "1g.30gb", "2Gi"),  # less than its name says
    strange("media", "1g.30gb-me", None),
    strange("graphics", "1g.30gb+gfx", None),
    strange("fits", "1g.30gb", None),
    strange("larger", "2g.60gb", "59Gi"),
    strange("thor", "1g.0gb+me", None),  # a Jetson's, whose memory is the machine's
]


@pytest.fixture(scope="module")
def devices(cluster: Cluster) -> Iterator[None]:
    minor = cluster.plane.version.minor
    if minor < gpus.FIRST_WITH_COUNTERS:
        pytest.skip(f"Kubernetes {cluster.plane.version} has no counters")
    combined = minor < gpus.FIRST_APART
    slices = a100.resource_slices(HOPPER, combined=combined, models=[a100.H100] * 2)
    others = [a100.resource_slice(STRANGE, 0, 1, devices=STRANGERS)]
    with (
        gpus.node(cluster, HOPPER, *a100.device_classes(), *slices),
        gpus.node(cluster, STRANGE, *others),
    ):
        yield


def asking(name: str, *amounts: Json, node: str = HOPPER, **annotations: str) -> Json:
    found = {"instaslice.io/alternatives": "1g.5gb or bigger"} | {
        f"instaslice.io/{key}": value for key, value in annotations.items()
    }
    manifest = pod(name, *(container(f"c{i}", limits) for i, limits in enumerate(amounts)))
    manifest["metadata"]["annotations"] = found
    return gpus.tolerating(manifest, node)


def test_a100_pod_gets_the_smallest_slices_of_an_h100(team: Cluster) -> None:
    """Smaller slices come first: seven of one compute slice on each GPU, then larger ones."""
    devices = held(team, start(team, asking("p", {"mig-1g.5gb": 7}, {"mig-1g.5gb": 1})))
    assert len(set(devices)) == 8
    assert {profile_of(device)[:2] for device in devices} == {"1g"}
    start(team, asking("q", {"mig-1g.5gb": 1}, alternatives="1g.5gb or 7g.80gb or 1g.10gb"))
    team.create(asking("none", {"mig-1g.5gb": 1}, alternatives="none"))
    waits(team, "none")


def test_doctor_and_reverse_on_a_pod_with_larger_slices(team: Cluster) -> None:
    manifest = asking("p", {"mig-1g.5gb": 6})
    placed = start(team, manifest)
    told = instaslice("doctor", *team.where, "p")
    assert (told.code, told.err) == (0, "")
    assert "asks for 6 x 1g.5gb or bigger, has 1g.10gb: gpu-" in told.out
    claims = team.list("ResourceClaim")
    assert Inventory(team.list("ResourceSlice"), claims).supply["1g.10gb"].free == 8
    back = instaslice("rewrite", "--reverse", "-o", "json", stdin=json.dumps(placed))
    assert (back.code, back.err) == (0, "")
    (one,) = json.loads(back.out)["spec"]["containers"]
    assert one["resources"]["limits"] == extended({"mig-1g.5gb": 6})
    team.create(asking("waits", {"mig-7g.40gb": 2}, alternatives="7g.40gb or bigger"))
    waits(team, "waits")
    told = instaslice("doctor", *team.where, "waits")
    assert told.code == 1
    assert "waits: no node has 2 free 7g.40gb or bigger" in told.out


def test_unknown_profile_is_served_with_a_warning(team: Cluster) -> None:
    manifest = gpus.tolerating(pod("p", container(limits={"mig-1g.0gb.me": 1})), STRANGE)
    _, warnings = team.create_aloud(manifest)
    assert "InstaSlice knows no GPU with the MIG profile 1g.0gb+me" in "".join(warnings)
    assert held(team, gpus.bound(team, "p")) == ["thor"]


def test_a_deployment_runs_on_both_kinds_of_gpu(team: Cluster) -> None:
    """14 of 16 pods fit on two A100s; a quota counts the profile of each."""
    keys = [
        "mig-1g.5gb.nvidia.com.deviceclass.resource.k8s.io/devices",
        "mig.nvidia.com.deviceclass.resource.k8s.io/devices",
        "requests.nvidia.com/mig-1g.5gb",
    ]
    team.make("ResourceQuota", "q", spec={"hard": dict.fromkeys(keys, "100")})
    until(lambda: team.get("ResourceQuota", "q").get("status", {}).get("used"), "the quota counts")
    minor = team.plane.version.minor
    slices = a100.resource_slices("ampere", combined=minor < gpus.FIRST_APART)
    template = asking("p", {"mig-1g.5gb": 1})
    for name in (HOPPER, "ampere"):
        template["spec"]["tolerations"] += gpus.tolerating(template, name)["spec"]["tolerations"]
    with gpus.node(team, "ampere", *slices):
        team.create(workload("Deployment", "d", replicas=16, template=template))

        def nodes() -> list[str]:
            return [name for p in team.list("Pod") if (name := p["spec"].get("nodeName"))]

        until(lambda: len(nodes()) == 16, "every pod has a node")
        assert {*nodes()} == {HOPPER, "ampere"}
        claims = team.list("ResourceClaim")
        devices = {
            (result["pool"], result["device"])
            for claim in claims
            for result in claim["status"]["allocation"]["devices"]["results"]
        }
        assert len(devices) == 16
        used = team.get("ResourceQuota", "q")["status"]["used"]
        is_counted = minor >= gpus.FIRST_WITH_EXTENDED_RESOURCES
        assert [used[key] for key in keys] == ["16", "16", "16" if is_counted else "0"]
        team.delete("Deployment", "d")
        gpus.clear(team)


def test_init_containers_and_placement(team: Cluster) -> None:
    manifest = asking("p", {"mig-1g.5gb": 2}, {"mig-3g.20gb": 1}, placement="same-gpu")
    manifest["metadata"]["annotations"]["instaslice.io/alternatives"] += "; 3g.20gb or bigger"
    manifest["spec"]["initContainers"] = [container("i", {"mig-1g.5gb": 1})]
    devices = given(team, start(team, manifest))
    assert {name: len(own) for name, own in devices.items()} == {"c0": 2, "c1": 1, "i": 1}
    assert set(devices["i"]) < set(devices["c0"])
    assert list(map(profile_of, devices["c1"])) == ["3g40gb"]
    assert len({gpu_of(device) for own in devices.values() for device in own}) == 1
    [claim] = team.list("ResourceClaim")
    assert len(claim["spec"]["devices"]["requests"]) == 3


def test_missing_device_attributes_exclude_no_slice(team: Cluster) -> None:
    given_ = [
        held(team, start(team, asking(f"p{n}", {"mig-1g.5gb": 1}, node=STRANGE))) for n in range(2)
    ]
    assert given_ == [["fits"], ["larger"]]
    wish = "1g.24gb-me or bigger"
    asks = asking("m", {"mig-1g.24gb-me": 1}, node=STRANGE, alternatives=wish)
    assert held(team, start(team, asks)) == ["media"]


@pytest.mark.usefixtures("devices")
def test_or_bigger_class_works_without_the_webhook(bare_namespace: Cluster) -> None:
    """From 1.36 on, plain pods use the class of `instaslice deviceclasses --or-bigger`."""
    if bare_namespace.plane.version.minor < gpus.FIRST_WITH_EXTENDED_RESOURCES:
        pytest.skip("the scheduler serves extended resources from Kubernetes 1.36 on")
    printed = instaslice("deviceclasses", "--or-bigger", "1g.5gb")
    (device_class,) = yaml.safe_load_all(printed.out)
    assert device_class["spec"]["extendedResourceName"] == "nvidia.com/mig-1g.5gb"
    bare_namespace.create(device_class)
    try:
        plain = gpus.tolerating(pod("p", container("c", {"mig-1g.5gb": 2})), HOPPER)
        devices = held(bare_namespace, start(bare_namespace, plain))
        assert len(set(devices)) == 2
    finally:
        gpus.clear(bare_namespace)
        bare_namespace.delete("DeviceClass", device_class["metadata"]["name"])
