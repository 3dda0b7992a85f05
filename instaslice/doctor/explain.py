"""Explains one pod: its request, its rewritten form, and why it is pending. Pure."""

from collections import Counter
from typing import Final

from instaslice.doctor import checks, policies
from instaslice.doctor.inventory import Inventory, allocated, dig
from instaslice.doctor.report import GOOD, UNSURE, WRONG, Finding, Found, gather
from instaslice.doctor.snapshot import Pod, PodClaim, Snapshot, choices
from instaslice.node_labels import NODE_SELECTOR, PAST_SCHEDULER
from instaslice.patch import Json
from instaslice.resource_api import DIFFERENT_GPUS, SAME_GPU
from instaslice.templates import DeviceClaim

#: The reason of a kubelet's event if the driver failed to prepare a claim's devices
#: (k8s.io/kubernetes, pkg/kubelet/events/event.go).
PREPARE_FAILED: Final = "FailedPrepareDynamicResources"
_PLACED: Final = {SAME_GPU: " on one GPU", DIFFERENT_GPUS: " on a GPU each"}
_SEE_BELOW: Final = "see the state below for the reason"


def explain(snapshot: Snapshot, manifest: Json, events: list[Json]) -> list[Finding]:
    """Explain a pod: its request, its rewritten form, and, by its events, why it is pending."""
    pod = Pod(manifest, snapshot.resources)
    parts = [
        ("asks for", _asks_for(pod)),
        ("became", _became(snapshot, pod)),
        *((f"claim {own.name[:8]}", _claim(snapshot, pod, own)) for own in pod.claims),
        ("node name", _node_name(snapshot, pod)),
        ("quota", _quotas(snapshot, pod)),
        ("state", _state(pod, events)),
    ]
    return gather(parts)


def _asks_for(pod: Pod) -> Found:
    wanted = ", ".join(f"{name}: {amount}" for name, amount in pod.limits.items())
    count = Counter(map(describe, pod.claims))
    claims = ", ".join(text if n == 1 else f"{n} claims of {text}" for text, n in count.items())
    yield GOOD, wanted or claims or "no MIG slice"


def describe(own: PodClaim) -> str:
    """A claim in words: "2 x 1g.5gb", "3g.20gb or 4g.20gb", "3 x 1g.5gb on one GPU"."""
    texts = [(request.count, choices(request)) for request in own.asks.requests]
    parts = [text if count == 1 else f"{count} x {text}" for count, text in texts]
    return (" and ".join(parts) + _PLACED.get(own.asks.placement, "")) or own.template


def _became(snapshot: Snapshot, pod: Pod) -> Found:
    if made := pod.status.get("extendedResourceClaimStatus"):
        yield GOOD, f"the scheduler itself created the claim {made['resourceClaimName']}"
    elif pod.limits and pod.node:
        yield GOOD, "it was not rewritten: it got its devices from the device plugin"
    elif pod.limits and not pod.limits.keys() - snapshot.served_by_scheduler.keys():
        yield GOOD, "it was not rewritten: the scheduler serves its limits by device classes"
    elif pod.limits:
        text = "it was not rewritten: InstaSlice was unavailable, or is disabled for it"
        yield WRONG, text, "recreate it; instaslice doctor says whether that helps"
    elif pod.claims:
        noun = "claim" if len(pod.claims) == 1 else "claims"
        yield GOOD, f"rewritten: {len(pod.claims)} {noun}"


def _node_name(snapshot: Snapshot, pod: Pod) -> Found:
    if snapshot.is_past_scheduler(pod):
        yield WRONG, PAST_SCHEDULER, NODE_SELECTOR


