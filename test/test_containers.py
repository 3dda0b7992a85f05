"""R7 and R8: which pods are refused, with which messages, and how early."""

from typing import Any

import pytest

from instaslice.containers import MAX_ENTRIES, MAX_USES
from instaslice.invalid import MAX_MESSAGES, InvalidPod
from instaslice.resource_api import NEWEST
from instaslice.rewrite import rewrite
from test.support.pods import MIG, Json, limits, pod_of


def first(what: str, path: str = f"limits[{MIG}]") -> str:
    return f"spec.containers[0].resources.{path}: {what}"


NOT_A_NUMBER = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
TOO_MANY = "must be less than or equal to 112, 16 GPUs of 7 slices"
NEGATIVE = 'Invalid value: "-1500m": must be'


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        ({"limits": {MIG: "500m"}}, first('Invalid value: "500m": must be an integer')),
        # The API server copies limits into requests, and the mistake is reported once.
        (
            {"limits": {MIG: "500m"}, "requests": {MIG: "500m"}},
            first('Invalid value: "500m": must be an integer'),
        ),
        ({"limits": {MIG: "-1"}}, first('Invalid value: "-1": must be greater than or equal to 0')),
        (
            {"limits": {MIG: "1"}, "requests": {MIG: "2"}},
            first(f'Invalid value: "2": must be equal to {MIG} limit of 1', "requests"),
        ),
        (
            {"requests": {MIG: "1"}},
            first("Required value: Limit must be set for non overcommitable resources", "limits"),
        ),
        ({"limits": {MIG: "one"}}, first(f'Invalid value: "one": {NOT_A_NUMBER}')),
        ({"limits": {MIG: "113"}}, first(f'Invalid value: "113": {TOO_MANY}')),
        ({"limits": {MIG: "1k"}}, first(f'Invalid value: "1k": {TOO_MANY}')),
        # It is also too large, but one line per mistake is enough.
        ({"limits": {MIG: "112500m"}}, first('Invalid value: "112500m": must be an integer')),
        (
            {"limits": {MIG: "-1500m"}},
            f"[{first(NEGATIVE)} greater than or equal to 0, {first(NEGATIVE)} an integer]",
        ),
        ([], "spec.containers[0].resources: must be an object"),
        ({"limits": "all"}, first("must be an object", "limits")),
        ({"limits": {MIG: 1}, "claims": {}}, first("must be an array", "claims")),
    ],
)
def test_a_pod_that_the_api_server_would_refuse_is_refused(resources: object, message: str) -> None:
    test_a_malformed_pod_is_refused(pod_of({"name": "c", "resources": resources}), message)


@pytest.mark.parametrize(
    ("pod", "message"),
    [
        ({"spec": []}, "spec: must be an object"),
        ({"spec": {"containers": {}}}, "spec.containers: must be an array"),
        ({"spec": {"containers": [[]]}}, "spec.containers[0]: must be an object"),
        ({"spec": {"initContainers": [1]}}, "spec.initContainers[0]: must be an object"),
        (pod_of(limits(1), resourceClaims={}), "spec.resourceClaims: must be an array"),
    ],
)
def test_a_malformed_pod_is_refused(pod: Json, message: str) -> None:
    with pytest.raises(InvalidPod) as caught:
        rewrite(pod, NEWEST)
    assert str(caught.value) == message


def asking(amounts: Json, key: str = "limits") -> Json:
    return {"name": "c", "resources": {key: amounts}}


def entries(number: int, amount: str, key: str = "limits") -> Json:
    """A container that names `number` MIG resources."""
    return asking({f"nvidia.com/mig-1g.{i}gb": amount for i in range(1, number + 1)}, key)


def test_entries_are_bounded_including_those_of_0() -> None:
    half = MAX_ENTRIES // 2
    both = {"limits": entries(half, "0")["resources"]["limits"]}
    both["requests"] = both["limits"]
    assert not rewrite(pod_of({"name": "c", "resources": both}), NEWEST).operations
    one_more = pod_of({"name": "c", "resources": both}, limits(0))
    with pytest.raises(InvalidPod, match=f"{MAX_ENTRIES} times"):
        rewrite(one_more, NEWEST)


def test_messages_do_not_grow_with_the_input() -> None:
    wrong = pod_of(*[limits("x" * 10_000)] * 1_000)
    with pytest.raises(InvalidPod) as caught:
        rewrite(wrong, NEWEST)
    assert len(caught.value.errors) == MAX_MESSAGES
    assert len(str(caught.value)) < 3000
    with pytest.raises(InvalidPod) as caught:
        rewrite(pod_of(entries(1_000, "-1")), NEWEST)
    assert len(caught.value.errors) == MAX_MESSAGES


def test_at_most_8_short_warnings_are_given_in_printable_ascii() -> None:
    """A terminal may interpret other characters, or reverse the text."""
    unknown = {f"nvidia.com/mig-9g.{i}gb": "1" for i in range(1, 7)}
    odd = {f"nvidia.com/mig-{i}\u202e\x1b[2J\xe9{'odd' * 100}": "1" for i in range(1_000)}
    warnings = rewrite(pod_of(asking({**unknown, **odd})), NEWEST).warnings
    assert len(warnings) == MAX_MESSAGES
    assert all(each.isascii() and each.isprintable() and len(each) < 160 for each in warnings)


def never(container: str, template: str) -> str:
    raise AssertionError("a claim was named")


@pytest.mark.parametrize(
    "pod",
    [
        pod_of(*[limits(112)] * 50_000),
        pod_of(initContainers=[limits(112)] * 50_000),
        pod_of(entries(39_000, "0")),
        pod_of(entries(39_000, "0", key="requests")),
        pod_of(*[entries(10, "0")] * 4_000),
    ],
    ids=["containers", "init containers", "limits of 0", "requests of 0", "spread"],
)
def test_a_pod_that_is_too_large_is_refused_before_claims_are_made(pod: Any) -> None:
    with pytest.raises(InvalidPod):
        rewrite(pod, NEWEST, new_name=never)


def test_uses_are_accepted_up_to_the_bound() -> None:
    every = limits(112)
    rewrite(pod_of(initContainers=[every] * (MAX_USES // 112)), NEWEST)
    with pytest.raises(InvalidPod, match=rf"^spec\.initContainers: .* at most {MAX_USES} times"):
        rewrite(pod_of(initContainers=[*[every] * (MAX_USES // 112), limits(1)]), NEWEST)
