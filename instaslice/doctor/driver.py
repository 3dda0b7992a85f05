"""Checks of DRA drivers and of what pods want from them. Pure."""

import re
from collections import defaultdict
from typing import Final

from instaslice.cluster.gates import PARTITIONABLE
from instaslice.doctor.devices import DRIVER
from instaslice.doctor.findings import Found, State
from instaslice.doctor.snapshot import (
    Snapshot,
    full_name,
    is_mig,
    living,
    pod_claims,
    some,
    wanted_limits,
)
from instaslice.patch import Json
from instaslice.resources import MIG_CLASS
from instaslice.templates import CLASSIC_CLASS

#: How a device class says whose devices it means.
_DRIVER_IS: Final = re.compile(r"device\.driver\s*==\s*['\"]([^'\"]+)['\"]")


def device_class(snapshot: Snapshot) -> Found:
    """Whether NVIDIA's driver is installed."""
    kind, name = (
        ("ResourceClass", CLASSIC_CLASS) if snapshot.is_classic else ("DeviceClass", MIG_CLASS)
    )
    if any(found["metadata"]["name"] == name for found in snapshot.all("classes")):
        yield State.GOOD, f"{kind} {name} is there"
    else:
        yield State.WRONG, f"there is no {kind} {name}", "install NVIDIA's DRA driver"


def slices(snapshot: Snapshot) -> Found:
    """What is published, and what of it is free."""
    if snapshot.is_classic:
        yield State.GOOD, "in v1alpha2 only the driver knows which slices there are"
        return
    supply = snapshot.supply
    if not supply:
        advice = "does NVIDIA's DRA driver run on the GPU nodes, and is MIG on there?"
        yield State.WRONG, "no ResourceSlice publishes a MIG slice", advice
    for profile, found in supply.items():
        text = f"{profile}: {found.free} free, {found.published} published"
        if found.tainted:
            text += f", {found.tainted} of them tainted"
        if found.shared:
            text += f", {found.shared} of them shared: several claims may have one"
        yield State.GOOD, text
    for pool in snapshot.inventory.pools:
        if pool.problem:
            advice = "the driver is at work on it, or see its kubelet plugin's log on that node"
            yield State.UNSURE, f"nothing of pool {pool.name} is given out: {pool.problem}", advice
    taints = {d.taint: d.name.device for d in snapshot.inventory.devices if d.taint}
    for taint, device in taints.items():
        text = f"{device} has the taint {taint}, which keeps claims away"
        yield State.UNSURE, text, "the driver's health check puts it there, or a DeviceTaintRule"


def overlap(snapshot: Snapshot) -> Found:
    """Whether the scheduler could hand out the same place of a GPU twice."""
    overlapping = [d.name.device for d in snapshot.inventory.devices if d.may_overlap]
    if overlapping:
        text = (
            f"{some(overlapping)} consume no counters, so that the scheduler will hand out the "
            "same place of a GPU twice, and the driver will fail"
        )
        advice = (
            f"the API server drops the counters: switch on the feature gate {PARTITIONABLE} "
            "there and in the scheduler (on from Kubernetes 1.36), then restart the driver's "
            "kubelet plugins, which publish them anew"
        )
        yield State.WRONG, text, advice


def mapped(snapshot: Snapshot) -> Found:
    """Whether what resources are mapped to is there."""
    if "mapping" in snapshot.failures:
        text = f"what serve was told to map is wrong: {snapshot.failures['mapping']}"
        yield State.WRONG, text, "see the log of InstaSlice"
    if failure := snapshot.failures.get("own pods"):
        yield State.UNSURE, f"what serve was told to map is unknown: {failure}", failure.advice
    classes = {found["metadata"]["name"]: found for found in snapshot.all("classes")}
    for name, resource in snapshot.resources.mapped.items():
        what = f"{name} is mapped to {resource.device_class}"
        if resource.profile and resource.has_own_class:
            yield State.GOOD, f"{what}, which is made as pods need it"
            continue
        found = classes.get(resource.device_class)
        if found is None:
            yield State.WRONG, f"{what}, which is not there", "install the driver that brings it"
            continue
        drivers = _drivers(found)
        if not drivers:
            yield (
                State.UNSURE,
                f"{what}, whose selectors name no driver",
                "does one publish devices?",
            )
        for driver in drivers:
            published, free = _devices_of(snapshot, driver, resource.device_class)
            if published:
                yield State.GOOD, f"{what}: {free}{published} published"
            else:
                text = f"{what}, and {driver} publishes no device of it"
                yield State.WRONG, text, f"does the driver {driver} run on the nodes?"


