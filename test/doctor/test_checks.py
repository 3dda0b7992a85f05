"""What is said of a cluster as a whole: a row is a snapshot and the lines of the report on it."""

import copy
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from instaslice.cluster.client import ClusterError
from instaslice.cluster.gates import EXTENDED, PARTITIONABLE, Known
from instaslice.doctor import plan
from instaslice.doctor.checks import Registered, examine, read
from instaslice.doctor.explain import explain
from instaslice.doctor.policies import OWN
from instaslice.doctor.report import State, is_wrong
from instaslice.doctor.snapshot import RIGHTS, Probe, Snapshot
from instaslice.profiles import known_profiles
from instaslice.resource_api import VERSIONS, Unavailable
from instaslice.resources import read_mapping
from instaslice.webhook_configuration import ALL, BESIDE, MODES, OPT_IN
from test.support import a100
from test.support.snapshots import (
    HEALTHY,
    bindings,
    claim,
    compare,
    device_class,
    named,
    own_classes,
    pod,
    slice_,
    template,
    webhook,
    with_lists,
)

Json = dict[str, Any]
#: A title, a snapshot, and its lines as `said` writes them, of each the parts around " .. ".
Case = tuple[str, Snapshot, list[str]]

ONE_SLICE = "nvidia.com/mig-1g.5gb"
OWN_CLASS = "mig-1g.5gb.nvidia.com"
DEVICES = f"{OWN_CLASS}.deviceclass.resource.k8s.io/devices"
BOTH = ("1g.5gb", "1g.5gb.me")


def said(title: str, snapshot: Snapshot) -> list[str]:
    """A check's findings: "✗ there is no DeviceClass x -> install the driver"."""
    found = [each for each in examine(snapshot) if each.check == title]
    return [f"{each.state.value} {each.text} -> {each.advice}" for each in found]


def test_a_healthy_cluster() -> None:
    findings = examine(HEALTHY)
    assert [f"{f.check} {f.state.value} {f.text}" for f in findings] == [
        "DRA ✓ Kubernetes v1.36.3 serves resource.k8s.io/v1",
        "gates ✓ on: DRAPartitionableDevices, DRAExtendedResource, DRAPrioritizedList, "
        "DRAConsumableCapacity",
        "webhook ✓ rewrite.instaslice.io is registered, failurePolicy Fail",
        "mode ✓ all: every pod with a limit that can be rewritten is sent",
        "endpoints ✓ instaslice-system/instaslice has 2 ready pods",
        "dry run ✓ a pod with nvidia.com/mig-1g.5gb in default is rewritten",
        "driver ✓ DeviceClass mig.nvidia.com exists",
        "slices ✓ 1g.5gb: 1 free, 1 published",
        "slices ✓ 1g.5gb+me: 0 free, 1 published",
        "profiles ✓ every profile that pods ask for is published",
        "templates ✓ every namespace has the templates that its pods need",
        "device classes ✓ by 1 DeviceClass, the scheduler itself serves limits of "
        "nvidia.com/mig-1g.5gb",
        "policies ✓ instaslice-limitranges and instaslice-service-account hold",
    ]
    assert not is_wrong(findings)


def test_what_cannot_be_read_is_said() -> None:
    forbidden = dict.fromkeys(HEALTHY.lists, ClusterError("403 forbidden", 403))
    blind = replace(HEALTHY, lists={}, failures=forbidden)
    findings = examine(replace(blind, probes=(), gates={}))
    assert {f.state for f in findings if f.check != "DRA"} == {State.UNSURE}
    assert "nodes could not be read: 403 forbidden" in [f.text for f in findings]
    assert not is_wrong(findings)
    assert {f.advice for f in findings if f.check != "DRA"} == {RIGHTS}


def test_silence_is_not_a_lack_of_rights() -> None:
    silent = replace(HEALTHY, failures={"nodes": ClusterError("no answer within 10 s")})
    found = {f.check: f.advice for f in examine(silent) if f.state is State.UNSURE}
    assert found == {"whole GPUs": "", "node labels": "", "device plugin": ""}


# -- InstaSlice itself: is it registered, is it called, does it rewrite ----------------------------

MAPPED = read_mapping(["nvidia.com/gpu=gpu.nvidia.com", "amd.com/gpu=gpu.amd.com"])


def gates(**known: Known) -> Snapshot:
    return replace(HEALTHY, gates=known)


def in_namespace(snapshot: Snapshot, **labels: str) -> Snapshot:
    return with_lists(snapshot, namespaces=[{"metadata": {"name": "ml", "labels": labels}}])


