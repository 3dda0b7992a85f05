"""How a real scheduler allocates two A100s: slices, whole GPUs, placement, alternatives (R13)."""

from itertools import permutations
from random import Random
from typing import Any

import pytest

from instaslice.doctor.inventory import Inventory
from test.e2e import gpus, pods
from test.e2e.cluster import Cluster, Json, Refused
from test.e2e.gpus import GPU_CLASS, bound, given, gpu_of, held, profile_of, start, waits
from test.e2e.pods import container, native, pod, templates
from test.support import a100

# Whole GPUs and slices, rewritten and left to the scheduler

#: Kind of a pod -> its limits, which take at least a part of one of the two GPUs. InstaSlice
#: rewrites all but native pods.
KINDS = {"whole": {"gpu": 1}, "slice": {"mig-3g.20gb": 1}, "native": {"gpu": 1}}


@pytest.fixture
def beside(team: Cluster) -> Cluster:
    """A namespace in which the scheduler serves pods that are not rewritten."""
    if team.plane.version.minor < gpus.FIRST_WITH_EXTENDED_RESOURCES:
        pytest.skip("the scheduler serves extended resources from Kubernetes 1.36 on")
    return team


def create(cluster: Cluster, kind: str, name: str = "") -> str:
    """Create a pod of a kind, and return its name."""
    manifest = gpus.tolerating(pod(name or kind, container(limits=KINDS[kind])))
    created = cluster.create(native(manifest) if kind == "native" else manifest)
    assert bool(templates(created)) != (kind == "native")
    return name or kind


def devices(cluster: Cluster, kind: str, name: str = "") -> list[str]:
    """Create a pod of a kind, and return its devices."""
    return held(cluster, bound(cluster, create(cluster, kind, name)))


def test_whole_gpus_and_slices_exclude_one_another(team: Cluster) -> None:
    [sliced] = devices(team, "slice")
    whole = bound(team, create(team, "whole"))
    assert templates(whole).popitem()[1] == GPU_CLASS
    assert [gpu_of(sliced), *held(team, whole)] in (["gpu-0", "gpu-1"], ["gpu-1", "gpu-0"])
    waits(team, create(team, "whole", "late"))
    # The GPU with slices has room for another one.
    [beside] = devices(team, "slice", "second")
    assert gpu_of(beside) == gpu_of(sliced)
    assert beside != sliced
    for name in ("slice", "second"):
        team.delete("Pod", name)
    assert held(team, bound(team, "late")) == [gpu_of(sliced)]


@pytest.mark.parametrize("order", [*permutations(("native", "whole", "slice"))], ids=", ".join)
def test_native_whole_gpu_pod_beside_rewritten_pods(
    beside: Cluster, order: tuple[str, ...]
) -> None:
    first, second, third = order
    taken = [gpu_of(each) for kind in (first, second) for each in devices(beside, kind)]
    assert sorted(taken) == ["gpu-0", "gpu-1"]
    waits(beside, create(beside, third))
    beside.delete("Pod", first)
    [device] = held(beside, bound(beside, third))
    assert gpu_of(device) == taken[0]


@pytest.mark.parametrize("seed", range(6))
def test_random_pods_get_as_many_devices_as_without_instaslice(beside: Cluster, seed: int) -> None:
    random = Random(seed)

    def some(name: str) -> Json:
        most = {"mig-1g.5gb": 2, "mig-2g.10gb": 2, "mig-1g.5gb.me": 1}
        chosen = random.sample(sorted(most), random.randint(1, 2))
        return container(name, {each: random.randint(1, most[each]) for each in chosen})

    manifest = pod(
        "rewritten",
        *(some(f"c{n}") for n in range(random.randint(1, 2))),
        initContainers=[some(f"i{n}") for n in range(random.randint(0, 2))],
    )
    kept = []
    for name, made in (("rewritten", manifest), ("native", native(manifest))):
        made = {**made, "metadata": {**made["metadata"], "name": name}}
        placed = start(beside, gpus.tolerating(made))
        kept.append(sorted(map(profile_of, held(beside, placed))))
        gpus.clear(beside)
    assert kept[0] == kept[1], manifest


# Free slices


