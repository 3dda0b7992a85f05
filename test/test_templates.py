import re
from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice import profiles
from instaslice.patch import Json, add
from instaslice.profiles import Resource
from instaslice.resource_api import DIFFERENT_GPUS, NEWEST, SAME_GPU, VERSIONS, ResourceAPI
from instaslice.resources import bigger, is_subdomain, read_mapping
from instaslice.templates import (
    DeviceClaim,
    DeviceRequest,
    claim_of,
    difference,
    from_template,
    is_ours,
    objects,
    stands_for,
)
from test.support.reviews import apply

#: For each version of the API, a Kubernetes version whose published schemas have it.
KUBERNETES = {"1.27": "v1alpha2", "1.30": "v1alpha2", "1.31": "v1alpha3", "1.32": "v1beta1"}
KUBERNETES |= {"1.33": "v1beta2", "1.34": "v1", "1.37": "v1"}

[WHOLE_GPU] = read_mapping(["nvidia.com/gpu=gpu.nvidia.com"]).mapped.values()


def profile(name: str) -> Resource:
    found = profiles.from_attribute(name)
    assert found
    return found


@pytest.mark.parametrize(("kubernetes", "version"), KUBERNETES.items())
def test_objects_match_the_published_schemas(kubernetes: str, version: str) -> None:
    for known in profiles.known_profiles():
        other, template = objects(VERSIONS[version], claim_of(known), "ml")
        assert template["kind"] == "ResourceClaimTemplate"
        kubernetes_validate.validate(template, kubernetes, strict=True)
        if version != "v1alpha2":  # whose other object is the driver's
            assert other["metadata"]["name"] == f"{template['metadata']['name']}.nvidia.com"
            kubernetes_validate.validate(other, kubernetes, strict=True)
            extended = known.name if version == "v1" else None
            assert other["spec"].get("extendedResourceName") == extended


def test_a_known_profile_is_asked_for_through_its_class() -> None:
    made, template = objects(NEWEST, claim_of(profile("1g.10gb+me")), "ml")
    labels = {"app.kubernetes.io/managed-by": "instaslice"}
    assert made == {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": "mig-1g.10gb.me.nvidia.com", "labels": labels},
        "spec": {
            "extendedResourceName": "nvidia.com/mig-1g.10gb.me",
            "selectors": [
                {
                    "cel": {
                        "expression": "device.driver == 'gpu.nvidia.com' && "
                        "device.attributes['gpu.nvidia.com'].type == 'mig' && "
                        "device.attributes['gpu.nvidia.com'].profile == '1g.10gb+me'"
                    }
                }
            ],
        },
    }
    exactly = {"deviceClassName": "mig-1g.10gb.me.nvidia.com"}
    request = {"name": "mig-1g-10gb-me", "exactly": exactly}
    assert template == {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "mig-1g.10gb.me", "namespace": "ml", "labels": labels},
        "spec": {"spec": {"devices": {"requests": [request]}}},
    }


def test_an_unknown_profile_is_asked_for_through_the_drivers_class() -> None:
    """Classes are cluster-wide, so users who create pods must not be able to create many."""
    [template] = objects(NEWEST, claim_of(profile("9g.999gb")))
    [request] = template["spec"]["spec"]["devices"]["requests"]
    expression = "device.attributes['gpu.nvidia.com'].profile == '9g.999gb'"
    assert request["exactly"] == {
        "deviceClassName": "mig.nvidia.com",
        "selectors": [{"cel": {"expression": expression}}],
    }


@pytest.mark.parametrize(
    ("resource", "kind", "spec"),
    [
        (profile("1g.10gb+me"), "MigDeviceClaimParameters", {"profile": "1g.10gb+me"}),
        (WHOLE_GPU, "GpuClaimParameters", {"count": 1}),
    ],
)
def test_in_v1alpha2_parameters_come_before_the_template_that_names_them(
    resource: Resource, kind: str, spec: Json
) -> None:
    parameters, template = objects(VERSIONS["v1alpha2"], claim_of(resource))
    assert (parameters["kind"], parameters["spec"]) == (kind, spec)
    name = parameters["metadata"]["name"]
    reference = {"apiGroup": "gpu.resource.nvidia.com", "kind": kind, "name": name}
    wanted = {"resourceClassName": "gpu.nvidia.com", "parametersRef": reference}
    assert template["spec"]["spec"] == wanted
    assert "namespace" not in template["metadata"]