def _drivers(found: Json) -> list[str]:
    """The drivers that a device class's selectors name."""
    selectors = (found.get("spec") or {}).get("selectors") or []
    texts = [(selector.get("cel") or {}).get("expression") or "" for selector in selectors]
    return list(dict.fromkeys(_DRIVER_IS.findall("\n".join(texts))))


def _devices_of(snapshot: Snapshot, driver: str, device_class: str) -> tuple[int, str]:
    """How many devices a driver publishes, and what can be said of those that are free."""
    if driver == DRIVER and device_class == CLASSIC_CLASS:
        found = snapshot.inventory.whole()
        return found.published, f"{found.free} free, "
    count = sum(
        len(slice_["spec"].get("devices") or [])
        for slice_ in snapshot.all("slices")
        if slice_["spec"].get("driver") == driver
    )
    return count, ""


def profiles(snapshot: Snapshot) -> Found:
    """Whether what pods claim is published at all."""
    supply = snapshot.supply
    if not supply:
        return
    users: dict[str, list[str]] = defaultdict(list)
    for pod in living(snapshot.all("pods")):
        for claim in pod_claims(pod, snapshot.resources):
            for request in claim.asks.requests if claim.asks else ():
                names = [choice.profile.attribute for choice in request.choices if choice.profile]
                if names and not set(names) & supply.keys():
                    users[" or ".join(names)].append(full_name(pod))
    for names_, pods in users.items():
        text = f"{names_} is published by no node, and asked for by {some(pods)}"
        yield State.WRONG, text, f"there is {', '.join(supply)}"
    if not users:
        yield State.GOOD, "every profile that pods ask for is published"


def templates(snapshot: Snapshot) -> Found:
    """Whether the templates are there that pods' claims are made from."""
    there = {full_name(template) for template in snapshot.all("templates")}
    lacking: dict[str, dict[str, None]] = defaultdict(dict)
    for pod in living(snapshot.all("pods")):
        namespace = pod["metadata"]["namespace"]
        for claim in pod_claims(pod, snapshot.resources):
            if f"{namespace}/{claim.template}" not in there:
                lacking[namespace][claim.template] = None
    for namespace, names in lacking.items():
        text = f"{namespace} has no template {', '.join(names)}, and pods that need it"
        advice = f"instaslice templates --apply -n {namespace} {' '.join(names)}"
        yield State.WRONG, text, advice
    if not lacking:
        yield State.GOOD, "every namespace has the templates that its pods need"


def old_pods(snapshot: Snapshot) -> Found:
    """Pods that nobody will give a device as they are."""
    waiting = []
    for pod in living(snapshot.all("pods")):
        wanted = wanted_limits(pod, snapshot.resources)
        # The scheduler serves what a class maps, if it has something free.
        if wanted.keys() - snapshot.served_by_scheduler.keys() and not pod["spec"].get("nodeName"):
            waiting.append(full_name(pod))
    if waiting:
        text = f"{some(waiting)} wait with their limits, created without InstaSlice"
        advice = "have them created anew, if instaslice.io/rewrite is not disabled"
        yield State.WRONG, text, advice


def device_plugin(snapshot: Snapshot) -> Found:
    """Nodes on which a device plugin still offers what is to come through DRA."""
    nodes = snapshot.all("nodes")
    published = set() if snapshot.is_classic else snapshot.inventory.nodes()
    found: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for node in nodes:
        amounts = (node.get("status") or {}).get("allocatable") or {}
        # The kubelet keeps a resource, at 0, when its device plugin is gone.
        names = [n for n, amount in amounts.items() if snapshot.resources.find(n) and amount != "0"]
        if names:
            name = node["metadata"]["name"]
            found[", ".join(sorted(names)), name in published].append(name)
    for (resources, is_published), names in found.items():
        text = f"{some(names)}: a device plugin advertises {resources}"
        advice = "take the device plugin off the node before the driver comes: docs/migrate.md"
        if is_published:
            text += ", and MIG slices are published for DRA as well"
            yield State.WRONG, text, advice
        else:
            slices_ = "slices" if is_mig(resources.partition(",")[0]) else "devices"
            yield State.UNSURE, f"{text}: rewritten pods cannot have these {slices_}", advice
