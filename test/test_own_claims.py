"""R10 and R11: pods that an earlier pass rewrote."""

import copy
import re
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice.invalid import InvalidPod
from instaslice.own_claims import MAX_CLAIMS, MAX_REFERENCES, restore
from instaslice.resource_api import VERSIONS, ResourceAPI
from instaslice.resources import read_mapping
from instaslice.rewrite import rewrite
from test.support import pods
from test.support.pods import MIG, Json, limits, pod_of
from test.support.reviews import apply
from test.support.rewriting import rewritten

APIS = st.sampled_from(list(VERSIONS.values()))


def came_back(pod: Json, *amounts: str) -> Json:
    """The pod after `kubectl apply` of a manifest with these limits."""
    updated = copy.deepcopy(pod)
    for container, n in zip(updated["spec"]["containers"], amounts, strict=True):
        container.setdefault("resources", {}).update(limits={MIG: n}, requests={MIG: n})
    return updated


@pytest.mark.parametrize("amounts", [("1", "0"), ("3", "0"), ("2", "1"), ("two", "0")])
def test_other_limits_are_left_for_the_api_server_to_refuse(amounts: tuple[str, str]) -> None:
    old = rewritten(pod_of(limits(2), limits(0)))
    new = came_back(old, *amounts)
    assert not restore(new, old)


def test_a_request_that_kubectl_kept_does_not_matter() -> None:
    """A LimitRange's default became 0; the manifest sets a limit, but no request."""
    once = rewritten(pod_of(limits(2)))
    old = rewritten(came_back(once, "5"))
    assert old["spec"]["containers"][0]["resources"]["limits"] == {MIG: "0"}
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["resources"]["limits"] = {MIG: "2"}
    assert apply(restore(new, old), new) == old


def test_an_update_that_adds_a_container_is_left_to_the_api_server() -> None:
    old = rewritten(pod_of(limits(2)))
    new = came_back(old, "2")
    new["spec"]["containers"].append(limits(1))
    assert not restore(new, old)


@pytest.mark.parametrize(("before", "after"), [("0", "0"), ("1", "1"), ("1", "2")])
def test_a_pod_from_before_the_webhook_keeps_its_limits(before: str, after: str) -> None:
    """Its spec is immutable, so removing them would make every update of its labels fail."""
    old = pod_of(limits(before))
    new = copy.deepcopy(old) if before == after else came_back(old, after)
    new["metadata"]["labels"] = {"a": "b"}
    assert not restore(new, old)
    beside = rewritten(pod_of(limits(2)))
    beside["spec"]["containers"][0]["resources"]["limits"] = {MIG: "1"}
    assert not restore(came_back(beside, "2"), beside)


def test_limits_by_two_names_of_one_resource_are_removed_together() -> None:
    mapped = read_mapping(["nvidia.com/gpu=mig-1g.5gb"])
    both = {MIG: "1", "nvidia.com/gpu": "1"}
    pod = pod_of({"name": "c", "resources": {"limits": both}})
    old = apply(rewrite(pod, VERSIONS["v1"], mapped).operations, pod)
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["resources"]["limits"] = both
    assert apply(restore(new, old, mapped), new) == old


def test_a_limit_that_an_update_removes_is_not_restored() -> None:
    old = rewritten(pod_of(limits(2), limits(0)))
    old["spec"]["containers"][1]["resources"]["requests"] = {MIG: "0"}
    new = came_back(old, "2", "0")
    del new["spec"]["containers"][1]["resources"]["limits"]
    restored = apply(restore(new, old), new)
    assert restored["spec"]["containers"][0] == old["spec"]["containers"][0]


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("mine", "mig-1g.5gb"),
        ("6fa459ea-ee8a-11e5-8000-0242ac120002", "mig-1g.5gb"),  # version 1
        ("6fa459ea-ee8a-4ca4-894e-db77e160355e", "training"),
    ],
)
def test_a_claim_that_a_user_declared_replaces_no_limit(name: str, template: str) -> None:
    pod = pod_of(limits(1), resourceClaims=[{"name": name, "resourceClaimTemplateName": template}])
    pod["spec"]["containers"][0]["resources"]["claims"] = [{"name": name}]
    pod["metadata"]["annotations"] = {"instaslice.io/placement": "same-gpu"}
    result = rewrite(pod, VERSIONS["v1"])
    assert [claim.template for claim in result.claims] == ["mig-1g.5gb"]
    assert len(result.warnings) == 1, "the placement is pointless in a new pod"


