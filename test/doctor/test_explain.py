"""What is said of one pod."""

from typing import Any

import pytest

from instaslice.doctor.explain import explain
from instaslice.doctor.snapshot import Snapshot
from test.support import a100
from test.support.snapshots import (
    HEALTHY,
    claim,
    compare,
    device_class,
    named,
    own_classes,
    pod,
    slice_,
    template,
    with_lists,
)

Json = dict[str, Any]


def said(title: str, pod_: Json, snapshot: Snapshot = HEALTHY, *events: Json) -> list[str]:
    """What a row of the report says: "✗ text -> advice"."""
    found = [each for each in explain(snapshot, pod_, [*events]) if each.check == title]
    return [f"{each.state.value} {each.text} -> {each.advice}" for each in found]


def claimed(claim_: Json | None, name: str = "mig-1g.5gb", **lists: list[Json]) -> list[str]:
    """What is said of a pod's claim. name: of its template."""
    waiting = pod(template=name)
    statuses = [{"name": "0123456789", "resourceClaimName": "made"}]
    waiting["status"]["resourceClaimStatuses"] = statuses
    made = [] if claim_ is None else [named("made") | claim_]
    lists = {"templates": [template(name)], "classes": own_classes(name), **lists}
    lists["claims"] = [*lists.get("claims", []), *made]
    return said("claim 01234567", waiting, with_lists(**lists))


def squatted(name: str) -> Json:
    """A template of that name that somebody made to have every device."""
    found = template(name)
    found["spec"]["spec"]["devices"]["requests"][0]["exactly"]["allocationMode"] = "All"
    return found


def test_a_pod_that_names_its_node_is_past_the_scheduler() -> None:
    pod_ = pod(template="mig-1g.5gb", node="node-1")
    compare(said("node name", pod_), ["✗ .. -> .. nodeSelector"])
    pod_["status"]["phase"] = "Running"
    assert said("node name", pod_) == []


def test_a_pod_that_runs() -> None:
    running = pod(template="mig-1g.5gb", node="node-1", phase="Running")
    assert said("asks for", running) == ["✓ 1g.5gb -> "]
    assert said("became", running) == ["✓ rewritten: 1 claim -> "]
    assert said("state", running) == ["✓ Running on node-1 -> "]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mig-1g.5gb", "1g.5gb"),
        ("mig-1g.5gb.me.x2", "2 x 1g.5gb+me"),
        ("mig-3g.20gb-or-4g.20gb", "3g.20gb or 4g.20gb"),
        ("same-gpu-mig-1g.5gb.x3", "3 x 1g.5gb on one GPU"),
        ("different-gpus-mig-1g.5gb.x2", "2 x 1g.5gb on a GPU each"),
        ("same-gpu-mig-1g.5gb.x2-and-mig-3g.20gb", "2 x 1g.5gb and 3g.20gb on one GPU"),
    ],
)
def test_what_it_asks_for_in_words(name: str, words: str) -> None:
    several = pod(template=name)
    assert said("asks for", several) == [f"✓ {words} -> "]
    several["spec"]["resourceClaims"] *= 2
    assert said("asks for", several) == [f"✓ 2 claims of {words} -> "]


ROOM = "waits, though there is room for it -> see the state below for the scheduler's reason"
MAKE_CLASS = "-> instaslice deviceclasses mig-1g.5gb | kubectl apply -f -"
NOT_OURS = "is not as InstaSlice makes it: "


