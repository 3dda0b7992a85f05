"""Checks of InstaSlice itself: is it registered, is it called, does it rewrite. Pure."""

from typing import Final

from instaslice.cluster import gates
from instaslice.doctor.findings import Found, State
from instaslice.doctor.snapshot import (
    FORBIDDEN,
    RIGHTS,
    Snapshot,
    advice_on,
    some,
    wanted_limits,
)
from instaslice.resource_api import Unavailable
from instaslice.webhook_configuration import BESIDE, LABEL, OPT_IN, WEBHOOK

#: Kubernetes' minor versions: the first to know matchConditions, and the first whose scheduler
#: serves extended resources without a feature gate.
FIRST_WITH_CONDITIONS: Final = 28
FIRST_OF_THE_SCHEDULERS: Final = 36
#: Of HTTP: by which the API server says, too, that it could not call a webhook.
INTERNAL_ERROR: Final = 500

#: What a mode means, as a reader is told.
_MODES: Final = {
    "all": "every pod with a limit that can be rewritten is sent",
    OPT_IN: f"pods of namespaces labelled {LABEL}=enabled are sent",
    BESIDE: "only what the scheduler cannot do by itself is sent",
}


def dra(snapshot: Snapshot) -> Found:
    """Whether DRA is served at all."""
    if isinstance(snapshot.api, Unavailable):
        advice = (
            "Kubernetes 1.34 and later serve it; from 1.27 on, switch on the feature gate "
            "DynamicResourceAllocation and the API server's --runtime-config"
        )
        yield State.WRONG, snapshot.api.reason, advice
    else:
        served = f"resource.k8s.io/{snapshot.api.version}"
        yield State.GOOD, f"Kubernetes {snapshot.kubernetes} serves {served}"


def feature_gates(snapshot: Snapshot) -> Found:
    """Which of the gates that matter are on, by what the API server keeps."""
    known = snapshot.gates
    on = [name for name, gate in known.items() if gate.on]
    if on:
        yield State.GOOD, f"on: {', '.join(on)}"
    for name, gate in known.items():
        if gate.on is False:
            state = State.UNSURE if name == gates.PARTITIONABLE else State.GOOD
            yield state, f"off: {name}, for {gates.GATES[name].needed_for}"
    unknown = {name: gate for name, gate in known.items() if gate.on is None}
    if unknown:
        first = next(iter(unknown.values()))
        text = f"nobody knows whether {', '.join(unknown)} are on: {first.why}"
        yield State.UNSURE, text, advice_on(first.status)


def registered(snapshot: Snapshot) -> Found:
    """Whether the API server is told to call InstaSlice, and for the right pods."""
    webhook, found = snapshot.webhook, snapshot.registered
    if webhook is None or found is None:
        advice = "make deploy; until then pods are created with their limits as they are"
        yield State.WRONG, f"no MutatingWebhookConfiguration has {WEBHOOK}", advice
        return
    policy = webhook.get("failurePolicy")
    yield State.GOOD, f"{WEBHOOK} is registered, failurePolicy {policy}"
    printed = "register what instaslice webhook-configuration prints"
    if 0 < snapshot.minor < FIRST_WITH_CONDITIONS:
        if policy == "Fail":
            text = "no pod of the cluster can be created while InstaSlice is away"
            advice = "Kubernetes 1.27 drops matchConditions: deploy the component kubernetes-1.27"
            yield State.WRONG, text, advice
    elif not found.has_conditions:
        text = "it has no matchConditions, so that every pod of the cluster is sent to it"
        yield State.UNSURE, text, printed
    elif policy == "Ignore":
        text = "while InstaSlice is away, pods are let through as they are, and stay Pending"
        yield State.UNSURE, text, "set failurePolicy: Fail; no pod without a MIG limit is sent"
    client = webhook.get("clientConfig") or {}
    if "service" in client and not client.get("caBundle"):
        advice = "with cert-manager: see its cainjector's log; without: write the CA there"
        yield State.WRONG, "the configuration has no caBundle, so every call fails", advice
    if found.differences:
        text = f"{', '.join(found.differences)} are not as InstaSlice needs them"
        yield State.WRONG, text, printed
    if found.has_conditions:
        lacking = [name for name in snapshot.resources.mapped if name not in found.resources]
        if lacking:
            text = f"pods with {', '.join(lacking)} are not sent, though serve would rewrite them"
            options = "".join(f" --resource {name}=..." for name in snapshot.resources.mapped)
            yield (
                State.WRONG,
                text,
                f"register what instaslice webhook-configuration{options} prints",
            )
        if not found.mode:
            text = "its matchConditions are not InstaSlice's, so that nobody knows what is sent"
            yield State.UNSURE, text, printed


