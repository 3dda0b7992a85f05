"""What is said of one pod."""

from typing import Any

import pytest

from instaslice.doctor.explain import explain
from instaslice.doctor.report import Finding
from instaslice.doctor.snapshot import Snapshot
from test.support import a100
from test.support.snapshots import (
    HEALTHY,
    claim,
    device_class,
    named,
    own_classes,
    pod,
    slice_,
    with_lists,
)
from test.support.snapshots import template as template_of

Json = dict[str, Any]


def explained(pod_: Json, snapshot: Snapshot = HEALTHY, *events: Json) -> list[tuple[str, ...]]:
    return [(f.check, f.state.value, f.text) for f in explain(snapshot, pod_, list(events))]


def claimed(claim_: Json | None, template: str = "mig-1g.5gb", **lists: list[Json]) -> Finding:
    """What is said of a pod's claim."""
    waiting = pod(template=template)
    waiting["status"]["resourceClaimStatuses"] = [
        {"name": "0123456789", "resourceClaimName": "made"}
    ]
    others = lists.pop("claims", [])
    claims = [*others, *([] if claim_ is None else [named("made") | claim_])]
    lists.setdefault("templates", [template_of(template)])
    lists.setdefault("classes", own_classes(template))
    found = explain(with_lists(claims=claims, **lists), waiting, [])
    return next(f for f in found if f.check == "claim 01234567")


def squatted(name: str) -> Json:
    """A template of that name that somebody made to have every device."""
    found = template_of(name)
    found["spec"]["spec"]["devices"]["requests"][0]["exactly"]["allocationMode"] = "All"
    return found


def test_a_pod_that_names_its_node_is_past_the_scheduler() -> None:
    pod_ = pod(template="mig-1g.5gb", node="node-1")
    (name,) = (f for f in explain(HEALTHY, pod_, []) if f.check == "node name")
    assert (name.state.value, "nodeSelector" in name.advice) == ("✗", True)
    pod_["status"]["phase"] = "Running"
    assert not [f for f in explain(HEALTHY, pod_, []) if f.check == "node name"]


def test_a_pod_that_runs() -> None:
    running = pod(template="mig-1g.5gb", node="node-1", phase="Running")
    asks, became, _, state = explained(running)
    assert asks == ("asks for", "✓", "1g.5gb")
    assert became == ("became", "✓", "rewritten: 1 claim")
    assert state == ("state", "✓", "Running on node-1")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("mig-1g.5gb", "1g.5gb"),
        ("mig-1g.5gb.me.x2", "2 x 1g.5gb+me"),
        ("mig-3g.20gb-or-4g.20gb", "3g.20gb or 4g.20gb"),
        ("same-gpu-mig-1g.5gb.x3", "3 x 1g.5gb on one GPU"),
        ("different-gpus-mig-1g.5gb.x2", "2 x 1g.5gb on a GPU each"),
        ("same-gpu-mig-1g.5gb.x2-and-mig-3g.20gb", "2 x 1g.5gb and 3g.20gb on one GPU"),
    ],
)
def test_what_it_asks_for_in_words(template: str, words: str) -> None:
    assert explained(pod(template=template))[0] == ("asks for", "✓", words)
    several = pod(template=template)
    several["spec"]["resourceClaims"] *= 2
    assert explained(several)[0][2] == f"2 claims of {words}"


@pytest.mark.parametrize(
    ("found", "state", "text", "advice"),
    [
        (claimed(claim("mig-0")), "✓", "asks for 1g.5gb, has mig-0 on node-1", ""),
        (claimed({}), "!", "asks for 1g.5gb, waits, though there is room for it", "scheduler"),
        (
            claimed({}, slices=[slice_("3g.20gb")]),
            *("✗", "asks for 1g.5gb, but no node publishes 1g.5gb", "nodes publish 3g.20gb"),
        ),
        (
            claimed({}, slices=[]),
            *("✗", "asks for 1g.5gb, but no node publishes 1g.5gb", "does the DRA driver run?"),
        ),
        (
            claimed({}, "mig-2g.10gb-or-bigger", slices=[slice_("1g.5gb")]),
            *("✗", "asks for 2g.10gb or bigger, but no node publishes 2g.10gb or bigger", "1g.5gb"),
        ),
        (
            claimed({}, "mig-2g.10gb-or-bigger", slices=[slice_("7g.80gb")]),
            *("!", "asks for 2g.10gb or bigger, waits, though there is room for it", "scheduler"),
        ),
        (claimed(None), "!", "asks for 1g.5gb: Kubernetes has not made its claim yet", "below"),
        (
            claimed(None, template="mig-2g.10gb", templates=[]),
            "✗",
            "asks for 2g.10gb: there is no ResourceClaimTemplate mig-2g.10gb in ml",
            "instaslice templates --apply -n ml mig-2g.10gb",
        ),
        (
            claimed({}, classes=[]),
            "✗",
            "asks for 1g.5gb, but there is no DeviceClass mig-1g.5gb.nvidia.com",
            "instaslice deviceclasses mig-1g.5gb | kubectl apply -f -",
        ),
        (
            claimed({}, classes=[device_class("mig-1g.5gb.nvidia.com", "nvidia.com/mig-1g.5gb")]),
            "✗",
            "asks for 1g.5gb, but DeviceClass mig-1g.5gb.nvidia.com is not as InstaSlice makes it",
            "instaslice deviceclasses mig-1g.5gb | kubectl apply -f -",
        ),
        (
            claimed(claim("mig-0"), templates=[squatted("mig-1g.5gb")]),
            "✗",
            "asks for 1g.5gb, but its template is not as InstaSlice makes it: ",
            "kubectl -n ml delete resourceclaimtemplate mig-1g.5gb",
        ),
        (
            claimed({}, claims=[named("other") | claim("mig-0")]),
            *("✗", "asks for 1g.5gb, waits: no 1g.5gb is free, of 1 that are published", "wait"),
        ),
    ],
)
def test_how_it_stands_with_a_claim(found: Finding, state: str, text: str, advice: str) -> None:
    assert (found.state.value, found.text[: len(text)]) == (state, text)
    assert advice in found.advice


