"""What the API server itself holds, by the component `policies`, of whoever is beside it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from instaslice import profiles, templates
from instaslice.resource_api import ALTERNATIVES, SAME_GPU, VERSIONS, ResourceAPI
from instaslice.resources import bigger, of_profile, read_mapping
from instaslice.templates import DeviceClaim, DeviceRequest, claim_of
from test.e2e import gpus
from test.e2e.cluster import Cluster, Json, Refused
from test.e2e.installation import ACCOUNT, FIRST_WITH_POLICIES
from test.e2e.pods import container, extended, pod, wishing
from test.support.process import until


@pytest.fixture(autouse=True)
def since(cluster: Cluster) -> None:
    if cluster.plane.version < FIRST_WITH_POLICIES:
        pytest.skip(f"ValidatingAdmissionPolicies begin with Kubernetes {FIRST_WITH_POLICIES}")


# LimitRanges


def limit(cluster: Cluster, kind: str, **amounts: str) -> None:
    """A LimitRange whose Containers have a maximum, and its pods too; "mig_1g" is mig-1g.5gb."""
    most = extended(amounts)
    items = [{"type": "Container", "max": most, "default": dict.fromkeys(most, "0")}]
    if kind == "Pod":
        items[0]["max"] = dict.fromkeys(most, "32")
        items.append({"type": "Pod", "max": most})
    cluster.make("LimitRange", "l", spec={"limits": items})

    def applies() -> bool:
        made = cluster.create(pod("probe", container()), dry_run=True)
        return bool(made["spec"]["containers"][0].get("resources"))

    until(applies, "the LimitRange applies")
    name, n = next(iter(amounts.items()))
    over = pod("probe", asking(int(n) + 1, profile=name))
    until(lambda: said(cluster, over), "the policy has read the LimitRange")


def said(cluster: Cluster, manifest: Json) -> str:
    """How a pod is refused; "" where it is admitted."""
    try:
        cluster.create(manifest, dry_run=True)
    except Refused as refused:
        return str(refused)
    return ""


def asking(n: int, name: str = "main", profile: str = "mig-1g.5gb", **more: Any) -> Json:
    return container(name, {profile: n}, **more)


def claiming(template: str, request: str = "", times: int = 1) -> Json:
    """A pod that was written rewritten."""
    names = [f"c{i}" for i in range(times)]
    uses = [{"name": each, **({"request": request} if request else {})} for each in names]
    declared = [{"name": each, "resourceClaimTemplateName": template} for each in names]
    return pod("p", container(resources={"claims": uses}), resourceClaims=declared)


OVER = "maximum nvidia.com/mig-1g.5gb usage per Container is 2, but limit is "
BIGGER = {"alternatives": "1g.5gb or bigger"}
EITHER = {"alternatives": "2g.10gb or 1g.5gb"}
SAME = {"placement": "same-gpu"}
SIDECAR = {"restartPolicy": "Always"}

#: A pod, and what a maximum of two slices of 1g.5gb for a container says to it.
UNDER_A_MAXIMUM: dict[str, tuple[Json, str]] = {
    "as many": (pod("p", asking(2)), ""),
    "too many": (pod("p", asking(5)), f"{OVER}5"),
    "two containers": (pod("p", asking(2, "a"), asking(2, "b")), ""),
    "the second of two": (pod("p", asking(2, "a"), asking(3, "b")), f"{OVER}3"),
    "an init container": (pod("p", asking(1), initContainers=[asking(4, "i")]), f"{OVER}4"),
    "one that shares": (pod("p", asking(2), initContainers=[asking(2, "i")]), ""),
    "a sidecar": (pod("p", asking(1), initContainers=[asking(3, "i", **SIDECAR)]), f"{OVER}3"),
    "another profile": (pod("p", asking(5, profile="mig-1g.5gb.me")), ""),
    "40, in two claims": (pod("p", asking(40)), f"{OVER}40"),
    "an alternative": (wishing(pod("p", asking(3, profile="mig-2g.10gb")), **EITHER), f"{OVER}3"),
    "two of either": (wishing(pod("p", asking(2, profile="mig-2g.10gb")), **EITHER), ""),
    "or a bigger one": (wishing(pod("p", asking(3)), **BIGGER), f"{OVER}3"),
    "two, or bigger ones": (wishing(pod("p", asking(2)), **BIGGER), ""),
    "placed": (wishing(pod("p", asking(2, "a"), asking(2, "b")), **SAME), ""),
    "placed, too many": (wishing(pod("p", asking(2, "a"), asking(3, "b")), **SAME), f"{OVER}3"),
    "placed, names cut": (wishing(pod("p", *(asking(1, f"c{i}") for i in range(30))), **SAME), ""),
    "by hand": (claiming("mig-1g.5gb.x3"), f"{OVER}3"),
    "by hand, claim by claim": (claiming("mig-1g.5gb", times=3), f"{OVER}3"),
    "by hand, all of a placed one": (claiming("same-gpu-mig-1g.5gb.x2-and-mig-1g.5gb"), f"{OVER}3"),
    "by hand, a request of it": (
        claiming("same-gpu-mig-1g.5gb.x2-and-mig-1g.5gb", "mig-1g-5gb-x2"),
        "",
    ),
    "somebody's own": (claiming("ours", times=3), ""),
    "nothing": (pod("p", container()), ""),
}


#: The cases that need what only some versions have.
NEEDS = {
    "an alternative": ALTERNATIVES,
    "placed": SAME_GPU,
    "placed, too many": SAME_GPU,
    "placed, names cut": SAME_GPU,
    "by hand, all of a placed one": SAME_GPU,
    "by hand, a request of it": SAME_GPU,
}


@pytest.fixture(scope="module")
def limited(cluster: Cluster, webhook: object) -> Cluster:
    cluster.make("Namespace", "limited")
    within = cluster.within("limited")
    if cluster.plane.has_controllers:
        until(lambda: within.find("ServiceAccount", "default"), "the service account")
    limit(within, "Container", **{"mig-1g.5gb": "2"})
    return within


@pytest.mark.parametrize("case", UNDER_A_MAXIMUM)
def test_a_maximum_holds_for_claims_in_limitrangers_words(limited: Cluster, case: str) -> None:
    api = api_of(limited)
    if case in NEEDS and NEEDS[case] not in api.features:
        pytest.skip(f"resource.k8s.io/{api.version} has no {NEEDS[case]}")
    manifest, message = UNDER_A_MAXIMUM[case]
    manifest = copy.deepcopy(manifest)
    if claims := manifest["spec"].get("resourceClaims"):
        claims[:] = [api.pod_claim(c["name"], c["resourceClaimTemplateName"]) for c in claims]
    refusal = said(limited, manifest)
    assert refusal.endswith(message) if message else refusal == ""


def test_a_pods_maximum_counts_what_it_holds(namespace: Cluster) -> None:
    limit(namespace, "Pod", **{"mig-1g.5gb": "3"})
    assert said(namespace, pod("p", asking(2, "a"), asking(1, "b"))) == ""
    shared = pod("p", asking(3), initContainers=[asking(3, "i")])
    assert said(namespace, shared) == ""
    over = "maximum nvidia.com/mig-1g.5gb usage per Pod is 3, but limit is 4"
    assert said(namespace, pod("p", asking(2, "a"), asking(2, "b"))).endswith(over)


def test_a_maximum_of_a_mapped_resource_holds(namespace: Cluster) -> None:
    limit(namespace, "Container", gpu="1")
    assert said(namespace, pod("p", asking(1, profile="gpu"))) == ""
    refusal = said(namespace, pod("p", asking(2, profile="gpu")))
    assert refusal.endswith("maximum nvidia.com/gpu usage per Container is 1, but limit is 2")


def test_the_largest_pod_is_within_the_api_servers_budget(namespace: Cluster) -> None:
    """112 slices in claims of two, and as many maxima as such a pod's containers may name."""
    most = {each.template: "2" for each in profiles.known_profiles()[:10]}
    limit(namespace, "Container", **most)
    containers = [asking(2, f"c{i}") for i in range(56)]
    init = [asking(2, f"i{i}") for i in range(14)]
    assert said(namespace, pod("p", *containers, initContainers=init)) == ""


