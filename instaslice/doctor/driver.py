"""Checks of DRA drivers and of what pods want from them. Pure."""

import re
from collections import defaultdict
from typing import Final

from instaslice.cluster.gates import EXTENDED, PARTITIONABLE
from instaslice.compare import difference
from instaslice.doctor.devices import DRIVER
from instaslice.doctor.findings import Found, State
from instaslice.doctor.snapshot import (
    GPU,
    Snapshot,
    full_name,
    is_mig,
    is_zero,
    living,
    pod_claims,
    some,
    wanted_limits,
)
from instaslice.patch import Json
from instaslice.profiles import known_profiles
from instaslice.resource_api import NEWEST, ResourceAPI
from instaslice.resources import MIG_CLASS, Resource, Resources, of_profile
from instaslice.templates import CLASSIC_CLASS, from_template, objects, why_not
from instaslice.templates import device_class as device_class_of

#: What is said of pods that name their node, and what to do.
PAST_SCHEDULER: Final = (
    "spec.nodeName is past the scheduler, which alone allocates claims, and the kubelet refuses "
    "a pod without them"
)
NODE_SELECTOR: Final = "take nodeName out, and choose by nodeSelector: kubernetes.io/hostname"
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
                names = request.profiles(supply)
                if names and not set(names) & supply.keys():
                    users[" or ".join(names)].append(full_name(pod))
    for names_, pods in users.items():
        text = f"{names_} is published by no node, and asked for by {some(pods)}"
        yield State.WRONG, text, f"there is {', '.join(supply)}"
    if not users:
        yield State.GOOD, "every profile that pods ask for is published"


def templates(snapshot: Snapshot) -> Found:
    """Whether the templates are there that pods' claims are made from, and are InstaSlice's."""
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
    different = 0
    for template in snapshot.all("templates"):
        if why := template_differs(snapshot, template):
            different += 1
            name = template["metadata"]["name"]
            where = f"-n {template['metadata']['namespace']}"
            text = f"{full_name(template)} is not as InstaSlice makes it, and pods get that: {why}"
            yield State.WRONG, text, f"kubectl {where} delete resourceclaimtemplate {name}"
    if not lacking and not different:
        yield State.GOOD, "every namespace has the templates that its pods need"


def template_differs(snapshot: Snapshot, template: Json) -> str:
    """How a template with a name of InstaSlice's differs from what that name stands for."""
    claim = from_template(template["metadata"]["name"], snapshot.resources)
    if claim is None or not isinstance(snapshot.api, ResourceAPI) or why_not(snapshot.api, claim):
        return ""
    return difference(objects(snapshot.api, claim)[-1], template)


def class_wrong(snapshot: Snapshot, resource: Resource) -> tuple[str, str]:
    """What is wrong with the DeviceClass of a profile, and the command; empty for nothing."""
    if snapshot.is_classic or not resource.has_own_class:
        return "", ""
    name = resource.device_class
    command = f"instaslice deviceclasses {resource.template} | kubectl apply -f -"
    ours = device_class_of(NEWEST, resource)
    if snapshot.api != NEWEST or getattr(snapshot.gates.get(EXTENDED), "on", None) is False:
        ours["spec"].pop("extendedResourceName")
    found = {each["metadata"]["name"]: each for each in snapshot.all("classes")}.get(name)
    if found is None:
        return f"there is no DeviceClass {name}", command
    why = difference(ours, found)
    return (
        (f"DeviceClass {name} is not as InstaSlice makes it: {why}", command) if why else ("", "")
    )


def device_classes(snapshot: Snapshot) -> Found:
    """Classes that pods ask through, or by which the scheduler serves what is rewritten, too."""
    there = {found["metadata"]["name"] for found in snapshot.all("classes")}
    users: dict[Resource, list[str]] = {
        resource: []
        for profile in known_profiles()
        if (resource := of_profile(profile)).device_class in there
    }
    for pod in living(snapshot.all("pods")):
        for claim in pod_claims(pod, snapshot.resources):
            for resource in claim.resources:
                users.setdefault(resource, []).append(full_name(pod))
    for resource, pods in users.items():
        text, advice = class_wrong(snapshot, resource)
        if text:
            pending = f", which {some(pods)} asks through" if pods else ""
            yield State.WRONG, text + pending, advice
    served = snapshot.served_by_scheduler
    if not served:
        return
    names = [name for every in served.values() for name in every]
    noun, verb = ("DeviceClass", "maps") if len(names) == 1 else ("DeviceClasses", "map")
    text = f"{len(names)} {noun} {verb} {some(served)} for the scheduler"
    yield State.GOOD, f"{text}, which serves pods that are not rewritten"
    for resource_name, several in served.items():
        if len(several) > 1 and is_mig(resource_name):
            text = f"{resource_name} is mapped by {some(several)}: the scheduler takes the newest"
            yield State.UNSURE, text, "keep one"


def whole_gpus(snapshot: Snapshot) -> Found:
    """Whether anybody serves pods that ask for whole GPUs.

    The class of the GPU operator's GPUCluster has no extendedResourceName, unlike the driver's.
    """
    if GPU in snapshot.resources.mapped or snapshot.served_by_scheduler.get(GPU):
        return
    amounts = [
        (node.get("status") or {}).get("allocatable") or {} for node in snapshot.all("nodes")
    ]
    if any(not is_zero(each.get(GPU, "0")) for each in amounts):
        return
    only = Resources({GPU: Resource(GPU, "", "", "")})
    waiting = [
        full_name(pod)
        for pod in living(snapshot.all("pods"))
        if GPU in wanted_limits(pod, only) and not pod["spec"].get("nodeName")
    ]
    if waiting:
        text = f"{some(waiting)} ask for {GPU}, which no device plugin and no DeviceClass offers"
        advice = f"map it (serve --resource {GPU}=gpu.nvidia.com): docs/resources.md"
        yield State.WRONG, text, advice


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


def node_names(snapshot: Snapshot) -> Found:
    """Pods whose claims nobody allocates, since they name their node."""
    found = [
        full_name(pod) for pod in living(snapshot.all("pods")) if is_past_scheduler(snapshot, pod)
    ]
    if found:
        yield State.WRONG, f"{some(found)}: {PAST_SCHEDULER}", NODE_SELECTOR


def is_past_scheduler(snapshot: Snapshot, pod: Json) -> bool:
    """Whether a pod has a node, and a claim of InstaSlice's without devices."""
    if not pod["spec"].get("nodeName") or (pod.get("status") or {}).get("phase") == "Running":
        return False
    return any(
        not ((snapshot.claim_of(pod, own) or {}).get("status") or {}).get("allocation")
        for own in pod_claims(pod, snapshot.resources)
    )


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
