"""What a cluster lacks for InstaSlice, judged from a snapshot of it.

Pure: `survey` takes the snapshot. A check is a small function from a snapshot to findings; `CHECKS`
lists them in the order in which things must be right.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from instaslice.doctor import driver, installed, policies
from instaslice.doctor.findings import Finding, Found, State
from instaslice.doctor.policies import Policy
from instaslice.doctor.report import of_policy
from instaslice.doctor.snapshot import Snapshot, Unreadable

Check = Callable[[Snapshot], Found]


def _policies(find: Callable[[Snapshot], Iterator[Policy]]) -> Check:
    return lambda snapshot: map(of_policy, find(snapshot))


#: By title, in the order in which things must be right.
CHECKS: Final[dict[str, Check]] = {
    "DRA": installed.dra,
    "gates": installed.feature_gates,
    "webhook": installed.registered,
    "mode": installed.mode,
    "endpoints": installed.endpoints,
    "dry run": installed.dry_run,
    "driver": driver.device_class,
    "slices": driver.slices,
    "overlap": driver.overlap,
    "mapped": driver.mapped,
    "profiles": driver.profiles,
    "templates": driver.templates,
    "device classes": driver.device_classes,
    "whole GPUs": driver.whole_gpus,
    "old pods": driver.old_pods,
    "node names": driver.node_names,
    "quotas": _policies(policies.quotas),
    "limit ranges": _policies(policies.limit_ranges),
    "Kueue": _policies(policies.kueue),
    "device plugin": driver.device_plugin,
}


def examine(snapshot: Snapshot) -> list[Finding]:
    """Everything there is to say about a cluster."""
    findings = []
    for title, check in CHECKS.items():
        try:
            findings += [Finding(title, *found) for found in check(snapshot)]
        except Unreadable as error:
            findings.append(Finding(title, State.UNSURE, str(error), error.advice))
    return findings


def is_wrong(findings: Iterable[Finding]) -> bool:
    """Whether something must be done."""
    return any(finding.state is State.WRONG for finding in findings)