@pytest.mark.parametrize(
    ("found", "line"),
    [
        (claimed(claim("mig-0")), "✓ asks for 1g.5gb, has mig-0 on node-1 -> "),
        (claimed({}), f"! asks for 1g.5gb, {ROOM}"),
        (
            claimed({}, slices=[slice_("3g.20gb")]),
            "✗ asks for 1g.5gb, but no node publishes 1g.5gb -> nodes publish 3g.20gb",
        ),
        (
            claimed({}, slices=[]),
            "✗ asks for 1g.5gb, but no node publishes 1g.5gb -> does the DRA driver run?",
        ),
        (
            claimed({}, "mig-2g.10gb-or-bigger", slices=[slice_("1g.5gb")]),
            "✗ asks for 2g.10gb or bigger, but no node publishes 2g.10gb or bigger -> .. 1g.5gb",
        ),
        (
            claimed({}, "mig-2g.10gb-or-bigger", slices=[slice_("7g.80gb")]),
            f"! asks for 2g.10gb or bigger, {ROOM}",
        ),
        (claimed(None), "! asks for 1g.5gb: Kubernetes has not made its claim yet -> .. below"),
        (
            claimed(None, "mig-2g.10gb", templates=[]),
            "✗ asks for 2g.10gb: there is no ResourceClaimTemplate mig-2g.10gb in ml -> instaslice "
            "templates --apply -n ml mig-2g.10gb",
        ),
        (
            claimed({}, classes=[]),
            f"✗ asks for 1g.5gb, but there is no DeviceClass mig-1g.5gb.nvidia.com {MAKE_CLASS}",
        ),
        (
            claimed({}, classes=[device_class("mig-1g.5gb.nvidia.com", "nvidia.com/mig-1g.5gb")]),
            f"✗ asks for 1g.5gb, but DeviceClass mig-1g.5gb.nvidia.com {NOT_OURS} .. {MAKE_CLASS}",
        ),
        (
            claimed(claim("mig-0"), templates=[squatted("mig-1g.5gb")]),
            f"✗ asks for 1g.5gb, but its template {NOT_OURS} .. -> kubectl -n ml delete "
            "resourceclaimtemplate mig-1g.5gb",
        ),
        (
            claimed({}, claims=[named("other") | claim("mig-0")]),
            "✗ asks for 1g.5gb, waits: no 1g.5gb is free, of 1 that are published -> wait",
        ),
        *(
            (
                claimed(claim(device), name, slices=a100.resource_slices()),
                f"✓ asks for {text}{device} on node-1",
            )
            for name, device, text in (
                (
                    "mig-3g.20gb-or-4g.20gb",
                    "gpu-0-mig-4g20gb-5-0",
                    "3g.20gb or 4g.20gb, has 4g.20gb: ",
                ),
                (
                    "mig-1g.5gb-or-bigger",
                    "gpu-0-mig-2g10gb-14-4",
                    "1g.5gb or bigger, has 2g.10gb: ",
                ),
                ("mig-1g.5gb", "gpu-0-mig-1g5gb-19-4", "1g.5gb, has "),
            )
        ),
    ],
)
def test_how_it_stands_with_a_claim(found: list[str], line: str) -> None:
    compare(found, [line])


@pytest.mark.parametrize(
    ("name", "taken", "text"),
    [
        (
            "same-gpu-mig-1g.5gb.x2",
            "gpu-0-mig-4g20gb-5-0 gpu-0-mig-2g10gb-14-4 gpu-1-mig-4g20gb-5-0 gpu-1-mig-2g10gb-14-4",
            "asks for 2 x 1g.5gb on one GPU, waits: no GPU has 2 free 1g.5gb",
        ),
        (
            "same-gpu-mig-4g.20gb-and-mig-3g.20gb",
            "gpu-0-mig-4g20gb-5-0 gpu-1-mig-3g20gb-9-4",
            "asks for 4g.20gb and 3g.20gb on one GPU, waits: no GPU has 1 free 4g.20gb and 1 free "
            "3g.20gb",
        ),
        (
            *("different-gpus-mig-1g.5gb.x2", "gpu-0-mig-7g40gb-0-0"),
            "asks for 2 x 1g.5gb on a GPU each, waits: it needs 2 GPUs with a free 1g.5gb; now: 1",
        ),
        (
            "mig-3g.20gb-or-4g.20gb",
            "gpu-0-mig-7g40gb-0-0 gpu-1-mig-1g5gb-19-0 gpu-1-mig-1g5gb-19-4",
            "asks for 3g.20gb or 4g.20gb, waits: no 3g.20gb or 4g.20gb is free, of 6 that are "
            "published",
        ),
        (
            "mig-2g.10gb-or-bigger.x2",
            "gpu-0-mig-7g40gb-0-0 gpu-1-mig-4g20gb-5-0 gpu-1-mig-3g20gb-9-4",
            "asks for 2 x 2g.10gb or bigger, waits: no node has 2 free 2g.10gb or bigger",
        ),
        (
            *("mig-1g.5gb.x8", "gpu-0-mig-7g40gb-0-0"),
            "asks for 8 x 1g.5gb, waits: no node has 8 free 1g.5gb",
        ),
    ],
)
def test_what_a_claim_waits_for(name: str, taken: str, text: str) -> None:
    others = [named("other") | claim(*taken.split())]
    compare(claimed({}, name, slices=a100.resource_slices(), claims=others), [f"✗ {text} ->"])
    # With nothing taken there is room for it.
    compare(claimed({}, name, slices=a100.resource_slices()), [f"! .. {ROOM}"])


