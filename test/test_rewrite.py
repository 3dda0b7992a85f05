import copy
import json
import uuid
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice.invalid import InvalidPod
from instaslice.resource_api import NEWEST, VERSIONS, ResourceAPI
from instaslice.rewrite import MAX_REFERENCES, MAX_SLICES, restore, rewrite
from test.support import pods
from test.support.pods import Json
from test.support.reviews import apply, load

pytestmark = pytest.mark.property

APIS = st.sampled_from(list(VERSIONS.values()))


def rewritten(pod: Json, api: ResourceAPI = NEWEST) -> Json:
    return apply(rewrite(pod, api).operations, pod)


def new_claims(pod: Json, result: Json) -> list[Json]:
    before = pod["spec"].get("resourceClaims") or []
    after = result["spec"].get("resourceClaims") or []
    assert after[: len(before)] == before
    return list(after[len(before) :])


def template_of(claim: Json) -> str:
    return str(claim.get("source", claim)["resourceClaimTemplateName"])


def renamed(pod: Json, names: dict[str, str]) -> Json:
    text = json.dumps(pod)
    for name, new in names.items():
        text = text.replace(json.dumps(name), json.dumps(new))
    result: Json = json.loads(text)
    return result


@given(pods.pods(), APIS)
def test_the_patch_gives_exactly_the_expected_pod(pod: Json, api: ResourceAPI) -> None:
    result = rewritten(pod, api)
    wanted = pods.expected(pod, nested=api.version == "v1alpha2")
    ours = [claim["name"] for claim in new_claims(pod, result)]
    theirs = [claim["name"] for claim in new_claims(pod, wanted)]
    assert renamed(result, dict(zip(ours, theirs, strict=True))) == wanted


@given(pods.pods(), APIS)
def test_every_slice_of_a_limit_is_one_claim_with_a_uuid_for_a_name(
    pod: Json, api: ResourceAPI
) -> None:
    result = rewritten(pod, api)
    templates = {claim["name"]: template_of(claim) for claim in new_claims(pod, result)}
    for name in templates:
        assert uuid.UUID(name).version == 4
        assert str(uuid.UUID(name)) == name
    for (_, _, before), (_, _, after) in zip(pods.each(pod), pods.each(result), strict=True):
        names = [c["name"] for c in (after.get("resources") or {}).get("claims") or []]
        assert len(names) == len(set(names))
        ours = [templates[name] for name in names if name in templates]
        wanted = [t for t, slices in pods.asked(before).items() for _ in range(slices)]
        assert sorted(ours) == sorted(wanted)


@given(pods.pods())
def test_each_claim_is_declared_once_and_used(pod: Json) -> None:
    result = rewritten(pod)
    ours = [claim["name"] for claim in new_claims(pod, result)]
    declared = [claim["name"] for claim in result["spec"].get("resourceClaims") or []]
    used = {
        claim["name"]
        for _, _, container in pods.each(result)
        for claim in (container.get("resources") or {}).get("claims") or []
    }
    assert len(declared) == len(set(declared))
    assert set(ours) <= used
    assert used - {"theirs", "ours"} <= set(ours)


@given(pods.pods())
def test_a_pod_holds_what_the_scheduler_counts(pod: Json) -> None:
    claims = [template_of(claim) for claim in new_claims(pod, rewritten(pod))]
    for profile in pods.PROFILES:
        assert claims.count(f"mig-{profile}") == pods.held(pod, f"mig-{profile}")


@given(pods.pods())
def test_containers_that_run_together_share_no_claim(pod: Json) -> None:
    result = rewritten(pod)
    ours = {claim["name"] for claim in new_claims(pod, result)}
    running: list[str] = []  # claims of containers that do not end
    for kind in ("initContainers", "containers"):
        for container in result["spec"].get(kind) or []:
            claims = (container.get("resources") or {}).get("claims") or []
            names = [c["name"] for c in claims if c["name"] in ours]
            assert not set(names) & set(running)
            if not pods.is_ordinary(kind, container):
                running += names


@given(pods.pods())
def test_a_second_pass_does_nothing_and_the_input_is_not_modified(pod: Json) -> None:
    original = copy.deepcopy(pod)
    result = rewrite(pod, NEWEST)
    assert pod == original
    again = rewrite(apply(result.operations, pod), NEWEST)
    assert again.operations == []
    assert again.claims == {}