@pytest.mark.parametrize(
    ("template", "device", "text"),
    [
        ("mig-3g.20gb-or-4g.20gb", "gpu-0-mig-4g20gb-5-0", "3g.20gb or 4g.20gb, has 4g.20gb: "),
        ("mig-1g.5gb-or-bigger", "gpu-0-mig-2g10gb-14-4", "1g.5gb or bigger, has 2g.10gb: "),
        ("mig-1g.5gb", "gpu-0-mig-1g5gb-19-4", "1g.5gb, has "),
    ],
)
def test_which_alternative_a_claim_has(template: str, device: str, text: str) -> None:
    found = claimed(claim(device), template=template, slices=a100.resource_slices())
    assert found.text == f"asks for {text}{device} on node-1"


#: What is taken of two A100s, what is asked for, and what it waits for.
WAITING: dict[str, tuple[tuple[str, ...], str, str]] = {
    "two of a GPU": (
        (
            *("gpu-0-mig-4g20gb-5-0", "gpu-0-mig-2g10gb-14-4"),
            *("gpu-1-mig-4g20gb-5-0", "gpu-1-mig-2g10gb-14-4"),
        ),
        "same-gpu-mig-1g.5gb.x2",
        "asks for 2 x 1g.5gb on one GPU, waits: no GPU has 2 free 1g.5gb",
    ),
    "two kinds of a GPU": (
        ("gpu-0-mig-4g20gb-5-0", "gpu-1-mig-3g20gb-9-4"),
        "same-gpu-mig-4g.20gb-and-mig-3g.20gb",
        "asks for 4g.20gb and 3g.20gb on one GPU, waits: no GPU has 1 free 4g.20gb and 1 free "
        "3g.20gb",
    ),
    "a GPU each": (
        ("gpu-0-mig-7g40gb-0-0",),
        "different-gpus-mig-1g.5gb.x2",
        "asks for 2 x 1g.5gb on a GPU each, waits: it needs 2 GPUs with a free 1g.5gb; now: 1",
    ),
    "alternatives": (
        ("gpu-0-mig-7g40gb-0-0", "gpu-1-mig-1g5gb-19-0", "gpu-1-mig-1g5gb-19-4"),
        "mig-3g.20gb-or-4g.20gb",
        "asks for 3g.20gb or 4g.20gb, waits: no 3g.20gb or 4g.20gb is free, of 6 that are "
        "published",
    ),
    "or bigger": (
        ("gpu-0-mig-7g40gb-0-0", "gpu-1-mig-4g20gb-5-0", "gpu-1-mig-3g20gb-9-4"),
        "mig-2g.10gb-or-bigger.x2",
        "asks for 2 x 2g.10gb or bigger, waits: no node has 2 free 2g.10gb or bigger",
    ),
    "more than a node has": (
        ("gpu-0-mig-7g40gb-0-0",),
        "mig-1g.5gb.x8",
        "asks for 8 x 1g.5gb, waits: no node has 8 free 1g.5gb",
    ),
}


@pytest.mark.parametrize("case", WAITING)
def test_what_a_claim_waits_for(case: str) -> None:
    taken, template, text = WAITING[case]
    others = [named("other") | claim(*taken)]
    found = claimed({}, template, slices=a100.resource_slices(), claims=others)
    assert (found.state.value, found.text) == ("✗", text)
    free = claimed({}, template, slices=a100.resource_slices())
    assert free.state.value == "!", "with nothing taken there is room for it"


def test_the_quotas_that_its_claims_count_for() -> None:
    keys = {
        "requests.nvidia.com/mig-1g.5gb": "1",
        "mig-1g.5gb.nvidia.com.deviceclass.resource.k8s.io/devices": "4",
        "pods": "1",
    }
    quota = named("q", spec={"hard": keys}, status={"hard": keys, "used": {**keys, "pods": "1"}})
    quota["status"]["used"]["mig-1g.5gb.nvidia.com.deviceclass.resource.k8s.io/devices"] = "2"
    found = explained(pod(template="mig-1g.5gb"), with_lists(quotas=[quota]))
    assert [each for each in found if each[0] == "quota"] == [
        (
            *("quota", "✓"),
            "q: mig-1g.5gb.nvidia.com.deviceclass.resource.k8s.io/devices: 2 of 4 used",
        ),
        ("quota", "!", "q: requests.nvidia.com/mig-1g.5gb: 1 of 1 used"),
    ]


def test_a_pod_that_the_scheduler_serves() -> None:
    served = with_lists(classes=[device_class("c", "nvidia.com/mig-1g.5gb")])
    assert explained(pod(limit="mig-1g.5gb"), served)[1] == (
        *("became", "✓"),
        "it was not rewritten: the scheduler serves its limits by device classes",
    )


def test_pods_that_were_not_rewritten() -> None:
    alone = with_lists(classes=[])
    assert [state for _, state, _ in explained(pod(limit="mig-1g.5gb"), alone)] == ["✓", "✗", "!"]
    old = pod(limit="mig-1g.5gb", node="node-1", phase="Running")
    assert explained(old)[1] == (
        *("became", "✓", "it has its devices from the device plugin, from before InstaSlice"),
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
