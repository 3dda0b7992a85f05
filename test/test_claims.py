"""Which claims a pod has, and how many devices it may hold (R6, R8, R13)."""

import pytest

from instaslice.invalid import InvalidPod
from instaslice.resource_api import NEWEST
from instaslice.rewrite import rewrite
from test.support.pods import limits, pod_of
from test.support.rewriting import slices_of, templates_of


def test_slices_that_only_init_containers_need_count_too() -> None:
    other = {"name": "i", "resources": {"limits": {"nvidia.com/mig-3g.20gb": 12}}}
    pod = pod_of(limits(100), initContainers=[other])
    assert sum(slices_of(t)[1] for t in templates_of(pod)) == 112
    other["resources"]["limits"]["nvidia.com/mig-3g.20gb"] = 13  # type: ignore[index]
    with pytest.raises(InvalidPod, match=r'spec: Invalid value: "113 devices": .* hold 112'):
        rewrite(pod, NEWEST)


def test_as_many_slices_as_the_largest_machine_has_and_no_more() -> None:
    assert sum(slices_of(t)[1] for t in templates_of(pod_of(limits(56), limits(56)))) == 112
    with pytest.raises(InvalidPod, match='spec: Invalid value: "113 devices"'):
        rewrite(pod_of(limits(56), limits(57)), NEWEST)


def test_init_containers_reuse_slices_and_so_do_not_count_twice() -> None:
    pod = pod_of(limits(112), initContainers=[limits(112), limits(112)])
    assert sum(slices_of(t)[1] for t in templates_of(pod)) == 112