def registered(*arguments: str, **fields: Any) -> Snapshot:
    return with_lists(webhooks=[webhook(*arguments, **fields)])


def beside(*extended: str, kubernetes: str = "v1.36.3", gate: bool | None = True) -> Snapshot:
    classes = [device_class(f"c-{n}", f"nvidia.com/mig-{name}") for n, name in enumerate(extended)]
    snapshot = with_lists(registered(BESIDE), classes=classes)
    return replace(snapshot, kubernetes=kubernetes, gates={EXTENDED: Known(gate)})


def endpoint(ready: bool | None = None) -> Snapshot:
    found = {"addresses": ["a"], "conditions": {"ready": ready}}
    return with_lists(endpoints=[{"endpoints": [found]}])


def probed(pod_: Json | None, error: str = "", status: int = 201, **lists: list[Json]) -> Snapshot:
    probe = Probe("ml", ONE_SLICE, pod_, error, status)
    return replace(with_lists(**lists), probes=(probe,))


KEPT, REWRITTEN = pod(limit="mig-1g.5gb"), pod(template="mig-1g.5gb")
OF_A_LIMIT_RANGE = pod(template="mig-1g.5gb", limit="mig-1g.5gb")
OF_A_LIMIT_RANGE["spec"]["containers"][0]["resources"]["limits"][ONE_SLICE] = "0"
IS_REGISTERED = "✓ rewrite.instaslice.io is registered, failurePolicy"
IS_BESIDE = "✓ beside-the-scheduler: only what the scheduler cannot do by itself is sent"
IS_OPT_IN = "✓ opt-in: pods of namespaces labelled instaslice.io/rewrite=enabled are sent"
ENABLED = {"instaslice.io/rewrite": "enabled"}
PRINTED = "-> register what instaslice webhook-configuration prints"
OPTING_IN = webhook(OPT_IN)["webhooks"][1]["namespaceSelector"]
NOT_SERVED = "the cluster does not serve resource.k8s.io"
TRIED = f"a pod with {ONE_SLICE} in ml"
NO_VERSION = "of an unknown version"

