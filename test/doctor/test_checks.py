"""What is said of a whole cluster; the modules of the checks have tests of their own."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from instaslice.doctor import plan
from instaslice.doctor.checks import examine
from instaslice.doctor.explain import explain
from instaslice.doctor.report import State, is_wrong
from instaslice.doctor.snapshot import Snapshot, Unreadable
from instaslice.resource_api import VERSIONS
from instaslice.resources import read_mapping
from test.support import a100
from test.support.snapshots import HEALTHY, device_class, named, pod, webhook, with_lists


def test_a_healthy_cluster() -> None:
    findings = examine(HEALTHY)
    assert [(f.check, f.state.value, f.text) for f in findings] == [
        ("DRA", "✓", "Kubernetes v1.36.3 serves resource.k8s.io/v1"),
        (
            "gates",
            "✓",
            "on: DRAPartitionableDevices, DRAExtendedResource, DRAPrioritizedList, "
            "DRAConsumableCapacity",
        ),
        ("webhook", "✓", "rewrite.instaslice.io is registered, failurePolicy Fail"),
        ("mode", "✓", "all: every pod with a limit that can be rewritten is sent"),
        ("endpoints", "✓", "instaslice-system/instaslice has 2 ready pods"),
        ("dry run", "✓", "a pod with nvidia.com/mig-1g.5gb in default is rewritten"),
        ("driver", "✓", "DeviceClass mig.nvidia.com exists"),
        ("slices", "✓", "1g.5gb: 1 free, 1 published"),
        ("slices", "✓", "1g.5gb+me: 0 free, 1 published"),
        ("profiles", "✓", "every profile that pods ask for is published"),
        ("templates", "✓", "every namespace has the templates that its pods need"),
        (
            *("device classes", "✓"),
            "by 1 DeviceClass, the scheduler itself serves limits of nvidia.com/mig-1g.5gb",
        ),
        ("policies", "✓", "instaslice-limitranges and instaslice-service-account hold"),
    ]
    assert not is_wrong(findings)


def test_one_thing_that_is_wrong() -> None:
    findings = examine(with_lists(classes=[], pods=[]))
    (wrong,) = (finding for finding in findings if finding.state is not State.GOOD)
    assert (wrong.check, wrong.state) == ("driver", State.WRONG)
    assert is_wrong(findings)


def test_what_cannot_be_read_is_said() -> None:
    forbidden = dict.fromkeys(HEALTHY.lists, Unreadable("403 forbidden", 403))
    blind = replace(HEALTHY, lists={}, failures=forbidden)
    findings = examine(replace(blind, probes=(), gates={}))
    assert {f.state for f in findings if f.check != "DRA"} == {State.UNSURE}
    assert "nodes could not be read: 403 forbidden" in [f.text for f in findings]
    assert not is_wrong(findings)
    rights = "the rights that this needs are in config/components/doctor"
    assert {f.advice for f in findings if f.check != "DRA"} == {rights}


def test_silence_is_not_a_lack_of_rights() -> None:
    silent = replace(HEALTHY, failures={"nodes": Unreadable("no answer within 10 s")})
    found = {f.check: f.advice for f in examine(silent) if f.state is State.UNSURE}
    assert found == {"whole GPUs": "", "node labels": "", "device plugin": ""}


def test_the_oldest_version_has_other_kinds() -> None:
    classic = with_lists(
        replace(HEALTHY, api=VERSIONS["v1alpha2"], kubernetes="v1.27.16", gates={}),
        webhooks=[webhook(matchConditions=None, failurePolicy="Ignore")],
        classes=[named("gpu.nvidia.com", "")],
        templates=[],
        pods=[],
        slices=[],
        quotas=[named("q", spec={"hard": {"requests.nvidia.com/mig-1g.5gb": "1"}})],
    )
    findings = examine(classic)
    (quota,) = (finding for finding in findings if finding.state is not State.GOOD)
    assert '{"count/resourceclaims.resource.k8s.io":"1"}' in quota.advice
    assert "slices" in [finding.check for finding in findings]


#: Of everything that is read, something.
FULL = with_lists(
    replace(HEALTHY, resources=read_mapping(["nvidia.com/gpu=gpu.nvidia.com"])),
    slices=a100.resource_slices(),
    classes=[device_class("mig.nvidia.com"), device_class("gpu.nvidia.com")],
    limits=[named("l", spec={"limits": [{"type": "Pod", "max": {"nvidia.com/mig-1g.5gb": "1"}}]})],
    quotas=[
        named("q", spec={"hard": {"requests.nvidia.com/mig-1g.5gb": "1"}}, status={"hard": {}})
    ],
    queues=[{"spec": {"resourceGroups": [{"coveredResources": ["nvidia.com/mig-1g.5gb"]}]}}],
    kueue=[{"data": {"a": "b"}}],
    namespaces=[named("ml", "", labels={})],
    nodes=[
        {
            "metadata": {"name": "n", "labels": {"nvidia.com/gpu.product": "A100"}},
            "status": {"allocatable": {"nvidia.com/gpu": "1"}},
        }
    ],
    pods=[pod("p", template="mig-1g.5gb"), pod("q", limit="mig-1g.5gb")],
)
#: What the API server wants of every object.
ALWAYS_THERE = {"metadata", "name", "namespace", "spec", "pool", "driver", "device"} | {
    "clientConfig",
    "service",
}


def with_something_left_out() -> Iterator[tuple[Snapshot, Any]]:
    """Snapshots in which an optional field of an object is null or missing; and that object."""
    for name, listed in FULL.lists.items():
        for index, whole in enumerate(listed[:2]):
            for path in paths(whole):
                for is_null in (True, False):
                    changed = copy.deepcopy(whole)
                    holder: Any = changed
                    for step in path[:-1]:
                        holder = holder[step]
                    holder[path[-1]] = None
                    if not is_null:
                        del holder[path[-1]]
                    lists = [*listed[:index], changed, *listed[index + 1 :]]
                    yield with_lists(FULL, **{name: lists}), changed


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to the fields of a JSON value, of lists the first two elements."""
    items = value.items() if isinstance(value, dict) else []
    for key, below in items:
        if key not in ALWAYS_THERE:
            yield (*above, key)
        yield from paths(below, (*above, key))
    if isinstance(value, list):
        for index, below in enumerate(value[:2]):
            yield from paths(below, (*above, index))


def test_whatever_is_left_out_of_an_object_there_is_a_report() -> None:
    tried = 0
    for snapshot, changed in with_something_left_out():
        assert examine(snapshot)
        made = plan.make(snapshot)
        assert plan.as_text(made, 80)
        if "containers" in changed.get("spec", {}):
            assert explain(snapshot, changed, [])
        tried += 1
    assert tried > 400
