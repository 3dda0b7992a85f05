"""The limits that the component `policies` makes the API server enforce on users and InstaSlice."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from instaslice import profiles, templates
from instaslice.resource_api import ALTERNATIVES, SAME_GPU, VERSIONS, ResourceAPI
from instaslice.resources import read_mapping
from instaslice.templates import DeviceClaim
from test.e2e import gpus
from test.e2e.cluster import Cluster, Json, fresh_namespace
from test.e2e.installation import ACCOUNT, FIRST_WITH_POLICIES
from test.e2e.pods import container, extended, native, pod, wishing
from test.support.process import until


@pytest.fixture(autouse=True)
def since(cluster: Cluster) -> None:
    if cluster.plane.version < FIRST_WITH_POLICIES:
        pytest.skip(f"ValidatingAdmissionPolicies begin with Kubernetes {FIRST_WITH_POLICIES}")


# LimitRanges


def limit(cluster: Cluster, kind: str, **amounts: str) -> None:
    """Create a LimitRange with a maximum of a kind, and wait until it and the policy apply."""
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
    until(lambda: cluster.refusal(over), "the policy has read the LimitRange")


def asking(n: int, name: str = "main", profile: str = "mig-1g.5gb", **more: Any) -> Json:
    return container(name, {profile: n}, **more)


def claiming(template: str, request: str = "", times: int = 1) -> Json:
    """A pod that its author wrote with claims."""
    names = [f"c{i}" for i in range(times)]
    uses = [{"name": each, **({"request": request} if request else {})} for each in names]
    declared = [{"name": each, "resourceClaimTemplateName": template} for each in names]
    return pod("p", container(resources={"claims": uses}), resourceClaims=declared)


#: A placed claim's template whose name was cut, as InstaSlice's may be if it has no alternatives.
CUT = f"same-gpu-{'-and-'.join(['mig-3g.20gb'] * 14)}-and-0123456789abcdef"
CUT_OR = CUT.replace("mig-3g.20gb-and-mig-3g.20gb", "mig-3g.20gb-or-4g.20gb", 1)
OVER = "maximum nvidia.com/mig-1g.5gb usage per Container is 2, but limit is "
BIGGER = {"alternatives": "1g.5gb or bigger"}
EITHER = {"alternatives": "2g.10gb or 1g.5gb"}
SAME = {"placement": "same-gpu"}
SIDECAR = {"restartPolicy": "Always"}

#: A pod, and its refusal under a maximum of two slices of 1g.5gb for a container.
UNDER_A_MAXIMUM: dict[str, tuple[Json, str]] = {
    "as many": (pod("p", asking(2)), ""),
    "too many": (pod("p", asking(5)), f"{OVER}5"),
    "the second of two": (pod("p", asking(2, "a"), asking(3, "b")), f"{OVER}3"),
    "an init container": (pod("p", asking(1), initContainers=[asking(4, "i")]), f"{OVER}4"),
    "one that shares": (pod("p", asking(2), initContainers=[asking(2, "i")]), ""),
    "a sidecar": (pod("p", asking(1), initContainers=[asking(3, "i", **SIDECAR)]), f"{OVER}3"),
    "another profile": (pod("p", asking(5, profile="mig-1g.5gb.me")), ""),
    "40, in two claims": (pod("p", asking(40)), f"{OVER}40"),
    "an alternative": (wishing(pod("p", asking(3, profile="mig-2g.10gb")), **EITHER), f"{OVER}3"),
    "or a bigger one": (wishing(pod("p", asking(3)), **BIGGER), f"{OVER}3"),
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
    "by hand, a request of a cut name": (claiming(CUT, "mig-1g-5gb-x3"), f"{OVER}3"),
    "by hand, few of a cut name": (claiming(CUT, "mig-1g-5gb-x2"), ""),
    "by hand, all of a cut name": (claiming(CUT), f"{OVER}1000"),
    "by hand, a cut name with alternatives": (claiming(CUT_OR, "mig-3g-20gb"), f"{OVER}1000"),
    "somebody's own": (claiming("ours", times=3), ""),
}


#: The features that some cases need.
NEEDS = {
    "an alternative": ALTERNATIVES,
    "placed": SAME_GPU,
    "placed, too many": SAME_GPU,
    "placed, names cut": SAME_GPU,
    "by hand, all of a placed one": SAME_GPU,
    "by hand, a request of it": SAME_GPU,
    "by hand, a request of a cut name": SAME_GPU,
    "by hand, few of a cut name": SAME_GPU,
    "by hand, a cut name with alternatives": SAME_GPU,
}


@pytest.fixture(scope="module")
def limited(cluster: Cluster, webhook: object, numbers: Iterator[int]) -> Iterator[Cluster]:
    with fresh_namespace(cluster, numbers, {}) as namespace:
        limit(namespace, "Container", **{"mig-1g.5gb": "2"})
        yield namespace


@pytest.mark.parametrize("case", UNDER_A_MAXIMUM)
def test_maximum_bounds_claims_with_limitrangers_message(limited: Cluster, case: str) -> None:
    api = api_of(limited)
    if case in NEEDS and NEEDS[case] not in api.features:
        pytest.skip(f"resource.k8s.io/{api.version} has no {NEEDS[case]}")
    manifest, message = UNDER_A_MAXIMUM[case]
    refusal = limited.refusal(shaped(api, manifest))
    assert refusal.endswith(message) if message else refusal == ""


def shaped(api: ResourceAPI, manifest: Json) -> Json:
    """The pod, with its claims as a version has them."""
    manifest = copy.deepcopy(manifest)
    if claims := manifest["spec"].get("resourceClaims"):
        claims[:] = [api.pod_claim(c["name"], c["resourceClaimTemplateName"]) for c in claims]
    return manifest


@pytest.mark.parametrize(
    ("device_class", "n"), [("mig-1g.5gb", 3), ("mig", 1000), ("mig-1g.5gb-or-bigger", 1000)]
)
def test_maximum_bounds_limits_that_name_a_class(
    limited: Cluster, device_class: str, n: int
) -> None:
    if limited.plane.version.minor < gpus.FIRST_WITH_EXTENDED_RESOURCES:
        pytest.skip("a limit cannot name a class")
    asks = {f"deviceclass.resource.kubernetes.io/{device_class}.nvidia.com": 3}
    assert limited.refusal(pod("p", container(limits=asks))).endswith(f"{OVER}{n}")


def test_pod_maximum_counts_all_slices_of_a_pod(namespace: Cluster) -> None:
    limit(namespace, "Pod", **{"mig-1g.5gb": "3"})
    assert namespace.refusal(pod("p", asking(2, "a"), asking(1, "b"))) == ""
    shared = pod("p", asking(3), initContainers=[asking(3, "i")])
    assert namespace.refusal(shared) == ""
    over = "maximum nvidia.com/mig-1g.5gb usage per Pod is 3, but limit is 4"
    assert namespace.refusal(pod("p", asking(2, "a"), asking(2, "b"))).endswith(over)
    beside = native(shaped(api_of(namespace), claiming("mig-1g.5gb", times=2)))
    beside["spec"]["initContainers"] = [asking(2, "i")]
    assert namespace.refusal(beside).endswith(over)


@pytest.mark.parametrize("name", [gpus.GPU, *gpus.DIGESTED])
def test_maximum_of_a_mapped_resource(namespace: Cluster, name: str) -> None:
    if name in gpus.DIGESTED and api_of(namespace).is_classic:
        pytest.skip(f"resource.k8s.io/v1alpha2 serves no class but {gpus.GPU_CLASS}")
    limit(namespace, "Container", **{name: "1"})
    assert namespace.refusal(pod("p", asking(1, profile=name))) == ""
    refusal = namespace.refusal(pod("p", asking(2, profile=name)))
    assert refusal.endswith(f"maximum {name} usage per Container is 1, but limit is 2")


def test_largest_pod_is_within_the_cost_budget(namespace: Cluster) -> None:
    """It has 112 slices in claims of two, under as many maxima as its containers may name."""
    most = {each.template: "2" for each in profiles.known_profiles()[:10]}
    limit(namespace, "Container", **most)
    containers = [asking(2, f"c{i}") for i in range(56)]
    init = [asking(2, f"i{i}") for i in range(14)]
    assert namespace.refusal(pod("p", *containers, initContainers=init)) == ""


def test_56_profiles_under_maxima_for_all_are_within_the_cost_budget(namespace: Cluster) -> None:
    known = [each.template for each in profiles.known_profiles()]
    limit(namespace, "Pod", **dict.fromkeys(known, "2"))
    uses = [container(f"c{i}", resources={"claims": [{"name": f"c{i}"}]}) for i in range(56)]
    declared = [{"name": f"c{i}", "resourceClaimTemplateName": f"{known[i]}.x2"} for i in range(56)]
    large = native(shaped(api_of(namespace), pod("p", *uses, resourceClaims=declared)))
    assert namespace.refusal(large) == ""
    large["spec"]["resourceClaims"][55] = api_of(namespace).pod_claim("c55", f"{known[55]}.x3")
    assert namespace.refusal(large).endswith(
        f"nvidia.com/{known[55]} usage per Pod is 2, but limit is 3"
    )


def test_refuses_more_claims_than_instaslice_gives(limited: Cluster) -> None:
    api = api_of(limited)
    many = shaped(api, claiming("ours", times=225))
    assert "at most 224 claims" in limited.refusal(many)
    assert limited.refusal(shaped(api, claiming("ours", times=224))) == ""


# The service account


RESOURCES = read_mapping(gpus.MAPPINGS)
#: Names of templates that InstaSlice creates.
CLAIMS = [
    *(each.template for each in profiles.known_profiles()),
    "mig-1g.5gb.x32",
    "mig-1g.5gb-or-bigger",
    "same-gpu-mig-1g.24gb-me-or-bigger-and-mig-3g.20gb.gfx-or-bigger",
    "mig-9g.999gb.me.all.x2",
    "mig-3g.20gb-or-4g.20gb-or-1g.24gb-me-or-9g.999gb.x2",
    "same-gpu-mig-1g.5gb.x2-and-mig-1g.5gb.x2-and-mig-3g.20gb",
    *(f"{each.template}{count}" for each in RESOURCES.mapped.values() for count in ("", ".x2")),
]


def claim_of(template: str) -> DeviceClaim:
    found = templates.from_template(template, RESOURCES)
    assert found, template
    return found


def api_of(cluster: Cluster) -> ResourceAPI:
    return VERSIONS[cluster.plane.resource_api]


def as_instaslice(cluster: Cluster, *manifests: Json) -> str:
    """Create objects in a dry run with InstaSlice's account, and return the refusals."""
    items = {"apiVersion": "v1", "kind": "List", "items": list(manifests)}
    done = cluster.kubectl("create", f"--as={ACCOUNT}", "--dry-run=server", "-f-", stdin=items)
    return done.stderr


