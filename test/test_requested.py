"""The annotation of what a rewritten pod asked for, and what its author is warned of (R12)."""

import copy

import pytest

from instaslice import review
from instaslice.annotations import MAX_REQUESTED, REQUESTED
from instaslice.resource_api import NEWEST, VERSIONS, ResourceAPI
from test.support.pods import MIG, Json, limits, pod_of
from test.support.reviews import apply, pod_review


def judged(pod: Json, old: Json | None = None, api: ResourceAPI = NEWEST) -> review.Verdict:
    update = {"operation": "UPDATE", "oldObject": old} if old else {}
    return review.judge(review.read(pod_review(pod, **update)), api)


def after(pod: Json, old: Json | None = None) -> Json:
    return apply(judged(pod, old).rewrite.operations, pod)


def said(pod: Json) -> str:
    return str(pod["metadata"]["annotations"][REQUESTED])


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"metadata": None},
        {"metadata": {"name": "p"}},
        {"metadata": {"annotations": None}},
        {"metadata": {"annotations": {}}},
        {"metadata": {"annotations": {"a": "b"}}},
        {"metadata": {"annotations": {REQUESTED: "a forged one"}}},
    ],
)
def test_a_rewritten_pod_says_what_it_asked_for(metadata: Json) -> None:
    two = {MIG: "2", "nvidia.com/mig-3g.20gb": 1, "cpu": 1}
    spec = pod_of({"name": "main", "resources": {"limits": two}}, limits(1), limits(0))["spec"]
    result = after({**metadata, "spec": spec})
    assert said(result) == f"main: {MIG}=2, nvidia.com/mig-3g.20gb=1; c: {MIG}=1"
    others = dict((metadata.get("metadata") or {}).get("annotations") or {}, **{REQUESTED: ""})
    assert result["metadata"]["annotations"].keys() == others.keys()
    assert not judged(result).rewrite.operations, "a later pass has nothing to add"


def test_a_container_that_another_webhook_adds_joins_what_is_said() -> None:
    once = after(pod_of(limits(1)))
    once["spec"]["containers"].append({**limits(2), "name": "side"})
    assert said(after(once)) == f"c: {MIG}=1; side: {MIG}=2"


def test_a_default_that_comes_back_changes_nothing_of_it() -> None:
    once = after(pod_of(limits(2)))
    once["spec"]["containers"][0]["resources"]["limits"] = {MIG: "1"}
    assert said(after(once)) == f"c: {MIG}=2"


@pytest.mark.parametrize("pod", [pod_of(limits(0)), pod_of({"name": "c"})])
def test_a_pod_that_is_not_rewritten_keeps_what_it_has(pod: Json) -> None:
    pod["metadata"]["annotations"] = {REQUESTED: "mine"}
    assert not judged(pod).rewrite.operations


@pytest.mark.parametrize("change", [None, "a forged one"])
def test_an_update_neither_takes_it_away_nor_changes_it(change: str | None) -> None:
    old = after(pod_of(limits(1)))
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["resources"]["limits"] = {MIG: 1}
    new["metadata"]["annotations"] = {REQUESTED: change} if change else None
    assert after(new, old) == old
    assert not judged(old, old).rewrite.operations


def test_it_is_short_and_printable_whatever_a_pod_holds() -> None:
    names = {f"nvidia.com/mig-1g.{i}gb": 1 for i in range(1, 60)}
    many = pod_of({"name": "é\n" + "x" * 500, "resources": {"limits": names}}, limits(1))
    text = said(after(many))
    assert len(text) <= MAX_REQUESTED
    assert text.startswith("\\xe9\\nxxx")
    assert text.endswith("; ...")
    assert text.isprintable()
    assert text.isascii()


@pytest.mark.parametrize("metadata", [[], "name", {"annotations": []}])
def test_metadata_of_another_type_is_refused(metadata: object) -> None:
    verdict = judged({**pod_of(limits(1)), "metadata": metadata})
    assert verdict.status
    assert "must be an object" in verdict.status["message"]


def test_a_pod_that_chooses_its_node_itself_is_warned_of() -> None:
    """Refused, no controller that sets the field could make its pods, whatever allocates claims."""
    pod = pod_of(limits(1), nodeName="n")
    [warning] = judged(pod).rewrite.warnings
    assert warning.startswith("spec.nodeName: only the scheduler allocates claims")
    assert len(warning) <= 120
    assert judged(pod).outcome == "rewritten"
    assert judged(pod, api=VERSIONS["v1alpha2"]).rewrite.warnings == []
    assert judged(pod_of(limits(0), nodeName="n")).rewrite.warnings == []


def test_labels_of_the_device_plugin_are_warned_of_by_name() -> None:
    expression = {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["A-MIG-1g.5gb"]}
    preferred = {"preference": {"matchExpressions": [expression]}, "weight": 1}
    affinity = {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}
    selector = {"nvidia.com/mig.config": "all-1g.5gb", "zone": "a"}
    pod = pod_of(limits(1), nodeSelector=selector, affinity={"nodeAffinity": affinity})
    assert judged(pod).rewrite.warnings == [
        "spec.nodeSelector: nodes lose nvidia.com/mig.config=all-1g.5gb with the device plugin; "
        "the pod may fit none",
        "spec.affinity.nodeAffinity: nodes lose nvidia.com/gpu.product=A-MIG-1g.5gb with the "
        "device plugin; it prefers none",
    ]