def test_alternatives_and_placement() -> None:
    small, large = profile("3g.20gb"), profile("4g.20gb")
    either = DeviceRequest((small, large), 2)
    claim = DeviceClaim((either, DeviceRequest((small,)), DeviceRequest((small,))), SAME_GPU)
    *classes, template = objects(NEWEST, claim, "ml")
    assert [c["metadata"]["name"] for c in classes] == [small.device_class, large.device_class]
    assert template["metadata"]["name"] == (
        "same-gpu-mig-3g.20gb-or-4g.20gb.x2-and-mig-3g.20gb-and-mig-3g.20gb"
    )
    asks = {"exactly": {"deviceClassName": "mig-3g.20gb.nvidia.com"}}
    assert template["spec"]["spec"]["devices"] == {
        "requests": [
            {
                "name": "mig-3g-20gb-x2",
                "firstAvailable": [
                    {"name": c.request, "deviceClassName": c.device_class, "count": 2}
                    for c in (small, large)
                ],
            },
            {"name": "mig-3g-20gb", **asks},
            {"name": "mig-3g-20gb-2", **asks},
        ],
        "constraints": [{"matchAttribute": "gpu.nvidia.com/parentUUID"}],
    }
    for kubernetes in ("1.34", "1.37"):
        kubernetes_validate.validate(template, kubernetes, strict=True)
    *_, apart = objects(NEWEST, DeviceClaim(claim.requests, DIFFERENT_GPUS))
    constraints = apart["spec"]["spec"]["devices"]["constraints"]
    assert constraints == [{"distinctAttribute": "gpu.nvidia.com/parentUUID"}]


@pytest.mark.parametrize(
    ("first", "steps", "serving"),
    [
        ("1g.5gb", "12347", "1g.5gb 1g.10gb 1g.20gb 2g.10gb 3g.40gb 7g.80gb"),
        ("2g.20gb", "2347", "2g.20gb 3g.40gb 7g.80gb"),
        ("3g.40gb", "347", "3g.40gb 7g.80gb"),
        ("7g.40gb", "7", "7g.40gb 7g.80gb"),
        ("1g.5gb+me", "12347", "1g.5gb+me 1g.24gb+me.all"),
        ("1g.24gb-me", "12347", "1g.24gb-me 3g.40gb 7g.80gb"),
        ("1g.0gb+me", "12347", "1g.0gb+me 1g.5gb+me 1g.24gb+me.all"),
    ],
)
def test_the_choices_of_or_bigger(first: str, steps: str, serving: str) -> None:
    request = DeviceRequest((profile(first), *bigger(profile(first))))
    names = [choice.request for choice in request.choices[1:]]
    assert names == [f"bigger-{step}g" for step in steps]
    published = "7g.80gb 1g.5gb 1g.10gb 3g.40gb 1g.20gb 2g.10gb 1g.5gb+me 1g.24gb+me.all half"
    published += " 1g.24gb+gfx 1g.24gb-me"
    assert request.profiles(published.split()) == serving.split()


@pytest.mark.property
@given(st.integers(1, 400), st.integers(0, 4000))
def test_the_pattern_of_or_bigger_matches_larger_memories(least: int, memory: int) -> None:
    first = profile(f"1g.{least}gb")
    (pattern,) = re.findall(r"matches\('(.*?)'\)", bigger(first)[1].selector)
    assert (re.search(pattern, f"2g.{memory}gb") is not None) == (memory >= least)
    assert not re.search(pattern, f"1g.{memory}gb")
    assert not re.search(pattern, f"2g.{memory}gb+me")


# -- names -----------------------------------------------------------------------------------------

MAPPED = read_mapping(["nvidia.com/gpu=gpu.nvidia.com", "example.com/foo-or-bar=foo.example.com"])
MIG_RESOURCES = profiles.known_profiles()
requests = st.builds(
    DeviceRequest,
    st.lists(st.sampled_from(MIG_RESOURCES), min_size=1, max_size=8, unique=True).map(tuple),
    st.integers(1, 32),
) | st.builds(
    lambda first, count: DeviceRequest((first, *bigger(first)), count),
    st.sampled_from([*profiles.known_profiles(), profile("1g.0gb+me")]),
    st.integers(1, 32),
)
placed = st.builds(
    DeviceClaim,
    st.lists(requests, min_size=1, max_size=32).map(tuple),
    st.sampled_from([SAME_GPU, DIFFERENT_GPUS]),
)
alone = st.builds(
    lambda request: DeviceClaim((request,)),
    requests
    | st.builds(
        lambda resource, count: DeviceRequest((resource,), count),
        st.sampled_from([*MAPPED.mapped.values()]),
        st.integers(1, 112),
    ),
)


@pytest.mark.property
@given(alone | placed)
def test_a_templates_name_says_what_it_asks_for(claim: DeviceClaim) -> None:
    name = claim.template
    assert is_subdomain(name)
    assert is_ours(name, MAPPED)
    read = from_template(name, MAPPED)
    # A long name ends with a digest, which cannot be read back.
    assert read == claim or (read is None and len(name) > 253 - 17)


