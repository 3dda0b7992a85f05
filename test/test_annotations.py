"""The annotations of wishes (R13), `requested` (R12), and warnings to authors."""

import copy

import pytest

from instaslice import annotations, review
from instaslice.annotations import (
    ALTERNATIVES,
    MAX_REQUESTED,
    PLACEMENT,
    REQUESTED,
    Wishes,
    read_alternatives,
)
from instaslice.invalid import InvalidPod
from instaslice.profiles import Resource
from instaslice.resource_api import NEWEST, VERSIONS, ResourceAPI
from instaslice.resources import MIG as NO_MAPPING
from instaslice.resources import Resources
from test.support.counting import lines_of_python
from test.support.pods import MIG, Json, limits, pod_of
from test.support.reviews import apply, pod_review


def annotated(key: str, value: object) -> dict[str, object]:
    return {"metadata": {"annotations": {key: value}}}


def read(pod: dict[str, object], resources: Resources = NO_MAPPING) -> Wishes:
    return annotations.read(annotations.of(pod), resources)


def slice_of(name: str) -> Resource:
    found = NO_MAPPING.find(f"nvidia.com/mig-{name}")
    assert found
    return found


def test_chains_of_alternatives_in_any_spelling() -> None:
    text = "3g.20gb  or\t4g.20gb; 1g.5gb or 1g.10gb+me or mig-1g.5gb.me or nvidia.com/mig-2g.10gb;"
    others = ("1g.10gb.me", "1g.5gb.me", "2g.10gb")
    assert read(annotated(ALTERNATIVES, text)).alternatives == {
        slice_of("3g.20gb"): (slice_of("4g.20gb"),),
        slice_of("1g.5gb"): tuple(map(slice_of, others)),
    }


@pytest.mark.parametrize("value", ["same-gpu", "different-gpus", " same-gpu "])
def test_placement_values(value: str) -> None:
    assert read(annotated(PLACEMENT, value)).placement == value.strip()


@pytest.mark.parametrize("pod", [{}, {"metadata": None}, {"metadata": {"annotations": []}}])
def test_a_pod_without_annotations_has_no_wishes(pod: dict[str, object]) -> None:
    assert read(pod) == Wishes({}, is_default=True)


OTHER = read_alternatives("3g.20gb or 7g.40gb")
DEFAULT = Resources({}, read_alternatives("1g.5gb or bigger"))


@pytest.mark.parametrize(
    ("pod", "alternatives", "is_default"),
    [
        ({}, DEFAULT.alternatives, True),
        (annotated(PLACEMENT, "same-gpu"), DEFAULT.alternatives, True),
        (annotated(ALTERNATIVES, " none "), {}, False),
        (annotated(ALTERNATIVES, "3g.20gb or 7g.40gb"), OTHER, False),
    ],
)
def test_default_alternatives_apply_to_pods_without_the_annotation(
    pod: dict[str, object], alternatives: dict[Resource, object], is_default: bool
) -> None:
    wishes = read(pod, DEFAULT)
    assert (wishes.alternatives, wishes.is_default) == (alternatives, is_default)


ALONE = '"bigger" stands alone behind one profile, as in "1g.5gb or bigger"'
RIGHT = 'write it like "3g.20gb or 4g.20gb; 1g.5gb or 1g.10gb"'


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (PLACEMENT, "same", "must be same-gpu or different-gpus"),
        (PLACEMENT, "", "must be same-gpu or different-gpus"),
        (PLACEMENT, 1, "must be same-gpu or different-gpus"),
        (PLACEMENT, [1], "must be same-gpu or different-gpus"),
        (ALTERNATIVES, "", RIGHT),
        (ALTERNATIVES, [], RIGHT),
        (ALTERNATIVES, ";;", RIGHT),
        (ALTERNATIVES, ";" * 16_001, "is longer than 16000 characters"),
        (ALTERNATIVES, "1g.5gb", f"a chain names 2 to 8 profiles: {RIGHT}"),
        (ALTERNATIVES, " or ".join(["1g.5gb"] * 9), f"a chain names 2 to 8 profiles: {RIGHT}"),
        (ALTERNATIVES, "bigger or 1g.5gb", ALONE),
        (ALTERNATIVES, "1g.5gb or 2g.10gb or bigger", ALONE),
        (ALTERNATIVES, "1g.5gb or", f'profiles are joined by "or" and chains by ";": {RIGHT}'),
        (ALTERNATIVES, "a, b", f'profiles are joined by "or" and chains by ";": {RIGHT}'),
        (
            ALTERNATIVES,
            "1g.5gb or banana",
            "banana is not a MIG profile such as 1g.5gb or 1g.10gb+me",
        ),
        (ALTERNATIVES, "1g.5gb or 1g.5gb", "a chain names each profile once"),
        (ALTERNATIVES, "1g.5gb or 1g.10gb; 1g.5gb or 2g.10gb", "two chains begin with 1g.5gb"),
    ],
)
def test_a_malformed_annotation_is_denied_with_its_key_and_value(
    key: str, value: object, why: str
) -> None:
    with pytest.raises(InvalidPod) as caught:
        read(annotated(key, value))
    shown = str(value) if len(str(value)) <= 63 else f"{str(value)[:60]}..."
    assert str(caught.value) == f'metadata.annotations[{key}]: Invalid value: "{shown}": {why}'


