"""Is InstaSlice registered, is it called, does it rewrite?"""

from dataclasses import replace
from typing import Any

import pytest

from instaslice.cluster.gates import EXTENDED, PARTITIONABLE, Known
from instaslice.doctor.checks import CHECKS, Registered, read
from instaslice.doctor.snapshot import RIGHTS, Probe, Snapshot
from instaslice.resource_api import Unavailable
from instaslice.resources import read_mapping
from instaslice.webhook_configuration import ALL, BESIDE, MODES, OPT_IN
from test.support.snapshots import (
    HEALTHY,
    device_class,
    findings,
    other_than_good,
    pod,
    webhook,
    with_lists,
)

Json = dict[str, Any]

ONE_SLICE = "nvidia.com/mig-1g.5gb"


def test_gates() -> None:
    gates = {PARTITIONABLE: Known(False), EXTENDED: Known(False), "x": Known(None, "403 no", 403)}
    found = findings(CHECKS["gates"](replace(HEALTHY, gates=gates)))
    assert [(state, text) for state, text, _ in found] == [
        (
            "!",
            "off: DRAPartitionableDevices, needed for slices that are cut on demand (DynamicMIG)",
        ),
        (
            "✓",
            "off: DRAExtendedResource, needed for the scheduler's own way (KEP-5004), and quotas "
            "on requests.nvidia.com/mig-*",
        ),
        ("!", "could not find out whether x are on: 403 no"),
    ]
    assert found[-1][2] == RIGHTS
    away = replace(HEALTHY, gates={"x": Known(None, "timed out")})
    assert findings(CHECKS["gates"](away)) == [
        ("!", "could not find out whether x are on: timed out", "")
    ]


MAPPED = read_mapping(["nvidia.com/gpu=gpu.nvidia.com", "amd.com/gpu=gpu.amd.com"])
LABEL = {"instaslice.io/rewrite": "enabled"}


def namespace(name: str, **labels: str) -> Json:
    return {"metadata": {"name": name, "labels": labels}}


def registered(*arguments: str, **fields: Any) -> Snapshot:
    return with_lists(webhooks=[webhook(*arguments, **fields)])


def beside(*extended: str, kubernetes: str = "v1.36.3", gate: bool | None = True) -> Snapshot:
    classes = [device_class(f"c-{n}", f"nvidia.com/mig-{name}") for n, name in enumerate(extended)]
    snapshot = with_lists(registered(BESIDE), classes=classes)
    return replace(snapshot, kubernetes=kubernetes, gates={EXTENDED: Known(gate)})


BOTH = ("1g.5gb", "1g.5gb.me")


def endpoint(*addresses: str, ready: bool | None = None) -> Snapshot:
    found = {"addresses": [*addresses], "conditions": {"ready": ready}}
    return with_lists(endpoints=[{"endpoints": [found]}])


def probed(pod_: Json | None, error: str = "", status: int = 201, **lists: list[Json]) -> Snapshot:
    probe = Probe("ml", ONE_SLICE, pod_, error, status)
    return replace(with_lists(**lists), probes=(probe,))


KEPT, REWRITTEN = pod(limit="mig-1g.5gb"), pod(template="mig-1g.5gb")
OF_A_LIMIT_RANGE = pod(template="mig-1g.5gb", limit="mig-1g.5gb")
OF_A_LIMIT_RANGE["spec"]["containers"][0]["resources"]["limits"][ONE_SLICE] = "0"

