"""Checks of InstaSlice itself: is it registered, is it called, does it rewrite. Pure."""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from instaslice.cluster import gates
from instaslice.doctor.report import GOOD, UNSURE, WRONG, Found
from instaslice.doctor.snapshot import FORBIDDEN, RIGHTS, Pod, Snapshot, advice_on, some
from instaslice.patch import Json
from instaslice.resource_api import Unavailable
from instaslice.webhook_configuration import (
    ALL,
    BESIDE,
    LABEL,
    OPT_IN,
    WEBHOOK,
    match_conditions,
    webhook_configuration,
)

#: Kubernetes' minor versions: the first to know matchConditions, and the first whose scheduler
#: serves extended resources without a feature gate.
FIRST_WITH_CONDITIONS: Final = 28
FIRST_OF_THE_SCHEDULERS: Final = 36
#: Of HTTP: by which the API server says, too, that it could not call a webhook.
INTERNAL_ERROR: Final = 500

#: The meaning of each mode, as the report states it.
_MODES: Final = {
    ALL: "every pod with a limit that can be rewritten is sent",
    OPT_IN: f"pods of namespaces labelled {LABEL}=enabled are sent",
    BESIDE: "only what the scheduler cannot do by itself is sent",
}
#: How the expressions name resources beside those of MIG.
_NAMES: Final = re.compile(r"name in \[([^]]*)\]")
#: The pods that a mode leaves alone, and an administrator should leave alone too.
_FIXED: Final = ("rules", "matchPolicy", "objectSelector", "reinvocationPolicy")
#: The two that a dry run is let through by.
_SIDE_EFFECTS: Final = ("None", "NoneOnDryRun")
_PRINTED: Final = "register what instaslice webhook-configuration{} prints"


class Registered(NamedTuple):
    """Which pods the API server sends."""

    mode: str  #: a key of `webhook_configuration.MODES`; empty where the conditions are others
    opt_in: bool  #: only of namespaces that are labelled so
    resources: frozenset[str]  #: those beside MIG's that the conditions name
    has_conditions: bool
    differences: tuple[str, ...]  #: fields that are not as InstaSlice prints them


def read(webhook: Json) -> Registered:
    """The objects that the API server sends to a webhook.

    It is held against what `instaslice webhook-configuration` prints, since InstaSlice cannot judge
    other CEL than its own.
    """
    expressions = [str(each.get("expression")) for each in webhook.get("matchConditions") or []]
    named = _NAMES.search("".join(expressions))
    resources = frozenset(re.findall(r"'([^']*)'", named[1])) if named else frozenset()
    opt_in = any(
        requirement.get("key") == LABEL and requirement.get("operator") == "In"
        for requirement in (webhook.get("namespaceSelector") or {}).get("matchExpressions") or []
    )
    mode = ""
    for each in (ALL, BESIDE):
        ours = (condition["expression"] for condition in match_conditions(each, resources))
        if _bare(expressions) == _bare(ours):
            mode = OPT_IN if opt_in and each == ALL else each
    expected = webhook_configuration()["webhooks"][0]
    differences = [key for key in _FIXED if webhook.get(key) != expected[key]]
    if webhook.get("sideEffects") not in _SIDE_EFFECTS:
        differences.append("sideEffects")
    return Registered(mode, opt_in, resources, bool(expressions), tuple(differences))


def _bare(expressions: Iterable[str]) -> list[str]:
    """Expressions without blanks, which say nothing."""
    return ["".join(expression.split()) for expression in expressions]


def dra(snapshot: Snapshot) -> Found:
    """Whether DRA is served at all."""
    if isinstance(snapshot.api, Unavailable):
        advice = (
            "Kubernetes 1.34 and later serve it; from 1.27 on, switch on the feature gate "
            "DynamicResourceAllocation and the API server's --runtime-config"
        )
        yield WRONG, snapshot.api.reason, advice
    else:
        served = f"resource.k8s.io/{snapshot.api.version}"
        yield GOOD, f"Kubernetes {snapshot.kubernetes} serves {served}"


def feature_gates(snapshot: Snapshot) -> Found:
    """Which of the gates that matter are on, by what the API server keeps."""
    known = snapshot.gates
    if on := [name for name, gate in known.items() if gate.on]:
        yield GOOD, f"on: {', '.join(on)}"
    for name, gate in known.items():
        if gate.on is False:
            state = UNSURE if name == gates.PARTITIONABLE else GOOD
            yield state, f"off: {name}, needed for {gates.GATES[name].needed_for}"
    if unknown := {name: gate for name, gate in known.items() if gate.on is None}:
        first = next(iter(unknown.values()))
        text = f"could not find out whether {', '.join(unknown)} are on: {first.why}"
        yield UNSURE, text, advice_on(first.status)


