"""Rewritten pods that run: what their containers see, on a node that makes slices for them."""

import pytest
import yaml

from test.e2e.cluster import Cluster
from test.e2e.installation import ROOT
from test.e2e.node import Node
from test.e2e.nvidia import wanted
from test.e2e.pods import pod
from test.e2e.runs import (
    PATIENCE,
    SHOW,
    STAY,
    ends,
    gpu,
    profile,
    restarts,
    seen,
    sidecar,
    stays,
    wait_phase,
    why_not_scheduled,
)
from test.support.process import until

pytestmark = pytest.mark.usefixtures("webhook")


def test_the_sample_runs_with_one_slice(namespace: Cluster) -> None:
    """samples/sample.yaml as it is, but that it says what it has before it ends."""
    sample = yaml.safe_load((ROOT / "samples" / "sample.yaml").read_text())
    namespace.create(sample)
    wait_phase(namespace, "sample", "Succeeded")
    (main,) = sample["spec"]["containers"]
    main["command"] = ends()["command"]
    namespace.create({**sample, "metadata": {"name": "tells"}})
    wait_phase(namespace, "tells", "Succeeded")
    (device,) = seen(namespace, "tells", "busybox")
    assert profile(device) == "1g5gb"


def test_an_init_container_sees_a_slice_of_the_container_after_it(namespace: Cluster) -> None:
    manifest = pod(
        "p",
        ends(limits={"mig-1g.5gb": 3}),
        initContainers=[ends("init", {"mig-1g.5gb": 1})],
        restartPolicy="Never",
    )
    namespace.create(manifest)
    wait_phase(namespace, "p", "Succeeded")
    first, rest = seen(namespace, "p", "init"), seen(namespace, "p")
    assert len(first) == 1
    assert len(rest) == 3
    assert {*first} < {*rest}


def test_two_containers_see_different_slices(namespace: Cluster) -> None:
    manifest = pod(
        "p",
        ends("a", {"mig-1g.5gb": 2}),
        ends("b", {"mig-1g.5gb": 1, "mig-2g.10gb": 1}),
        ends("c"),
        restartPolicy="Never",
    )
    namespace.create(manifest)
    wait_phase(namespace, "p", "Succeeded")
    a, b = seen(namespace, "p", "a"), seen(namespace, "p", "b")
    assert [profile(each) for each in a] == ["1g5gb", "1g5gb"]
    assert sorted(profile(each) for each in b) == ["1g5gb", "2g10gb"]
    assert {*a}.isdisjoint(b)
    assert seen(namespace, "p", "c") == [], "a container without a limit sees none"


def test_a_sidecar_keeps_a_slice_of_its_own(namespace: Cluster) -> None:
    manifest = pod(
        "p",
        ends(limits={"mig-1g.5gb": 1}),
        initContainers=[
            sidecar("sidecar", {"mig-1g.5gb": 1}),
            ends("init", {"mig-1g.5gb": 1}),
        ],
        restartPolicy="Never",
    )
    namespace.create(manifest)
    wait_phase(namespace, "p", "Succeeded")
    beside, init, main = (seen(namespace, "p", name) for name in ("sidecar", "init", "main"))
    assert len(beside) == len(main) == 1
    assert beside != main
    assert init == main, "it has ended before main starts"


no_whole_gpus = pytest.mark.skipif(
    wanted() is not Node, reason="an A100 in MIG mode is not published whole by NVIDIA's driver"
)


@no_whole_gpus
def test_a_whole_gpu_has_no_slices_left(namespace: Cluster) -> None:
    namespace.create(pod("whole", stays(limits={"gpu": 1})))
    wait_phase(namespace, "whole", "Running")
    namespace.create(pod("p", stays("a", {"mig-1g.5gb": 7})))
    wait_phase(namespace, "p", "Running")
    taken = {gpu(each) for each in seen(namespace, "p", "a")}
    assert len(taken) == 1
    assert taken.isdisjoint(seen(namespace, "whole"))
    namespace.create(pod("q", stays(limits={"mig-1g.5gb": 1})))
    told = until(lambda: why_not_scheduled(namespace, "q"), "the scheduler's verdict")
    assert "cannot allocate all claims" in told


def test_a_container_that_starts_again_has_the_same_slices(namespace: Cluster) -> None:
    """The kubelet starts it again within the same pod: nothing is claimed anew."""
    once = f"{SHOW}; test -e /kept/once || {{ touch /kept/once; exit 1; }}; {STAY}"
    main = {**ends(limits={"mig-1g.5gb": 1}), "command": ["sh", "-c", once]}
    main["volumeMounts"] = [{"name": "kept", "mountPath": "/kept"}]
    kept = [{"name": "kept", "emptyDir": {}}]
    namespace.create(pod("p", main, volumes=kept))
    until(lambda: restarts(namespace, "p") == 1, "it has started again", seconds=PATIENCE)
    (before,) = seen(namespace, "p", "main", "--previous")
    assert seen(namespace, "p") == [before]
