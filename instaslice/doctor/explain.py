"""What a pod asked for, what it became, and what it waits for, judged from a snapshot. Pure."""

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from instaslice.doctor import driver, inventory, policies
from instaslice.doctor.findings import Finding, State
from instaslice.doctor.snapshot import (
    PodClaim,
    Snapshot,
    Unreadable,
    full_name,
    pod_claims,
    wanted_limits,
)
from instaslice.patch import Json
from instaslice.resource_api import DIFFERENT_GPUS, SAME_GPU
from instaslice.templates import DeviceClaim, DeviceRequest

#: The reason of a kubelet's event: the driver could not make a claim's devices ready
#: (k8s.io/kubernetes, pkg/kubelet/events/event.go).
PREPARE_FAILED = "FailedPrepareDynamicResources"

_PLACED: Final = {SAME_GPU: " on one GPU", DIFFERENT_GPUS: " on a GPU each"}
_WORDS: Final = ("no", "one", "two", "three", "four", "five", "six", "seven")


def explain(snapshot: Snapshot, pod: Json, events: list[Json]) -> list[Finding]:
    """What a pod asked for, what it became, and what it waits for.

    events: those about the pod.
    """
    limits = wanted_limits(pod, snapshot.resources)
    own = list(pod_claims(pod, snapshot.resources))
    findings = [Finding("asks for", State.GOOD, _asks_for(limits, own))]
    mapped = (pod.get("status") or {}).get("extendedResourceClaimStatus")
    if mapped:
        text = f"the scheduler made the claim {mapped['resourceClaimName']} of its limits itself"
        findings.append(Finding("became", State.GOOD, text))
    elif limits and pod["spec"].get("nodeName"):
        text = "it has its devices from the device plugin, from before InstaSlice"
        findings.append(Finding("became", State.GOOD, text))
    elif limits and not limits.keys() - _served(snapshot):
        text = "it was not rewritten: device classes have the scheduler serve its limits"
        findings.append(Finding("became", State.GOOD, text))
    elif limits:
        advice = "delete it, and have it created again; instaslice doctor says if that will help"
        text = "it was not rewritten: InstaSlice was not there, or is not to touch it"
        findings.append(Finding("became", State.WRONG, text, advice))
    elif own:
        text = f"rewritten: {len(own)} {'claim' if len(own) == 1 else 'claims'}"
        findings.append(Finding("became", State.GOOD, text))
    findings += [_claim(snapshot, pod, claim) for claim in own]
    with suppress(Unreadable):
        if driver.is_past_scheduler(snapshot, pod):
            text, advice = driver.PAST_SCHEDULER, driver.NODE_SELECTOR
            findings.append(Finding("node name", State.WRONG, text, advice))
    if own and not pod["spec"].get("nodeName"):
        findings += _quotas(snapshot, pod, own)
    findings.append(_state(pod, events))
    return findings


def _served(snapshot: Snapshot) -> set[str]:
    try:
        return set(snapshot.served_by_scheduler)
    except Unreadable:
        return set()


def _asks_for(limits: Json, own: list[PodClaim]) -> str:
    wanted = ", ".join(f"{name}: {amount}" for name, amount in limits.items())
    count = Counter(describe(claim.asks) if claim.asks else claim.template for claim in own)
    claims = ", ".join(text if n == 1 else f"{n} claims of {text}" for text, n in count.items())
    return wanted or claims or "no MIG slice"


def describe(asks: DeviceClaim) -> str:
    """A claim in words: "2 x 1g.5gb", "3g.20gb or 4g.20gb", "3 x 1g.5gb on one GPU"."""
    parts = [_request(request) for request in asks.requests]
    return " and ".join(parts) + _PLACED.get(asks.placement, "")


def _request(request: DeviceRequest) -> str:
    text = " or ".join(_names(request))
    return text if request.count == 1 else f"{request.count} x {text}"


def _names(request: DeviceRequest) -> list[str]:
    """The choices of a request, in words: profiles as the driver prints them, or "bigger"."""
    first, *others = (c.profile.attribute if c.profile else "" for c in request.choices)
    return [first or request.resource.name, *(filter(None, others)), *["bigger"][: "" in others]]


