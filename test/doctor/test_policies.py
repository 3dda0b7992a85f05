"""Quotas, LimitRanges and Kueue."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from instaslice.cluster.gates import EXTENDED, Known
from instaslice.doctor import policies
from instaslice.doctor.checks import CHECKS
from instaslice.doctor.policies import OWN, Policy
from instaslice.doctor.report import Found
from instaslice.doctor.snapshot import Snapshot
from instaslice.profiles import known_profiles
from instaslice.resource_api import VERSIONS
from test.support.snapshots import (
    HEALTHY,
    bindings,
    device_class,
    findings,
    named,
    other_than_good,
    own_classes,
    with_lists,
)

Json = dict[str, Any]

ONE_SLICE = "nvidia.com/mig-1g.5gb"
OWN_CLASS = "mig-1g.5gb.nvidia.com"


def said(find: Callable[[Snapshot], Iterator[Policy]], snapshot: Snapshot) -> Found:
    return policies.findings(find, snapshot)


def hard(*keys: str) -> list[Json]:
    return [named("q", spec={"hard": {"cpu": "1", **dict.fromkeys(keys, "4")}})]


def old(snapshot: Snapshot) -> Snapshot:
    """Before 1.36, with its gate off."""
    return replace(snapshot, kubernetes="v1.35.6", gates={EXTENDED: Known(False)})


COUNTING: dict[str, tuple[Snapshot, bool]] = {
    "by the class": (with_lists(classes=[device_class(OWN_CLASS, ONE_SLICE)]), True),
    "by the class that will be made": (with_lists(classes=[]), True),
    "the class lacks the name": (with_lists(classes=[device_class(OWN_CLASS)]), False),
    "another class has the name": (with_lists(classes=[device_class("other", ONE_SLICE)]), True),
    "before 1.36": (old(with_lists(classes=[device_class(OWN_CLASS)])), False),
    "before 1.36, no class yet": (old(with_lists(classes=[])), False),
    "nobody knows of the gate": (replace(with_lists(classes=[]), gates={}), False),
}


@pytest.mark.parametrize("case", COUNTING)
def test_quotas_that_count_and_the_one_to_write(case: str) -> None:
    snapshot, counts = COUNTING[case]
    found = findings(
        said(policies.quotas, with_lists(snapshot, quotas=hard(f"requests.{ONE_SLICE}")))
    )
    ((state, text, advice),) = found
    if counts:
        assert (state, text) == ("✓", f"ml/q still counts requests.{ONE_SLICE}")
        return
    assert (state, text) == (
        "!",
        f"ml/q limits requests.{ONE_SLICE}, but counts no rewritten pods",
    )
    command, patch = advice.rsplit(" ", 1)
    assert command == "kubectl -n ml patch resourcequota q --type=merge -p"
    key = f"{OWN_CLASS}.deviceclass.resource.k8s.io/devices"
    assert json.loads(patch.strip("'")) == {"spec": {"hard": {key: "4"}}}


def test_quotas_that_name_no_slices_are_fine() -> None:
    quotas = [*hard("pods", "requests.nvidia.com/gpu"), named("empty", spec={})]
    assert findings(said(policies.quotas, with_lists(quotas=quotas))) == []


@pytest.mark.parametrize("lists", [{}, {"classes": []}])
def test_a_profile_without_a_class_of_its_own(lists: dict[str, list[Json]]) -> None:
    quotas = hard("requests.nvidia.com/mig-9g.999gb")
    ((state, text, advice),) = findings(said(policies.quotas, with_lists(quotas=quotas, **lists)))
    assert (state, "mig.nvidia.com.deviceclass.resource.k8s.io/devices" in advice) == ("!", True)
    assert text.endswith("a quota on its class counts all devices of the class")


def test_the_oldest_version_counts_claims() -> None:
    classic = replace(HEALTHY, api=VERSIONS["v1alpha2"], gates={})
    snapshot = with_lists(classic, quotas=hard(f"requests.{ONE_SLICE}"), classes=[])
    ((_, _, advice),) = findings(said(policies.quotas, snapshot))
    assert "count/resourceclaims.resource.k8s.io" in advice


@pytest.mark.parametrize(
    ("scope", "shown"),
    [
        ({"scopes": ["BestEffort"]}, "BestEffort"),
        (
            {
                "scopeSelector": {
                    "matchExpressions": [
                        {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}
                    ]
                }
            },
            "PriorityClass In high",
        ),
    ],
)
def test_a_quota_with_a_scope_is_escaped(scope: Json, shown: str) -> None:
    (quota,) = hard(f"requests.{ONE_SLICE}", f"{OWN_CLASS}.deviceclass.resource.k8s.io/devices")
    quota["spec"] |= scope
    ((state, text, advice),) = findings(
        said(policies.quotas, with_lists(quotas=[quota], classes=[]))
    )
    assert state == "!"
    assert f"({shown}), but counts no rewritten pods: claims have no scope" in text
    assert advice.startswith(f"kubectl -n ml create quota q-unscoped --hard=requests.{ONE_SLICE}=4")


@pytest.mark.parametrize(
    ("kubernetes", "policies_", "part"),
    [
        ("v1.29.1", [], "Kubernetes has the policies for that from 1.30 on"),
        ("v1.36.3", [], "which nothing applies to rewritten pods"),
        ("v1.36.3", [named("instaslice-limitranges")], ""),
    ],
)
def test_who_holds_rewritten_pods_to_a_maximum(
    kubernetes: str, policies_: list[Json], part: str
) -> None:
    limits = limit_range("Container", max={ONE_SLICE: "2"})
    lists = {"limits": limits, "policies": policies_, "bindings": bindings(*OWN)}
    snapshot = replace(with_lists(**lists), kubernetes=kubernetes)
    found = findings(said(policies.limit_ranges, snapshot))
    assert [state for state, _, _ in found] == (["!"] if part else [])
    assert all(part in text for _, text, _ in found)


@pytest.mark.parametrize(
    ("lists", "says"),
    [
        ({"policies": []}, "instaslice-limitranges does not exist: the max of a LimitRange"),
        ({"bindings": []}, "instaslice-limitranges is not bound so that it denies"),
        ({"bindings": bindings(*OWN, actions=("Audit",))}, "instaslice-limitranges is not bound"),
        ({"policies": [], "webhooks": []}, ""),
        ({}, ""),
    ],
)
def test_instaslices_own_policies(lists: dict[str, list[Json]], says: str) -> None:
    snapshot = with_lists(**lists)
    found = other_than_good(policies.own(snapshot))
    assert [state for state, _, _ in found] == (["!", "!"] if says else [])
    assert says in "".join(text for _, text, _ in found)
    assert findings(policies.own(replace(snapshot, kubernetes="v1.29.1"))) == []


def limit_range(kind: str, **limit: Any) -> list[Json]:
    return [named("l", spec={"limits": [{"type": kind, **limit}]})]


@pytest.mark.parametrize(
    ("kind", "field", "amount", "refuses"),
    [
        ("Pod", "max", "4", True),
        ("Pod", "min", "1", True),
        ("Container", "min", "1", True),
        ("Container", "min", "0", False),
        ("Container", "max", "4", False),
        ("Container", "default", "1", False),
    ],
)
def test_limit_ranges(kind: str, field: str, amount: str, refuses: bool) -> None:
    limits = limit_range(kind, **{field: {ONE_SLICE: amount, "cpu": "1"}})
    found = findings(said(policies.limit_ranges, with_lists(limits=limits)))
    if not refuses:
        assert found == []
        return
    ((state, text, _),) = found
    assert state == "✗"
    assert text == (
        f"LimitRange ml/l has {ONE_SLICE} in its {field} for type {kind}, which no rewritten pod "
        "can satisfy: all are refused"
    )


def kueue(*covered: str, configuration: str = "") -> Snapshot:
    queue = {"spec": {"resourceGroups": [{"coveredResources": ["cpu", *covered]}]}}
    data = {"data": {"controller_manager_config.yaml": configuration}}
    return with_lists(queues=[queue], kueue=[data])


def test_kueue() -> None:
    assert findings(said(policies.kueue, HEALTHY)) == []
    assert findings(said(policies.kueue, kueue("memory"))) == []
    ((state, text, advice),) = findings(
        said(policies.kueue, kueue(ONE_SLICE, "nvidia.com/mig-2g.10gb"))
    )
    assert state == "✗"
    assert "it admits no rewritten pod without a Job" in text
    assert f"queues cover {ONE_SLICE}, nvidia.com/mig-2g.10gb" in text
    assert advice == "instaslice deviceclasses --kueue 1g.5gb 2g.10gb"
    mapped = kueue(ONE_SLICE, configuration=f"deviceClassNames: [{OWN_CLASS}]")
    assert [state for state, _, _ in findings(said(policies.kueue, mapped))] == ["✓"]


def test_eighty_device_classes_are_one_line() -> None:
    known = known_profiles()
    assert len(known) > 80
    classes = [made for p in known for made in own_classes(p.template)]
    ((state, text, _),) = findings(CHECKS["device classes"](with_lists(classes=classes, pods=[])))
    assert state == "✓"
    assert text == (
        f"by {len(known)} DeviceClasses, the scheduler itself serves limits of "
        f"nvidia.com/mig-1g.5gb, nvidia.com/mig-1g.5gb.me, nvidia.com/mig-1g.6gb and "
        f"{len(known) - 3} more"
    )


def test_two_classes_for_one_resource() -> None:
    classes = [device_class("a", ONE_SLICE), device_class("b", ONE_SLICE)]
    ((state, text, _),) = other_than_good(
        CHECKS["device classes"](with_lists(classes=classes, pods=[]))
    )
    assert (state, text) == (
        "!",
        f"a, b all serve {ONE_SLICE}: the scheduler takes the newest",
    )
