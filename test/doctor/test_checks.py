"""The checks of a cluster: snapshots are here, the expected reports in checks.txt."""

import copy
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from instaslice.cluster.client import Answer, ClusterError
from instaslice.cluster.gates import EXTENDED, PARTITIONABLE, Known
from instaslice.doctor import plan
from instaslice.doctor.checks import CHECKS, Registered, examine
from instaslice.doctor.explain import explain
from instaslice.doctor.inventory import grouped
from instaslice.doctor.policies import OWN
from instaslice.doctor.report import State, as_json, as_text, is_wrong
from instaslice.doctor.snapshot import RIGHTS, Probe, Snapshot
from instaslice.profiles import known_profiles
from instaslice.resource_api import VERSIONS, Unavailable
from instaslice.resources import read_mapping
from instaslice.webhook_configuration import ALL, BESIDE, MODES, OPT_IN
from test.support import a100
from test.support.snapshots import (
    HEALTHY,
    Json,
    bindings,
    claim,
    device_class,
    named,
    own_classes,
    pod,
    recorded,
    slice_,
    template,
    webhook,
    with_lists,
)

ONE_SLICE = "nvidia.com/mig-1g.5gb"
OWN_CLASS = "mig-1g.5gb.nvidia.com"
DEVICES = f"{OWN_CLASS}.deviceclass.resource.k8s.io/devices"
BOTH = ("1g.5gb", "1g.5gb.me")


def test_unreadable_lists_are_reported_as_unsure() -> None:
    forbidden = dict.fromkeys(HEALTHY.lists, ClusterError("403 forbidden", 403))
    blind = replace(HEALTHY, lists={}, failures=forbidden)
    findings = examine(replace(blind, probes=(), gates={}))
    (_, (check, state, text, advice)) = findings
    assert (check, state, advice) == ("not checked", State.UNSURE, RIGHTS)
    titles, _, reason = text.partition(": ")
    without_lists = {"DRA", "gates", "dry run", "mapped", "limit ranges", "Kueue"}
    assert titles.split(", ") == [each for each in CHECKS if each not in without_lists]
    assert reason == "webhooks could not be read: 403 forbidden (and 6 more)"
    assert not is_wrong(findings)


def test_a_timeout_gives_no_advice_about_rights() -> None:
    silent = replace(HEALTHY, failures={"nodes": ClusterError("no answer within 10 s")})
    (found,) = (each for each in examine(silent) if each.state is State.UNSURE)
    text = "limits, node labels, device plugin: nodes could not be read: no answer within 10 s"
    assert (found.check, found.text, found.advice) == ("not checked", text, "")


MAPPED = read_mapping(["nvidia.com/gpu=gpu.nvidia.com", "amd.com/gpu=gpu.amd.com"])


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


def probed(answer: Answer | ClusterError, **lists: list[Json]) -> Snapshot:
    return replace(with_lists(**lists), probes=(Probe("ml", ONE_SLICE, answer),))


def refused(status: int, message: str) -> Snapshot:
    return probed(Answer(status, {"message": message}))


KEPT = Answer(201, pod(limit="mig-1g.5gb"))
REWRITTEN = Answer(201, pod(template="mig-1g.5gb"))
OF_A_LIMIT_RANGE = pod(template="mig-1g.5gb", limit="mig-1g.5gb")
OF_A_LIMIT_RANGE["spec"]["containers"][0]["resources"]["limits"][ONE_SLICE] = "0"
ENABLED, DISABLED = ({"instaslice.io/rewrite": each} for each in ("enabled", "disabled"))
OPTING_IN = webhook(OPT_IN)["webhooks"][1]["namespaceSelector"]
OTHERS = [{"name": "a", "expression": "true"}]
NO_VERSION = "of an unknown version"
OFF = {PARTITIONABLE: Known(False), EXTENDED: Known(False)}