INSTALLED: list[Case] = [
    (
        "DRA",
        replace(HEALTHY, api=Unavailable(NOT_SERVED)),
        [f"✗ {NOT_SERVED} -> Kubernetes 1.34 .. gate DynamicResourceAllocation and"],
    ),
    (
        "gates",
        gates(
            **{PARTITIONABLE: Known(False), EXTENDED: Known(False), "x": Known(None, "403", 403)}
        ),
        [
            "! off: DRAPartitionableDevices, needed for slices that are cut on demand (DynamicMIG)",
            "✓ off: DRAExtendedResource, needed for the scheduler's own way (KEP-5004), and quotas "
            "on requests.nvidia.com/mig-*",
            f"! could not find out whether x are on: 403 -> {RIGHTS}",
        ],
    ),
    (
        *("gates", gates(x=Known(None, "timed out"))),
        ["! could not find out whether x are on: timed out -> "],
    ),
    (
        *("webhook", with_lists(webhooks=[])),
        ["✗ no MutatingWebhookConfiguration has rewrite.instaslice.io -> make deploy"],
    ),
    (
        *("webhook", registered(matchConditions=None)),
        [IS_REGISTERED, f"! it has no matchConditions: every pod of the cluster .. {PRINTED}"],
    ),
    *(
        (
            "webhook",
            replace(registered(matchConditions=None, failurePolicy=policy), kubernetes=kubernetes),
            [f"{IS_REGISTERED} {policy}", *more],
        )
        # Kubernetes knows matchConditions from 1.28 on.
        for kubernetes, policy, more in (
            ("v1.28.0", "Fail", ["! it has no matchConditions"]),
            (NO_VERSION, "Fail", ["! it has no matchConditions"]),
            ("v1.27.16", "Fail", ["✗ no pod .. -> Kubernetes 1.27 drops matchConditions: deploy"]),
            ("v1.27.16", "Ignore", []),
        )
    ),
    (
        *("webhook", registered(failurePolicy="Ignore")),
        [IS_REGISTERED, "! while InstaSlice is away, pods are let through .. failurePolicy: Fail"],
    ),
    (
        *("webhook", registered(matchConditions=[{"name": "a", "expression": "true"}])),
        [IS_REGISTERED, f"! its matchConditions are not InstaSlice's .. {PRINTED}"],
    ),
    (
        *("webhook", registered(clientConfig={"service": {"name": "a", "namespace": "b"}})),
        [IS_REGISTERED, "✗ the configuration has no caBundle, .. cainjector"],
    ),
    (
        *("webhook", registered(reinvocationPolicy="Never", sideEffects="Some")),
        [
            IS_REGISTERED,
            "✗ these fields are not as InstaSlice needs them: reinvocationPolicy, sideEffects "
            f"{PRINTED}",
        ],
    ),
    (
        *("webhook", replace(registered(ALL, "amd.com/gpu"), resources=MAPPED)),
        [
            IS_REGISTERED,
            "✗ pods with nvidia.com/gpu are not sent, though serve would rewrite them -> register "
            "what instaslice webhook-configuration --resource nvidia.com/gpu=... --resource "
            "amd.com/gpu=... prints",
        ],
    ),
    ("mode", with_lists(webhooks=[]), []),
    ("mode", registered(matchConditions=[{"name": "theirs", "expression": "true"}]), []),
    (
        *("mode", in_namespace(registered(OPT_IN))),
        [IS_OPT_IN, "! no namespace is labelled .. nothing is rewritten -> kubectl label"],
    ),
    ("mode", in_namespace(registered(OPT_IN), **ENABLED), [IS_OPT_IN]),
    (
        "mode",
        in_namespace(
            with_lists(beside(*BOTH), webhooks=[webhook(BESIDE, namespaceSelector=OPTING_IN)]),
            **ENABLED,
        ),
        [f"{IS_BESIDE}; {IS_OPT_IN[2:]}"],
    ),
    ("mode", beside(*BOTH), [IS_BESIDE]),
    ("mode", beside(*BOTH, gate=None), [IS_BESIDE]),
    ("mode", beside(*BOTH, kubernetes="v1.35.6"), [IS_BESIDE]),
    ("mode", beside(*BOTH, kubernetes=NO_VERSION, gate=None), [IS_BESIDE]),
    (
        *("mode", beside("1g.5gb")),
        [
            IS_BESIDE,
            "✗ no DeviceClass has the extendedResourceName nvidia.com/mig-1g.5gb.me -> instaslice "
            "deviceclasses 1g.5gb.me | kubectl apply -f -",
        ],
    ),
    *(
        (
            *("mode", beside(*BOTH, kubernetes=kubernetes, gate=gate)),
            [IS_BESIDE, f"✗ the scheduler of {kubernetes} serves no extended .. all or opt-in"],
        )
        for kubernetes, gate in (("v1.35.6", None), ("v1.36.3", False))
    ),
    ("endpoints", endpoint(), ["✓ instaslice-system/instaslice has 1 ready pod ->"]),
    (
        *("endpoints", endpoint(ready=False)),
        ["✗ .. has no ready pod -> kubectl -n instaslice-system get pods"],
    ),
    (
        *("dry run", probed(None, "403 forbidden: exceeded quota", 403)),
        [f"✗ {TRIED} is refused: 403 forbidden: exceeded quota -> "],
    ),
    (
        *("dry run", probed(None, "500 failed calling webhook: x509: unknown", 500)),
        [f"✗ {TRIED} is refused .. unknown -> .. does the caBundle trust its certificate?"],
    ),
    (
        *("dry run", probed(None, "no answer within 10 s", 0)),
        [f"! {TRIED} could not be tried: no answer within 10 s -> "],
    ),
    (
        *("dry run", probed(None, '403 User "x" cannot create resource "pods"', 403)),
        [f"! {TRIED} could not be tried .. -> {RIGHTS}"],
    ),
    (
        *("dry run", probed(KEPT)),
        [f"✗ {TRIED} keeps its limits -> .. labelled instaslice.io/rewrite: disabled?"],
    ),
    ("dry run", probed(KEPT, webhooks=[]), [f"✗ {TRIED} keeps its limits -> register the webhook"]),
    (
        *("dry run", probed(KEPT, webhooks=[webhook(OPT_IN)])),
        [f"! {TRIED} keeps its limits -> kubectl label namespace ml instaslice.io/rewrite=enabled"],
    ),
    ("dry run", probed(REWRITTEN), [f"✓ {TRIED} is rewritten"]),
    ("dry run", probed(OF_A_LIMIT_RANGE), [f"✓ {TRIED} is rewritten"]),
]

# -- drivers, and what pods want from them ---------------------------------------------------------

COUNTERS, FIRST, SECOND = a100.resource_slices()


def marked() -> list[Json]:
    """Two GPUs, of which a slice is tainted and another shared."""
    slices = copy.deepcopy([COUNTERS, FIRST, SECOND])
    by_name = {device["name"]: device for device in slices[2]["spec"]["devices"]}
    by_name["gpu-1-mig-4g20gb-5-0"]["taints"] = [{"key": "health", "effect": "NoExecute"}]
    by_name["gpu-1-mig-3g20gb-9-0"]["allowMultipleAllocations"] = True
    return slices


