"""What is said of a whole cluster; the modules of the checks have tests of their own."""

from dataclasses import replace

from instaslice.doctor import checks
from instaslice.doctor.findings import State
from instaslice.resource_api import VERSIONS
from test.support.snapshots import HEALTHY, named, webhook, with_lists


def test_a_healthy_cluster() -> None:
    findings = checks.examine(HEALTHY)
    assert [(f.check, f.state.value, f.text) for f in findings] == [
        ("DRA", "✓", "Kubernetes v1.36.3 serves resource.k8s.io/v1"),
        (
            "gates",
            "✓",
            "on: DRAPartitionableDevices, DRAExtendedResource, DRAPrioritizedList, "
            "DRAConsumableCapacity",
        ),
        ("webhook", "✓", "rewrite.instaslice.io is registered, failurePolicy Fail"),
        ("mode", "✓", "all: every pod with a limit that can be rewritten is sent"),
        ("certificate", "✓", "the caBundle trusts it, and it is good until 2026-04-01"),
        ("endpoints", "✓", "instaslice-system/instaslice has 2 ready pods"),
        ("dry run", "✓", "a pod with nvidia.com/mig-1g.5gb in default is rewritten"),
        ("driver", "✓", "DeviceClass mig.nvidia.com is there"),
        ("slices", "✓", "1g.5gb: 1 free, 1 published"),
        ("slices", "✓", "1g.5gb+me: 0 free, 1 published"),
        ("profiles", "✓", "every profile that pods ask for is published"),
        ("templates", "✓", "every namespace has the templates that its pods need"),
    ]
    assert not checks.is_wrong(findings)


def test_one_thing_that_is_wrong() -> None:
    findings = checks.examine(with_lists(classes=[]))
    (wrong,) = (finding for finding in findings if finding.state is not State.GOOD)
    assert (wrong.check, wrong.state) == ("driver", State.WRONG)
    assert checks.is_wrong(findings)


def test_what_cannot_be_read_is_said() -> None:
    blind = replace(HEALTHY, lists={}, failures=dict.fromkeys(HEALTHY.lists, "403 forbidden"))
    findings = checks.examine(replace(blind, probes=(), gates={}))
    assert {f.state for f in findings if f.check != "DRA"} == {State.UNSURE}
    assert "nodes could not be read: 403 forbidden" in [f.text for f in findings]
    assert not checks.is_wrong(findings)
    rights = "the rights that this needs are in config/components/doctor"
    assert {f.advice for f in findings if f.check != "DRA"} == {rights}


def test_silence_is_no_lack_of_rights() -> None:
    silent = replace(HEALTHY, failures={"nodes": "no answer within 10 s"})
    (found,) = (f for f in checks.examine(silent) if f.state is State.UNSURE)
    assert (found.check, found.advice) == ("device plugin", "")


def test_the_oldest_version_has_other_kinds() -> None:
    classic = with_lists(
        replace(HEALTHY, api=VERSIONS["v1alpha2"], kubernetes="v1.27.16", gates={}),
        webhooks=[webhook(matchConditions=None, failurePolicy="Ignore")],
        classes=[named("gpu.nvidia.com")],
        slices=[],
        quotas=[named("q", spec={"hard": {"requests.nvidia.com/mig-1g.5gb": "1"}})],
    )
    findings = checks.examine(classic)
    (quota,) = (finding for finding in findings if finding.state is not State.GOOD)
    assert '{"count/resourceclaims.resource.k8s.io":"1"}' in quota.advice
    assert "slices" in [finding.check for finding in findings]