#: Snapshots by the check's title and the case.
CASES: dict[str, Snapshot] = {
    "DRA: not served": replace(HEALTHY, api=Unavailable("the cluster does not serve it")),
    "gates: off and unknown": replace(HEALTHY, gates={**OFF, "x": Known(None, "403", 403)}),
    "gates: no answer": replace(HEALTHY, gates={"x": Known(None, "timed out")}),
    "webhook: as printed": HEALTHY,
    "webhook: not registered": with_lists(webhooks=[]),
    "webhook: no conditions": registered(matchConditions=None),
    "webhook: other conditions": registered(matchConditions=OTHERS),
    "webhook: failurePolicy Ignore": registered(failurePolicy="Ignore"),
    "webhook: no caBundle": registered(clientConfig={"service": {"name": "a", "namespace": "b"}}),
    "webhook: other fields": registered(
        **dict.fromkeys(("rules", "matchPolicy", "objectSelector", "reinvocationPolicy"), "x"),
        sideEffects="Some",
    ),
    "webhook: a resource is not sent": replace(registered(ALL, "amd.com/gpu"), resources=MAPPED),
    # Kubernetes knows matchConditions from 1.28 on.
    **{
        f"webhook: no conditions, {policy}, {kubernetes}": replace(
            registered(matchConditions=None, failurePolicy=policy), kubernetes=kubernetes
        )
        for kubernetes, policy in (
            *(("v1.28.0", "Fail"), ("v1.27.16", "Fail"), ("v1.27.16", "Ignore")),
            (NO_VERSION, "Fail"),
        )
    },
    "mode: no webhook": with_lists(webhooks=[]),
    "mode: other conditions": registered(matchConditions=OTHERS),
    "mode: no namespace opts in": in_namespace(registered(OPT_IN)),
    "mode: a namespace opts in": in_namespace(registered(OPT_IN), **ENABLED),
    "mode: beside the scheduler": beside(*BOTH),
    "mode: beside the scheduler, opt-in": in_namespace(
        with_lists(beside(*BOTH), webhooks=[webhook(BESIDE, namespaceSelector=OPTING_IN)]),
        **ENABLED,
    ),
    "mode: the gate is unknown": beside(*BOTH, gate=None),
    "mode: the gate and the version are unknown": beside(*BOTH, kubernetes=NO_VERSION, gate=None),
    "mode: the gate is on in 1.35": beside(*BOTH, kubernetes="v1.35.6"),
    "mode: the gate is unknown in 1.35": beside(*BOTH, kubernetes="v1.35.6", gate=None),
    "mode: the gate is off": beside(*BOTH, gate=False),
    "mode: a class is missing": beside("1g.5gb"),
    "endpoints: one is ready": endpoint(),
    "endpoints: none is ready": endpoint(ready=False),
    "dry run: a quota forbids the pod": refused(403, "forbidden: exceeded quota"),
    "dry run: no trusted CA": refused(500, "failed calling webhook: x509: unknown"),
    "dry run: no answer": probed(ClusterError("no answer within 10 s")),
    "dry run: no rights": refused(403, 'User "x" cannot create resource "pods"'),
    "dry run: limits are kept": probed(KEPT),
    "dry run: limits are kept, no webhook": probed(KEPT, webhooks=[]),
    "dry run: limits are kept, no namespace opts in": probed(KEPT, webhooks=[webhook(OPT_IN)]),
    "dry run: limits are kept, the namespace is disabled": probed(
        KEPT, namespaces=[named("ml", "", metadata={"name": "ml", "labels": DISABLED})]
    ),
    "dry run: rewritten": probed(REWRITTEN),
    "dry run: rewritten, a LimitRange sets 0": probed(Answer(201, OF_A_LIMIT_RANGE)),
}

COUNTERS, FIRST, SECOND = a100.resource_slices()


def tainted_and_shared() -> list[Json]:
    """Two GPUs with tainted slices and a shared one."""
    slices = copy.deepcopy([COUNTERS, FIRST, SECOND])
    by_name = {device["name"]: device for device in slices[2]["spec"]["devices"]}
    effects = {"4g20gb-5": "NoExecute", "7g40gb-0": "NoSchedule", "3g20gb-9": "None"}
    for name, effect in effects.items():
        taint = {"key": "health", "value": "xid", "effect": effect}
        by_name[f"gpu-1-mig-{name}-0"]["taints"] = [{"key": "x", "effect": "Other"}, taint]
    by_name["gpu-1-mig-3g20gb-9-0"]["allowMultipleAllocations"] = True
    return slices