def test_policies_accept_all_objects_of_instaslice(namespace: Cluster) -> None:
    api = api_of(namespace)
    longest = DeviceClaim(claim_of("mig-3g.20gb").requests * 32, "different-gpus")
    made = [
        manifest
        for claim in [*map(claim_of, CLAIMS), longest]
        if not templates.why_not(api, claim)
        for manifest in templates.objects(api, claim)
        if manifest["kind"] != "GpuClaimParameters"  # the driver has its definition
    ]
    for manifest in made:  # some exist already, which the policy does not check
        manifest["metadata"].setdefault("namespace", namespace.namespace)
        if manifest["kind"] == "DeviceClass":
            del manifest["metadata"]["namespace"]
    refusals = as_instaslice(namespace, *made).splitlines()
    assert [line for line in refusals if "AlreadyExists" not in line] == []


ANY = [{"cel": {"expression": "true"}}]
OPAQUE = {"driver": "gpu.nvidia.com", "parameters": {"kind": "MigDeviceConfig"}}
CONFIG = {"config": [{"opaque": OPAQUE}]}
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}

#: Changes that a thief of its token might make to a part of a template or a device class.
THEFTS: dict[str, tuple[str, Json]] = {
    "another name": ("template", {"name": "mig-3g.20gb"}),
    "any name": ("template", {"name": "train"}),
    "an owner": ("template", {"ownerReferences": [OWNER]}),
    "a finalizer": ("template", {"finalizers": ["example.com/f"]}),
    "labels of the claim": ("claim", {"metadata": {"labels": {"a": "b"}}}),
    # From Kubernetes 1.31 on.
    "adminAccess": ("request", {"adminAccess": True}),
    "all devices": ("request", {"allocationMode": "All"}),
    "more of them": ("request", {"count": 2}),
    "whole GPUs": ("request", {"deviceClassName": "mig.example.com"}),
    "another profile": ("request", {"deviceClassName": "mig-7g.40gb.nvidia.com"}),
    "any slice": ("request", {"deviceClassName": "mig.nvidia.com"}),
    "another selector": ("request", {"selectors": ANY}),
    "tolerations": ("request", {"tolerations": [{"operator": "Exists"}]}),
    "two requests": ("devices", {"requests": "twice"}),
    "opaque configuration": ("devices", CONFIG),
    "too many": ("request", {"count": 33}),
    "two constraints": ("placed", {"constraints": "twice"}),
    "alternatives under a cut name": ("placed", {"requests": "32 times"}),
    "five devices under the name of one": ("placed", {"requests": "renamed"}),
    # Up to 1.30.
    "another class": ("classic", {"resourceClassName": "other.example.com"}),
    "at once": ("classic", {"allocationMode": "Immediate"}),
    "no parameters": ("classic", {"parametersRef": None}),
    "another's parameters": ("parametersRef", {"name": "train"}),
    "parameters of another kind": ("parametersRef", {"kind": "GpuClaimParameters"}),
    "whole GPUs' name": ("class", {"name": "gpu.example.com"}),
    "a profile of no GPU": ("class", {"name": "mig-9g.999gb.nvidia.com"}),
    "whole GPUs' resource": ("class's spec", {"extendedResourceName": "nvidia.com/gpu"}),
    "another's resource": ("class's spec", {"extendedResourceName": "nvidia.com/mig-3g.20gb"}),
    "nothing": ("class's spec", {"selectors": [{"cel": {"expression": "false"}}]}),
    "everything": ("class's spec", {"selectors": []}),
    "configuration": ("class's spec", CONFIG),
}
CLASSIC = ("classic", "parametersRef")
MODERN = ("request", "devices", "placed", "class", "class's spec")


