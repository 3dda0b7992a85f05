"""The rules of rewriting, first as properties of any pod, then as cases."""

import copy
import json
from collections import Counter
from typing import Any
from uuid import UUID

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice.invalid import InvalidPod
from instaslice.own_claims import restore
from instaslice.resource_api import NEWEST, VERSIONS, ResourceAPI
from instaslice.rewrite import rewrite
from test.support import pods
from test.support.pods import MIG, Json, limits, pod_of
from test.support.reviews import apply, load
from test.support.rewriting import rewritten, template_of, templates_of

APIS = st.sampled_from(list(VERSIONS.values()))


def new_claims(pod: Json, result: Json) -> list[Json]:
    before = pod["spec"].get("resourceClaims") or []
    after = result["spec"].get("resourceClaims") or []
    assert after[: len(before)] == before
    return list(after[len(before) :])


def renamed(pod: Json, names: dict[str, str]) -> Json:
    text = json.dumps(pod)
    for name, new in names.items():
        text = text.replace(json.dumps(name), json.dumps(new))
    result: Json = json.loads(text)
    return result


@pytest.mark.property
@given(pods.pods(), APIS)
def test_the_patch_gives_exactly_the_expected_pod(pod: Json, api: ResourceAPI) -> None:
    result = rewritten(pod, api)
    wanted = pods.expected(pod, nested=api.version == "v1alpha2", most=api.max_devices)
    mine = [claim["name"] for claim in new_claims(pod, result)]
    theirs = [claim["name"] for claim in new_claims(pod, wanted)]
    uuids = {UUID(name) for name in mine}
    assert {str(each) for each in uuids} == set(mine)
    assert (len(uuids), {each.version for each in uuids} - {4}) == (len(theirs), set())
    assert renamed(result, dict(zip(mine, theirs, strict=True))) == wanted


@pytest.mark.property
@given(pods.pods(), APIS)
def test_a_second_pass_does_nothing_and_the_input_is_not_modified(
    pod: Json, api: ResourceAPI
) -> None:
    original = copy.deepcopy(pod)
    result = rewrite(pod, api)
    assert pod == original
    again = rewrite(apply(result.operations, pod), api)
    assert not again.operations
    assert again.claims == {}


@pytest.mark.property
@given(pods.pods())
def test_the_result_describes_the_patch(pod: Json) -> None:
    result = rewrite(pod, NEWEST)
    templates = Counter(template_of(c) for c in new_claims(pod, apply(result.operations, pod)))
    assert {claim.template: number for claim, number in result.claims.items()} == templates
    odd = {
        name
        for _, _, container in pods.each(pod)
        for amounts in ("limits", "requests")
        for name in (container.get("resources") or {}).get(amounts) or {}
        if name in pods.ODD
    }
    unknown = any("9g.999gb" in template for template in templates)
    assert len(result.warnings) == len(odd) + unknown
    assert all(len(warning) <= 160 and warning.isprintable() for warning in result.warnings)


# -- R2: the exceptions ----------------------------------------------------------------------------


def test_a_limit_above_32_becomes_several_claims() -> None:
    assert templates_of(pod_of(limits(32))) == ["mig-1g.5gb.x32"]
    assert templates_of(pod_of(limits(40))) == ["mig-1g.5gb.x32", "mig-1g.5gb.x8"]
    assert templates_of(pod_of(limits(64))) == ["mig-1g.5gb.x32"] * 2


# -- R5 --------------------------------------------------------------------------------------------


def test_a_limit_of_0_stays_as_it_is() -> None:
    for n in (0, "0", "0e3"):
        assert not rewrite(pod_of(limits(n, requests={MIG: n})), NEWEST).operations
    mixed = pod_of({"resources": {"limits": {MIG: 0, "nvidia.com/mig-3g.20gb": 1}}})
    [container] = rewritten(mixed)["spec"]["containers"]
    assert container["resources"]["limits"] == {MIG: 0}


# -- validity --------------------------------------------------------------------------------------

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
def test_rewritten_pods_match_the_published_schemas(kubernetes: str, version: str) -> None:
    mig = "nvidia.com/mig-1g.5gb"
    for pod in (
        whole_pod({mig: "1"}),
        whole_pod({mig: "2", "cpu": "1"}, {"nvidia.com/mig-3g.20gb": "1"}),
        whole_pod({mig: "0"}),
        load("create", "many")["request"]["object"],
    ):
        result = rewritten(pod, VERSIONS[version])
        kubernetes_validate.validate(result, kubernetes, strict=True)


# -- R9 --------------------------------------------------------------------------------------------


def test_a_mirror_pod_stays_unchanged() -> None:
    old = rewritten(pod_of(limits(1)))
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["resources"]["limits"] = {MIG: 1}
    assert restore(new, old)
    new["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "0123"}
    assert not restore(new, old)
    pod = pod_of(limits("500m"))
    pod["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "0123"}
    assert not rewrite(pod, NEWEST).operations


WORDS = "spec containers initContainers resources limits requests claims resourceClaims source name"
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*WORDS.split(), MIG]), inner, max_size=4)
    ),
    max_leaves=20,
)


@pytest.mark.property
@given(st.dictionaries(st.just("spec") | st.just("metadata"), json_values), json_values)
def test_any_object_is_rewritten_or_refused(pod: Json, old: Any) -> None:
    try:
        operations = rewrite(pod, NEWEST).operations
    except InvalidPod:
        operations = []
    apply(operations, pod)
    if isinstance(old, dict):
        apply(restore(pod, old), pod)