def mapping(*texts: str, **lists: list[Json]) -> Snapshot:
    return replace(with_lists(**lists), resources=read_mapping(texts))


def of_vendors() -> Snapshot:
    """Mapped resources of several vendors."""
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
    """A node, and pods that select nodes by one of two values of a label."""
    pods = []
    for key in ("nvidia.com/mig.config", "zone"):
        found = pod(limit="mig-1g.5gb", node=node_name)
        term = {"matchExpressions": [{"key": key, "operator": "In", "values": ["a", "b"]}]}
        required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
        found["spec"]["affinity"] = {"nodeAffinity": required}
        pods.append(found)
    return with_lists(pods=pods, nodes=[node("n", labels)])


OLD_NODES = [node(f"old-{n}", **{"mig-1g.5gb": "7", "gpu": "1"}) for n in range(5)]
NODES = [*OLD_NODES, node("node-1", **{"mig-1g.5gb": "7"}), node("new", **{"mig-1g.5gb": "0"})]

GPU_MAPPED = "nvidia.com/gpu=gpu.nvidia.com"
COUNTED, UNCOUNTED = a100.resource_slices(), a100.resource_slices(counted=False)
SQUATTED = [named("mig-1g.5gb.x2", "elsewhere"), named("x"), template("mig-1g.5gb")]
TWO_PODS = [pod("p", template="mig-1g.5gb.x2"), pod("q", template="same-gpu-mig-1g.5gb.x2")]

UNCOUNTED[1]["spec"]["devices"].append({**a100.whole_gpu(0), "consumesCounters": None})
CLASSIC = replace(HEALTHY, api=VERSIONS["v1alpha2"], gates={})

CASES |= {
    "driver: no class": with_lists(classes=[]),
    "driver: v1alpha2": with_lists(CLASSIC, classes=[named("gpu.nvidia.com", "")]),
    "slices: v1alpha2": with_lists(CLASSIC, slices=[]),
    "slices: none": with_lists(slices=[]),
    "slices: tainted and shared": with_lists(slices=tainted_and_shared(), claims=[]),
    "slices: an incomplete pool": with_lists(slices=[COUNTERS, FIRST]),
    "overlap: the counters were dropped": with_lists(slices=UNCOUNTED),
    "overlap: slices with counters": with_lists(slices=COUNTED),
    "overlap: slices with counters, 1.34": with_lists(slices=a100.resource_slices(combined=True)),
    "overlap: existing slices": with_lists(slices=a100.static_slices("node-1", ("3g.20gb", 0))),
    "mapped: several": of_vendors(),
    "mapped: invalid": replace(HEALTHY, failures={"mapping": ClusterError("'x' is not NAME=X")}),
    "profiles: not published": with_lists(pods=WANTING),
    "templates: different ones": with_lists(pods=[], templates=SQUATTED),
    "templates: missing": with_lists(pods=TWO_PODS, templates=[]),
    "device classes: missing": classes(),
    "device classes: a different one": classes(THEIRS),
    "device classes: no extendedResourceName": classes(NAMELESS),
    "device classes: no extendedResourceName, the gate is off": classes(NAMELESS, gate=False),
    "device classes: extendedResourceName, the gate is off": classes(OURS, gate=False),
    "device classes: all": classes(*ALL_CLASSES, pods=[]),
    "device classes: two for a resource": classes(
        device_class("a", ONE_SLICE), device_class("b", ONE_SLICE), pods=[]
    ),
    # The GPU operator's class has no extendedResourceName.
    "limits: whole GPUs, not served": WHOLE,
    "limits: whole GPUs, served by a class": with_lists(WHOLE, classes=SERVING),
    "limits: whole GPUs, served by a device plugin": with_lists(WHOLE, nodes=[node("n", gpu="1")]),
    "limits: whole GPUs, mapped": replace(WHOLE, resources=MAPPED),
    "limits: not served": with_lists(pods=WAITING, classes=[], nodes=[]),
    "limits: served by a device plugin": with_lists(
        pods=WAITING, classes=[], nodes=[node("n", **{"gpu": "1", "mig-1g.5gb": "7"})]
    ),
    "limits: served by the scheduler": classes(device_class("c", ONE_SLICE), pods=WAITING),
    "node names: claims without devices": with_lists(pods=BOUND),
    "node names: an allocated claim": with_lists(pods=SERVED, claims=[named("m") | claim("mig-0")]),
    "node labels: no node has the key": choosing({}),
    "node labels: a node has another value": choosing({"nvidia.com/mig.config": "x"}),
    "node labels: a node has the value": choosing({"nvidia.com/mig.config": "b"}),
    "node labels: the pod has a node": choosing({}, node_name="n"),
    "device plugin: it serves slices": with_lists(nodes=NODES),
    "device plugin: it serves whole GPUs": mapping(GPU_MAPPED, nodes=[node("n", gpu="1")]),
}


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
    """A LimitRange with a max, and ValidatingAdmissionPolicies that may be bound."""
    found = limited("Container", max={ONE_SLICE: "2"})
    listed = bindings(*OWN, actions=actions) if bound else []
    snapshot = with_lists(found, policies=[named(each, "") for each in policies], bindings=listed)
    return replace(snapshot, kubernetes=kubernetes)


