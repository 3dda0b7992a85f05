"""The claims of a pod: the number of devices (R6, R8), wishes (R13), and mapped resources."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from instaslice.annotations import read_alternatives
from instaslice.invalid import MAX_MESSAGES, InvalidPod
from instaslice.resource_api import NEWEST, SAME_GPU, VERSIONS
from instaslice.resources import DIGEST, MAX_NAME, Resources, read_mapping
from instaslice.rewrite import Rewrite, rewrite
from instaslice.templates import objects
from test.support import pods
from test.support.pods import MIG, Json, limits, pod_of
from test.support.reviews import apply
from test.support.rewriting import rewritten, slices_of, template_of, templates_of


def of(count: int, name: str = "nvidia.com/mig-3g.20gb") -> Json:
    return {"name": "c", "resources": {"limits": {name: count}}}


@pytest.mark.parametrize(
    ("containers", "inits", "is_taken"),
    [
        ([limits(56), limits(56)], [], True),
        ([limits(56), limits(57)], [], False),
        ([limits(112)], [limits(112), limits(112)], True),  # they count once
        ([limits(100)], [of(12)], True),
        ([limits(100)], [of(13)], False),  # the extras of init containers count
    ],
)
def test_a_pod_holds_at_most_the_slices_of_the_largest_machine(
    containers: list[Json], inits: list[Json], is_taken: bool
) -> None:
    pod = pod_of(*containers, initContainers=inits)
    if is_taken:
        assert sum(slices_of(t)[1] for t in templates_of(pod)) == 112
        return
    with pytest.raises(InvalidPod, match=r'spec: Invalid value: "113 devices": .* hold 112'):
        rewrite(pod, NEWEST)


# -- R13 -------------------------------------------------------------------------------------------


def wishing(pod: Json, **annotations: str) -> Json:
    found = {f"instaslice.io/{key}": value for key, value in annotations.items()}
    return {**pod, "metadata": {"name": "p", "annotations": found}}


def templates(result: Rewrite) -> list[str]:
    return [claim.template for claim in result.claims]


EITHER = "3g.20gb or 4g.20gb"


def test_alternatives() -> None:
    result = rewrite(wishing(pod_of(of(2), limits(1)), alternatives=EITHER), NEWEST)
    assert templates(result) == ["mig-3g.20gb-or-4g.20gb.x2", "mig-1g.5gb"]
    assert result.warnings == []


def test_or_bigger_is_one_request_with_growing_choices() -> None:
    result = rewrite(wishing(pod_of(of(2, MIG)), alternatives="1g.5gb or bigger"), NEWEST)
    assert (templates(result), result.warnings) == (["mig-1g.5gb-or-bigger.x2"], [])
    [claim] = result.claims
    [request] = objects(NEWEST, claim)[-1]["spec"]["spec"]["devices"]["requests"]
    choices = request["firstAvailable"]
    names = ["mig-1g-5gb", "bigger-1g", "bigger-2g", "bigger-3g", "bigger-4g", "bigger-7g"]
    assert [choice["name"] for choice in choices] == names
    assert {choice["count"] for choice in choices} == {2}
    assert [choice["deviceClassName"] for choice in choices] == [
        "mig-1g.5gb.nvidia.com",
        *["mig.nvidia.com"] * 5,
    ]


ADMIN = Resources({}, read_alternatives("1g.5gb or bigger; 3g.20gb or 4g.20gb"))


def test_default_alternatives_give_no_warnings() -> None:
    pod = pod_of(of(1, MIG))
    result = rewrite(pod, NEWEST, ADMIN)
    assert (templates(result), result.warnings) == (["mig-1g.5gb-or-bigger"], [])
    assert rewrite(apply(result.operations, pod), NEWEST, ADMIN).operations == []
    result = rewrite(pod, VERSIONS["v1beta2"], ADMIN)
    assert (templates(result), result.warnings) == (["mig-1g.5gb"], [])
    result = rewrite(wishing(pod, alternatives="none"), NEWEST, ADMIN)
    assert (templates(result), result.warnings) == (["mig-1g.5gb"], [])


@pytest.mark.property
@given(pods.pods(), st.sampled_from(["", "same-gpu", "different-gpus"]))
def test_or_bigger_changes_only_the_templates(pod: Json, placement: str) -> None:
    """The containers have the same claims, for the same number of slices."""
    chains = "; ".join(f"{name} or bigger" for name in ["1g.5gb", "3g.20gb", "9g.999gb"])
    wishes = {"placement": placement} if placement else {}

    def shape(**more: str) -> list[object]:
        asks = wishing(pod, **wishes, **more)
        try:
            result = rewrite(asks, NEWEST, new_name=lambda container, _: container)
        except InvalidPod as error:
            assume(not (placement and more and "name fewer profiles" in str(error)))
            raise
        once = apply(result.operations, asks)
        claims = once["spec"].get("resourceClaims") or []
        templates = [claim.get("resourceClaimTemplateName", "") for claim in claims]
        # A longer name ends in a digest.
        assume(max(map(len, templates), default=0) < MAX_NAME - 2 * DIGEST)
        return [
            [template.replace("-or-bigger", "") for template in templates],
            [each.get("resources") for _, _, each in pods.each(once)],
        ]

    assert shape(alternatives=chains) == shape()


@pytest.mark.parametrize("version", ["v1alpha2", "v1alpha3", "v1beta1", "v1beta2"])
def test_a_version_without_alternatives_asks_for_the_first_and_warns(version: str) -> None:
    result = rewrite(wishing(pod_of(of(1)), alternatives=EITHER), VERSIONS[version])
    assert templates(result) == ["mig-3g.20gb"]
    assert result.warnings == [
        f"instaslice.io/alternatives: this cluster's resource.k8s.io/{version} has no "
        "alternatives; only the first is asked for"
    ]


def test_a_chain_that_no_container_uses_gives_a_warning() -> None:
    result = rewrite(wishing(pod_of(limits(1)), alternatives=EITHER), NEWEST)
    assert templates(result) == ["mig-1g.5gb"]
    warning = "instaslice.io/alternatives: no container asks for nvidia.com/mig-3g.20gb"
    assert result.warnings == [warning]


def test_a_placement_is_one_claim_with_a_request_for_each_group() -> None:
    init = [{**limits(1), "name": "i"}]
    pod = wishing(pod_of(limits(2), of(1), initContainers=init), placement=SAME_GPU)
    result = rewrite(pod, NEWEST)
    [claim] = result.claims
    assert result.warnings == []
    assert claim.template == "same-gpu-mig-1g.5gb-and-mig-1g.5gb-and-mig-3g.20gb"
    patched = apply(result.operations, pod)
    [declared] = patched["spec"]["resourceClaims"]
    name = declared["name"]
    assert [c["resources"]["claims"] for c in patched["spec"]["containers"]] == [
        [{"name": name, "request": "mig-1g-5gb"}, {"name": name, "request": "mig-1g-5gb-2"}],
        [{"name": name, "request": "mig-3g-20gb"}],
    ]
    [only] = patched["spec"]["initContainers"]
    assert only["resources"]["claims"] == [{"name": name, "request": "mig-1g-5gb"}]
    assert objects(NEWEST, claim)[-1]["spec"]["spec"]["devices"]["constraints"] == [
        {"matchAttribute": "gpu.nvidia.com/parentUUID"}
    ]
    assert not rewrite(patched, NEWEST).operations


@pytest.mark.parametrize(
    ("pod", "version", "why"),
    [
        (pod_of(limits(2)), "v1alpha2", "resource.k8s.io/v1alpha2 cannot promise same-gpu"),
        (pod_of(limits(33)), "v1", "takes one claim, of at most 32 slices, not 33"),
    ],
)
def test_a_placement_that_cannot_be_promised_is_refused(pod: Json, version: str, why: str) -> None:
    with pytest.raises(InvalidPod) as caught:
        rewrite(wishing(pod, placement=SAME_GPU), VERSIONS[version])
    path = "metadata.annotations[instaslice.io/placement]"
    assert str(caught.value).startswith(f"{path}: Forbidden: ")
    assert why in str(caught.value)


@pytest.mark.parametrize(("last", "length"), [(2, 253), (10, 254)])
def test_alternatives_must_fit_in_the_name_of_a_placed_claim(last: int, length: int) -> None:
    """A LimitRange's policy reads them there. Defaults are left out instead."""
    pod = wishing(pod_of(*[of(1)] * 7, of(2), of(last)), placement=SAME_GPU)
    default = Resources({}, read_alternatives(EITHER))
    [name] = templates(rewrite(pod, NEWEST, default))
    asks = wishing(pod, placement=SAME_GPU, alternatives=EITHER)
    if length <= 253:
        assert [name] == templates(rewrite(asks, NEWEST))
        assert (len(name), name.count("-or-")) == (length, 9)
        return
    assert "-or-" not in name
    with pytest.raises(InvalidPod) as caught:
        rewrite(asks, NEWEST)
    path = "metadata.annotations[instaslice.io/alternatives]"
    assert str(caught.value).startswith(f"{path}: Forbidden: with same-gpu, ")
    assert f"a name of {length} characters, of at most 253" in str(caught.value)