def _claim(snapshot: Snapshot, pod: Json, own: PodClaim) -> Finding:
    """How it stands with one of a pod's claims."""
    title = f"claim {own.name[:8]}"
    try:
        return _judged(snapshot, pod, own, title)
    except Unreadable as error:
        return Finding(title, State.UNSURE, str(error), error.advice)


def _judged(snapshot: Snapshot, pod: Json, own: PodClaim, title: str) -> Finding:
    namespace = pod["metadata"]["namespace"]
    templates = {full_name(template): template for template in snapshot.all("templates")}
    claim = snapshot.claim_of(pod, own)
    asks = f"asks for {describe(own.asks) if own.asks else own.template}"
    template = templates.get(f"{namespace}/{own.template}")
    if template is not None and (why := driver.template_differs(snapshot, template)):
        text = f"{asks} by its name, but its template is not as InstaSlice makes it: {why}"
        advice = f"kubectl -n {namespace} delete resourceclaimtemplate {own.template}"
        return Finding(title, State.WRONG, text, advice)
    if claim is None and template is None:
        advice = f"instaslice templates --apply -n {namespace} {own.template}"
        text = f"{asks}: there is no ResourceClaimTemplate {own.template} in {namespace}"
        return Finding(title, State.WRONG, text, advice)
    given = inventory.given(claim or {})
    if given:
        where = ", ".join(f"{found.name.device} of {found.name.pool}" for found in given)
        return Finding(title, State.GOOD, f"{asks}, has {_has(own, given)}{where}")
    if ((claim or {}).get("status") or {}).get("allocation"):
        return Finding(title, State.GOOD, f"{asks}: allocated")
    for resource in own.resources:
        text, advice = driver.class_wrong(snapshot, resource)
        if text:
            return Finding(title, State.WRONG, f"{asks}, but {text}", advice)
    if claim is None:
        text = f"{asks}: its claim is not made yet"
        return Finding(title, State.UNSURE, text, "what keeps it from being made is below")
    if snapshot.is_classic:
        return Finding(title, State.UNSURE, f"{asks}, waits for the driver")
    if own.asks is None or not all(r.resource.profile for r in own.asks.requests):
        return Finding(title, State.UNSURE, f"{asks}, waits", "the scheduler says below for what")
    return _waits(snapshot, title, asks, own.asks)


def _has(own: PodClaim, given: list[inventory.Given]) -> str:
    """Which of the alternatives a claim was given: "4g.20gb: "; empty where there were none."""
    if own.asks is None or all(len(request.choices) == 1 for request in own.asks.requests):
        return ""
    # "request/subrequest" (AllocationResult); a subrequest is named like its profile.
    choices = [choice for request in own.asks.requests for choice in request.choices]
    names = {c.request: c.profile.attribute if c.profile else c.name for c in choices}
    found = dict.fromkeys(names.get(each.request.partition("/")[2], "") for each in given)
    chosen = " and ".join(filter(None, found))
    return f"{chosen}: " if chosen else ""


def _waits(snapshot: Snapshot, title: str, asks: str, claim: DeviceClaim) -> Finding:
    """What a claim waits for that has no devices."""
    supply = snapshot.supply
    for request in claim.requests:
        if not supply.keys() & set(request.profiles(supply)):
            text = f"{asks}, but no node publishes {' or '.join(_names(request))}"
            advice = f"there is {', '.join(supply)}" if supply else "is the DRA driver there?"
            return Finding(title, State.WRONG, text, advice)
    lacking = next(_lacking(snapshot.inventory, claim), "")
    if lacking:
        return Finding(title, State.WRONG, f"{asks}, waits: {lacking}", "wait, or end a pod")
    text = f"{asks}, waits, though there is room for it"
    return Finding(title, State.UNSURE, text, "the scheduler says below what else is in the way")