# The service account


def slices(profile: str, n: int = 1, *others: str) -> DeviceRequest:
    found = [profiles.from_attribute(each) for each in (profile, *others)]
    return DeviceRequest(tuple(of_profile(each) for each in found if each), n)


def or_bigger(profile: str) -> DeviceRequest:
    found = profiles.from_attribute(profile)
    assert found
    return DeviceRequest((of_profile(found), *bigger(found)))


#: What InstaSlice makes.
CLAIMS = [
    *(DeviceClaim((slices(each.attribute),)) for each in profiles.known_profiles()),
    DeviceClaim((slices("1g.5gb", 32),)),
    DeviceClaim((or_bigger("1g.5gb"),)),
    DeviceClaim((or_bigger("1g.24gb-me"), or_bigger("3g.20gb+gfx")), "same-gpu"),
    DeviceClaim((slices("9g.999gb+me.all", 2),)),
    DeviceClaim((slices("3g.20gb", 2, "4g.20gb", "1g.24gb-me", "9g.999gb"),)),
    DeviceClaim((slices("1g.5gb", 2), slices("1g.5gb", 2), slices("3g.20gb")), "same-gpu"),
    DeviceClaim(tuple(slices("3g.20gb", 1, "4g.20gb") for _ in range(32)), "different-gpus"),
    *(claim_of(each, n) for each in read_mapping([gpus.MAPPING]).mapped.values() for n in (1, 2)),
]


