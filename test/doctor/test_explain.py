"""What is said of one pod."""

from typing import Any

import pytest

from instaslice.doctor.explain import explain
from instaslice.doctor.findings import Finding
from instaslice.doctor.snapshot import Snapshot
from test.support.snapshots import HEALTHY, claim, named, pod, slice_, with_lists

Json = dict[str, Any]


def explained(pod_: Json, snapshot: Snapshot = HEALTHY, *events: Json) -> list[tuple[str, ...]]:
    return [(f.check, f.state.value, f.text) for f in explain(snapshot, pod_, list(events))]


def claimed(claim_: Json | None, template: str = "mig-1g.5gb", **lists: list[Json]) -> Any:
    """What is said of a pod's claim."""
    waiting = pod(template=template)
    waiting["status"]["resourceClaimStatuses"] = [
        {"name": "0123456789", "resourceClaimName": "made"}
    ]
    claims = [] if claim_ is None else [named("made") | claim_]
    found = explain(with_lists(claims=claims, **lists), waiting, [])
    return next(f for f in found if f.check == "claim 01234567")


def test_a_pod_that_runs() -> None:
    running = pod(template="mig-1g.5gb", node="node-1", phase="Running")
    asks, became, _, state = explained(running)
    assert asks == ("asks for", "✓", "nvidia.com/mig-1g.5gb: 1")
    assert became == ("became", "✓", "rewritten: 1 claim, a slice each")
    assert state == ("state", "✓", "Running on node-1")


@pytest.mark.parametrize(
    ("found", "state", "text", "advice"),
    [
        (claimed(claim("mig-0")), "✓", "1g.5gb: has mig-0 of node-1", ""),
        (claimed({}), "!", "1g.5gb: waits, though 1 of 1 are free", "scheduler"),
        (
            claimed({}, slices=[slice_("3g.20gb")]),
            *("✗", "no node publishes 1g.5gb", "there is 3g.20gb"),
        ),
        (claimed({}, slices=[]), "✗", "no node publishes 1g.5gb", "is the DRA driver there?"),
        (claimed(None), "!", "1g.5gb: its claim is not made yet", "below"),
        (
            claimed(None, template="mig-2g.10gb"),
            *("✗", "there is no ResourceClaimTemplate mig-2g.10gb in ml"),
            "instaslice templates --apply -n ml 2g.10gb",
        ),
    ],
)
def test_how_it_stands_with_a_claim(found: Finding, state: str, text: str, advice: str) -> None:
    assert (found.state.value, found.text) == (state, text)
    assert advice in found.advice


def test_a_claim_for_which_nothing_is_left() -> None:
    taken = named("other") | claim("mig-0")
    waiting = pod(template="mig-1g.5gb")
    waiting["status"]["resourceClaimStatuses"] = [
        {"name": "0123456789", "resourceClaimName": "made"}
    ]
    found = explained(waiting, with_lists(claims=[taken, named("made")]))
    assert ("claim 01234567", "✗", "1g.5gb: all 1 are taken") in found


def test_pods_that_were_not_rewritten() -> None:
    assert [state for _, state, _ in explained(pod(limit="mig-1g.5gb"))] == ["✓", "✗", "!"]
    old = pod(limit="mig-1g.5gb", node="node-1", phase="Running")
    assert explained(old)[1] == (
        *("became", "✓", "it has its slices from the device plugin, from before InstaSlice"),
    )
    old["status"]["extendedResourceClaimStatus"] = {"resourceClaimName": "p-extended-x"}
    assert "the scheduler made the claim p-extended-x" in explained(old)[1][2]
    assert explained(pod())[0] == ("asks for", "✓", "no MIG slice")


def test_the_latest_warning_is_told() -> None:
    def event(time: str, message: str, kind: str = "Warning") -> Json:
        metadata = {"creationTimestamp": "2026-01-01T00:00:00Z"}
        told = {"reason": "FailedScheduling", "message": message, "type": kind}
        return {"metadata": metadata, "lastTimestamp": time, **told}

    events = (
        event("2026-01-01T00:00:02Z", "no\n room"),
        event("2026-01-01T00:00:01Z", "earlier"),
        event("2026-01-01T00:00:03Z", "fine", "Normal"),
    )
    *_, state = explained(pod(), HEALTHY, *events)
    assert state == ("state", "!", "Pending: FailedScheduling: no room")


@pytest.mark.parametrize(
    ("reason", "component", "phase", "state", "text"),
    [
        (
            "FailedPrepareDynamicResources",
            *("kubelet", "Pending", "✗"),
            "Pending on node-1: FailedPrepareDynamicResources: no power",
        ),
        ("Failed", "kubelet", "Pending", "✗", "Pending on node-1: Failed: no power"),
        ("FailedPrepareDynamicResources", "kubelet", "Running", "✓", "Running on node-1"),
        ("FailedScheduling", "default-scheduler", "Pending", "✓", "Pending on node-1"),
    ],
    ids=["the driver fails", "it fails otherwise", "that is past", "so is the scheduler's word"],
)
def test_a_pod_that_has_a_node_and_does_not_start(
    reason: str, component: str, phase: str, state: str, text: str
) -> None:
    warning = {"reason": reason, "message": "no power", "type": "Warning"}
    event = {"metadata": {}, "source": {"component": component}, **warning}
    bound = pod(template="mig-1g.5gb", node="node-1", phase=phase)
    *_, found = explain(HEALTHY, bound, [event])
    assert (found.state.value, found.text) == (state, text)
    assert ("DRA driver's pod on node-1" in found.advice) == ("Prepare" in text)