@pytest.mark.property
@given(placed)
def test_a_requests_name_says_what_a_limit_asked_for(claim: DeviceClaim) -> None:
    names = claim.request_names
    assert len(set(names)) == len(names)
    for name, request in zip(names, claim.requests, strict=True):
        assert len(name) <= 63
        assert re.fullmatch("[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
        assert stands_for(claim.template, name, MAPPED) == (request.resource, request.count)


@pytest.mark.property
@given(st.text("mig-1g.5x2oran0sedptu", max_size=80) | st.text(max_size=20), st.none() | st.text())
def test_reading_any_name_raises_no_error(name: str, request: str | None) -> None:
    stands_for(name, request, MAPPED)
    read = from_template(name, MAPPED)
    assert read is None or read.template == name


@pytest.mark.parametrize("request_", ["gpu", "mig-banana", "", "a" * 64, None, 1])
def test_a_foreign_request_replaces_no_limit(request_: object) -> None:
    placed_ = "same-gpu-mig-1g.5gb.x2"
    assert stands_for(placed_, "mig-1g-5gb-x2", MAPPED) is not None
    assert stands_for(placed_, request_, MAPPED) is None


@pytest.mark.parametrize(
    "name",
    [
        *("mig-1g.5gb.x1", "mig-1g.5gb.x02", "mig-1g.5gb-or-", "mig-1g.5gb-or-mig-2g.10gb"),
        *(
            "same-gpu-gpu.nvidia.com",
            "same-gpu-",
            "theirs",
            "gpu.nvidia.com.x0",
            "mig-1g.5gb.x1000",
        ),
        "-or-".join(["mig-1g.5gb"] * 100_000),
    ],
)
def test_a_name_that_instaslice_would_not_use_is_foreign(name: str) -> None:
    assert from_template(name, MAPPED) is None


# -- objects that others created under InstaSlice's names ------------------------------------------


def made(api: ResourceAPI, *names: str, count: int = 1, placement: str = "") -> list[Json]:
    """The objects for a claim with these profiles as choices."""
    request = DeviceRequest(tuple(profile(name) for name in names), count)
    return objects(api, DeviceClaim((request,), placement), "ml")


def defaulted(value: Any) -> Any:
    """Add the API server's defaults to an object."""
    if isinstance(value, list):
        return [defaulted(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: defaulted(each) for key, each in value.items()}
    if "deviceClassName" in found:
        found = {"allocationMode": "ExactCount", "count": 1, "adminAccess": None, **found}
    if "resourceClassName" in found:
        found = {"allocationMode": "WaitForFirstConsumer", **found}
    if "spec" in found:  # API servers of 1.27 to 1.33 do not omit an empty time
        found["metadata"] = {"creationTimestamp": None}
    return found


@pytest.mark.parametrize("api", VERSIONS.values(), ids=lambda api: api.version)
@pytest.mark.parametrize("count", [1, 2])
def test_instaslices_own_objects_do_not_differ(api: ResourceAPI, count: int) -> None:
    shapes = [made(api, "1g.5gb", count=count), made(api, "9g.999gb", count=count)]
    if api.version == "v1":
        shapes += [made(api, "3g.20gb", "4g.20gb"), made(api, "1g.5gb", placement="same-gpu")]
    for manifests in shapes:
        for ours in manifests:
            theirs = {**defaulted(ours), "metadata": {"uid": "1", "resourceVersion": "7"}}
            assert difference(ours, theirs) == ""


DEVICES = "/spec/spec/devices"
EXACTLY = f"{DEVICES}/requests/0/exactly"
OTHER_CLASS = "deviceClassName is gpu.nvidia.com, not mig-1g.5gb.nvidia.com"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (
            EXACTLY,
            {"deviceClassName": "mig-1g.5gb.nvidia.com", "allocationMode": "All"},
            "requests[0].exactly.count is missing, not 2, "
            "requests[0].exactly.allocationMode is All",
        ),
        (f"{EXACTLY}/adminAccess", True, "requests[0].exactly.adminAccess is true"),
        (f"{EXACTLY}/deviceClassName", "gpu.nvidia.com", f"requests[0].exactly.{OTHER_CLASS}"),
        (f"{EXACTLY}/selectors", [{}], "requests[0].exactly.selectors is a list of 1"),
        (f"{EXACTLY}/count", 1, "requests[0].exactly.count is missing, not 2"),
        (f"{DEVICES}/config", [{"opaque": {"x" * 999: 1}}], "config is a list of 1"),
        (f"{DEVICES}/requests/-", {"name": "x"}, "requests is a list of 2, not a list of 1"),
        ("/spec", None, "spec is missing"),
        ("/spec/spec", 7, "spec is 7"),
    ],
)
def test_what_a_user_changed_in_a_template(path: str, value: object, said: str) -> None:
    [_, ours] = made(NEWEST, "1g.5gb", count=2)
    assert difference(ours, apply([add(path, value)], ours)) == said


def test_difference_of_a_class() -> None:
    [ours, _] = made(NEWEST, "1g.5gb")
    change = add("/spec/selectors/0/cel/expression", "false\n" + "x" * 1000)
    said = difference(ours, apply([change], ours))
    assert said.startswith("selectors[0].cel.expression is false\\nxxx")
    assert len(said) < 200


def test_a_difference_is_short_for_any_object() -> None:
    [_, ours] = made(NEWEST, "1g.5gb")
    theirs = {"spec": {f"{'k' * 500}{n}": "v" * 500 for n in range(500)}}
    assert len(difference(ours, theirs)) < 700