def _lacking(devices: inventory.Inventory, claim: DeviceClaim) -> Iterator[str]:
    """Why there is no room for a claim, whichever alternatives are taken."""
    if claim.placement == DIFFERENT_GPUS:
        count = sum(request.count for request in claim.requests)
        for request in claim.requests:
            gpus = max(map(devices.gpus_with, request.profiles(devices.supply())))
            if gpus < count:
                what = " or ".join(_names(request))
                noun = "GPU has" if gpus == 1 else "GPUs have"
                yield f"{_word(gpus)} {noun} a free {what}, and {_word(count)} are asked for"
        return
    most, place = (
        (devices.most_on_one_gpu, "GPU")
        if claim.placement == SAME_GPU
        else (devices.most_on_one_node, "node")
    )
    supply = devices.supply()
    wanted = [(request.profiles(supply), request.count) for request in claim.requests]
    needed = sum(count for _, count in wanted)
    # Of the combinations of alternatives the first that fits is enough: those of all first
    # choices, all second ones, and so on stand for them, for requests mostly have one chain.
    depth = max(len(names) for names, _ in wanted)
    for index in range(depth):
        chosen = [(names[min(index, len(names) - 1)], count) for names, count in wanted]
        if most(chosen) >= needed:
            return
    parts = [f"{_word(count)} free {' or '.join(names)}" for names, count in wanted]
    if len(wanted) == 1 and needed == 1:
        names, _ = wanted[0]
        published = sum(
            found.published for name, found in devices.supply().items() if name in names
        )
        yield f"no {' or '.join(names)} is free, of {published} that are published"
    else:
        yield f"no {place} has {' and '.join(parts)}"


def _word(number: int) -> str:
    return _WORDS[number] if number < len(_WORDS) else str(number)


def _quotas(snapshot: Snapshot, pod: Json, own: list[PodClaim]) -> Iterator[Finding]:
    """The quotas of the pod's namespace that its claims count for."""
    try:
        quotas = snapshot.all("quotas")
        resources = [r.resource for c in own if c.asks for r in c.asks.requests]
        for quota in quotas:
            status = quota.get("status") or {}
            if policies.scope(quota["spec"]):
                continue  # claims have none
            hard, used = status.get("hard") or {}, status.get("used") or {}
            for resource in dict.fromkeys(resources):
                keys = [policies.instead(snapshot, resource)]
                if policies.counts(snapshot, resource):
                    keys.append(policies.REQUESTS + resource.name)
                for key in keys:
                    if key in hard:
                        name = f"{quota['metadata']['name']}: {key}"
                        text = f"{name}: {used.get(key, 0)} of {hard[key]} used"
                        state = State.UNSURE if used.get(key) == hard[key] else State.GOOD
                        yield Finding("quota", state, text)
    except Unreadable as error:
        yield Finding("quota", State.UNSURE, str(error), error.advice)


def _state(pod: Json, events: list[Json]) -> Finding:
    """The pod's phase, and the last warning that there was about it if it does not run."""
    node = pod["spec"].get("nodeName")
    phase = (pod.get("status") or {}).get("phase") or "Unknown"
    where = f"{phase} on {node}" if node else phase
    warnings = [event for event in events if event.get("type") == "Warning"]
    if node:
        # What the scheduler said is past. The kubelet's warnings are not, until the pod runs.
        warnings = [each for each in warnings if _is_kubelets(each) and phase == "Pending"]
    latest = max(warnings, key=_time, default=None)
    text = f"{where}: {latest['reason']}: {latest['message']}" if latest else where
    if not node:
        return Finding("state", State.UNSURE, " ".join(text.split()))
    if latest is None:
        return Finding("state", State.GOOD, text)
    advice = f"the log of the DRA driver's pod on {node} may say more"
    preparing = latest["reason"] == PREPARE_FAILED
    return Finding("state", State.WRONG, " ".join(text.split()), advice if preparing else "")


def _is_kubelets(event: Json) -> bool:
    """Whether a kubelet told of it."""
    source = event.get("source") or {}
    return "kubelet" in (event.get("reportingComponent"), source.get("component"))


def _time(event: Json) -> str:
    series = event.get("series") or {}
    times = (
        series.get("lastObservedTime"),
        event.get("lastTimestamp"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    )
    return str(next(filter(None, times), ""))