def api_of(cluster: Cluster) -> ResourceAPI:
    return VERSIONS[cluster.plane.resource_api]


def as_instaslice(cluster: Cluster, *manifests: Json) -> str:
    """What the API server says to whoever has InstaSlice's token; "" where it would create all."""
    items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
    done = cluster.kubectl("create", f"--as={ACCOUNT}", "--dry-run=server", "-f-", stdin=items)
    return done.stderr


def test_instaslice_creates_what_it_creates(namespace: Cluster) -> None:
    api = api_of(namespace)
    made = [
        manifest
        for claim in CLAIMS
        if not templates.why_not(api, claim)
        for manifest in templates.objects(api, claim)
        if manifest["kind"] != "GpuClaimParameters"  # whose definition the driver brings
    ]
    for manifest in made:  # some are there already, which is not the policy's word
        manifest["metadata"].setdefault("namespace", namespace.namespace)
        if manifest["kind"] == "DeviceClass":
            del manifest["metadata"]["namespace"]
    refusals = as_instaslice(namespace, *made).splitlines()
    assert [line for line in refusals if "AlreadyExists" not in line] == []


def the_request(template: Json) -> Json:
    request: Json = template["spec"]["spec"]["devices"]["requests"][0]
    asks: Json = request.get("exactly", request)
    return asks


ANY = [{"cel": {"expression": "true"}}]

#: What a thief of its token might make of a template, from Kubernetes 1.31 on.
REQUESTS: dict[str, Callable[[Json], object]] = {
    "adminAccess": lambda t: the_request(t).update(adminAccess=True),
    "all devices": lambda t: the_request(t).update(allocationMode="All"),
    "more of them": lambda t: the_request(t).update(count=2),
    "whole GPUs": lambda t: the_request(t).update(deviceClassName="mig.example.com"),
    "another profile": lambda t: the_request(t).update(deviceClassName="mig-7g.40gb.nvidia.com"),
    "any slice": lambda t: the_request(t).update(deviceClassName="mig.nvidia.com"),
    "another selector": lambda t: the_request(t).update(selectors=ANY),
    "tolerations": lambda t: the_request(t).update(tolerations=[{"operator": "Exists"}]),
    "two requests": lambda t: t["spec"]["spec"]["devices"]["requests"].append(
        {**t["spec"]["spec"]["devices"]["requests"][0], "name": "more"}
    ),
    "opaque configuration": lambda t: t["spec"]["spec"]["devices"].update(
        config=[{"opaque": {"driver": "gpu.nvidia.com", "parameters": {"kind": "MigDeviceConfig"}}}]
    ),
}