def stolen(api: ResourceAPI, namespace: str, part: str, changes: Json) -> Json:
    """An object of InstaSlice with changes to a part of it."""
    claim = claim_of("same-gpu-mig-1g.5gb.x5" if part == "placed" else CLAIMS[0])
    device_class, template = copy.deepcopy(templates.objects(api, claim, namespace))
    spec = template["spec"]["spec"]
    places = {"template": template["metadata"], "claim": template["spec"], "classic": spec}
    if api.is_classic:
        places["parametersRef"] = spec["parametersRef"]
    else:
        (request,) = spec["devices"]["requests"]
        places |= {"request": request.get("exactly", request), "devices": spec["devices"]}
        places["placed"] = spec["devices"]
        places |= {"class": device_class["metadata"], "class's spec": device_class["spec"]}
        if changes == {"requests": "twice"}:
            changes = {"requests": [request, {**request, "name": "more"}]}
        elif changes == {"requests": "renamed"}:
            changes = {"requests": [{**request, "name": "mig-1g-5gb"}]}
        elif changes == {"requests": "32 times"}:
            asks = claim_of("mig-3g.20gb").requests * 31 + claim_of("mig-1g.5gb-or-bigger").requests
            *_, template = templates.objects(api, DeviceClaim(asks, SAME_GPU), namespace)
            changes = {}
        elif changes == {"constraints": "twice"}:
            changes = {"constraints": spec["devices"]["constraints"] * 2}
        elif changes == {"count": 33}:
            template["metadata"]["name"] = "mig-1g.5gb.x33"
    places[part].update(changes)
    return device_class if part.startswith("class") and part != "classic" else template