def kueue(*covered: str, configuration: str = "") -> Snapshot:
    queue = {"spec": {"resourceGroups": [{"coveredResources": ["cpu", *covered]}]}}
    data = {"data": {"controller_manager_config.yaml": configuration}}
    return with_lists(queues=[queue], kueue=[data])


HIGH = {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}
KEYS, SELECTOR = (f"requests.{ONE_SLICE}", DEVICES), {"matchExpressions": [HIGH]}
OTHER_QUOTAS = [*hard("pods", "requests.nvidia.com/gpu"), named("empty", spec={})]
UNKNOWN = "requests.nvidia.com/mig-9g.999gb"
NAMED = device_class(OWN_CLASS, ONE_SLICE)

CASES |= {
    "quotas: the class has the name": quotas(NAMED),
    "quotas: the class has the name, the gate is off": quotas(NAMED, gate=False),
    "quotas: InstaSlice will create the class": quotas(),
    "quotas: another class has the name": quotas(device_class("other", ONE_SLICE)),
    "quotas: the class lacks the name": quotas(device_class(OWN_CLASS)),
    "quotas: no name, the gate is off": quotas(device_class(OWN_CLASS), gate=False),
    "quotas: no class, the gate is off": quotas(gate=False),
    "quotas: no class, the gate is unknown": replace(quotas(), gates={}),
    "quotas: other resources": with_lists(quotas=OTHER_QUOTAS),
    "quotas: an unknown profile": quotas(key=UNKNOWN),
    "quotas: an unknown profile, another's class": quotas(OURS, key=UNKNOWN),
    "quotas: v1alpha2": with_lists(CLASSIC, quotas=hard(f"requests.{ONE_SLICE}"), classes=[]),
    "quotas: in a scope, scopes": with_lists(quotas=hard(*KEYS, scopes=["BestEffort"])),
    "quotas: in a scope, scopeSelector": with_lists(quotas=hard(*KEYS, scopeSelector=SELECTOR)),
    **{
        f"limit ranges: {kind}, {field} {amount}": limited(
            kind, **{field: {ONE_SLICE: amount, "cpu": "1"}}
        )
        for kind, field, amount in (
            *(("Pod", "max", "4"), ("Pod", "min", "1"), ("Container", "min", "1")),
            *(("Container", "min", "0"), ("Container", "max", "4"), ("Container", "default", "1")),
        )
    },
    "limit ranges: max without policies in 1.29": holding("v1.29.1"),
    "limit ranges: max without policies": holding("v1.36.3"),
    "limit ranges: max with a policy": holding("v1.36.3", "instaslice-limitranges"),
    "Kueue: no queue": HEALTHY,
    "Kueue: other queues": kueue("memory"),
    "Kueue: not mapped": kueue(ONE_SLICE, "nvidia.com/mig-2g.10gb"),
    "Kueue: mapped": kueue(ONE_SLICE, configuration=f"deviceClassNames: [{OWN_CLASS}]"),
    "policies: bound": holding("v1.36.3", *OWN),
    "policies: missing": holding("v1.36.3"),
    "policies: missing in 1.29": holding("v1.29.1"),
    "policies: no webhook": with_lists(holding("v1.36.3"), webhooks=[]),
    "policies: not bound": holding("v1.36.3", *OWN, bound=False),
    "policies: bound to audit": holding("v1.36.3", *OWN, actions=("Audit",)),
}