def test_a_placement_of_32_slices_is_accepted() -> None:
    result = rewrite(wishing(pod_of(limits(32)), placement=SAME_GPU), NEWEST)
    assert templates(result) == ["same-gpu-mig-1g.5gb.x32"]


def test_limits_that_another_webhook_adds_after_a_placement_are_refused() -> None:
    once = rewritten(wishing(pod_of(limits(2)), placement=SAME_GPU))
    once["spec"]["containers"].append(limits(1))
    with pytest.raises(InvalidPod, match="another webhook added a container"):
        rewrite(once, NEWEST)


def test_a_placement_of_one_slice_is_ignored_with_a_warning() -> None:
    pod = wishing(pod_of(limits(1)), placement=SAME_GPU)
    result = rewrite(pod, NEWEST)
    assert templates(result) == ["mig-1g.5gb"]
    warning = "instaslice.io/placement: same-gpu is pointless for a pod of one MIG slice"
    assert result.warnings == [warning]
    again = rewrite(apply(result.operations, pod), NEWEST)
    assert not again.operations
    assert not again.warnings


WISHES: st.SearchStrategy[dict[str, str]] = st.fixed_dictionaries(
    {},
    optional={
        "alternatives": st.sampled_from(
            ["1g.5gb or 3g.20gb", "3g.20gb or 1g.5gb; 1g.5gb or 9g.9gb"]
        ),
        "placement": st.sampled_from(["same-gpu", "different-gpus"]),
    },
)


