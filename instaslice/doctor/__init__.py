"""The readings and reports of `instaslice doctor` and `instaslice plan` (extra `cli`).

`reading` takes a snapshot, everything else is pure. A check is a small function from a snapshot to
findings; `CHECKS` lists them in the order in which things must be right.
"""

from collections.abc import Callable
from typing import Final

from instaslice.doctor import driver, installed, policies
from instaslice.doctor.report import Finding, Found, gather
from instaslice.doctor.snapshot import Snapshot

#: By title, in the order in which things must be right.
CHECKS: Final[dict[str, Callable[[Snapshot], Found]]] = {
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
    "node labels": driver.chosen_labels,
    "quotas": lambda snapshot: policies.findings(policies.quotas(snapshot)),
    "limit ranges": lambda snapshot: policies.findings(policies.limit_ranges(snapshot)),
    "Kueue": lambda snapshot: policies.findings(policies.kueue(snapshot)),
    "policies": policies.own,
    "device plugin": driver.device_plugin,
}


def examine(snapshot: Snapshot) -> list[Finding]:
    """Everything there is to say about a cluster."""
    return gather((title, check(snapshot)) for title, check in CHECKS.items())
