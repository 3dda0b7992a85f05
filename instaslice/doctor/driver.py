"""Checks of DRA drivers and of what pods want from them. Pure."""

import re
from collections import defaultdict
from collections.abc import Iterable
from typing import Final

from instaslice import node_labels
from instaslice.cluster.gates import EXTENDED, PARTITIONABLE
from instaslice.doctor.report import GOOD, UNSURE, WRONG, Found
from instaslice.doctor.snapshot import GPU, Pod, Snapshot, advertised, advice_on, choices, some
from instaslice.profiles import RESOURCE_PREFIX, known_profiles
from instaslice.resource_api import NEWEST, ResourceAPI
from instaslice.resources import DRIVER, MIG_CLASS, Resource, of_profile
from instaslice.templates import CLASSIC_CLASS, difference, from_template, objects, why_not
from instaslice.templates import device_class as device_class_of

#: How a device class says whose devices it means.
_DRIVER_IS: Final = re.compile(r"device\.driver\s*==\s*['\"]([^'\"]+)['\"]")


def device_class(snapshot: Snapshot) -> Found:
    """Whether NVIDIA's driver is installed."""
    kind, name = ("Device", MIG_CLASS) if not snapshot.is_classic else ("Resource", CLASSIC_CLASS)
    if name in snapshot.named("classes"):
        yield GOOD, f"{kind}Class {name} exists"
    else:
        yield WRONG, f"there is no {kind}Class {name}", "install NVIDIA's DRA driver"


def slices(snapshot: Snapshot) -> Found:
    """The published slices, and the free ones among them."""
    if snapshot.is_classic:
        yield GOOD, "in v1alpha2 only the driver knows which slices there are"
        return
    if not snapshot.supply:
        advice = "does NVIDIA's DRA driver run on the GPU nodes, and is MIG on there?"
        yield WRONG, "no ResourceSlice publishes a MIG slice", advice
    for profile, found in snapshot.supply.items():
        text = f"{profile}: {found.free} free, {found.published} published"
        if found.tainted:
            text += f", {found.tainted} of them tainted"
        if found.shared:
            text += f", {found.shared} of them shared: several claims may have one"
        yield GOOD, text
    for pool in snapshot.inventory.pools:
        if pool.problem:
            advice = "wait for the driver, or see the log of its kubelet plugin on that node"
            yield UNSURE, f"nothing of pool {pool.name} is free: {pool.problem}", advice
    taints = {d.taint: d.name.device for d in snapshot.inventory.devices if d.taint}
    for taint, device in taints.items():
        text = f"{device} has the taint {taint}, which keeps claims away"
        yield UNSURE, text, "the driver's health check puts it there, or a DeviceTaintRule"


def overlap(snapshot: Snapshot) -> Found:
    """Whether the scheduler could hand out the same place of a GPU twice."""
    overlapping = [d.name.device for d in snapshot.inventory.devices if d.may_overlap]
    if overlapping:
        text = (
            f"{some(overlapping)} consume no counters: the scheduler will give the same part of a "
            "GPU to two claims, and the driver will fail"
        )
        advice = (
            f"the API server drops the counters: switch on the feature gate {PARTITIONABLE} "
            "there and in the scheduler (on from Kubernetes 1.36), then restart the driver's "
            "kubelet plugins, which publish them anew"
        )
        yield WRONG, text, advice


def mapped(snapshot: Snapshot) -> Found:
    """Whether what resources are mapped to is there."""
    if "mapping" in snapshot.failures:
        text = f"InstaSlice's mapping is wrong: {snapshot.failures['mapping']}"
        yield WRONG, text, "see the log of InstaSlice"
    if failure := snapshot.failures.get("own pods"):
        yield UNSURE, f"InstaSlice's mapping is unknown: {failure}", advice_on(failure.status)
    for name, resource in snapshot.resources.mapped.items():
        what = f"{name} is mapped to {resource.device_class}"
        if resource.profile and resource.has_own_class:
            yield GOOD, f"{what}, which InstaSlice makes when a pod needs it"
        elif resource.device_class not in snapshot.named("classes"):
            yield WRONG, f"{what}, which does not exist", "install the driver that brings it"
        else:
            yield from _devices(snapshot, resource.device_class, what)


