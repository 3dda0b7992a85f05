"""The explanation of one pod: pods are here, the expected reports in explain.txt."""

from dataclasses import replace
from typing import NamedTuple

import pytest

from instaslice.doctor.explain import explain
from instaslice.doctor.report import as_text
from instaslice.doctor.snapshot import Snapshot
from instaslice.resource_api import VERSIONS
from test.support import a100
from test.support.snapshots import (
    HEALTHY,
    Json,
    claim,
    device_class,
    named,
    own_classes,
    pod,
    recorded,
    slice_,
    template,
    with_lists,
)

ONE_SLICE = "nvidia.com/mig-1g.5gb"


class Case(NamedTuple):
    pod: Json
    snapshot: Snapshot = HEALTHY
    events: tuple[Json, ...] = ()


def claimed(
    claim_: Json | None, name: str = "mig-1g.5gb", node: str = "", **lists: list[Json]
) -> Case:
    """A pending pod and its claim. name: of the claim's template."""
    waiting = pod(template=name, node=node)
    statuses = [{"name": "0123456789", "resourceClaimName": "made"}]
    waiting["status"]["resourceClaimStatuses"] = statuses
    made = [] if claim_ is None else [named("made") | claim_]
    lists = {"templates": [template(name)], "classes": own_classes(name), **lists}
    lists["claims"] = [*lists.get("claims", []), *made]
    return Case(waiting, with_lists(**lists))


def on_two_gpus(name: str, *taken: str, has: str = "") -> Case:
    """A claim in a cluster of two A100s. taken: others' slices. has: its own, if any."""
    slices = a100.resource_slices()
    own = claim(has) if has else {}
    return claimed(own, name, slices=slices, claims=[named("other") | claim(*taken)])


def tainted() -> Json:
    found = slice_("1g.5gb")
    found["spec"]["devices"][0]["taints"] = [{"key": "health", "effect": "NoSchedule"}]
    return found


def squatted(name: str) -> Json:
    """A template of that name that requests every device."""
    found = template(name)
    found["spec"]["spec"]["devices"]["requests"][0]["exactly"]["allocationMode"] = "All"
    return found


def with_two_claims(name: str) -> Case:
    several = pod(template=name)
    several["spec"]["resourceClaims"] *= 2
    return Case(several)


def event(reason: str, message: str, second: int = 0, kind: str = "Warning", by: str = "") -> Json:
    time, first = f"2026-01-01T00:00:{second:02}Z", "2026-01-01T00:00:00Z"
    found = {"metadata": {"creationTimestamp": first}, "lastTimestamp": time, "type": kind}
    return {**found, "reason": reason, "message": message, "source": {"component": by}}


def warned(reason: str, component: str, phase: str = "Pending") -> Case:
    """A bound pod with a warning event."""
    bound = pod(template="mig-1g.5gb", node="node-1", phase=phase)
    return Case(bound, HEALTHY, (event(reason, "no power", by=component),))


def in_v1alpha2(case: Case) -> Case:
    return Case(case.pod, replace(case.snapshot, api=VERSIONS["v1alpha2"]))


ON_DEMAND = device_class("mig-1g.5gb.nvidia.com", ONE_SLICE)
LIMITED, BOUND = pod(limit="mig-1g.5gb"), pod(limit="mig-1g.5gb", node="node-1", phase="Running")
MADE = {**BOUND, "status": {"extendedResourceClaimStatus": {"resourceClaimName": "p-extended-x"}}}
DEVICES = "mig-1g.5gb.nvidia.com.deviceclass.resource.k8s.io/devices"
KEYS = {f"requests.{ONE_SLICE}": "1", DEVICES: "4", "pods": "1"}
QUOTA = named("q", spec={"hard": KEYS}, status={"hard": KEYS, "used": {**KEYS, DEVICES: "2"}})
IN_A_SCOPE = {**QUOTA, "spec": {**QUOTA["spec"], "scopes": ["BestEffort"]}}
PREPARE = "FailedPrepareDynamicResources"
LATEST = (
    event("FailedScheduling", "no\n room", 2),
    event("FailedScheduling", "earlier", 1),
    event("FailedScheduling", "fine", 3, "Normal"),
)