@given(pods.pods())
def test_what_is_said_is_what_was_done(pod: Json) -> None:
    result = rewrite(pod, NEWEST)
    claims = new_claims(pod, apply(result.operations, pod))
    assert sum(result.claims.values()) == len(claims)
    for profile, number in result.claims.items():
        assert [template_of(claim) for claim in claims].count(profile.template) == number
    odd = {
        name
        for _, _, container in pods.each(pod)
        for amounts in ("limits", "requests")
        for name in (container.get("resources") or {}).get(amounts) or {}
        if name in pods.ODD
    }
    unknown = sum(profile.attribute == "9g.999gb" for profile in result.claims)
    assert len(result.warnings) == len(odd) + unknown
    assert all(len(warning) <= 160 and warning.isprintable() for warning in result.warnings)


# -- what the API server would take --------------------------------------------------------------

KUBERNETES = {"1.27": "v1alpha2", "1.30": "v1alpha2", "1.31": "v1alpha3", "1.34": "v1"}
KUBERNETES["1.37"] = "v1"


def whole_pod(*limits: dict[str, str]) -> Json:
    containers = [
        {"name": f"c{i}", "image": "busybox", "resources": {"limits": dict(limit)}}
        for i, limit in enumerate(limits)
    ]
    spec = {"containers": containers, "initContainers": copy.deepcopy(containers)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}


@pytest.mark.parametrize(("kubernetes", "version"), KUBERNETES.items())
def test_rewritten_pods_are_valid_by_the_published_schemas(kubernetes: str, version: str) -> None:
    mig = "nvidia.com/mig-1g.5gb"
    for pod in (
        whole_pod({mig: "1"}),
        whole_pod({mig: "2", "cpu": "1"}, {"nvidia.com/mig-3g.20gb": "1"}),
        whole_pod({mig: "0"}),
        load("create", "many")["request"]["object"],
    ):
        result = rewritten(pod, VERSIONS[version])
        kubernetes_validate.validate(result, kubernetes, strict=True)


def test_the_schemas_tell_a_right_claim_from_a_wrong_one() -> None:
    pod = whole_pod({"nvidia.com/mig-1g.5gb": "1"})
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(rewritten(pod, VERSIONS["v1"]), "1.30", strict=True)
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(rewritten(pod, VERSIONS["v1alpha2"]), "1.34", strict=True)


# -- R7, R8: what is refused ---------------------------------------------------------------------

MIG = "nvidia.com/mig-1g.5gb"


def pod_of(*containers: Json, **spec: Any) -> Json:
    return {"metadata": {"name": "p"}, "spec": {"containers": list(containers), **spec}}


def limits(n: object, **more: Any) -> Json:
    return {"name": "c", "resources": {"limits": {MIG: n}, **more}}


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (
            {"limits": {MIG: "500m"}},
            f'spec.containers[0].resources.limits[{MIG}]: Invalid value: "500m": '
            "must be an integer",
        ),
        (
            # What the API server makes of the line above: one line for one mistake.
            {"limits": {MIG: "500m"}, "requests": {MIG: "500m"}},
            f'spec.containers[0].resources.limits[{MIG}]: Invalid value: "500m": '
            "must be an integer",
        ),
        (
            {"limits": {MIG: "-1"}},
            f'spec.containers[0].resources.limits[{MIG}]: Invalid value: "-1": '
            "must be greater than or equal to 0",
        ),
        (
            {"limits": {MIG: "1"}, "requests": {MIG: "2"}},
            'spec.containers[0].resources.requests: Invalid value: "2": '
            f"must be equal to {MIG} limit of 1",
        ),
        (
            {"requests": {MIG: "1"}},
            "spec.containers[0].resources.limits: Required value: "
            "Limit must be set for non overcommitable resources",
        ),
        (
            {"limits": {MIG: "one"}},
            f'spec.containers[0].resources.limits[{MIG}]: Invalid value: "one": '
            "quantities must match the regular expression "
            "'^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            {"limits": {MIG: "1k"}},
            f'spec.containers[0].resources.limits[{MIG}]: Invalid value: "1k": '
            "must be less than or equal to 112, 16 GPUs of 7 slices",
        ),
        (
            {"limits": {MIG: "-1500m"}},
            f'[spec.containers[0].resources.limits[{MIG}]: Invalid value: "-1500m": '
            "must be greater than or equal to 0, "
            f'spec.containers[0].resources.limits[{MIG}]: Invalid value: "-1500m": '
            "must be an integer]",
        ),
        ([], "spec.containers[0].resources: must be an object"),
        ({"limits": "all"}, "spec.containers[0].resources.limits: must be an object"),
        (
            {"limits": {MIG: 1}, "claims": {}},
            "spec.containers[0].resources.claims: must be an array",
        ),
    ],
)
def test_a_pod_that_the_api_server_would_refuse_is_refused(resources: object, message: str) -> None:
    with pytest.raises(InvalidPod) as caught:
        rewrite(pod_of({"name": "c", "resources": resources}), NEWEST)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("pod", "message"),
    [
        ({"spec": []}, "spec: must be an object"),
        ({"spec": {"containers": {}}}, "spec.containers: must be an array"),
        ({"spec": {"containers": [[]]}}, "spec.containers[0]: must be an object"),
        ({"spec": {"initContainers": [1]}}, "spec.initContainers[0]: must be an object"),
        (
            pod_of(limits(1), resourceClaims={}),
            "spec.resourceClaims: must be an array",
        ),
    ],
)
def test_what_is_no_pod_is_refused_by_its_path(pod: Json, message: str) -> None:
    with pytest.raises(InvalidPod) as caught:
        rewrite(pod, NEWEST)
    assert str(caught.value) == message