@pytest.mark.property
@given(pods.pods(), WISHES, st.sampled_from(list(VERSIONS.values())))
def test_annotations_do_not_change_how_many_slices_a_pod_holds(
    pod: Json, wishes: dict[str, str], api: Any
) -> None:
    wanted = {f"mig-{p}": pods.held(pod, f"mig-{p}") for p in pods.PROFILES}
    wanted = {template: n for template, n in wanted.items() if n}
    try:
        result = rewrite(wishing(pod, **wishes), api)
    except InvalidPod as error:
        is_long = "alternatives" in wishes and "name fewer profiles" in str(error)
        is_kept = wishes["placement"] in api.features and sum(wanted.values()) <= 32
        assert is_long or not is_kept
        return
    held: dict[str, int] = {}
    for claim, number in result.claims.items():
        for request in claim.requests:
            template = request.resource.template
            held[template] = held.get(template, 0) + request.count * number
    assert held == wanted
    patched = apply(result.operations, wishing(pod, **wishes))
    assert not rewrite(patched, api).operations


# -- other resources -------------------------------------------------------------------------------

GPU = "nvidia.com/gpu"
MAPPED = read_mapping([f"{GPU}=gpu.nvidia.com", "example.com/foo=foo.example.com"])


def test_a_mapped_resource_is_claimed_by_the_same_rules() -> None:
    init = [{**of(1, GPU), "name": "i"}]
    result = rewritten(pod_of(of(3, GPU), limits(1), initContainers=init), NEWEST, MAPPED)
    assert list(map(template_of, result["spec"]["resourceClaims"])) == [
        "gpu.nvidia.com",
        "gpu.nvidia.com.x2",
        "mig-1g.5gb",
    ]
    assert not rewrite(result, NEWEST, MAPPED).operations
    assert not rewrite(pod_of(of(1, GPU)), NEWEST).operations


