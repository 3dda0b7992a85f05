"""Is InstaSlice registered, is it called, does it rewrite?"""

from dataclasses import replace
from typing import Any

import pytest

from instaslice.cluster.gates import EXTENDED, PARTITIONABLE, Known
from instaslice.doctor import installed
from instaslice.doctor.installed import Registered
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


def one(found: list[tuple[str, str, str]], state: str, text: str, advice: str) -> None:
    """There is one finding, of that state, with those parts."""
    ((state_, text_, advice_),) = found
    assert state_ == state
    assert text in text_
    assert advice in advice_


def test_no_dra() -> None:
    without = replace(HEALTHY, api=Unavailable("the cluster does not serve resource.k8s.io"))
    one(findings(installed.dra(without)), "✗", "does not serve", "DynamicResourceAllocation")


def test_gates() -> None:
    gates = {PARTITIONABLE: Known(False), EXTENDED: Known(False), "x": Known(None, "403 no", 403)}
    found = findings(installed.feature_gates(replace(HEALTHY, gates=gates)))
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
    assert findings(installed.feature_gates(away)) == [
        ("!", "could not find out whether x are on: timed out", "")
    ]


MAPPED = read_mapping(["nvidia.com/gpu=gpu.nvidia.com", "amd.com/gpu=gpu.amd.com"])

REGISTERED: dict[str, tuple[Snapshot, str, str, str]] = {
    "nothing": (with_lists(webhooks=[]), "✗", "no MutatingWebhookConfiguration has", "make deploy"),
    "no matchConditions": (
        with_lists(webhooks=[webhook(matchConditions=None)]),
        *("!", "every pod of the cluster is sent to it", "instaslice webhook-configuration"),
    ),
    "it fails open": (
        with_lists(webhooks=[webhook(failurePolicy="Ignore")]),
        *("!", "pods are let through as they are", "failurePolicy: Fail"),
    ),
    "others' conditions": (
        with_lists(webhooks=[webhook(matchConditions=[{"name": "a", "expression": "true"}])]),
        *("!", "its matchConditions are not InstaSlice's", "instaslice webhook-configuration"),
    ),
    "no CA": (
        with_lists(webhooks=[webhook(clientConfig={"service": {"name": "a", "namespace": "b"}})]),
        *("✗", "no caBundle", "cainjector"),
    ),
    "called once": (
        with_lists(webhooks=[webhook(reinvocationPolicy="Never", sideEffects="Some")]),
        *("✗", "as InstaSlice needs them: reinvocationPolicy, sideEffects", "prints"),
    ),
    "no updates": (
        with_lists(webhooks=[webhook(rules=[{"operations": ["CREATE"]}])]),
        *("✗", "as InstaSlice needs them: rules", "prints"),
    ),
    "what is mapped is not sent": (
        replace(with_lists(webhooks=[webhook("all", "amd.com/gpu")]), resources=MAPPED),
        *("✗", "pods with nvidia.com/gpu are not sent, though serve would rewrite them"),
        "webhook-configuration --resource nvidia.com/gpu=... --resource amd.com/gpu=... prints",
    ),
}


@pytest.mark.parametrize("case", REGISTERED)
def test_how_it_is_registered(case: str) -> None:
    snapshot, *expected = REGISTERED[case]
    one(other_than_good(installed.registered(snapshot)), *expected)


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
    registered = webhook(matchConditions=None, failurePolicy=policy)
    snapshot = replace(with_lists(webhooks=[registered]), kubernetes=kubernetes)
    assert [state for state, _, _ in findings(installed.registered(snapshot))] == states


def namespace(name: str, **labels: str) -> Json:
    return {"metadata": {"name": name, "labels": labels}}


def test_mode_opt_in() -> None:
    lonely = with_lists(webhooks=[webhook(OPT_IN)], namespaces=[namespace("ml"), namespace("x")])
    one(other_than_good(installed.mode(lonely)), "!", "nothing is rewritten", "kubectl label")
    label = {"instaslice.io/rewrite": "enabled"}
    served = with_lists(lonely, namespaces=[namespace("ml", **label)])
    ((state, text, _),) = findings(installed.mode(served))
    assert (state, text) == (
        "✓",
        "opt-in: pods of namespaces labelled instaslice.io/rewrite=enabled are sent",
    )


def test_no_mode_is_told_where_none_is_known() -> None:
    assert findings(installed.mode(with_lists(webhooks=[]))) == []
    others = [{"name": "theirs", "expression": "true"}]
    assert findings(installed.mode(with_lists(webhooks=[webhook(matchConditions=others)]))) == []


def test_namespaces_may_opt_in_to_what_the_scheduler_cannot_do() -> None:
    labelled = {"key": "instaslice.io/rewrite", "operator": "In", "values": ["enabled"]}
    registered = webhook(BESIDE, namespaceSelector={"matchExpressions": [labelled]})
    snapshot = with_lists(beside(ONE_SLICE, ONE_SLICE + ".me"), webhooks=[registered])
    ((_, text, _), *_) = findings(installed.mode(snapshot))
    assert text.startswith("beside-the-scheduler: ")
    assert "; opt-in: pods of namespaces labelled" in text


def beside(*extended: str, kubernetes: str = "v1.36.3", gate: bool | None = True) -> Snapshot:
    classes = [device_class(f"c-{n}", name) for n, name in enumerate(extended)]
    snapshot = with_lists(webhooks=[webhook(BESIDE)], classes=classes)
    return replace(snapshot, kubernetes=kubernetes, gates={EXTENDED: Known(gate)})