def _devices(snapshot: Snapshot, device_class: str, what: str) -> Found:
    """Whether the drivers that a class's selectors name publish devices."""
    selectors = (snapshot.named("classes")[device_class].get("spec") or {}).get("selectors") or []
    texts = [(selector.get("cel") or {}).get("expression") or "" for selector in selectors]
    drivers = dict.fromkeys(_DRIVER_IS.findall("\n".join(texts)))
    if not drivers:
        yield UNSURE, f"{what}, whose selectors name no driver", "does one publish devices?"
    for driver in drivers:
        specs = (each["spec"] for each in snapshot.all("slices"))
        mine = [each.get("devices") or [] for each in specs if each.get("driver") == driver]
        published, free = sum(map(len, mine)), ""
        if driver == DRIVER and device_class == CLASSIC_CLASS:
            found = snapshot.inventory.whole()
            published, free = found.published, f"{found.free} free, "
        if published:
            yield GOOD, f"{what}: {free}{published} published"
        else:
            text = f"{what}, and {driver} publishes no device of it"
            yield WRONG, text, f"does the driver {driver} run on the nodes?"


def profiles(snapshot: Snapshot) -> Found:
    """Whether what pods claim is published at all."""
    supply = snapshot.supply
    if not supply:
        return
    users: dict[str, list[str]] = defaultdict(list)
    for pod, claim in snapshot.users:
        for request in claim.asks.requests if claim.asks else ():
            profiles_ = request.profiles(supply)
            if profiles_ and not set(profiles_) & supply.keys():
                users[choices(request)].append(pod.full_name)
    for wanted, pods in users.items():
        text = f"no node publishes {wanted}, needed by {some(pods)}"
        yield WRONG, text, f"nodes publish {', '.join(supply)}"
    if not users:
        yield GOOD, "every profile that pods ask for is published"


def templates(snapshot: Snapshot) -> Found:
    """Whether the templates are there that pods' claims are made from, and are InstaSlice's."""
    lacking: dict[str, dict[str, None]] = defaultdict(dict)
    for pod, claim in snapshot.users:
        if f"{pod.namespace}/{claim.template}" not in snapshot.named("templates"):
            lacking[pod.namespace][claim.template] = None
    for namespace, names in lacking.items():
        text = f"pods in {namespace} need templates that do not exist: {', '.join(names)}"
        advice = f"instaslice templates --apply -n {namespace} {' '.join(names)}"
        yield WRONG, text, advice
    found = {name: template_wrong(snapshot, name) for name in snapshot.named("templates")}
    wrong = {name: each for name, each in found.items() if each[0]}
    for name, (why, advice) in wrong.items():
        text = f"{name} is not as InstaSlice makes it, and its pods get something else: {why}"
        yield WRONG, text, advice
    if not lacking and not wrong:
        yield GOOD, "every namespace has the templates that its pods need"


def template_wrong(snapshot: Snapshot, full_name: str) -> tuple[str, str]:
    """How a template differs from what its name stands for, and the command; empty for not."""
    namespace, _, name = full_name.partition("/")
    found, api = snapshot.named("templates").get(full_name), snapshot.api
    claim = from_template(name, snapshot.resources)
    if found is None or claim is None or not isinstance(api, ResourceAPI) or why_not(api, claim):
        return "", ""
    command = f"kubectl -n {namespace} delete resourceclaimtemplate {name}"
    return difference(objects(api, claim)[-1], found), command


def class_wrong(snapshot: Snapshot, resource: Resource) -> tuple[str, str]:
    """The fault of a profile's DeviceClass, and the command that mends it; empty without one."""
    if snapshot.is_classic or not resource.has_own_class:
        return "", ""
    name = resource.device_class
    command = f"instaslice deviceclasses {resource.template} | kubectl apply -f -"
    ours = device_class_of(NEWEST, resource)
    gate = snapshot.gates.get(EXTENDED)
    if snapshot.api != NEWEST or (gate and gate.on is False):
        ours["spec"].pop("extendedResourceName")
    if name not in snapshot.named("classes"):
        return f"there is no DeviceClass {name}", command
    why = difference(ours, snapshot.named("classes")[name])
    return f"DeviceClass {name} is not as InstaSlice makes it: {why}" if why else "", command


