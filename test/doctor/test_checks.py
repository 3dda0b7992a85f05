"""What is said about clusters, each as plain data with one thing in it that matters."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import trustme

from instaslice.doctor import checks, report
from instaslice.doctor.explain import explain
from instaslice.doctor.findings import Finding, State
from instaslice.doctor.snapshot import Probe, Snapshot
from instaslice.resource_api import VERSIONS, Unavailable
from test.support.certs import pem
from test.support.snapshots import NAME, NOW, certificate, claim, named, pod, slice_, webhook

Json = dict[str, Any]

HEALTHY = Snapshot(
    now=NOW,
    kubernetes="v1.36.3",
    api=VERSIONS["v1"],
    lists={
        "webhooks": [{"metadata": {"name": "others"}}, webhook()],
        "endpoints": [{"endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]}],
        "classes": [named("mig.nvidia.com", spec={})],
        "slices": [slice_("1g.5gb", "1g.5gb+me")],
        "claims": [named("theirs") | claim("mig-1")],
        "templates": [named("mig-1g.5gb")],
        "pods": [pod(template="mig-1g.5gb"), pod("old", limit="mig-7g.40gb", phase="Succeeded")],
        "nodes": [named("node-1", "", status={"allocatable": {"nvidia.com/mig-1g.5gb": "0"}})],
        "quotas": [named("q", spec={"hard": {"requests.cpu": "1"}}), named("empty", spec={})],
    },
    certificate=certificate(90),
    probe=Probe("default", pod(template="mig-1g.5gb"), ""),
)


def with_lists(snapshot: Snapshot = HEALTHY, /, **lists: list[Json]) -> Snapshot:
    return replace(snapshot, lists=snapshot.lists | lists)


def other_than_good(snapshot: Snapshot) -> list[Finding]:
    return [f for f in checks.examine(snapshot) if f.state is not State.GOOD]


def test_a_healthy_cluster() -> None:
    findings = checks.examine(HEALTHY)
    assert [(f.check, f.state.value, f.text) for f in findings] == [
        ("DRA", "✓", "Kubernetes v1.36.3 serves resource.k8s.io/v1"),
        ("webhook", "✓", "rewrite.instaslice.io is registered, failurePolicy Fail"),
        ("certificate", "✓", "the caBundle trusts it, and it is good until 2026-04-01"),
        ("endpoints", "✓", "instaslice-system/instaslice has 2 ready pods"),
        ("dry run", "✓", "a pod in default is rewritten"),
        ("driver", "✓", "DeviceClass mig.nvidia.com is there"),
        ("slices", "✓", "1g.5gb: 1 free, 1 published"),
        ("slices", "✓", "1g.5gb+me: 0 free, 1 published"),
        ("profiles", "✓", "every profile that pods ask for is published"),
        ("templates", "✓", "every namespace has the templates that its pods need"),
    ]
    assert not checks.is_wrong(findings)


#: What is wrong, and what is said of it: state, check, a part of the text, a part of the advice.
CASES: dict[str, tuple[Snapshot, str, str, str, str]] = {
    "no DRA": (
        replace(HEALTHY, api=Unavailable("the cluster does not serve resource.k8s.io")),
        *("✗", "DRA", "the cluster does not serve resource.k8s.io", "DynamicResourceAllocation"),
    ),
    "no webhook": (
        with_lists(webhooks=[{"metadata": {"name": "others"}}]),
        *("✗", "webhook", "no MutatingWebhookConfiguration has rewrite", "make deploy"),
    ),
    "no matchConditions": (
        with_lists(webhooks=[webhook(matchConditions=None)]),
        *("!", "webhook", "every pod of the cluster is sent to it", "config/"),
    ),
    "no CA": (
        with_lists(webhooks=[webhook(clientConfig={"service": {"name": "a", "namespace": "b"}})]),
        *("✗", "certificate", "no caBundle", "cainjector"),
    ),
    "another CA": (
        replace(HEALTHY, certificate=pem(trustme.CA().issue_cert(NAME))),
        *("✗", "certificate", "does not hold the CA that signed", "caBundle"),
    ),
    "another name": (
        replace(HEALTHY, certificate=certificate(90, "instaslice.default.svc")),
        *("✗", "certificate", f"is not for {NAME}", ""),
    ),
    "about to expire": (
        replace(HEALTHY, certificate=certificate(13)),
        *("!", "certificate", "it ends on 2026-01-14", "renew it"),
    ),
    "expired": (
        replace(HEALTHY, certificate=certificate(-1)),
        *("✗", "certificate", "it ended on 2025-12-31", "renew it"),
    ),
    "no endpoint": (
        with_lists(
            endpoints=[{"endpoints": [{"addresses": ["a"], "conditions": {"ready": False}}]}]
        ),
        *("✗", "endpoints", "has no pod that is ready", "kubectl -n instaslice-system get pods"),
    ),
    "refused": (
        replace(HEALTHY, probe=Probe("ml", None, "403 pods are forbidden")),
        *("✗", "dry run", "a pod in ml is refused: 403 pods are forbidden", ""),
    ),
    "not rewritten": (
        replace(HEALTHY, probe=Probe("ml", pod(limit="mig-1g.5gb"), "")),
        *("✗", "dry run", "a pod in ml keeps its limits", "instaslice.io/rewrite: disabled"),
    ),
    "no driver": (
        with_lists(classes=[]),
        *("✗", "driver", "there is no DeviceClass mig.nvidia.com", "install"),
    ),
    "no slices": (
        with_lists(slices=[]),
        *("✗", "slices", "no ResourceSlice publishes a MIG slice", "DRA driver"),
    ),
    "a profile that nobody has": (
        with_lists(
            templates=[named("mig-7g.40gb")],
            pods=[pod(f"p-{i}", template="mig-7g.40gb") for i in range(5)],
        ),
        *("✗", "profiles", "7g.40gb is published by no node, and asked for by ml/p-0, ml/p-1, "),
        "there is 1g.5gb, 1g.5gb+me",
    ),
    "no template": (
        with_lists(templates=[named("mig-1g.5gb", "elsewhere")]),
        *("✗", "templates", "ml has no template for 1g.5gb"),
        "instaslice templates --apply -n ml 1g.5gb",
    ),
    "a pod that was not rewritten": (
        with_lists(pods=[pod(limit="mig-1g.5gb"), pod("runs", limit="mig-1g.5gb", node="n")]),
        *("✗", "old pods", "ml/p wait with their limits", "created anew"),
    ),
    "a quota": (
        with_lists(
            quotas=[named("q", spec={"hard": {"cpu": 1, "requests.nvidia.com/mig-1g.5gb": 1}})]
        ),
        *("!", "quotas", "ml/q counts requests.nvidia.com/mig-1g.5gb"),
        "limit mig.nvidia.com.deviceclass.resource.k8s.io/devices instead",
    ),
    "the scheduler's way": (
        with_lists(
            classes=[
                named("mig.nvidia.com"),
                named("a", spec={"extendedResourceName": "nvidia.com/mig-1g.5gb"}),
                named("b", spec={"extendedResourceName": "nvidia.com/gpu"}),
            ]
        ),
        *("!", "device classes", "DeviceClass a maps nvidia.com/mig-1g.5gb itself", "keep one"),
    ),
    "a device plugin": (
        with_lists(nodes=[named("node-9", status={"allocatable": {"nvidia.com/mig-1g.5gb": "7"}})]),
        *("!", "device plugin", "node node-9 advertises nvidia.com/mig-1g.5gb by", "take"),
    ),
    "a device plugin beside the driver": (
        with_lists(nodes=[named("node-1", status={"allocatable": {"nvidia.com/mig-1g.5gb": "7"}})]),
        *("✗", "device plugin", "and publishes MIG slices for DRA as well", "take"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_thing_that_is_not_good(case: str) -> None:
    snapshot, state, check, text, advice = CASES[case]
    found = other_than_good(snapshot)
    assert (state, check) in [(finding.state.value, finding.check) for finding in found]
    (finding,) = (finding for finding in found if finding.check == check)
    assert text in finding.text
    assert advice in finding.advice
    assert checks.is_wrong(found) == (state == "✗" or len(found) > 1)
    if state == "!":
        assert found == [finding]


def test_what_cannot_be_read_is_said() -> None:
    blind = replace(HEALTHY, lists={}, failures=dict.fromkeys(HEALTHY.lists, "403 forbidden"))
    findings = checks.examine(replace(blind, probe=None))
    assert {f.state for f in findings if f.check != "DRA"} == {State.UNSURE}
    assert "nodes could not be read: 403 forbidden" in [f.text for f in findings]
    assert not checks.is_wrong(findings)


def test_the_oldest_version_has_other_kinds() -> None:
    classic = with_lists(
        replace(HEALTHY, api=VERSIONS["v1alpha2"], kubernetes="v1.27.16"),
        webhooks=[webhook(matchConditions=None)],
        classes=[named("gpu.nvidia.com")],
        quotas=[named("q", spec={"hard": {"requests.nvidia.com/mig-1g.5gb": 1}})],
    )
    (quota,) = other_than_good(classic)
    assert quota.advice.startswith("limit count/resourceclaims.resource.k8s.io instead")
    assert "slices" in [finding.check for finding in checks.examine(classic)]


@pytest.mark.parametrize(
    ("client", "name"),
    [
        ({"service": {"name": "a", "namespace": "b"}}, "a.b.svc"),
        ({"url": "https://127.0.0.1:8443/mutate"}, "127.0.0.1"),
        ({"url": "https://[::1]:8443/mutate"}, "::1"),
        ({"url": "https://example.com"}, "example.com"),
        ({}, ""),
    ],
)
def test_the_name_that_is_called(client: Json, name: str) -> None:
    assert checks.server_name({"clientConfig": client}) == name


# One pod.


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


# The report, and the command.

FINDINGS = [
    Finding("DRA", State.GOOD, "served"),
    Finding("certificate", State.WRONG, "it ended", "renew it"),
]


def test_the_report() -> None:
    assert report.as_text(FINDINGS) == (
        "✓ DRA          served\n✗ certificate  it ended\n               -> renew it\n"
    )
    assert report.as_text(FINDINGS, colour=True).startswith("\x1b[32m✓\x1b[0m DRA")
    first, second = json.loads(report.as_json(FINDINGS))
    assert first == {"check": "DRA", "state": "good", "text": "served", "advice": ""}
    assert (second["state"], second["advice"]) == ("wrong", "renew it")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "instaslice", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_no_cluster_is_one_line(tmp_path: Any) -> None:
    done = run("--kubeconfig", str(tmp_path / "missing"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("instaslice: kubeconfig: ")
    assert done.stderr.count("\n") == 1


def test_the_extra_is_named_where_it_is_missing() -> None:
    program = (
        "import sys; sys.modules['kubernetes'] = None; from instaslice.cli.main import main; "
        "sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    line = "instaslice: doctor needs the kubernetes client: pip install 'instaslice[cli]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