def registered(snapshot: Snapshot) -> Found:
    """Whether the API server is told to call InstaSlice, and for the right pods."""
    webhook = snapshot.webhook
    if webhook is None:
        advice = "make deploy; until then, nobody rewrites pods"
        yield WRONG, f"no MutatingWebhookConfiguration has {WEBHOOK}", advice
        return
    found, policy = read(webhook), webhook.get("failurePolicy")
    yield GOOD, f"{WEBHOOK} is registered, failurePolicy {policy}"
    if 0 < snapshot.minor < FIRST_WITH_CONDITIONS:
        if policy == "Fail":
            text = "no pod of the cluster can be created while InstaSlice is away"
            advice = "Kubernetes 1.27 drops matchConditions: deploy the component kubernetes-1.27"
            yield WRONG, text, advice
    elif not found.has_conditions:
        text = "it has no matchConditions: every pod of the cluster is sent to it"
        yield UNSURE, text, _PRINTED.format("")
    elif policy == "Ignore":
        text = "while InstaSlice is away, pods are let through as they are, and stay Pending"
        yield UNSURE, text, "set failurePolicy: Fail; no pod without a MIG limit is sent"
    client = webhook.get("clientConfig") or {}
    if "service" in client and not client.get("caBundle"):
        advice = "with cert-manager: see its cainjector's log; without: write the CA there"
        yield WRONG, "the configuration has no caBundle, so every call fails", advice
    if found.differences:
        text = f"these fields are not as InstaSlice needs them: {', '.join(found.differences)}"
        yield WRONG, text, _PRINTED.format("")
    if not found.has_conditions:
        return
    mapped = snapshot.resources.mapped
    if lacking := [name for name in mapped if name not in found.resources]:
        text = f"pods with {', '.join(lacking)} are not sent, though serve would rewrite them"
        options = "".join(f" --resource {name}=..." for name in mapped)
        yield WRONG, text, _PRINTED.format(options)
    if not found.mode:
        text = "its matchConditions are not InstaSlice's: doctor cannot tell which pods it is sent"
        yield UNSURE, text, _PRINTED.format("")


def mode(snapshot: Snapshot) -> Found:
    """Which pods are InstaSlice's, and whether that fits the cluster."""
    found = read(snapshot.webhook or {})
    modes = dict.fromkeys(filter(None, [found.mode, OPT_IN if found.opt_in else ""]))
    if modes:
        yield GOOD, "; ".join(f"{name}: {_MODES[name]}" for name in modes)
    if found.opt_in and not any(
        (namespace["metadata"].get("labels") or {}).get(LABEL) == "enabled"
        for namespace in snapshot.all("namespaces")
    ):
        text = f"no namespace is labelled {LABEL}=enabled: nothing is rewritten"
        yield UNSURE, text, f"kubectl label namespace NAME {LABEL}=enabled"
    if found.mode != BESIDE:
        return
    gate = snapshot.gates.get(gates.EXTENDED)
    is_on = gate.on if gate else None
    if is_on is False or (is_on is None and 0 < snapshot.minor < FIRST_OF_THE_SCHEDULERS):
        text = (
            f"the scheduler of {snapshot.kubernetes} serves no extended resources: plain pods with "
            "MIG limits stay Pending"
        )
        advice = f"the mode all or opt-in; or the feature gate {gates.EXTENDED}, from 1.34 on"
        yield WRONG, text, advice
        return
    published = (f"nvidia.com/mig-{profile.replace('+', '.')}" for profile in snapshot.supply)
    lacking = [name for name in published if name not in snapshot.served_by_scheduler]
    if lacking:
        text = f"no DeviceClass has the extendedResourceName {some(lacking)}"
        names = " ".join(name.partition("mig-")[2] for name in lacking)
        yield WRONG, text, f"instaslice deviceclasses {names} | kubectl apply -f -"


def endpoints(snapshot: Snapshot) -> Found:
    """Whether anybody is there to be called."""
    service = ((snapshot.webhook or {}).get("clientConfig") or {}).get("service")
    if not service:
        return
    where = f"{service['namespace']}/{service['name']}"
    ready = sum(
        len(endpoint.get("addresses") or [])
        for slice_ in snapshot.all("endpoints")
        for endpoint in slice_.get("endpoints") or []
        # Source: EndpointConditions, "a nil value should be interpreted as true".
        if (endpoint.get("conditions") or {}).get("ready") is not False
    )
    if ready:
        yield GOOD, f"{where} has {ready} ready {'pod' if ready == 1 else 'pods'}"
    else:
        advice = f"kubectl -n {service['namespace']} get pods, and their log: /readyz says why"
        yield WRONG, f"{where} has no ready pod", advice


def dry_run(snapshot: Snapshot) -> Found:
    """The results of the pods that doctor creates as a dry run."""
    for probe in snapshot.probes:
        what = f"{probe.resource} and {probe.annotation}" if probe.annotation else probe.resource
        where = f"a pod with {what} in {probe.namespace}"
        is_forbidden = probe.status == FORBIDDEN and "cannot create resource" in probe.error
        if is_forbidden or not probe.status:
            advice = RIGHTS if is_forbidden else ""
            yield UNSURE, f"{where} could not be tried: {probe.error}", advice
        elif probe.pod is None:
            called = "does it run (see endpoints), and does the caBundle trust its certificate?"
            advice = called if probe.status == INTERNAL_ERROR else ""
            yield WRONG, f"{where} is refused: {probe.error}", advice
        elif probe.resource not in Pod(probe.pod, snapshot.resources).limits:
            yield GOOD, f"{where} is rewritten"
        elif snapshot.webhook is None:
            yield WRONG, f"{where} keeps its limits", "register the webhook"
        elif read(snapshot.webhook).opt_in:
            advice = f"kubectl label namespace {probe.namespace} {LABEL}=enabled, if it is to be"
            yield UNSURE, f"{where} keeps its limits", advice
        else:
            advice = f"is the namespace {probe.namespace} labelled {LABEL}: disabled?"
            yield WRONG, f"{where} keeps its limits", advice