def test_mode_beside_the_scheduler() -> None:
    whole = beside(ONE_SLICE, ONE_SLICE + ".me")
    ((state, text, _),) = findings(installed.mode(whole))
    assert (state, text) == (
        "✓",
        "beside-the-scheduler: only what the scheduler cannot do by itself is sent",
    )
    one(
        other_than_good(installed.mode(beside(ONE_SLICE))),
        *("✗", "no DeviceClass has the extendedResourceName nvidia.com/mig-1g.5gb.me"),
        "instaslice deviceclasses 1g.5gb.me | kubectl apply -f -",
    )


@pytest.mark.parametrize(
    ("kubernetes", "gate", "fits"),
    [
        ("v1.36.3", None, True),
        ("v1.35.6", None, False),
        ("v1.35.6", True, True),
        ("v1.36.3", False, False),
        ("of an unknown version", None, True),
    ],
)
def test_a_mode_that_does_not_fit_the_version(
    kubernetes: str, gate: bool | None, fits: bool
) -> None:
    snapshot = beside(ONE_SLICE, ONE_SLICE + ".me", kubernetes=kubernetes, gate=gate)
    found = other_than_good(installed.mode(snapshot))
    if fits:
        assert found == []
    else:
        one(found, "✗", f"the scheduler of {kubernetes} serves no extended", "all or opt-in")


def test_nobody_is_there() -> None:
    one(findings(installed.endpoints(HEALTHY)), "✓", "has 2 ready pods", "")
    single = [{"endpoints": [{"addresses": ["a"]}]}]
    one(findings(installed.endpoints(with_lists(endpoints=single))), "✓", "has 1 ready pod", "")
    gone = [{"endpoints": [{"addresses": ["a"], "conditions": {"ready": False}}]}]
    found = findings(installed.endpoints(with_lists(endpoints=gone)))
    one(found, "✗", "has no ready pod", "kubectl -n instaslice-system get pods")


def probed(pod_: Json | None, error: str = "", status: int = 201, **lists: list[Json]) -> Snapshot:
    probe = Probe("ml", ONE_SLICE, pod_, error, status)
    return replace(with_lists(**lists), probes=(probe,))


PROBES: dict[str, tuple[Snapshot, str, str, str]] = {
    "refused": (
        probed(None, "403 forbidden: exceeded quota", 403),
        *("✗", "a pod with nvidia.com/mig-1g.5gb in ml is refused: 403 forbidden", ""),
    ),
    "not trusted": (
        probed(None, "500 failed calling webhook: x509: certificate signed by unknown", 500),
        *("✗", "unknown", "does the caBundle trust its certificate?"),
    ),
    "no answer": (
        probed(None, "no answer within 10 s", 0),
        *("!", "could not be tried: no answer within 10 s", ""),
    ),
    "who asks may not": (
        probed(None, '403 User "x" cannot create resource "pods"', 403),
        *("!", "could not be tried", "config/components/doctor"),
    ),
    "kept": (
        probed(pod(limit="mig-1g.5gb")),
        *("✗", "keeps its limits", "labelled instaslice.io/rewrite: disabled?"),
    ),
    "kept, and no webhook": (
        probed(pod(limit="mig-1g.5gb"), webhooks=[]),
        *("✗", "keeps its limits", "register the webhook"),
    ),
    "kept, and not opted in": (
        probed(pod(limit="mig-1g.5gb"), webhooks=[webhook(OPT_IN)]),
        *("!", "keeps its limits", "kubectl label namespace ml instaslice.io/rewrite=enabled"),
    ),
    "rewritten": (probed(pod(template="mig-1g.5gb")), "✓", "is rewritten", ""),
}


@pytest.mark.parametrize("case", PROBES)
def test_dry_runs(case: str) -> None:
    snapshot, *expected = PROBES[case]
    one(findings(installed.dry_run(snapshot)), *expected)


def test_a_limit_in_a_LimitRange_is_not_a_limit_that_was_kept() -> None:  # noqa: N802 - its name
    rewritten = pod(template="mig-1g.5gb", limit="mig-1g.5gb")
    rewritten["spec"]["containers"][0]["resources"]["limits"][ONE_SLICE] = "0"
    one(findings(installed.dry_run(probed(rewritten))), "✓", "is rewritten", "")


def sent(*arguments: str, **fields: Any) -> Registered:
    return installed.read(webhook(*arguments, **fields)["webhooks"][1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("resources", [(), ("nvidia.com/gpu",), ("amd.com/gpu", "nvidia.com/gpu")])
def test_what_instaslice_prints_is_known(mode: str, resources: tuple[str, ...]) -> None:
    found = sent(mode, *resources)
    assert found == Registered(mode, mode == OPT_IN, frozenset(resources), True, ())


def test_blanks_say_nothing() -> None:
    (_, printed) = webhook()["webhooks"]
    conditions = [
        {**each, "expression": each["expression"].replace("\n", " ") + "\n"}
        for each in printed["matchConditions"]
    ]
    assert sent(ALL, matchConditions=conditions).mode == ALL


def test_both_components_together() -> None:
    selector = webhook(OPT_IN)["webhooks"][1]["namespaceSelector"]
    found = sent(BESIDE, namespaceSelector=selector)
    assert (found.mode, found.opt_in) == (BESIDE, True)


def test_other_conditions_are_not_judged() -> None:
    found = sent(matchConditions=[{"name": "a", "expression": "true"}])
    assert (found.mode, found.has_conditions) == ("", True)
    assert not sent(matchConditions=None).has_conditions


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
