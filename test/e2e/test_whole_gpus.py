"""Whole GPUs, which are mapped, and MIG slices of one node: each excludes the other."""

from itertools import permutations
from random import Random

import pytest

from test.e2e import gpus
from test.e2e.cluster import Cluster, Json
from test.e2e.gpus import GPU_CLASS, bound, gpu_of, held, waits
from test.e2e.pods import all_containers, container, extended, native, pod, templates

#: Kind of a pod -> its limits. Each takes one of the two GPUs at least in part; a native pod is
#: left to the scheduler, the others are rewritten.
KINDS = {
    "whole": {"gpu": 1},
    "slice": {"mig-3g.20gb": 1},
    "native": {"gpu": 1},
    "native slice": {"mig-3g.20gb": 1},
}


@pytest.fixture
def beside(team: Cluster) -> Cluster:
    """A namespace where the scheduler serves what is not rewritten."""
    if team.plane.version.minor < gpus.FIRST_WITH_EXTENDED_RESOURCES:
        pytest.skip("the scheduler serves extended resources from Kubernetes 1.36 on")
    return team


def start(cluster: Cluster, kind: str, name: str = "") -> str:
    """Create a pod of a kind; returns its name."""
    name = name or kind.replace(" ", "-")
    manifest = gpus.tolerating(pod(name, container(limits=KINDS[kind])))
    is_native = kind.startswith("native")
    created = cluster.create(native(manifest) if is_native else manifest)
    (one,) = all_containers(created)
    left = one["resources"].get("limits", {})
    assert bool(templates(created)) != is_native
    assert left == (extended({n: str(c) for n, c in KINDS[kind].items()}) if is_native else {})
    return name


def test_whole_gpus_and_slices_exclude_one_another(team: Cluster) -> None:
    [sliced] = held(team, bound(team, start(team, "slice")))
    whole = bound(team, start(team, "whole"))
    assert templates(whole).popitem()[1] == GPU_CLASS
    assert [gpu_of(sliced), *held(team, whole)] in (["gpu-0", "gpu-1"], ["gpu-1", "gpu-0"])
    waits(team, start(team, "whole", "late"))
    # The GPU that is cut has room for another slice.
    [beside] = held(team, bound(team, start(team, "slice", "second")))
    assert gpu_of(beside) == gpu_of(sliced)
    assert beside != sliced
    for name in ("slice", "second"):
        team.delete("Pod", name)
    assert held(team, bound(team, "late")) == [gpu_of(sliced)]


@pytest.mark.parametrize("order", [*permutations(("native", "whole", "slice"))], ids=", ".join)
def test_a_native_pod_of_a_whole_gpu_beside_rewritten_ones(
    beside: Cluster, order: tuple[str, ...]
) -> None:
    first, second, third = order
    taken = [
        gpu_of(device)
        for kind in (first, second)
        for device in held(beside, bound(beside, start(beside, kind)))
    ]
    assert sorted(taken) == ["gpu-0", "gpu-1"]
    waits(beside, start(beside, third))
    beside.delete("Pod", first)
    [device] = held(beside, bound(beside, third))
    assert gpu_of(device) == taken[0]


def test_a_native_slice_and_a_native_gpu_beside_rewritten_ones(beside: Cluster) -> None:
    """The first rewritten pod of a profile brings the class by which natives are served."""
    [whole] = held(beside, bound(beside, start(beside, "native")))
    [ours] = held(beside, bound(beside, start(beside, "slice")))
    [theirs] = held(beside, bound(beside, start(beside, "native slice")))
    assert ours != theirs
    assert {gpu_of(ours), gpu_of(theirs)} == {"gpu-0", "gpu-1"} - {whole}
    for kind in KINDS:
        waits(beside, start(beside, kind, f"late-{kind.replace(' ', '-')}"))


@pytest.mark.parametrize("seed", range(6))
def test_random_pods_hold_as_many_devices_as_the_scheduler_gives_by_itself(
    beside: Cluster, seed: int
) -> None:
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
        placed = gpus.start(beside, gpus.tolerating(made))
        kept.append(sorted(map(gpus.profile_of, held(beside, placed))))
        gpus.clear(beside)
    assert kept[0] == kept[1], manifest