@pytest.mark.parametrize("profile", a100.ROOM)
@pytest.mark.parametrize("taken", [(), ("3g.20gb", "1g.5gb+me")], ids=["empty", "taken"])
def test_scheduler_allocates_what_doctor_reports_as_free(
    team: Cluster, taken: tuple[str, ...], profile: str
) -> None:
    def asking(name: str, profile: str) -> Json:
        limits = {f"mig-{profile.replace('+', '.')}": 1}
        return gpus.tolerating(pod(name, container(limits=limits)))

    def free() -> int:
        claims = team.send("get", "ResourceClaim", namespace=None).body["items"]
        return Inventory(team.list("ResourceSlice"), claims).supply[profile].free

    for n, other in enumerate(taken):
        start(team, asking(f"taken-{n}", other))
    for n in range(free()):
        start(team, asking(f"p-{n}", profile))
    assert free() == 0
    team.create(asking("late", profile))
    waits(team, "late")


# Placements and alternatives


def wishing(manifest: Json, **annotations: str) -> Json:
    """A pod with annotations of InstaSlice, for the node of the A100s."""
    return gpus.tolerating(pods.wishing(manifest, **annotations))


def slices_of(name: str, *amounts: Json, **spec: Any) -> Json:
    """A pod with containers c0, c1, ..., one for each of the limits."""
    return pod(name, *(container(f"c{i}", limits) for i, limits in enumerate(amounts)), **spec)


def gpus_of(devices: dict[str, list[str]]) -> list[str]:
    """The GPUs of all devices of a pod's containers, sorted."""
    return sorted({gpu_of(device) for own in devices.values() for device in own})


SAME = {"placement": "same-gpu"}


def test_first_alternative_is_used_before_the_second(team: Cluster) -> None:
    """An A100 has room for two 3g.20gb, or for one beside its only 4g.20gb."""
    profiles = []
    for n in range(4):
        one = wishing(slices_of(f"p{n}", {"mig-4g.20gb": 1}), alternatives="4g.20gb or 3g.20gb")
        [[device]] = given(team, start(team, one)).values()
        profiles.append(profile_of(device))
    assert profiles == ["4g20gb"] * 2 + ["3g20gb"] * 2
    team.create(wishing(slices_of("last", {"mig-1g.10gb": 1}), alternatives="1g.10gb or 1g.5gb"))
    waits(team, "last")
    [claim] = [c for c in team.list("ResourceClaim") if "p3-" in c["metadata"]["name"]]
    [request] = claim["spec"]["devices"]["requests"]
    assert [choice["deviceClassName"] for choice in request["firstAvailable"]] == [
        "mig-4g.20gb.nvidia.com",
        "mig-3g.20gb.nvidia.com",
    ]


def test_same_gpu_pods_fill_both_gpus_and_the_next_waits(team: Cluster) -> None:
    used = []
    for n in range(2):
        manifest = wishing(slices_of(f"p{n}", {"mig-2g.10gb": 3}), **SAME)
        has = given(team, start(team, manifest))
        assert len(set(has["c0"])) == 3
        used += gpus_of(has)
    assert sorted(used) == ["gpu-0", "gpu-1"]
    team.create(wishing(slices_of("p", {"mig-1g.5gb": 1}, {"mig-1g.5gb": 1}), **SAME))
    waits(team, "p")


def test_several_containers_and_profiles_share_a_gpu(team: Cluster) -> None:
    sidecar = container("s", {"mig-1g.5gb": 1}, restartPolicy="Always")
    init = [sidecar, container("i", {"mig-1g.5gb": 1})]
    asks = [{"mig-1g.5gb": 2, "mig-2g.10gb": 1}, {"mig-1g.5gb": 1}]
    has = given(team, start(team, wishing(slices_of("p", *asks, initContainers=init), **SAME)))
    assert {name: len(own) for name, own in has.items()} == {"s": 1, "i": 1, "c0": 3, "c1": 1}
    assert sorted(map(profile_of, has["c0"])) == ["1g5gb", "1g5gb", "2g10gb"]
    assert {*has.pop("i")} < {*has["c0"], *has["c1"]}
    assert len({device for own in has.values() for device in own}) == 5
    assert len(gpus_of(has)) == 1
    assert len(team.list("ResourceClaim")) == 1


def test_slices_on_different_gpus(team: Cluster) -> None:
    two = slices_of("p", {"mig-1g.5gb": 1}, {"mig-1g.5gb": 1})
    manifest = wishing(two, placement="different-gpus")
    if team.plane.version.minor < gpus.FIRST_WITH_DISTINCT:
        with pytest.raises(Refused, match="cannot promise different-gpus"):
            team.create(manifest)
        return
    assert gpus_of(given(team, start(team, manifest))) == ["gpu-0", "gpu-1"]
    team.create(wishing(slices_of("three", {"mig-1g.5gb": 3}), placement="different-gpus"))
    waits(team, "three")
