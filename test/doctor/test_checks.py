"""What is said about clusters, each as plain data with one thing in it that matters."""

from dataclasses import replace
from typing import Any

import pytest
import trustme

from instaslice.doctor import checks
from instaslice.doctor.findings import Finding, State
from instaslice.doctor.snapshot import Probe, Snapshot
from instaslice.resource_api import VERSIONS, Unavailable
from test.support.certs import pem
from test.support.snapshots import HEALTHY, NAME, certificate, named, pod, webhook, with_lists

Json = dict[str, Any]


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