def mapping(*texts: str, **lists: list[Json]) -> Snapshot:
    return replace(with_lists(**lists), resources=read_mapping(texts))


def of_others() -> Snapshot:
    """Resources of several vendors, mapped."""
    first, other = copy.deepcopy(FIRST), slice_(pool="amd")
    first["spec"]["devices"].append(a100.whole_gpu(0))
    other["spec"]["driver"] = "gpu.amd.com"
    return mapping(
        "nvidia.com/gpu=gpu.nvidia.com",
        "amd.com/gpu=gpu.amd.com",
        "intel.com/gpu=gpu.intel.com",
        "example.com/none=none.example.com",
        "example.com/odd=odd.example.com",
        "example.com/slice=mig-1g.5gb",
        slices=[COUNTERS, first, SECOND, other],
        claims=[],
        classes=[
            device_class("gpu.nvidia.com"),
            *(device_class(name, driver=name) for name in ("gpu.amd.com", "gpu.intel.com")),
            named("odd.example.com", "", spec={}),
        ],
    )


def classes(*found: Json, gate: bool = True, **lists: list[Json]) -> Snapshot:
    snapshot = with_lists(classes=[*found], **lists)
    return replace(snapshot, gates={EXTENDED: Known(gate)})


(OURS,) = own_classes("mig-1g.5gb")
NAMELESS = {**OURS, "spec": {"selectors": OURS["spec"]["selectors"]}}
THEIRS = {**OURS, "spec": {**OURS["spec"], "selectors": [{"cel": {"expression": "false"}}]}}
ALL_CLASSES = [made for p in known_profiles() for made in own_classes(p.template)]
MAKE_CLASS = "instaslice deviceclasses mig-1g.5gb | kubectl apply -f -"
PUBLISHED = "-> nodes publish 1g.5gb, 1g.5gb+me"
WANTING = [
    *(pod(f"p-{n}", template="mig-7g.40gb.x2") for n in range(5)),
    pod("q", template="mig-7g.40gb-or-1g.5gb"),
    pod("r", template="mig-7g.40gb-or-3g.20gb"),
    pod("s", template="mig-2g.10gb-or-bigger"),
    pod("t", template="mig-1g.5gb-or-bigger"),
]
WAITING = [
    pod("old", limit="mig-1g.5gb"),
    pod("runs", limit="mig-1g.5gb", node="n"),
    pod("gpu", limit="gpu"),
    pod("done", limit="mig-1g.5gb", phase="Failed"),
]
BOUND = [pod("bound", template="mig-1g.5gb", node="n"), pod("waits", template="mig-1g.5gb")]
SERVED = copy.deepcopy(BOUND)
SERVED[0]["status"]["resourceClaimStatuses"] = [{"name": "0123456789", "resourceClaimName": "m"}]
WHOLE = with_lists(pods=[pod("p", limit="gpu")], classes=[device_class("gpu.nvidia.com")])
SERVING = [device_class("gpu.nvidia.com", "nvidia.com/gpu")]


def node(name: str, labels: Json = {}, /, **amounts: str) -> Json:  # noqa: B006 - only read
    allocatable = {f"nvidia.com/{key}": amount for key, amount in amounts.items()}
    metadata = {"name": name, "labels": labels}
    return {"metadata": metadata, "status": {"allocatable": allocatable}}