# -- requested -------------------------------------------------------------------------------------


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
def test_a_rewritten_pod_gets_the_requested_annotation(metadata: Json) -> None:
    two = {MIG: "2", "nvidia.com/mig-3g.20gb": 1, "cpu": 1}
    spec = pod_of({"name": "main", "resources": {"limits": two}}, limits(1), limits(0))["spec"]
    result = after({**metadata, "spec": spec})
    assert said(result) == f"main: {MIG}=2, nvidia.com/mig-3g.20gb=1; c: {MIG}=1"
    others = dict((metadata.get("metadata") or {}).get("annotations") or {}, **{REQUESTED: ""})
    assert result["metadata"]["annotations"].keys() == others.keys()
    assert not judged(result).rewrite.operations, "a later pass adds nothing"


def test_a_container_that_another_webhook_adds_is_rewritten_too() -> None:
    once = after(pod_of(limits(1)))
    twice = copy.deepcopy(once)
    twice["spec"]["containers"].append({**limits(2), "name": "side"})
    twice = after(twice)
    assert twice["spec"]["containers"][0] == once["spec"]["containers"][0]
    templates = [claim["resourceClaimTemplateName"] for claim in twice["spec"]["resourceClaims"]]
    assert templates == ["mig-1g.5gb", "mig-1g.5gb.x2"]
    assert said(twice) == f"c: {MIG}=1; side: {MIG}=2"


def test_requested_ignores_a_default_that_comes_back() -> None:
    once = after(pod_of(limits(2)))
    once["spec"]["containers"][0]["resources"]["limits"] = {MIG: "1"}
    assert said(after(once)) == f"c: {MIG}=2"


@pytest.mark.parametrize("pod", [pod_of(limits(0)), pod_of({"name": "c"})])
def test_a_pod_that_is_not_rewritten_keeps_its_requested_annotation(pod: Json) -> None:
    pod["metadata"]["annotations"] = {REQUESTED: "mine"}
    assert not judged(pod).rewrite.operations


@pytest.mark.parametrize("change", [None, "a forged one"])
def test_an_update_cannot_remove_or_change_requested(change: str | None) -> None:
    old = after(pod_of(limits(1)))
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["resources"]["limits"] = {MIG: 1}
    new["metadata"]["annotations"] = {REQUESTED: change} if change else None
    assert after(new, old) == old
    assert not judged(old, old).rewrite.operations


def test_requested_is_short_and_printable_for_any_pod() -> None:
    names = {f"nvidia.com/mig-1g.{i}gb": 1 for i in range(1, 60)}
    many = pod_of({"name": "é\n" + "x" * 500, "resources": {"limits": names}}, limits(1))
    text = said(after(many))
    assert len(text) <= MAX_REQUESTED
    assert text.startswith("\\xe9\\nxxx")
    assert text.endswith("; ...")
    assert text.isprintable()
    assert text.isascii()


@pytest.mark.parametrize("metadata", [[], "name", {"annotations": []}])
def test_metadata_of_the_wrong_type_is_refused(metadata: object) -> None:
    verdict = judged({**pod_of(limits(1)), "metadata": metadata})
    assert verdict.status
    assert "must be an object" in verdict.status["message"]


def test_a_pod_with_a_node_name_gets_a_warning() -> None:
    """It is not denied, since then controllers that set the field could not create pods."""
    pod = pod_of(limits(1), nodeName="n")
    [warning] = judged(pod).rewrite.warnings
    assert warning.startswith("spec.nodeName: only the scheduler allocates claims")
    assert len(warning) <= 120
    assert judged(pod).outcome == "rewritten"
    assert judged(pod, api=VERSIONS["v1alpha2"]).rewrite.warnings == []
    assert judged(pod_of(limits(0), nodeName="n")).rewrite.warnings == []


def test_selecting_nodes_by_device_plugin_labels_gives_a_warning() -> None:
    expression = {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["A-MIG-1g.5gb"]}
    preferred = {"preference": {"matchExpressions": [expression]}, "weight": 1}
    affinity = {"preferredDuringSchedulingIgnoredDuringExecution": [preferred]}
    selector = {"nvidia.com/mig.config": "all-1g.5gb", "zone": "a"}
    pod = pod_of(limits(1), nodeSelector=selector, affinity={"nodeAffinity": affinity})
    assert judged(pod).rewrite.warnings == [
        "spec.nodeSelector: nodes with the DRA driver may lack nvidia.com/mig.config=all-1g.5gb; "
        "the pod may fit none",
        "spec.affinity.nodeAffinity: nodes with the DRA driver may lack "
        "nvidia.com/gpu.product=A-MIG-1g.5gb; the preference may fit none",
    ]


def test_only_the_first_characters_of_an_earlier_annotation_are_read() -> None:
    """A user may type megabytes into the annotation."""
    assert lines_of_python(lambda: annotations.describe([], "\x7f" * 100_000)) < 10_000