def mode(snapshot: Snapshot) -> Found:
    """Which pods are InstaSlice's, and whether that fits the cluster."""
    found = snapshot.registered
    if found is None or not (found.mode or found.opt_in):
        return
    yield (
        State.GOOD,
        "; ".join(
            f"{name}: {_MODES[name]}"
            for name in dict.fromkeys([found.mode, OPT_IN if found.opt_in else ""])
            if name
        ),
    )
    if found.opt_in and not _opted_in(snapshot):
        text = f"no namespace is labelled {LABEL}=enabled, so that nothing is rewritten"
        yield State.UNSURE, text, f"kubectl label namespace NAME {LABEL}=enabled"
    if found.mode != BESIDE:
        return
    gate = snapshot.gates.get(gates.EXTENDED)
    is_on = gate.on if gate else None
    if is_on is False or (is_on is None and 0 < snapshot.minor < FIRST_OF_THE_SCHEDULERS):
        text = (
            f"the scheduler of {snapshot.kubernetes} serves no extended resources, so that plain "
            "pods with MIG limits stay Pending"
        )
        advice = f"the mode all or opt-in; or the feature gate {gates.EXTENDED}, from 1.34 on"
        yield State.WRONG, text, advice
        return
    served = snapshot.served_by_scheduler
    lacking = [name for name in _published(snapshot) if name not in served]
    if lacking:
        text = f"no DeviceClass has the extendedResourceName {some(lacking)}"
        names = " ".join(name.partition("mig-")[2] for name in lacking)
        yield State.WRONG, text, f"instaslice deviceclasses {names} | kubectl apply -f -"


def _opted_in(snapshot: Snapshot) -> bool:
    return any(
        (namespace["metadata"].get("labels") or {}).get(LABEL) == "enabled"
        for namespace in snapshot.all("namespaces")
    )


def _published(snapshot: Snapshot) -> list[str]:
    """The resources of the profiles that nodes publish."""
    return [f"nvidia.com/mig-{profile.replace('+', '.')}" for profile in snapshot.supply]


def endpoints(snapshot: Snapshot) -> Found:
    """Whether anybody is there to be called."""
    webhook = snapshot.webhook
    if webhook is None or "service" not in webhook["clientConfig"]:
        return
    service = webhook["clientConfig"]["service"]
    where = f"{service['namespace']}/{service['name']}"
    ready = sum(
        len(endpoint.get("addresses") or [])
        for slice_ in snapshot.all("endpoints")
        for endpoint in slice_.get("endpoints") or []
        # Source: EndpointConditions, "a nil value should be interpreted as true".
        if (endpoint.get("conditions") or {}).get("ready") is not False
    )
    if ready:
        yield State.GOOD, f"{where} has {ready} ready {'pod' if ready == 1 else 'pods'}"
    else:
        advice = f"kubectl -n {service['namespace']} get pods, and their log: /readyz says why"
        yield State.WRONG, f"{where} has no pod that is ready", advice


def dry_run(snapshot: Snapshot) -> Found:
    """What becomes of pods that are tried."""
    for probe in snapshot.probes:
        what = f"{probe.resource} and {probe.annotation}" if probe.annotation else probe.resource
        where = f"a pod with {what} in {probe.namespace}"
        if not probe.status:
            yield State.UNSURE, f"{where} could not be tried: {probe.error}", ""
        elif probe.status == FORBIDDEN and "cannot create resource" in probe.error:
            yield State.UNSURE, f"{where} could not be tried: {probe.error}", RIGHTS
        elif probe.pod is None:
            called = "is it there, and does the caBundle trust its certificate? See endpoints"
            advice = called if probe.status == INTERNAL_ERROR else ""
            yield State.WRONG, f"{where} is refused: {probe.error}", advice
        elif probe.resource not in wanted_limits(probe.pod, snapshot.resources):
            yield State.GOOD, f"{where} is rewritten"
        elif snapshot.webhook is None:
            yield State.WRONG, f"{where} keeps its limits", "register the webhook"
        elif (found := snapshot.registered) and found.opt_in:
            advice = f"kubectl label namespace {probe.namespace} {LABEL}=enabled, if it is to be"
            yield State.UNSURE, f"{where} keeps its limits", advice
        else:
            advice = f"is the namespace {probe.namespace} labelled {LABEL}: disabled?"
            yield State.WRONG, f"{where} keeps its limits", advice