def test_as_many_slices_as_the_largest_machine_has_and_no_more() -> None:
    half = MAX_SLICES // 2
    assert sum(rewrite(pod_of(limits(half), limits(half)), NEWEST).claims.values()) == MAX_SLICES
    with pytest.raises(InvalidPod, match=r'spec: Invalid value: "113 MIG slices": .* at most 112'):
        rewrite(pod_of(limits(half), limits(half + 1)), NEWEST)


def test_init_containers_reuse_claims_and_so_do_not_count_twice() -> None:
    every = limits(MAX_SLICES)
    result = rewrite(pod_of(every, initContainers=[every, every]), NEWEST)
    assert sum(result.claims.values()) == MAX_SLICES


def test_the_patch_does_not_grow_with_the_number_of_init_containers() -> None:
    inits = [limits(MAX_SLICES)] * (MAX_REFERENCES // MAX_SLICES + 1)
    with pytest.raises(InvalidPod, match=r"^spec\.initContainers: Invalid value: .* at most 1792"):
        rewrite(pod_of({"name": "c"}, initContainers=inits), NEWEST)


def test_what_is_said_does_not_grow_with_what_was_typed() -> None:
    wrong = pod_of(*[limits("x" * 10_000)] * 10_000)
    with pytest.raises(InvalidPod) as caught:
        rewrite(wrong, NEWEST)
    assert len(caught.value.errors) == 8
    assert len(str(caught.value)) < 3000
    odd = {f"nvidia.com/mig-{'odd' * 100}-{i}": "1" for i in range(10_000)}
    warnings = rewrite(pod_of({"name": "c", "resources": {"limits": odd}}), NEWEST).warnings
    assert len(warnings) == 8
    assert max(map(len, warnings)) < 160


def test_no_claim_is_named_for_a_pod_that_is_too_large() -> None:
    def name() -> str:
        raise AssertionError("a claim was named")

    for pod in (pod_of(*[limits(112)] * 50_000), pod_of(initContainers=[limits(112)] * 50_000)):
        with pytest.raises(InvalidPod):
            rewrite(pod, NEWEST, name)


# -- R9 to R11 -----------------------------------------------------------------------------------


def test_a_mirror_pod_is_left_alone() -> None:
    pod = pod_of(limits("500m"))
    pod["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "0123"}
    assert rewrite(pod, NEWEST).operations == []
    assert restore(pod, pod).operations == []


def test_a_container_that_another_webhook_adds_is_rewritten_too() -> None:
    once = rewritten(pod_of(limits(1)))
    once["spec"]["containers"].append(limits(2))
    twice = rewritten(once)
    assert twice["spec"]["containers"][0] == once["spec"]["containers"][0]
    assert len(twice["spec"]["resourceClaims"]) == 3
    assert MIG not in json.dumps(twice)


def test_an_init_container_that_another_webhook_adds_uses_the_claims_that_are_there() -> None:
    once = rewritten(pod_of(limits(2)))
    once["spec"]["initContainers"] = [limits(1), limits(3)]
    twice = rewritten(once)
    there, ours = ({c["name"] for c in pod["spec"]["resourceClaims"]} for pod in (once, twice))
    first, second = (
        {claim["name"] for claim in container["resources"]["claims"]}
        for container in twice["spec"]["initContainers"]
    )
    assert len(ours) == 3
    assert first < there
    assert second == ours


def test_no_container_uses_a_claim_twice() -> None:
    """An init container that uses one of two claims gets the other for its second slice."""
    once = rewritten(pod_of(limits(2)))
    names = [claim["name"] for claim in once["spec"]["resourceClaims"]]
    once["spec"]["initContainers"] = [{**limits(2), "name": "i"}]
    once["spec"]["initContainers"][0]["resources"]["claims"] = [{"name": names[0]}]
    twice = rewritten(once)
    [init] = twice["spec"]["initContainers"]
    assert [claim["name"] for claim in init["resources"]["claims"]] == names
    assert twice["spec"]["resourceClaims"] == once["spec"]["resourceClaims"]


def test_what_only_init_containers_held_is_used_again() -> None:
    once = rewritten(pod_of(limits(1), initContainers=[limits(3)]))
    once["spec"]["initContainers"].append(limits(3))
    twice = rewritten(once)
    assert twice["spec"]["resourceClaims"] == once["spec"]["resourceClaims"]
    first, second = twice["spec"]["initContainers"]
    assert first["resources"] == second["resources"]


def test_slices_that_only_init_containers_need_count_too() -> None:
    other = {"name": "i", "resources": {"limits": {"nvidia.com/mig-3g.20gb": 12}}}
    assert sum(rewrite(pod_of(limits(100), initContainers=[other]), NEWEST).claims.values()) == 112
    other["resources"]["limits"]["nvidia.com/mig-3g.20gb"] = 13  # type: ignore[index]
    with pytest.raises(InvalidPod, match="113 MIG slices"):
        rewrite(pod_of(limits(100), initContainers=[other]), NEWEST)


def came_back(pod: Json, *amounts: str) -> Json:
    """The pod after `kubectl apply` of a manifest with these limits."""
    updated = copy.deepcopy(pod)
    for container, n in zip(updated["spec"]["containers"], amounts, strict=True):
        container.setdefault("resources", {}).update(limits={MIG: n}, requests={MIG: n})
    return updated


@pytest.mark.parametrize("spelling", ["2", "2e0", "2000m"])
@pytest.mark.parametrize("version", VERSIONS)
def test_limits_that_an_update_brings_back_are_taken_out(spelling: str, version: str) -> None:
    old = rewritten(pod_of(limits(2), limits(0)), VERSIONS[version])
    new = came_back(old, spelling, "0")
    assert apply(restore(new, old).operations, new) == old


@pytest.mark.parametrize("amounts", [("1", "0"), ("3", "0"), ("2", "1"), ("two", "0")])
def test_other_limits_are_left_for_the_api_server_to_refuse(amounts: tuple[str, str]) -> None:
    old = rewritten(pod_of(limits(2), limits(0)))
    new = came_back(old, *amounts)
    assert restore(new, old).operations == []


@pytest.mark.parametrize("n", ["0", "1"])
def test_a_pod_from_before_the_webhook_keeps_its_limits(n: str) -> None:
    """Its spec is immutable: to take them out would refuse every update of its labels."""
    old = pod_of(limits(n))
    new = copy.deepcopy(old)
    new["metadata"]["labels"] = {"a": "b"}
    assert restore(new, old).operations == []


def with_limits_again(result: Json, pod: Json) -> Json:
    """A rewritten pod, with the limits and requests that it had before beside its claims."""
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


@given(pods.pods(), APIS)
def test_what_was_rewritten_can_be_applied_again(pod: Json, api: ResourceAPI) -> None:
    old = rewritten(pod, api)
    new = with_limits_again(old, pod)
    assert apply(restore(new, old).operations, new) == old


@given(pods.pods(), APIS)
def test_limits_that_come_back_between_two_passes_give_no_second_claims(
    pod: Json, api: ResourceAPI
) -> None:
    """A LimitRange's defaults do, since the API server applies them after each webhook."""
    once = rewritten(pod, api)
    assert rewritten(with_limits_again(once, pod), api) == once


@pytest.mark.parametrize(("default", "claims"), [(1, 2), (2, 2), (3, 3)])
def test_claims_of_an_earlier_pass_count_towards_a_limit(default: int, claims: int) -> None:
    once = rewritten(pod_of(limits(2)))
    twice = rewritten(came_back(once, str(default)))
    assert len(twice["spec"]["resourceClaims"]) == claims
    assert MIG not in json.dumps(twice)


WORDS = "spec containers initContainers resources limits requests claims resourceClaims source name"
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*WORDS.split(), MIG]), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.just("spec") | st.just("metadata"), json_values), json_values)
def test_any_object_is_rewritten_or_refused(pod: Json, old: Any) -> None:
    try:
        operations = rewrite(pod, NEWEST).operations
    except InvalidPod:
        operations = []
    apply(operations, pod)
    if isinstance(old, dict):
        apply(restore(pod, old).operations, pod)
