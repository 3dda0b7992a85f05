"""What pods ask for by annotation, as their containers see it."""

import json
import re

import pytest

from test.e2e.cluster import Cluster, Refused
from test.e2e.gpus import FIRST_WITH_DISTINCT
from test.e2e.pods import pod, wishing
from test.e2e.runs import (
    ends,
    gpu,
    profile,
    seen,
    stays,
    wait_phase,
    why_not_scheduled,
)
from test.support.process import until

#: Before it, a device that a constraint rejects keeps what it has reserved of the counters.
FIRST_THAT_TRIES_ANOTHER_GPU = (1, 36, 3)

pytestmark = pytest.mark.usefixtures("webhook")


def test_all_slices_are_of_one_gpu(namespace: Cluster) -> None:
    """Each GPU has two of seven left: three are of both, or wait until one GPU has them."""
    versions = json.loads(namespace.kubectl("version", "--output=json").stdout)
    numbers = re.findall("[0-9]+", versions["serverVersion"]["gitVersion"])
    release = tuple(int(number) for number in numbers[:3])
    if release < FIRST_THAT_TRIES_ANOTHER_GPU:
        pytest.skip("the scheduler gives up after the first GPU (kubernetes/kubernetes#140436)")
    most = pod("most-1", stays(limits={"mig-1g.5gb": 5}))
    other = {**most, "metadata": {"name": "most-2"}}
    for each in (most, other):
        namespace.create(wishing(each, placement="same-gpu"))
        wait_phase(namespace, each["metadata"]["name"], "Running")
        assert len({gpu(device) for device in seen(namespace, each["metadata"]["name"])}) == 1
    containers = [ends("a", {"mig-1g.5gb": 2}), ends("b", {"mig-1g.5gb": 1})]

    namespace.create(pod("split", *containers, restartPolicy="Never"))
    wait_phase(namespace, "split", "Succeeded")
    a, b = seen(namespace, "split", "a"), seen(namespace, "split", "b")
    assert {gpu(each) for each in a + b} == {"gpu-0", "gpu-1"}

    namespace.create(wishing(pod("p", *containers, restartPolicy="Never"), placement="same-gpu"))
    told = until(lambda: why_not_scheduled(namespace, "p"), "the scheduler's verdict")
    assert "cannot allocate all claims" in told
    namespace.kubectl("delete", "pod", "most-2")
    wait_phase(namespace, "p", "Succeeded")
    a, b = seen(namespace, "p", "a"), seen(namespace, "p", "b")
    assert (len(a), len(b), len({*a, *b})) == (2, 1, 3), "each container has its own"
    assert len({gpu(each) for each in a + b}) == 1


def test_each_slice_is_of_another_gpu(namespace: Cluster) -> None:
    manifest = pod("p", ends(limits={"mig-1g.5gb": 2}), restartPolicy="Never")
    manifest = wishing(manifest, placement="different-gpus")
    if namespace.plane.version.minor < FIRST_WITH_DISTINCT:
        with pytest.raises(Refused, match="cannot promise different-gpus"):
            namespace.create(manifest)
        return
    namespace.create(manifest)
    wait_phase(namespace, "p", "Succeeded")
    assert sorted(gpu(each) for each in seen(namespace, "p")) == ["gpu-0", "gpu-1"]


def test_an_alternative_together_with_a_placement_and_an_init_container(
    namespace: Cluster,
) -> None:
    manifest = pod(
        "p",
        ends("a", {"mig-3g.20gb": 1}),
        ends("b", {"mig-1g.5gb": 2}),
        initContainers=[ends("init", {"mig-1g.5gb": 1})],
        restartPolicy="Never",
    )
    wishes = {"placement": "same-gpu", "alternatives": "3g.20gb or 2g.10gb"}
    namespace.create(wishing(manifest, **wishes))
    wait_phase(namespace, "p", "Succeeded")
    init, a, b = (seen(namespace, "p", name) for name in ("init", "a", "b"))
    assert [profile(each) for each in a] == ["3g20gb"]
    assert [profile(each) for each in b] == ["1g5gb", "1g5gb"]
    assert len(init) == 1
    assert {*init} < {*b}
    assert len({gpu(each) for each in a + b}) == 1