def device_classes(snapshot: Snapshot) -> Found:
    """Classes that pods ask through, or by which the scheduler serves what is rewritten, too."""
    known = map(of_profile, known_profiles())
    users: dict[Resource, list[str]] = {
        resource: [] for resource in known if resource.device_class in snapshot.named("classes")
    }
    for pod, claim in snapshot.users:
        for resource in claim.resources:
            users.setdefault(resource, []).append(pod.full_name)
    for resource, pods in users.items():
        text, advice = class_wrong(snapshot, resource)
        if text:
            pending = f", needed by {some(pods)}" if pods else ""
            yield WRONG, text + pending, advice
    served = snapshot.served_by_scheduler
    names = [name for every in served.values() for name in every]
    if names:
        classes = "1 DeviceClass" if len(names) == 1 else f"{len(names)} DeviceClasses"
        yield GOOD, f"by {classes}, the scheduler itself serves limits of {some(served)}"
    for name, several in served.items():
        if len(several) > 1 and name.startswith(RESOURCE_PREFIX):
            text = f"{some(several)} all serve {name}: the scheduler takes the newest"
            yield UNSURE, text, "keep one"


def whole_gpus(snapshot: Snapshot) -> Found:
    """Whether anybody serves pods that ask for whole GPUs.

    The class of the GPU operator's GPUCluster has no extendedResourceName, unlike the driver's.
    """
    if GPU in snapshot.resources.mapped or snapshot.served_by_scheduler.get(GPU):
        return
    if any(GPU in advertised(node) for node in snapshot.all("nodes")):
        return
    yield from _wrong(
        (pod for pod in snapshot.pods if GPU in pod.extended and not pod.node),
        f" need {GPU}, which no device plugin and no DeviceClass offers",
        f"map it (serve --resource {GPU}=gpu.nvidia.com): docs/resources.md",
    )


def old_pods(snapshot: Snapshot) -> Found:
    """Pods that nobody will give a device as they are."""
    # The scheduler serves what a class maps, if it has something free.
    served = snapshot.served_by_scheduler.keys()
    yield from _wrong(
        (pod for pod in snapshot.pods if not pod.node and pod.limits.keys() - served),
        " were created without InstaSlice, and nobody serves their limits",
        "have them created again, unless instaslice.io/rewrite is disabled for them",
    )


def node_names(snapshot: Snapshot) -> Found:
    """Pods whose claims nobody allocates, since they name their node."""
    found = (pod for pod in snapshot.pods if is_past_scheduler(snapshot, pod))
    yield from _wrong(found, f": {node_labels.PAST_SCHEDULER}", node_labels.NODE_SELECTOR)


def _wrong(pods: Iterable[Pod], text: str, advice: str) -> Found:
    """The faults of pods, if any."""
    if names := [pod.full_name for pod in pods]:
        yield WRONG, some(names) + text, advice


def is_past_scheduler(snapshot: Snapshot, pod: Pod) -> bool:
    """Whether a pod has a node, and a claim of InstaSlice's without devices."""
    if not pod.node or pod.phase == "Running":
        return False
    statuses = (snapshot.claim_of(pod, own).get("status") or {} for own in pod.claims)
    return not all(status.get("allocation") for status in statuses)


def chosen_labels(snapshot: Snapshot) -> Found:
    """Pods that wait for a node with a label of the device plugin's, which no node has."""
    nodes = [node["metadata"].get("labels") or {} for node in snapshot.all("nodes")]
    waiting: dict[str, list[str]] = defaultdict(list)
    for pod in snapshot.pods:
        for wanted in node_labels.selected(pod.spec) if not pod.node else ():
            values = [labels[wanted.label] for labels in nodes if wanted.label in labels]
            # A number may be compared otherwise than by being equal.
            fits = not wanted.values or any(n in wanted.values or n.isdecimal() for n in values)
            if wanted.is_required and not (values and fits):
                waiting[str(wanted)].append(pod.full_name)
    for label, pods in waiting.items():
        text = f"{some(pods)} choose nodes by the label {label}, which no node has"
        yield UNSURE, text, "choose nodes otherwise: docs/migrate.md, section 10"


def device_plugin(snapshot: Snapshot) -> Found:
    """Nodes on which a device plugin still offers what is to come through DRA."""
    nodes, published = snapshot.all("nodes"), snapshot.inventory.nodes()
    found: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for node in nodes:
        if names := sorted(filter(snapshot.resources.find, advertised(node))):
            name = node["metadata"]["name"]
            found[", ".join(names), name in published].append(name)
    for (resources, is_published), where in found.items():
        text = f"{some(where)}: a device plugin advertises {resources}"
        advice = "take the device plugin off the node before the driver comes: docs/migrate.md"
        if is_published:
            text += ", and MIG slices are published for DRA as well"
            yield WRONG, text, advice
        else:
            devices = "slices" if resources.startswith(RESOURCE_PREFIX) else "devices"
            yield UNSURE, f"{text}: rewritten pods cannot have these {devices}", advice