CASES = {
    "a running pod": Case(pod(template="mig-1g.5gb", node="node-1", phase="Running")),
    "a pod with nodeName": Case(pod(template="mig-1g.5gb", node="node-1")),
    "a pod without requests": Case(pod()),
    **{
        f"two claims: {name}": with_two_claims(name)
        for name in (
            *("mig-1g.5gb", "mig-1g.5gb.me.x2", "mig-3g.20gb-or-4g.20gb"),
            *("same-gpu-mig-1g.5gb.x3", "different-gpus-mig-1g.5gb.x2"),
            "same-gpu-mig-1g.5gb.x2-and-mig-3g.20gb",
        )
    },
    "a claim with a slice": claimed(claim("mig-0")),
    "a waiting claim": claimed({}),
    "a waiting claim, other profiles are published": claimed({}, slices=[slice_("3g.20gb")]),
    "a waiting claim, nothing is published": claimed({}, slices=[]),
    "or bigger: only smaller": claimed({}, "mig-2g.10gb-or-bigger", slices=[slice_("1g.5gb")]),
    "or bigger: a bigger one": claimed({}, "mig-2g.10gb-or-bigger", slices=[slice_("7g.80gb")]),
    "an allocated claim": claimed({"status": {"allocation": {"nodeSelector": {}}}}),
    "a waiting claim in v1alpha2": in_v1alpha2(claimed({}, templates=[])),
    "no claim yet": claimed(None),
    "no template": claimed(None, "mig-2g.10gb", templates=[]),
    "no class": claimed({}, classes=[]),
    "a different class": claimed({}, classes=[ON_DEMAND]),
    "a different template": claimed(claim("mig-0"), templates=[squatted("mig-1g.5gb")]),
    "the only slice is tainted": claimed({}, slices=[tainted()]),
    "an incomplete pool": claimed({}, slices=a100.resource_slices()[:2]),
    "no free slice": claimed({}, claims=[named("other") | claim("mig-0")]),
    "it has the second": on_two_gpus("mig-3g.20gb-or-4g.20gb", has="gpu-0-mig-4g20gb-5-0"),
    "it has a bigger slice": on_two_gpus("mig-1g.5gb-or-bigger", has="gpu-0-mig-2g10gb-14-4"),
    "it has the only choice": on_two_gpus("mig-1g.5gb", has="gpu-0-mig-1g5gb-19-4"),
    "two slices on one GPU": on_two_gpus(
        "same-gpu-mig-1g.5gb.x2",
        *("gpu-0-mig-4g20gb-5-0", "gpu-0-mig-2g10gb-14-4"),
        *("gpu-1-mig-4g20gb-5-0", "gpu-1-mig-2g10gb-14-4"),
    ),
    "two profiles on one GPU": on_two_gpus(
        *("same-gpu-mig-4g.20gb-and-mig-3g.20gb", "gpu-0-mig-4g20gb-5-0", "gpu-1-mig-3g20gb-9-4")
    ),
    "two slices on two GPUs": on_two_gpus("different-gpus-mig-1g.5gb.x2", "gpu-0-mig-7g40gb-0-0"),
    "two slices on GPUs of two nodes": claimed(
        {}, "different-gpus-mig-1g.5gb.x2", slices=[slice_("1g.5gb"), slice_("1g.5gb", pool="b")]
    ),
    "alternatives": on_two_gpus(
        "mig-3g.20gb-or-4g.20gb",
        *("gpu-0-mig-7g40gb-0-0", "gpu-1-mig-1g5gb-19-0", "gpu-1-mig-1g5gb-19-4"),
    ),
    "two slices, or bigger ones": on_two_gpus(
        "mig-2g.10gb-or-bigger.x2",
        *("gpu-0-mig-7g40gb-0-0", "gpu-1-mig-4g20gb-5-0", "gpu-1-mig-3g20gb-9-4"),
    ),
    "more slices than a node has free": on_two_gpus("mig-1g.5gb.x8", "gpu-0-mig-7g40gb-0-0"),
    "more slices than a node has": on_two_gpus("mig-1g.5gb.x15"),
    "more slices than a GPU has": on_two_gpus("same-gpu-mig-1g.5gb.x8"),
    "more slices than GPUs": on_two_gpus("different-gpus-mig-1g.5gb.x3"),
    "a claim of a pod with nodeName": claimed({}, node="node-1"),
    "quotas": Case(pod(template="mig-1g.5gb"), with_lists(quotas=[QUOTA])),
    "a quota in a scope": Case(pod(template="mig-1g.5gb"), with_lists(quotas=[IN_A_SCOPE])),
    "limits that the scheduler serves": Case(LIMITED, with_lists(classes=[ON_DEMAND])),
    "limits that nothing serves": Case(LIMITED, with_lists(classes=[])),
    "limits that the device plugin served": Case(BOUND, with_lists(classes=[])),
    "limits that the scheduler served": Case(MADE),
    "the latest warning": Case(pod(), HEALTHY, LATEST),
    "the driver failed": warned(PREPARE, "kubelet"),
    "the kubelet failed": warned("Failed", "kubelet"),
    "the driver failed before the pod ran": warned(PREPARE, "kubelet", "Running"),
    "an obsolete warning of the scheduler": warned("FailedScheduling", "default-scheduler"),
}
REPORTS = recorded("explain.txt")
assert REPORTS.keys() == CASES.keys()


@pytest.mark.parametrize("case", CASES)
def test_the_explanation_of_a_pod(case: str) -> None:
    found = CASES[case]
    assert as_text(explain(found.snapshot, found.pod, [*found.events])) == REPORTS[case]