def test_the_quotas_that_its_claims_count_for() -> None:
    devices = "mig-1g.5gb.nvidia.com.deviceclass.resource.k8s.io/devices"
    keys = {"requests.nvidia.com/mig-1g.5gb": "1", devices: "4", "pods": "1"}
    quota = named("q", spec={"hard": keys}, status={"hard": keys, "used": {**keys, devices: "2"}})
    found = said("quota", pod(template="mig-1g.5gb"), with_lists(quotas=[quota]))
    lines = [f"✓ q: {devices}: 2 of 4 used", "! q: requests.nvidia.com/mig-1g.5gb: 1 of 1 used"]
    compare(found, lines)


OLD = pod(limit="mig-1g.5gb", node="node-1", phase="Running")
MADE = pod(limit="mig-1g.5gb", node="node-1", phase="Running")
MADE["status"]["extendedResourceClaimStatus"] = {"resourceClaimName": "p-extended-x"}
SERVED = [device_class("c", "nvidia.com/mig-1g.5gb")]


@pytest.mark.parametrize(
    ("pod_", "classes", "lines"),
    [
        (
            *(pod(limit="mig-1g.5gb"), SERVED),
            ["✓ it was not rewritten: the scheduler serves its limits by device classes"],
        ),
        (pod(limit="mig-1g.5gb"), [], ["✗ it was not rewritten: InstaSlice was absent"]),
        (OLD, [], ["✓ it has its devices from the device plugin, from before InstaSlice"]),
        (MADE, [], ["✓ the scheduler made the claim p-extended-x of its limits itself"]),
        (pod(), [], []),
    ],
)
def test_what_became_of_its_limits(pod_: Json, classes: list[Json], lines: list[str]) -> None:
    compare(said("became", pod_, with_lists(classes=classes)), lines)
    wanted = "nvidia.com/mig-1g.5gb: 1" if lines else "no MIG slice"
    assert said("asks for", pod_) == [f"✓ {wanted} -> "]


def event(reason: str, message: str, second: int = 0, kind: str = "Warning", by: str = "") -> Json:
    time, first = f"2026-01-01T00:00:{second:02}Z", "2026-01-01T00:00:00Z"
    found = {"metadata": {"creationTimestamp": first}, "lastTimestamp": time, "type": kind}
    return {**found, "reason": reason, "message": message, "source": {"component": by}}


def test_the_latest_warning_is_told() -> None:
    events = (
        event("FailedScheduling", "no\n room", 2),
        event("FailedScheduling", "earlier", 1),
        event("FailedScheduling", "fine", 3, "Normal"),
    )
    assert said("state", pod(), HEALTHY, *events) == ["! Pending: FailedScheduling: no room -> "]


PREPARE = "FailedPrepareDynamicResources"


@pytest.mark.parametrize(
    ("reason", "component", "phase", "line"),
    [
        (
            *(PREPARE, "kubelet", "Pending"),
            f"✗ Pending on node-1: {PREPARE}: no power -> the log of the DRA driver's pod on node",
        ),
        ("Failed", "kubelet", "Pending", "✗ Pending on node-1: Failed: no power -> "),
        (PREPARE, "kubelet", "Running", "✓ Running on node-1 -> "),
        ("FailedScheduling", "default-scheduler", "Pending", "✓ Pending on node-1 -> "),
    ],
    ids=["the driver fails", "it fails otherwise", "that is past", "so is the scheduler's word"],
)
def test_a_pod_that_has_a_node_and_does_not_start(
    reason: str, component: str, phase: str, line: str
) -> None:
    bound = pod(template="mig-1g.5gb", node="node-1", phase=phase)
    compare(said("state", bound, HEALTHY, event(reason, "no power", by=component)), [line])
