"""Templates that InstaSlice creates for pods with the rights from `config/`."""

import json
import time
from collections.abc import Iterator

import pytest

from instaslice.profiles import from_attribute
from instaslice.resource_api import VERSIONS, template_name
from instaslice.templates import claim_of, objects
from test.e2e.cluster import Cluster, Json, Refused, fresh_namespace
from test.e2e.pods import container, pod, slices
from test.support.process import until


def made(namespace: Cluster) -> set[str]:
    return {each["metadata"]["name"] for each in namespace.list("ResourceClaimTemplate")}


def may_make(namespace: Cluster, attribute: str) -> bool:
    """Whether the quota allows the template for a profile now."""
    profile = from_attribute(attribute)
    assert profile is not None
    api = VERSIONS[namespace.plane.resource_api]
    *_, template = objects(api, claim_of(profile))
    refusal = namespace.refusal(template)
    assert not refusal or "exceeded quota" in refusal
    return not refusal


def test_fresh_namespace_gets_the_templates_of_a_pod(namespace: Cluster) -> None:
    assert made(namespace) == set()
    manifest = pod("p", container(limits={"mig-1g.5gb": 2, "mig-1g.5gb.me": 1}))
    created, warnings = namespace.create_aloud(manifest)
    assert warnings == []
    assert {template_name(each) for each in created["spec"]["resourceClaims"]} == made(namespace)
    template = namespace.get("ResourceClaimTemplate", "mig-1g.5gb.me")
    assert template["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "instaslice"}
    asked = json.dumps(template["spec"])
    if namespace.plane.resource_api == "v1alpha2":
        parameters = namespace.get("MigDeviceClaimParameters", "mig-1g.5gb.me")
        assert parameters["spec"] == {"profile": "1g.5gb+me"}
        assert '"name": "mig-1g.5gb.me"' in asked
    else:
        assert '"deviceClassName": "mig-1g.5gb.me.nvidia.com"' in asked
        device_class = namespace.get("DeviceClass", "mig-1g.5gb.me.nvidia.com")
        [selector] = device_class["spec"]["selectors"]
        assert "].profile == '1g.5gb+me'" in selector["cel"]["expression"]


def test_dry_run_creates_nothing(namespace: Cluster) -> None:
    namespace.create(pod("p", container(limits={"mig-1g.5gb": 1})), dry_run=True)
    # Templates are created in order: if this one exists, the first would exist, too.
    namespace.create(pod("p", container(limits={"mig-2g.10gb": 1})))
    assert made(namespace) == {"mig-2g.10gb"}


@pytest.mark.parametrize(
    ("squat", "said"),
    [
        ({"allocationMode": "All"}, "allocationMode is All"),
        ({"deviceClassName": "gpu.nvidia.com"}, "is gpu.nvidia.com, not mig-1g.5gb.nvidia.com"),
        ({"adminAccess": True}, "adminAccess is true"),
        ({"selectors": [{"cel": {"expression": "false"}}]}, "selectors is a list of 1"),
        ({"count": 7}, "count is 7"),
        ({}, ""),
    ],
    ids=str,
)
def test_warns_of_a_template_under_a_taken_name(squat: Json, said: str, namespace: Cluster) -> None:
    api = VERSIONS[namespace.plane.resource_api]
    if not api.has_exactly:
        pytest.skip("the shape of requests differs")
    profile = from_attribute("1g.5gb")
    assert profile is not None
    label = {"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}}
    namespace.patch("Namespace", namespace.namespace, label)
    *_, template = objects(api, claim_of(profile))
    template["spec"]["spec"]["devices"]["requests"][0]["exactly"] |= squat
    namespace.create(template)
    _, warnings = namespace.create_aloud(pod("p"))
    assert len(warnings) == bool(said)
    assert all(said in warning for warning in warnings)


def test_deleted_class_is_recreated_for_the_next_pod(namespace: Cluster, cluster: Cluster) -> None:
    if namespace.plane.resource_api == "v1alpha2":
        pytest.skip("v1alpha2 has no device classes")
    namespace.create(pod("p"))
    until(lambda: cluster.find("DeviceClass", "mig-1g.5gb.nvidia.com"), "the class")
    cluster.delete("DeviceClass", "mig-1g.5gb.nvidia.com")
    assert namespace.create_aloud(pod("q")).warnings == []
    until(lambda: cluster.find("DeviceClass", "mig-1g.5gb.nvidia.com"), "the class")


def nothing_of(namespace: Cluster, resource: str) -> None:
    """Create a quota that allows none of a resource."""
    hard = {resource: "0"}
    namespace.make("ResourceQuota", "none", spec={"hard": hard})
    # The API server enforces a quota's status, and no controller may be running to set it.
    namespace.patch("ResourceQuota/status", "none", {"status": {"hard": hard, "used": hard}})


def test_template_refused_by_a_quota_is_created_later(namespace: Cluster) -> None:
    nothing_of(namespace, "count/resourceclaimtemplates.resource.k8s.io")
    until(lambda: not may_make(namespace, "3g.20gb"), "the quota holds")
    created, (warning,) = namespace.create_aloud(pod("p"))
    assert slices(created) == {"main": ["mig-1g.5gb"]}
    said = "ResourceClaimTemplate mig-1g.5gb cannot be created: exceeded quota: none, requested: "
    assert warning.startswith(said)
    assert made(namespace) == set()
    namespace.delete("ResourceQuota", "none")
    until(lambda: made(namespace), "the template")
    assert namespace.create_aloud(pod("q")).warnings == []


def test_refused_pods_leave_few_templates_and_delay_nobody(
    namespace: Cluster, cluster: Cluster, numbers: Iterator[int]
) -> None:
    """An author whose quota allows no pod still makes InstaSlice create templates."""
    nothing_of(namespace, "pods")
    until(lambda: "exceeded quota" in namespace.refusal(pod("q", container())), "the quota holds")
    waited = []
    for number in range(10):
        names = [f"mig-{number + 1}g.{n}gb" for n in range(1000, 1112)]
        with pytest.raises(Refused, match="exceeded quota"):
            namespace.create(pod("p", *(container(n.replace(".", "-"), {n: 1}) for n in names)))
        with fresh_namespace(cluster, numbers, {}) as victim:
            began = time.monotonic()
            victim.create(pod("p", container(limits={"mig-3g.20gb": 1})))
            until(lambda v=victim: made(v) == {"mig-3g.20gb"}, "the template")
            waited.append(time.monotonic() - began)
    assert max(waited) < 5, waited
    assert 0 < len(made(namespace)) <= 22
    if namespace.plane.resource_api != "v1alpha2":
        assert len(cluster.list("DeviceClass")) < 100


@pytest.mark.parametrize("verb", ["list", "watch", "update", "patch", "delete"])
def test_instaslice_has_no_other_rights(namespace: Cluster, verb: str) -> None:
    account = "--as=system:serviceaccount:instaslice-system:instaslice"
    for resource in ("resourceclaimtemplates.resource.k8s.io", "pods", "secrets"):
        answer = namespace.kubectl("auth", "can-i", verb, resource, account)
        assert answer.stdout == "no\n"
