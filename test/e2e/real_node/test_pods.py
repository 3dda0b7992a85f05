"""Rewritten pods that run on a node that creates slices, and the devices of their containers."""

import pytest
import yaml

from test.e2e import gpus
from test.e2e.cluster import Cluster, Json
from test.e2e.gpus import gpu_of, profile_of
from test.e2e.installation import ROOT
from test.e2e.node import Node
from test.e2e.nvidia import wanted
from test.e2e.pods import pod, wishing
from test.e2e.runs import ends, seen, sidecar, stays, wait_phase

pytestmark = pytest.mark.usefixtures("webhook")


def saw(namespace: Cluster, manifest: Json) -> dict[str, list[str]]:
    """Run a pod to its end, and return container -> its devices."""
    manifest["spec"]["restartPolicy"] = "Never"
    namespace.create(manifest)
    name = manifest["metadata"]["name"]
    wait_phase(namespace, name, "Succeeded")
    spec = manifest["spec"]
    names = [each["name"] for each in [*spec.get("initContainers", []), *spec["containers"]]]
    return {each: seen(namespace, name, each) for each in names}


def test_sample_runs_with_one_slice(namespace: Cluster) -> None:
    """samples/sample.yaml unchanged, except that it prints its devices before it ends."""
    sample = yaml.safe_load((ROOT / "samples" / "sample.yaml").read_text())
    namespace.create(sample)
    wait_phase(namespace, "sample", "Succeeded")
    sample["spec"]["containers"][0]["command"] = ends()["command"]
    [device] = saw(namespace, {**sample, "metadata": {"name": "tells"}})["busybox"]
    assert profile_of(device) == "1g5gb"


def test_containers_see_their_slices_and_init_containers_reuse_them(
    namespace: Cluster,
) -> None:
    containers = [ends("a", {"mig-1g.5gb": 2}), ends("b", {"mig-1g.5gb": 1, "mig-2g.10gb": 1})]
    init = [sidecar("sidecar", {"mig-1g.5gb": 1}), ends("init", {"mig-1g.5gb": 1})]
    has = saw(namespace, pod("p", *containers, ends("c"), initContainers=init))
    assert {name: sorted(map(profile_of, own)) for name, own in has.items()} == {
        "sidecar": ["1g5gb"],
        "init": ["1g5gb"],
        "a": ["1g5gb", "1g5gb"],
        "b": ["1g5gb", "2g10gb"],
        "c": [],
    }
    init_has = has.pop("init")
    assert {*init_has} < {*has["a"], *has["b"]}, "an init container ends before they start"
    assert len({device for own in has.values() for device in own}) == 5


def test_alternative_with_placement_and_init_container(
    namespace: Cluster,
) -> None:
    containers = [ends("a", {"mig-3g.20gb": 1}), ends("b", {"mig-1g.5gb": 2})]
    manifest = pod("p", *containers, initContainers=[ends("init", {"mig-1g.5gb": 1})])
    wishes = {"placement": "same-gpu", "alternatives": "3g.20gb or 2g.10gb"}
    has = saw(namespace, wishing(manifest, **wishes))
    assert list(map(profile_of, has["a"] + has["b"])) == ["3g20gb", "1g5gb", "1g5gb"]
    assert len(has["init"]) == 1
    assert {*has["init"]} < {*has["b"]}
    assert len(set(map(gpu_of, has["a"] + has["b"]))) == 1


def test_slices_are_on_different_gpus(namespace: Cluster) -> None:
    if namespace.plane.version.minor < gpus.FIRST_WITH_DISTINCT:
        pytest.skip("refused; test_gpus tests that")
    manifest = wishing(pod("p", ends(limits={"mig-1g.5gb": 2})), placement="different-gpus")
    assert sorted(map(gpu_of, saw(namespace, manifest)["main"])) == ["gpu-0", "gpu-1"]


@pytest.mark.skipif(wanted() is not Node, reason="NVIDIA's driver has a separate test")
def test_a_whole_gpu_has_no_slices_left(namespace: Cluster) -> None:
    namespace.create(pod("whole", stays(limits={"gpu": 1})))
    wait_phase(namespace, "whole", "Running")
    namespace.create(pod("p", stays(limits={"mig-1g.5gb": 7})))
    wait_phase(namespace, "p", "Running")
    [taken] = set(map(gpu_of, seen(namespace, "p")))
    assert [taken] != seen(namespace, "whole")
    namespace.create(pod("q", stays(limits={"mig-1g.5gb": 1})))
    gpus.waits(namespace, "q")