REPORTS = recorded("checks.txt")
assert REPORTS.keys() == {*CASES, "a healthy cluster", "as JSON"}


@pytest.mark.parametrize("case", CASES)
def test_the_report_of_a_check(case: str) -> None:
    title = case.partition(":")[0]
    found = [each for each in examine(CASES[case]) if each.check == title]
    assert as_text(found) == REPORTS[case]


def test_a_healthy_cluster() -> None:
    findings = examine(HEALTHY)
    assert {each.state for each in findings} == {State.GOOD}
    assert as_text(findings) == REPORTS["a healthy cluster"]
    assert not is_wrong(findings)
    assert is_wrong(examine(CASES["driver: no class"]))


def sent(*arguments: str, **fields: Any) -> Registered:
    return Registered(webhook(*arguments, **fields)["webhooks"][1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("resources", [(), ("nvidia.com/gpu",), ("amd.com/gpu", "nvidia.com/gpu")])
def test_a_printed_configuration_is_recognized(mode: str, resources: tuple[str, ...]) -> None:
    found = sent(mode, *resources)
    assert (found.mode, found.opt_in, found.differences) == (mode, mode == OPT_IN, [])
    assert found.resources == {*resources}


def test_what_makes_no_difference_is_ignored() -> None:
    (_, printed) = webhook()["webhooks"]
    conditions = [
        {**each, "expression": each["expression"].replace("\n", " ") + "\n"}
        for each in printed["matchConditions"]
    ]
    found = sent(ALL, matchConditions=conditions, timeoutSeconds=10, sideEffects="None")
    assert (found.mode, found.differences) == (ALL, [])


@pytest.mark.parametrize(
    ("kubernetes", "minor"),
    [("v1.36.3", 36), ("v1.34+", 34), ("v1.33.4-eks-1", 33), ("an unknown version", 0)],
)
def test_the_minor_version(kubernetes: str, minor: int) -> None:
    assert replace(HEALTHY, kubernetes=kubernetes).minor == minor


def test_the_formats() -> None:
    findings = [each for each in examine(CASES["driver: no class"]) if each.check == "driver"]
    assert as_json(findings) == REPORTS["as JSON"]
    assert as_text(findings, colour=True).startswith("\x1b[31m✗\x1b[0m driver")


#: Fields that the API server requires.
REQUIRED = {"metadata", "name", "namespace", "spec", "pool", "driver", "device"}
REQUIRED |= {"clientConfig", "service"}


def lacking(value: Any) -> Iterator[Any]:
    """Yield copies of a JSON value in which an optional field is missing or null.

    Of lists, it changes the first two items.
    """
    for key, below in value.items() if isinstance(value, dict) else ():
        if key not in REQUIRED:
            yield {name: each for name, each in value.items() if name != key}
            yield {**value, key: None}
        yield from ({**value, key: each} for each in lacking(below))
    for index, below in enumerate(value[:2] if isinstance(value, list) else ()):
        yield from ([*value[:index], each, *value[index + 1 :]] for each in lacking(below))


def fields(value: Json) -> int:
    """The number of different fields in an object."""
    return len(set(re.findall(r'"(\w+)":', json.dumps(value))))


def test_missing_optional_fields_do_not_prevent_a_report() -> None:
    by_name = grouped(
        (name, each)
        for case in CASES.values()
        for name, objects in case.lists.items()
        for each in objects
    )
    varied = {name: sorted(every, key=fields)[-2:] for name, every in by_name.items()}
    tried = 0
    for name, (other, last) in varied.items():
        for changed in lacking(last):
            snapshot = replace(with_lists(**varied | {name: [other, changed]}), resources=MAPPED)
            assert examine(snapshot)
            assert plan.Plan(snapshot).as_text(80)
            if name == "pods":
                assert explain(snapshot, changed, [])
            tried += 1
    assert tried > 400