@pytest.mark.parametrize("case", THEFTS)
def test_stolen_token_creates_nothing_else(namespace: Cluster, case: str) -> None:
    api, (part, changes) = api_of(namespace), THEFTS[case]
    if part in (MODERN if api.is_classic else CLASSIC):
        pytest.skip(f"resource.k8s.io/{api.version} has other fields")
    minor = namespace.plane.version.minor
    if case.startswith("alternatives") and ALTERNATIVES not in api.features:
        pytest.skip(f"resource.k8s.io/{api.version} has no {ALTERNATIVES}")
    is_dropped = case.endswith("resource") and minor < gpus.FIRST_WITH_EXTENDED_RESOURCES
    # adminAccess has a gate from 1.32 on, which is on from 1.34 on.
    if is_dropped or (case == "adminAccess" and minor in (32, 33)):
        pytest.skip("the API server drops the field, before any policy")
    # Without the label, nobody may use adminAccess from Kubernetes 1.33 on.
    labels = {"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}}
    namespace.patch("Namespace", namespace.namespace, labels)
    refusal = as_instaslice(namespace, stolen(api, namespace.namespace, part, changes))
    # A version that does not know the field reports it as unknown, before any policy.
    assert "instaslice-service-account" in refusal or "unknown field" in refusal, refusal


def test_policies_do_not_restrict_others(namespace: Cluster) -> None:
    api = api_of(namespace)
    part, changes = THEFTS["another class" if api.is_classic else "all devices"]
    namespace.create(stolen(api, namespace.namespace, part, changes), dry_run=True)