def _claim(snapshot: Snapshot, pod: Pod, own: PodClaim) -> Found:
    asks, claim = f"asks for {describe(own)}", snapshot.claim_of(pod, own)
    if fault := next(checks.template_faults(snapshot, pod, own), None):
        yield WRONG, f"{asks}, but {fault[0]}", fault[1]
    elif devices := [device for device, _ in allocated(claim)]:
        profiles = {each.name: each.profile for each in snapshot.readable.inventory.devices}
        chosen = dict.fromkeys(filter(None, map(profiles.get, devices)))
        what = " and ".join(chosen) + ": " if chosen and len(own.asks.choices) > 1 else ""
        where = ", ".join(f"{device} on {pool}" for _, pool, device in devices)
        yield GOOD, f"{asks}, has {what}{where}"
    elif dig(claim, "status", "allocation"):
        yield GOOD, f"{asks}: allocated"
    elif fault := next(checks.class_faults(snapshot, pod, own), None):
        yield WRONG, f"{asks}, but {fault[0]}", fault[1]
    elif not claim:
        yield UNSURE, f"{asks}: Kubernetes has not created its claim yet", _SEE_BELOW
    elif snapshot.is_past_scheduler(pod):
        yield UNSURE, f"{asks}, waits for the scheduler", "see the line about its node"
    elif snapshot.is_classic:
        yield UNSURE, f"{asks}, waits for the driver"
    elif not (own.asks.requests and all(r.resource.profile for r in own.asks.requests)):
        yield UNSURE, f"{asks}, waits", _SEE_BELOW
    elif fault := next(checks.unpublished(snapshot, pod, own), None):
        yield WRONG, f"{asks}, but {fault[0]}", fault[1]
    elif snapshot.inventory.has_room(own.asks):
        yield UNSURE, f"{asks}, waits, though there is room for it", _SEE_BELOW
    else:
        empty = Inventory(snapshot.all("slices"), [])
        for device in empty.devices:
            device.is_usable = True  # a taint may go
        is_possible = empty.has_room(own.asks) or any(pool.problem for pool in empty.pools)
        advice = "ask for less: that is more than any node publishes"
        advice = "wait, or delete a pod that has such slices" if is_possible else advice
        yield WRONG, f"{asks}, waits: {_lacking(snapshot.inventory, own.asks)}", advice


def _lacking(devices: Inventory, claim: DeviceClaim) -> str:
    """The reason why a claim without room waits."""
    needed = sum(each.count for each in claim.requests)
    first, supply = claim.requests[0], devices.supply
    if claim.placement == DIFFERENT_GPUS:
        return f"no node has {needed} GPUs with a free {choices(first)}"
    if needed == 1:
        names = first.profiles(supply)
        published = sum(found.published for name, found in supply.items() if name in names)
        return f"no {choices(first)} is free ({published} published)"
    parts = [f"{each.count} free {choices(each)}" for each in claim.requests]
    return f"no {'GPU' if claim.placement else 'node'} has {' and '.join(parts)}"


def _quotas(snapshot: Snapshot, pod: Pod) -> Found:
    """The quotas that count a pod's claims, unless the pod has a node."""
    if pod.node or not pod.claims:
        return
    requests = [request for own in pod.claims for request in own.asks.requests]
    for quota in snapshot.all("quotas"):
        hard, used = dig(quota, "status", "hard"), dig(quota, "status", "used")
        if policies.scope(quota["spec"]):
            continue  # no claim is in a scope
        for resource in dict.fromkeys(request.resource for request in requests):
            keys = [policies.quota_key(snapshot, resource)]
            if policies.counts(snapshot, resource):
                keys.append(policies.REQUESTS + resource.name)
            for key in filter(hard.__contains__, keys):
                text = f"{quota['metadata']['name']}: {key}: {used.get(key, 0)} of {hard[key]} used"
                yield UNSURE if used.get(key) == hard[key] else GOOD, text


def _state(pod: Pod, events: list[Json]) -> Found:
    """The pod's phase, with its latest warning unless it runs."""
    where = f"{pod.phase} on {pod.node}" if pod.node else pod.phase
    warnings = [event for event in events if event.get("type") == "Warning"]
    if pod.node:
        # The scheduler's warnings are obsolete. The kubelet's apply until the pod runs.
        warnings = list(filter(_is_kubelets, warnings)) if pod.phase == "Pending" else []
    if not warnings:
        yield GOOD if pod.node else UNSURE, where
        return
    latest = max(warnings, key=_time)
    text = " ".join(f"{where}: {latest['reason']}: {latest['message']}".split())
    advice = f"the log of the DRA driver's pod on {pod.node} may say more"
    is_drivers = pod.node and latest["reason"] == PREPARE_FAILED
    yield WRONG if pod.node else UNSURE, text, advice if is_drivers else ""


def _is_kubelets(event: Json) -> bool:
    return "kubelet" in (event.get("reportingComponent"), dig(event, "source").get("component"))


def _time(event: Json) -> str:
    """The time of its last occurrence, in RFC 3339."""
    times = ((event.get("series") or {}).get("lastObservedTime"), event.get("lastTimestamp"))
    later = (event.get("eventTime"), event["metadata"].get("creationTimestamp"))
    return max(map(str, filter(None, times + later)), default="")