def test_wishes_apply_only_to_mig_slices() -> None:
    pod = wishing(pod_of(of(2, GPU), limits(2)), placement=SAME_GPU)
    result = rewrite(pod, NEWEST, MAPPED)
    assert templates(result) == ["gpu.nvidia.com.x2", "same-gpu-mig-1g.5gb.x2"]
    assert result.warnings == ["instaslice.io/placement: it applies only to MIG slices"]


def test_resources_that_v1alpha2_cannot_ask_for_are_refused() -> None:
    classic = VERSIONS["v1alpha2"]
    assert templates(rewrite(pod_of(of(1, GPU)), classic, MAPPED)) == ["gpu.nvidia.com"]
    with pytest.raises(InvalidPod) as caught:
        rewrite(pod_of(of(1, "example.com/foo")), classic, MAPPED)
    assert str(caught.value) == (
        "spec.containers[0].resources.limits[example.com/foo]: Forbidden: "
        "resource.k8s.io/v1alpha2 cannot ask for foo.example.com"
    )
    declines = of(0, "example.com/foo")
    with pytest.raises(InvalidPod) as caught:
        rewrite(pod_of(declines, *[of(1, "example.com/foo")] * 20), classic, MAPPED)
    fields = [error.field for error in caught.value.errors]
    assert fields == [
        f"spec.containers[{i}].resources.limits[example.com/foo]"
        for i in range(1, MAX_MESSAGES + 1)
    ]


OTHER = {"nvidia.com/mig-3g.20gb": 1}
BEFORE = {"name": "before", "resources": {"limits": OTHER}}
SIDECAR = {"name": "sidecar", "restartPolicy": "Always", "resources": {"limits": OTHER}}


@pytest.mark.parametrize(
    ("inits", "placement", "owners"),
    [
        ([BEFORE, limits(1), SIDECAR], {}, ["before mig-3g.20gb", "c mig-1g.5gb"]),
        (
            [BEFORE, {**of(2), "name": "sidecar", "restartPolicy": "Always"}],
            {"placement": SAME_GPU},
            ["before same-gpu-mig-3g.20gb-and-mig-3g.20gb"],
        ),
        ([{**limits(1), "name": 5}], {}, [" mig-1g.5gb"]),  # a name that is not a string is ignored
    ],
)
def test_a_claim_belongs_to_the_first_container_that_uses_it(
    inits: list[Json], placement: dict[str, str], owners: list[str]
) -> None:
    """That decides its place among the claims, and its name in `instaslice rewrite`."""
    named: list[str] = []

    def new_name(container: str, template: str) -> str:
        named.append(f"{container} {template}")
        return str(len(named))

    pod = wishing(pod_of({"name": "c"}, initContainers=inits), **placement)
    rewrite(pod, NEWEST, new_name=new_name)
    assert named == owners


def test_a_second_pass_does_not_warn_about_wishes_already_kept() -> None:
    once = rewritten(wishing(pod_of(of(1)), alternatives=EITHER))
    once["spec"]["containers"].append(limits(1))  # another webhook adds it
    assert rewrite(once, NEWEST).warnings == []


def test_other_devices_may_be_added_to_a_placed_pod() -> None:
    once = rewritten(wishing(pod_of(limits(2)), placement=SAME_GPU))
    once["spec"]["containers"].append(of(1, GPU))
    result = rewrite(once, NEWEST, MAPPED)
    assert (templates(result), result.warnings) == (["gpu.nvidia.com"], [])
