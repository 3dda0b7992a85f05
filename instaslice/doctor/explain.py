"""What a pod asked for, what it became, and what it waits for, judged from a snapshot. Pure."""

from collections import Counter

from instaslice.doctor import inventory
from instaslice.doctor.findings import Finding, State
from instaslice.doctor.snapshot import (
    Snapshot,
    Unreadable,
    full_name,
    mig_claims,
    wanted_limits,
)
from instaslice.patch import Json
from instaslice.profiles import Profile

#: The reason of a kubelet's event: the driver could not make a claim's devices ready
#: (k8s.io/kubernetes, pkg/kubelet/events/event.go).
PREPARE_FAILED = "FailedPrepareDynamicResources"


def explain(snapshot: Snapshot, pod: Json, events: list[Json]) -> list[Finding]:
    """What a pod asked for, what it became, and what it waits for.

    events: those about the pod.
    """
    findings = [Finding("asks for", State.GOOD, _asks_for(pod))]
    limits = wanted_limits(pod)
    own = dict(mig_claims(pod))
    mapped = pod.get("status", {}).get("extendedResourceClaimStatus")
    if mapped:
        text = f"the scheduler made the claim {mapped['resourceClaimName']} of its limits itself"
        findings.append(Finding("became", State.GOOD, text))
    elif limits and pod["spec"].get("nodeName"):
        text = "it has its slices from the device plugin, from before InstaSlice"
        findings.append(Finding("became", State.GOOD, text))
    elif limits:
        advice = "delete it, and have it created again; instaslice doctor says if that will help"
        text = "it was not rewritten: InstaSlice was not there, or is not to touch it"
        findings.append(Finding("became", State.WRONG, text, advice))
    elif own:
        count = f"{len(own)} {'claim' if len(own) == 1 else 'claims'}"
        findings.append(Finding("became", State.GOOD, f"rewritten: {count}, a slice each"))
    findings += [_claim(snapshot, pod, name, profile) for name, profile in own.items()]
    findings.append(_state(pod, events))
    return findings


def _asks_for(pod: Json) -> str:
    limits = ", ".join(f"{name}: {amount}" for name, amount in wanted_limits(pod).items())
    count = Counter(profile.resource for _, profile in mig_claims(pod))
    claims = ", ".join(f"{name}: {n}" for name, n in count.items())
    return limits or claims or "no MIG slice"


def _claim(snapshot: Snapshot, pod: Json, name: str, profile: Profile) -> Finding:
    """How it stands with one of a pod's claims."""
    title = f"claim {name[:8]}"
    namespace = pod["metadata"]["namespace"]
    try:
        templates = {full_name(template) for template in snapshot.all("templates")}
        claims = {full_name(claim): claim for claim in snapshot.all("claims")}
        supply = snapshot.supply
    except Unreadable as error:
        return Finding(title, State.UNSURE, str(error))
    statuses = {
        status["name"]: status.get("resourceClaimName")
        for status in pod.get("status", {}).get("resourceClaimStatuses") or []
    }
    claim = claims.get(f"{namespace}/{statuses.get(name)}")
    if claim is None:
        if f"{namespace}/{profile.template}" not in templates:
            advice = f"instaslice templates --apply -n {namespace} {profile.attribute}"
            text = f"there is no ResourceClaimTemplate {profile.template} in {namespace}"
            return Finding(title, State.WRONG, text, advice)
        text = f"{profile.attribute}: its claim is not made yet"
        return Finding(title, State.UNSURE, text, "what keeps it from being made is below")
    given = inventory.given(claim)
    if given:
        where = ", ".join(f"{found.name.device} of {found.name.pool}" for found in given)
        return Finding(title, State.GOOD, f"{profile.attribute}: has {where}")
    if (claim.get("status") or {}).get("allocation"):
        return Finding(title, State.GOOD, f"{profile.attribute}: allocated")
    if snapshot.is_classic:
        return Finding(title, State.UNSURE, f"{profile.attribute}: waits for the driver")
    published, free, *_ = supply.get(profile.attribute, inventory.Supply(0, 0))
    if not published:
        text, advice = f"no node publishes {profile.attribute}", f"there is {', '.join(supply)}"
        return Finding(title, State.WRONG, text, advice if supply else "is the DRA driver there?")
    if not free:
        text = f"{profile.attribute}: all {published} are taken"
        return Finding(title, State.WRONG, text, "wait, or end a pod that has one")
    text = f"{profile.attribute}: waits, though {free} of {published} are free"
    return Finding(title, State.UNSURE, text, "the scheduler says below what else is in the way")


def _state(pod: Json, events: list[Json]) -> Finding:
    """The pod's phase, and the last warning that there was about it if it does not run."""
    node = pod["spec"].get("nodeName")
    phase = pod.get("status", {}).get("phase") or "Unknown"
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