def choosing(labels: Json, node_name: str = "") -> Snapshot:
    """A pod that requires one of the values of a node's label, and a node."""
    pods = []
    for key in ("nvidia.com/mig.config", "zone"):
        found = pod(limit="mig-1g.5gb", node=node_name)
        term = {"matchExpressions": [{"key": key, "operator": "In", "values": ["a", "b"]}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        found["spec"]["affinity"] = {"nodeAffinity": required}
        pods.append(found)
    return with_lists(pods=pods, nodes=[node("n", labels)])


CHOOSES = "! ml/p choose nodes by the label nvidia.com/mig.config=a or b, which no node has"
OLD_NODES = [node(f"old-{n}", **{"mig-1g.5gb": "7", "gpu": "1"}) for n in range(5)]
NODES = [*OLD_NODES, node("node-1", **{"mig-1g.5gb": "7"}), node("new", **{"mig-1g.5gb": "0"})]

DRIVERS: list[Case] = [
    (
        *("driver", with_lists(classes=[])),
        ["✗ there is no DeviceClass mig.nvidia.com -> install NVIDIA's DRA driver"],
    ),
    ("slices", with_lists(slices=[]), ["✗ no ResourceSlice publishes a MIG slice"]),
    (
        *("slices", with_lists(slices=marked(), claims=[])),
        [
            *("✓ 1g.10gb: 8 free, 8 published ->", "✓ 1g.5gb:", "✓ 1g.5gb+me:", "✓ 2g.10gb:"),
            "✓ 3g.20gb: 4 free, 4 published, 1 of them shared: several claims may have one",
            "✓ 4g.20gb: 1 free, 2 published, 1 of them tainted",
            "✓ 7g.40gb: 2 free",
            "! gpu-1-mig-4g20gb-5-0 has the taint health:NoExecute, which keeps claims away",
        ],
    ),
    (
        *("slices", with_lists(slices=[COUNTERS, FIRST])),
        [
            *("✓ 1g.10gb: 0 free", *["✓"] * 6),
            "! nothing of pool node-1 is free: 2 of its 3 ResourceSlices are there",
        ],
    ),
    (
        *("overlap", with_lists(slices=a100.resource_slices(counted=False))),
        [
            "✗ gpu-0-mig-1g10gb-15-0, gpu-0-mig-1g10gb-15-2, gpu-0-mig-1g10gb-15-4 and 47 more "
            "consume no counters .. -> .. DRAPartitionableDevices",
        ],
    ),
    ("overlap", with_lists(slices=a100.resource_slices()), []),
    (
        *("mapped", of_others()),
        [
            "✓ nvidia.com/gpu is mapped to gpu.nvidia.com: 1 free, 1 published",
            "✓ amd.com/gpu is mapped to gpu.amd.com: 1 published",
            "✗ intel.com/gpu is mapped to gpu.intel.com, and gpu.intel.com publishes no device of",
            "✗ example.com/none is mapped to none.example.com, which does not exist",
            "! example.com/odd is mapped to odd.example.com, whose selectors name no driver",
            "✓ example.com/slice is mapped to mig-1g.5gb.nvidia.com, which InstaSlice makes when a "
            "pod needs it",
        ],
    ),
    (
        *("mapped", replace(HEALTHY, failures={"mapping": ClusterError("'x' is not NAME=X")})),
        ["✗ InstaSlice's mapping is wrong: 'x' is not NAME=X"],
    ),
    (
        *("profiles", with_lists(pods=WANTING)),
        [
            f"✗ no node publishes 7g.40gb, needed by ml/p-0, ml/p-1, ml/p-2 and 2 more {PUBLISHED}",
            f"✗ no node publishes 7g.40gb or 3g.20gb, needed by ml/r {PUBLISHED}",
            f"✗ no node publishes 2g.10gb or bigger, needed by ml/s {PUBLISHED}",
        ],
    ),
    (
        "templates",
        with_lists(
            pods=[],
            templates=[named("mig-1g.5gb.x2", "elsewhere"), named("x"), template("mig-1g.5gb")],
        ),
        [
            "✗ elsewhere/mig-1g.5gb.x2 is not as InstaSlice makes it .. -> kubectl -n elsewhere "
            "delete resourceclaimtemplate mig-1g.5gb.x2",
        ],
    ),
    (
        "templates",
        with_lists(
            pods=[pod("p", template="mig-1g.5gb.x2"), pod("q", template="same-gpu-mig-1g.5gb.x2")],
            templates=[],
        ),
        [
            "✗ pods in ml need templates that do not exist: mig-1g.5gb.x2, same-gpu-mig-1g.5gb.x2 "
            "-> instaslice templates --apply -n ml mig-1g.5gb.x2 same-gpu-mig-1g.5gb.x2",
        ],
    ),
    (
        *("device classes", classes()),
        [f"✗ there is no DeviceClass {OWN_CLASS}, needed by ml/p -> {MAKE_CLASS}"],
    ),
    (
        *("device classes", classes(THEIRS)),
        [
            f"✗ DeviceClass {OWN_CLASS} is not as InstaSlice makes it: .. -> {MAKE_CLASS}",
            "✓ by 1 DeviceClass",
        ],
    ),
    ("device classes", classes(NAMELESS), ["✗ .. extendedResourceName is missing"]),
    ("device classes", classes(NAMELESS, gate=False), []),
    (
        *("device classes", classes(*ALL_CLASSES, pods=[])),
        [
            f"✓ by {len(ALL_CLASSES)} DeviceClasses, the scheduler itself serves limits of "
            "nvidia.com/mig-1g.5gb, nvidia.com/mig-1g.5gb.me, nvidia.com/mig-1g.6gb and "
            f"{len(ALL_CLASSES) - 3} more",
        ],
    ),
    (
        "device classes",
        classes(device_class("a", ONE_SLICE), device_class("b", ONE_SLICE), pods=[]),
        ["✓ by 2", f"! a, b all serve {ONE_SLICE}: the scheduler takes the newest -> keep one"],
    ),
    # The GPU operator's GPUCluster has a class without an extendedResourceName.
    (
        *("whole GPUs", WHOLE),
        ["✗ ml/p need nvidia.com/gpu, which no device plugin and no DeviceClass .. -> map it"],
    ),
    ("whole GPUs", with_lists(WHOLE, classes=SERVING), []),
    ("whole GPUs", with_lists(WHOLE, nodes=[node("n", gpu="1")]), []),
    ("whole GPUs", replace(WHOLE, resources=MAPPED), []),
    (
        *("old pods", with_lists(pods=WAITING, classes=[])),
        ["✗ ml/old were created without InstaSlice, and nobody serves their limits"],
    ),
    ("old pods", classes(device_class("c", ONE_SLICE), pods=WAITING), []),
    ("node names", with_lists(pods=BOUND), ["✗ ml/bound: only the scheduler"]),
    ("node names", with_lists(pods=SERVED, claims=[named("m") | claim("mig-0")]), []),
    ("node labels", choosing({}), [CHOOSES]),
    ("node labels", choosing({"nvidia.com/mig.config": "x"}), [CHOOSES]),
    ("node labels", choosing({"nvidia.com/mig.config": "b"}), []),
    ("node labels", choosing({}, node_name="n"), []),
    (
        *("device plugin", with_lists(nodes=NODES)),
        [
            "! old-0, old-1, old-2 and 2 more: a device plugin advertises nvidia.com/mig-1g.5gb: "
            "rewritten pods cannot have these slices",
            "✗ node-1: a device plugin advertises nvidia.com/mig-1g.5gb, and MIG slices are "
            "published for DRA as well",
        ],
    ),
    (
        "device plugin",
        mapping("nvidia.com/gpu=gpu.nvidia.com", nodes=[node("n", gpu="1")]),
        ["! n: a device plugin advertises nvidia.com/gpu: rewritten pods cannot have these dev"],
    ),
]

# -- quotas, LimitRanges, Kueue, and InstaSlice's own policies -------------------------------------


def hard(*keys: str, **spec: Any) -> list[Json]:
    return [named("q", spec={"hard": {"cpu": "1", **dict.fromkeys(keys, "4")}, **spec})]


def quotas(*found: Json, gate: bool = True, key: str = f"requests.{ONE_SLICE}") -> Snapshot:
    return classes(*found, gate=gate, quotas=hard(key))


def limited(kind: str, **limit: Any) -> Snapshot:
    limits = [named("l", spec={"limits": [{"type": kind, **limit}]})]
    return with_lists(limits=limits)


def holding(
    kubernetes: str, *policies: str, actions: tuple[str, ...] = ("Deny",), bound: bool = True
) -> Snapshot:
    """A LimitRange with a max, and ValidatingAdmissionPolicies."""
    lists = {
        "policies": [named(name) for name in policies],
        "bindings": bindings(*OWN, actions=actions) if bound else [],
    }
    limits = limited("Container", max={ONE_SLICE: "2"})
    return replace(with_lists(limits, **lists), kubernetes=kubernetes)


def kueue(*covered: str, configuration: str = "") -> Snapshot:
    queue = {"spec": {"resourceGroups": [{"coveredResources": ["cpu", *covered]}]}}
    data = {"data": {"controller_manager_config.yaml": configuration}}
    return with_lists(queues=[queue], kueue=[data])


COUNTS = [f"✓ ml/q still counts requests.{ONE_SLICE} ->"]
PATCH = "kubectl -n ml patch resourcequota q --type=merge -p '{patch}'"
IGNORES = [
    f"! ml/q limits requests.{ONE_SLICE}, but counts no rewritten pods -> "
    + PATCH.format(patch=f'{{"spec":{{"hard":{{"{DEVICES}":"4"}}}}}}')
]
CLASSIC = replace(HEALTHY, api=VERSIONS["v1alpha2"], gates={})
SELECTOR = {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}
HELD = "instaslice-limitranges"
REFUSED = "which no rewritten pod can satisfy: all are refused -> kubectl -n ml edit limitrange l"
NO_CLASS = "mig.nvidia.com.deviceclass.resource.k8s.io/devices"
NOT_BOUND = "is not bound so that it denies"

POLICIES: list[Case] = [
    ("quotas", quotas(device_class(OWN_CLASS, ONE_SLICE), gate=False), COUNTS),
    ("quotas", quotas(device_class(OWN_CLASS, ONE_SLICE)), COUNTS),
    ("quotas", quotas(), COUNTS),  # by the class that will be made
    ("quotas", quotas(device_class(OWN_CLASS)), IGNORES),
    ("quotas", quotas(device_class("other", ONE_SLICE)), COUNTS),
    ("quotas", quotas(device_class(OWN_CLASS), gate=False), IGNORES),
    ("quotas", quotas(gate=False), IGNORES),
    ("quotas", replace(quotas(), gates={}), IGNORES),
    (
        "quotas",
        with_lists(quotas=[*hard("pods", "requests.nvidia.com/gpu"), named("empty", spec={})]),
        [],
    ),
    *(
        (
            *("quotas", quotas(*found, key="requests.nvidia.com/mig-9g.999gb")),
            [f"! .. a quota on its class counts all devices of the class -> .. {NO_CLASS}"],
        )
        for found in ((), (OURS,))
    ),
    (
        *("quotas", with_lists(CLASSIC, quotas=hard(f"requests.{ONE_SLICE}"), classes=[])),
        ['! .. counts claims of every kind -> .. {"count/resourceclaims.resource.k8s.io":"4"}'],
    ),
    *(
        (
            *("quotas", with_lists(quotas=hard(f"requests.{ONE_SLICE}", DEVICES, **scope))),
            [
                f"! .. ({shown}), but counts no rewritten pods: claims have no scope -> kubectl -n "
                f"ml create quota q-unscoped --hard=requests.{ONE_SLICE}=4",
            ],
        )
        for scope, shown in (
            ({"scopes": ["BestEffort"]}, "BestEffort"),
            ({"scopeSelector": {"matchExpressions": [SELECTOR]}}, "PriorityClass In high"),
        )
    ),
    *(
        (
            *("limit ranges", limited(kind, **{field: {ONE_SLICE: amount, "cpu": "1"}})),
            [f"✗ LimitRange ml/l has {ONE_SLICE} in its {field} for type {kind}, {REFUSED}"]
            if is_refused
            else [],
        )
        for kind, field, amount, is_refused in (
            ("Pod", "max", "4", True),
            ("Pod", "min", "1", True),
            ("Container", "min", "1", True),
            ("Container", "min", "0", False),
            ("Container", "max", "4", False),
            ("Container", "default", "1", False),
        )
    ),
    ("limit ranges", holding("v1.29.1"), ["! .. Kubernetes has the policies .. from 1.30 on"]),
    ("limit ranges", holding("v1.36.3"), ["! .. which nothing applies to rewritten pods ->"]),
    ("limit ranges", holding("v1.36.3", HELD), []),
    ("Kueue", HEALTHY, []),
    ("Kueue", kueue("memory"), []),
    (
        *("Kueue", kueue(ONE_SLICE, "nvidia.com/mig-2g.10gb")),
        [
            f"✗ queues cover {ONE_SLICE}, nvidia.com/mig-2g.10gb, .. it admits no rewritten pod "
            "without a Job .. -> instaslice deviceclasses --kueue 1g.5gb 2g.10gb"
        ],
    ),
    ("Kueue", kueue(ONE_SLICE, configuration=f"deviceClassNames: [{OWN_CLASS}]"), ["✓"]),
    ("policies", holding("v1.36.3", *OWN), ["✓"]),
    ("policies", holding("v1.29.1"), []),
    ("policies", with_lists(holding("v1.36.3"), webhooks=[]), []),
    (
        *("policies", holding("v1.36.3")),
        [
            f"! the ValidatingAdmissionPolicy {HELD} does not exist: the max of a LimitRange",
            "! the ValidatingAdmissionPolicy instaslice-service-account does not exist: whoever",
        ],
    ),
    *(
        ("policies", holding("v1.36.3", *OWN, **how), [f"! .. {name} {NOT_BOUND}" for name in OWN])
        for how in ({"bound": False}, {"actions": ("Audit",)})
    ),
]


@pytest.mark.parametrize(("title", "snapshot", "lines"), [*INSTALLED, *DRIVERS, *POLICIES])
def test_what_a_check_finds(title: str, snapshot: Snapshot, lines: list[str]) -> None:
    compare(said(title, snapshot), lines)


def test_the_patch_of_a_quota_is_json() -> None:
    (line,) = said("quotas", quotas(gate=False))
    assert json.loads(line.partition("-p ")[2].strip("'")) == {"spec": {"hard": {DEVICES: "4"}}}


def sent(*arguments: str, **fields: Any) -> Registered:
    return read(webhook(*arguments, **fields)["webhooks"][1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("resources", [(), ("nvidia.com/gpu",), ("amd.com/gpu", "nvidia.com/gpu")])
def test_what_instaslice_prints_is_known(mode: str, resources: tuple[str, ...]) -> None:
    found = sent(mode, *resources)
    assert found == Registered(mode, mode == OPT_IN, frozenset(resources), ())


def test_blanks_say_nothing() -> None:
    (_, printed) = webhook()["webhooks"]
    conditions = [
        {**each, "expression": each["expression"].replace("\n", " ") + "\n"}
        for each in printed["matchConditions"]
    ]
    assert sent(ALL, matchConditions=conditions).mode == ALL


@pytest.mark.parametrize(
    ("field", "value"),
    [("rules", []), ("matchPolicy", "Exact"), ("objectSelector", {}), ("sideEffects", "Some")],
)
def test_what_no_mode_changes(field: str, value: object) -> None:
    assert sent(ALL, **{field: value}).differences == (field,)
    assert sent(ALL, timeoutSeconds=10, sideEffects="None").differences == ()


# -- whatever is left out --------------------------------------------------------------------------


def test_the_oldest_version_has_other_kinds() -> None:
    classic = with_lists(
        replace(HEALTHY, api=VERSIONS["v1alpha2"], kubernetes="v1.27.16", gates={}),
        webhooks=[webhook(matchConditions=None, failurePolicy="Ignore")],
        classes=[named("gpu.nvidia.com", "")],
        templates=[],
        pods=[],
        slices=[],
        quotas=[named("q", spec={"hard": {"requests.nvidia.com/mig-1g.5gb": "1"}})],
    )
    findings = examine(classic)
    (quota,) = (finding for finding in findings if finding.state is not State.GOOD)
    assert '{"count/resourceclaims.resource.k8s.io":"1"}' in quota.advice
    assert "slices" in [finding.check for finding in findings]


#: Of everything that is read, something.
FULL = with_lists(
    replace(HEALTHY, resources=read_mapping(["nvidia.com/gpu=gpu.nvidia.com"])),
    slices=a100.resource_slices(),
    classes=[device_class("mig.nvidia.com"), device_class("gpu.nvidia.com")],
    limits=[named("l", spec={"limits": [{"type": "Pod", "max": {"nvidia.com/mig-1g.5gb": "1"}}]})],
    quotas=[
        named("q", spec={"hard": {"requests.nvidia.com/mig-1g.5gb": "1"}}, status={"hard": {}})
    ],
    queues=[{"spec": {"resourceGroups": [{"coveredResources": ["nvidia.com/mig-1g.5gb"]}]}}],
    kueue=[{"data": {"a": "b"}}],
    namespaces=[named("ml", "", labels={})],
    nodes=[
        {
            "metadata": {"name": "n", "labels": {"nvidia.com/gpu.product": "A100"}},
            "status": {"allocatable": {"nvidia.com/gpu": "1"}},
        }
    ],
    pods=[pod("p", template="mig-1g.5gb"), pod("q", limit="mig-1g.5gb")],
)
#: What the API server wants of every object.
ALWAYS_THERE = {"metadata", "name", "namespace", "spec", "pool", "driver", "device"} | {
    "clientConfig",
    "service",
}


def with_something_left_out() -> Iterator[tuple[Snapshot, Any]]:
    """Snapshots in which an optional field of an object is null or missing; and that object."""
    for name, listed in FULL.lists.items():
        for index, whole in enumerate(listed[:2]):
            for path in paths(whole):
                for is_null in (True, False):
                    changed = copy.deepcopy(whole)
                    holder: Any = changed
                    for step in path[:-1]:
                        holder = holder[step]
                    holder[path[-1]] = None
                    if not is_null:
                        del holder[path[-1]]
                    lists = [*listed[:index], changed, *listed[index + 1 :]]
                    yield with_lists(FULL, **{name: lists}), changed


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to the fields of a JSON value, of lists the first two elements."""
    items = value.items() if isinstance(value, dict) else []
    for key, below in items:
        if key not in ALWAYS_THERE:
            yield (*above, key)
        yield from paths(below, (*above, key))
    if isinstance(value, list):
        for index, below in enumerate(value[:2]):
            yield from paths(below, (*above, index))


def test_whatever_is_left_out_of_an_object_there_is_a_report() -> None:
    tried = 0
    for snapshot, changed in with_something_left_out():
        assert examine(snapshot)
        made = plan.make(snapshot)
        assert plan.as_text(made, 80)
        if "containers" in changed.get("spec", {}):
            assert explain(snapshot, changed, [])
        tried += 1
    assert tried > 400