@pytest.mark.parametrize(
    "change", [{"limits": {}}, *({"requests": {MIG: amount}} for amount in ("3", "0", "two"))]
)
def test_a_request_that_differs_from_its_limit_is_left_to_the_api_server(change: Json) -> None:
    old = rewritten(pod_of(limits(2)))
    new = came_back(old, "2")
    new["spec"]["containers"][0]["resources"].update(change)
    assert not restore(new, old)


def with_limits_again(result: Json, pod: Json) -> Json:
    """A rewritten pod with its old limits and requests beside its claims."""
    again = copy.deepcopy(result)
    for (_, _, before), (_, _, now) in zip(pods.each(pod), pods.each(again), strict=True):
        resources = before.get("resources") or {}
        brought = {
            key: {**(resources.get(key) or {})} for key in ("limits", "requests") if resources
        }
        for key, amounts in brought.items():
            if any(map(pods.is_mig, amounts)):
                now.setdefault("resources", {}).setdefault(key, {}).update(amounts)
    return again


@pytest.mark.property
@given(pods.pods(), APIS)
def test_the_original_manifest_can_be_applied_again(pod: Json, api: ResourceAPI) -> None:
    old = rewritten(pod, api)
    new = with_limits_again(old, pod)
    assert apply(restore(new, old), new) == old


def zeroed(pod: Json, once: Json) -> Json:
    """Apply R10: limits that come back to a container with claims become "0"."""
    wanted = with_limits_again(once, pod)
    for (_, _, before), (_, _, container) in zip(pods.each(pod), pods.each(wanted), strict=True):
        for template in pods.asked(before):
            for amounts in ("limits", "requests"):
                holder = (container.get("resources") or {}).get(amounts) or {}
                if f"nvidia.com/{template}" in holder:
                    holder[f"nvidia.com/{template}"] = "0"
    return wanted


@pytest.mark.property
@given(pods.pods(), APIS)
def test_limits_that_come_back_between_passes_add_no_claims(pod: Json, api: ResourceAPI) -> None:
    """The API server applies a LimitRange's defaults again after each webhook."""
    once = rewritten(pod, api)
    between = with_limits_again(once, pod)
    twice = rewritten(between, api)
    assert twice == zeroed(pod, once)
    assert not rewrite(twice, api).operations


@pytest.mark.parametrize("default", ["1", "2", "3"])
def test_a_default_beside_claims_adds_no_claims(default: str) -> None:
    once = rewritten(pod_of(limits(2)))
    twice = rewritten(came_back(once, default))
    assert twice["spec"]["resourceClaims"] == once["spec"]["resourceClaims"]
    resources = twice["spec"]["containers"][0]["resources"]
    assert resources["limits"] == resources["requests"] == {MIG: "0"}


@pytest.mark.parametrize(
    ("claims", "references", "path"),
    [
        (MAX_CLAIMS + 1, 1, "spec.resourceClaims"),
        (1, MAX_REFERENCES + 1, "spec.containers[0].resources.claims"),
    ],
)
def test_claims_of_an_earlier_pass_are_bounded(claims: int, references: int, path: str) -> None:
    """Each of them is read, so their number must be bounded (R8)."""
    names = [str(UUID(int=i, version=4)) for i in range(claims)]
    declared = [{"name": name, "resourceClaimTemplateName": "mig-2g.10gb"} for name in names]
    container = limits(1, claims=[{"name": names[0]}] * references)
    pod = pod_of(container, resourceClaims=declared)
    with pytest.raises(InvalidPod, match=rf"^{re.escape(path)}: Too many: [0-9]+: must have at"):
        rewrite(pod, VERSIONS["v1"])
    del declared[MAX_CLAIMS:], container["resources"]["claims"][MAX_REFERENCES:]
    assert rewrite(pod, VERSIONS["v1"]).claims