#: By check: snapshots, and the sign, a part of the text, and a part of the advice that they get.
#: An empty sign stands for nothing but good.
CASES: dict[str, list[tuple[Snapshot, str, str, str]]] = {
    "DRA": [
        (
            replace(HEALTHY, api=Unavailable("the cluster does not serve resource.k8s.io")),
            *("✗", "does not serve", "DynamicResourceAllocation"),
        )
    ],
    "webhook": [
        (with_lists(webhooks=[]), "✗", "no MutatingWebhookConfiguration has", "make deploy"),
        (
            registered(matchConditions=None),
            *("!", "every pod of the cluster is sent to it", "instaslice webhook-configuration"),
        ),
        (
            registered(failurePolicy="Ignore"),
            *("!", "pods are let through as they are", "failurePolicy: Fail"),
        ),
        (
            registered(matchConditions=[{"name": "a", "expression": "true"}]),
            *("!", "its matchConditions are not InstaSlice's", "instaslice webhook-configuration"),
        ),
        (
            registered(clientConfig={"service": {"name": "a", "namespace": "b"}}),
            *("✗", "no caBundle", "cainjector"),
        ),
        (
            registered(reinvocationPolicy="Never", sideEffects="Some"),
            *("✗", "as InstaSlice needs them: reinvocationPolicy, sideEffects", "prints"),
        ),
        (
            replace(registered("all", "amd.com/gpu"), resources=MAPPED),
            *("✗", "pods with nvidia.com/gpu are not sent, though serve would rewrite them"),
            "webhook-configuration --resource nvidia.com/gpu=... --resource amd.com/gpu=... prints",
        ),
    ],
    "mode": [
        (
            with_lists(registered(OPT_IN), namespaces=[namespace("ml"), namespace("x")]),
            *("!", "nothing is rewritten", "kubectl label"),
        ),
        (with_lists(registered(OPT_IN), namespaces=[namespace("ml", **LABEL)]), "", "", ""),
        (beside(*BOTH), "", "", ""),
        (
            beside("1g.5gb"),
            *("✗", "no DeviceClass has the extendedResourceName nvidia.com/mig-1g.5gb.me"),
            "instaslice deviceclasses 1g.5gb.me | kubectl apply -f -",
        ),
        (beside(*BOTH, gate=None), "", "", ""),
        (beside(*BOTH, kubernetes="v1.35.6"), "", "", ""),
        (beside(*BOTH, kubernetes="of an unknown version", gate=None), "", "", ""),
        *(
            (
                beside(*BOTH, kubernetes=kubernetes, gate=gate),
                *("✗", f"the scheduler of {kubernetes} serves no extended", "all or opt-in"),
            )
            for kubernetes, gate in (("v1.35.6", None), ("v1.36.3", False))
        ),
    ],
    "endpoints": [
        (HEALTHY, "✓", "has 2 ready pods", ""),
        (endpoint("a"), "✓", "has 1 ready pod", ""),
        (
            endpoint("a", ready=False),
            *("✗", "has no ready pod", "kubectl -n instaslice-system get pods"),
        ),
    ],
    "dry run": [
        (
            probed(None, "403 forbidden: exceeded quota", 403),
            *("✗", "a pod with nvidia.com/mig-1g.5gb in ml is refused: 403 forbidden", ""),
        ),
        (
            probed(None, "500 failed calling webhook: x509: certificate signed by unknown", 500),
            *("✗", "unknown", "does the caBundle trust its certificate?"),
        ),
        (
            probed(None, "no answer within 10 s", 0),
            *("!", "could not be tried: no answer within 10 s", ""),
        ),
        (
            probed(None, '403 User "x" cannot create resource "pods"', 403),
            *("!", "could not be tried", "config/components/doctor"),
        ),
        (probed(KEPT), "✗", "keeps its limits", "labelled instaslice.io/rewrite: disabled?"),
        (probed(KEPT, webhooks=[]), "✗", "keeps its limits", "register the webhook"),
        (
            probed(KEPT, webhooks=[webhook(OPT_IN)]),
            *("!", "keeps its limits", "kubectl label namespace ml instaslice.io/rewrite=enabled"),
        ),
        (probed(REWRITTEN), "✓", "is rewritten", ""),
        (probed(OF_A_LIMIT_RANGE), "✓", "is rewritten", ""),
    ],
}


@pytest.mark.parametrize(
    ("title", "case"), [(title, case) for title, cases in CASES.items() for case in cases]
)
def test_what_a_check_finds(title: str, case: tuple[Snapshot, str, str, str]) -> None:
    snapshot, sign, text, advice = case
    found = (
        findings(CHECKS[title](snapshot))
        if sign == "✓"
        else other_than_good(CHECKS[title](snapshot))
    )
    if not sign:
        assert found == []
        return
    ((sign_, text_, advice_),) = found
    assert (sign_, text in text_, advice in advice_) == (sign, True, True), found


@pytest.mark.parametrize(
    ("kubernetes", "policy", "states"),
    [
        ("v1.28.0", "Fail", ["✓", "!"]),
        ("v1.27.16", "Fail", ["✓", "✗"]),
        ("v1.27.16", "Ignore", ["✓"]),
        ("of an unknown version", "Fail", ["✓", "!"]),
    ],
)
def test_match_conditions_begin_with_kubernetes_1_28(
    kubernetes: str, policy: str, states: list[str]
) -> None:
    snapshot = registered(matchConditions=None, failurePolicy=policy)
    snapshot = replace(snapshot, kubernetes=kubernetes)
    assert [state for state, _, _ in findings(CHECKS["webhook"](snapshot))] == states


@pytest.mark.parametrize(
    ("snapshot", "said"),
    [
        (with_lists(webhooks=[]), []),
        (registered(matchConditions=[{"name": "theirs", "expression": "true"}]), []),
        (
            with_lists(registered(OPT_IN), namespaces=[namespace("ml", **LABEL)]),
            ["opt-in: pods of namespaces labelled instaslice.io/rewrite=enabled are sent"],
        ),
        (
            beside(*BOTH),
            ["beside-the-scheduler: only what the scheduler cannot do by itself is sent"],
        ),
    ],
)
def test_which_mode_it_is(snapshot: Snapshot, said: list[str]) -> None:
    assert [text for _, text, _ in findings(CHECKS["mode"](snapshot))] == said


def test_namespaces_may_opt_in_to_what_the_scheduler_cannot_do() -> None:
    selector = webhook(OPT_IN)["webhooks"][1]["namespaceSelector"]
    snapshot = with_lists(beside(*BOTH), webhooks=[webhook(BESIDE, namespaceSelector=selector)])
    ((_, text, _), *_) = findings(CHECKS["mode"](snapshot))
    assert text.startswith("beside-the-scheduler: ")
    assert "; opt-in: pods of namespaces labelled" in text


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
    [
        ("rules", []),
        ("matchPolicy", "Exact"),
        ("objectSelector", {}),
        ("reinvocationPolicy", "Never"),
        ("sideEffects", "Some"),
    ],
)
def test_what_no_mode_changes(field: str, value: object) -> None:
    assert sent(ALL, **{field: value}).differences == (field,)
    assert sent(ALL, timeoutSeconds=10, sideEffects="None").differences == ()