#: And up to 1.30.
CLASSIC: dict[str, Callable[[Json], object]] = {
    "another class": lambda t: t["spec"]["spec"].update(resourceClassName="other.example.com"),
    "another's parameters": lambda t: t["spec"]["spec"]["parametersRef"].update(name="train"),
    "parameters of another kind": lambda t: t["spec"]["spec"]["parametersRef"].update(
        kind="GpuClaimParameters"
    ),
    "no parameters": lambda t: t["spec"]["spec"].pop("parametersRef"),
    "at once": lambda t: t["spec"]["spec"].update(allocationMode="Immediate"),
}

#: And in every version.
TEMPLATES: dict[str, Callable[[Json], object]] = {
    "another name": lambda t: t["metadata"].update(name="mig-3g.20gb"),
    "any name": lambda t: t["metadata"].update(name="train"),
    "an owner": lambda t: t["metadata"].update(
        ownerReferences=[{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}]
    ),
    "a finalizer": lambda t: t["metadata"].update(finalizers=["example.com/f"]),
    "labels of the claim": lambda t: t["spec"].update(metadata={"labels": {"a": "b"}}),
}

#: And of a device class.
CLASSES: dict[str, Callable[[Json], object]] = {
    "whole GPUs' name": lambda c: c["metadata"].update(name="gpu.example.com"),
    "whole GPUs' resource": lambda c: c["spec"].update(extendedResourceName="nvidia.com/gpu"),
    "another's resource": lambda c: c["spec"].update(extendedResourceName="nvidia.com/mig-3g.20gb"),
    "nothing": lambda c: c["spec"].update(selectors=[{"cel": {"expression": "false"}}]),
    "everything": lambda c: c["spec"].pop("selectors"),
    "a profile of no GPU": lambda c: c["metadata"].update(name="mig-9g.999gb.nvidia.com"),
    "configuration": lambda c: c["spec"].update(
        config=[{"opaque": {"driver": "gpu.nvidia.com", "parameters": {"kind": "MigDeviceConfig"}}}]
    ),
}


@pytest.mark.parametrize("case", [*TEMPLATES, *REQUESTS, *CLASSIC, *CLASSES])
def test_a_thief_of_its_token_creates_nothing_else(namespace: Cluster, case: str) -> None:
    api = api_of(namespace)
    minor = namespace.plane.version.minor
    if case in (REQUESTS | CLASSES if api.is_classic else CLASSIC):
        pytest.skip(f"resource.k8s.io/{api.version} has other fields")
    if case.endswith("resource") and minor < gpus.FIRST_WITH_EXTENDED_RESOURCES:
        pytest.skip("the API server drops the name of the resource")
    # Without it, adminAccess is refused to everybody from Kubernetes 1.33 on.
    labels = {"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}}
    namespace.patch("Namespace", namespace.namespace, labels)
    device_class, template = templates.objects(api, CLAIMS[0], namespace.namespace)
    changed = copy.deepcopy(device_class if case in CLASSES else template)
    (TEMPLATES | REQUESTS | CLASSIC | CLASSES)[case](changed)
    refusal = as_instaslice(namespace, changed)
    # A version that does not know the field drops it, and refuses nothing.
    assert "instaslice-service-account" in refusal or "unknown field" in refusal, refusal


def test_others_create_what_they_may(namespace: Cluster) -> None:
    api = api_of(namespace)
    _, template = templates.objects(api, CLAIMS[0], namespace.namespace)
    changed = CLASSIC["another class"] if api.is_classic else REQUESTS["all devices"]
    changed(template)
    namespace.create(template, dry_run=True)
