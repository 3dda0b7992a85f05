"""What a cluster lacks for InstaSlice, judged from a snapshot of it.

Pure: `survey` takes the snapshot. A check is a small function from a snapshot to findings; `CHECKS`
lists them in the order in which things must be right.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from typing import Final

from instaslice import profiles
from instaslice.doctor.findings import Finding, State
from instaslice.doctor.snapshot import (
    WEBHOOK,
    Snapshot,
    Unreadable,
    claimed,
    full_name,
    living,
    wanted_limits,
)
from instaslice.doctor.trust import CertificateError, expiry, verify
from instaslice.patch import Json
from instaslice.profiles import Profile
from instaslice.resource_api import Unavailable
from instaslice.resources import MIG_CLASS

#: What the templates ask through in v1alpha2, which has no device classes.
RESOURCE_CLASS: Final = "gpu.nvidia.com"
#: cert-manager renews 30 days before the end: what has fewer left is not being renewed.
SOON: Final = timedelta(days=14)
#: The extended resources that are to come through DRA, as a ResourceQuota names them.
_QUOTA: Final = "requests." + profiles.RESOURCE_PREFIX
#: How many names a finding lists.
_SHOWN: Final = 3

Found = Iterator[tuple[State, str] | tuple[State, str, str]]
Check = Callable[[Snapshot], Found]


def examine(snapshot: Snapshot) -> list[Finding]:
    """Everything there is to say about a cluster."""
    findings = []
    for title, check in CHECKS.items():
        try:
            findings += [Finding(title, *found) for found in check(snapshot)]
        except Unreadable as error:
            advice = "run this as somebody who may read it"
            findings.append(Finding(title, State.UNSURE, str(error), advice))
    return findings


def is_wrong(findings: Iterable[Finding]) -> bool:
    """Whether something must be done."""
    return any(finding.state is State.WRONG for finding in findings)


def _dra(snapshot: Snapshot) -> Found:
    if isinstance(snapshot.api, Unavailable):
        advice = (
            "Kubernetes 1.34 and later serve it; from 1.27 on, switch on the feature gate "
            "DynamicResourceAllocation and the API server's --runtime-config"
        )
        yield State.WRONG, snapshot.api.reason, advice
    else:
        served = f"resource.k8s.io/{snapshot.api.version}"
        yield State.GOOD, f"Kubernetes {snapshot.kubernetes} serves {served}"


def _registered(snapshot: Snapshot) -> Found:
    webhook = snapshot.webhook
    if webhook is None:
        advice = "make deploy; until then pods are created with their limits as they are"
        yield State.WRONG, f"no MutatingWebhookConfiguration has {WEBHOOK}", advice
        return
    yield State.GOOD, f"{WEBHOOK} is registered, failurePolicy {webhook.get('failurePolicy')}"
    if not webhook.get("matchConditions") and _minor(snapshot.kubernetes) >= 28:
        text = "it has no matchConditions, so that every pod of the cluster is sent to it"
        yield State.UNSURE, text, "register it as config/ does"


def _certificate(snapshot: Snapshot) -> Found:
    webhook = snapshot.webhook
    if webhook is None:
        return
    if "certificate" in snapshot.failures:
        raise Unreadable(f"its certificate could not be read: {snapshot.failures['certificate']}")
    bundle = webhook["clientConfig"].get("caBundle") or ""
    if not bundle:
        advice = "with cert-manager: see its cainjector's log; without: write the CA there"
        yield State.WRONG, "the configuration has no caBundle, so every call fails", advice
        return
    try:
        ends = expiry(snapshot.certificate)
        verify(snapshot.certificate, bundle, server_name(webhook))
    except CertificateError as error:
        advice = "put the CA that signed tls.crt into caBundle (cert-manager's cainjector does)"
        yield State.WRONG, f"the API server will refuse it: {error}", advice
        return
    left = ends - snapshot.now
    day = f"{ends:%Y-%m-%d}"
    if left <= timedelta():
        yield State.WRONG, f"it ended on {day}", "renew it; cert-manager: see its Certificate"
    elif left < SOON:
        yield State.UNSURE, f"it ends on {day}", "renew it; cert-manager: see its Certificate"
    else:
        yield State.GOOD, f"the caBundle trusts it, and it is good until {day}"


def server_name(webhook: Json) -> str:
    """The name under which the API server calls a webhook."""
    service = webhook["clientConfig"].get("service")
    if service:
        return f"{service['name']}.{service['namespace']}.svc"
    host = re.fullmatch(r"https://(\[[^]]*\]|[^/:]*).*", webhook["clientConfig"].get("url") or "")
    return host[1].strip("[]") if host else ""


def _endpoints(snapshot: Snapshot) -> Found:
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


def _dry_run(snapshot: Snapshot) -> Found:
    probe = snapshot.probe
    if probe is None:
        return
    if probe.pod is None:
        yield State.WRONG, f"a pod in {probe.namespace} is refused: {probe.error}", ""
    elif wanted_limits(probe.pod):
        advice = f"is the namespace {probe.namespace} labelled instaslice.io/rewrite: disabled?"
        if snapshot.webhook is None:
            advice = "register the webhook"
        yield State.WRONG, f"a pod in {probe.namespace} keeps its limits", advice
    else:
        yield State.GOOD, f"a pod in {probe.namespace} is rewritten"


def _device_class(snapshot: Snapshot) -> Found:
    kind, name = (
        ("ResourceClass", RESOURCE_CLASS)
        if snapshot.is_classic
        else (
            "DeviceClass",
            MIG_CLASS,
        )
    )
    if any(found["metadata"]["name"] == name for found in snapshot.all("classes")):
        yield State.GOOD, f"{kind} {name} is there"
    else:
        yield State.WRONG, f"there is no {kind} {name}", "install NVIDIA's DRA driver"


def _slices(snapshot: Snapshot) -> Found:
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


def _overlap(snapshot: Snapshot) -> Found:
    overlapping = [d.name.device for d in snapshot.inventory.devices if d.may_overlap]
    if overlapping:
        text = (
            f"{_some(overlapping)} consume no counters, so that the scheduler will hand out the "
            "same place of a GPU twice, and the driver will fail"
        )
        advice = (
            "the API server drops the counters: switch on the feature gate "
            "DRAPartitionableDevices there and in the scheduler (on from Kubernetes 1.36), "
            "then restart the driver's kubelet plugins, which publish them anew"
        )
        yield State.WRONG, text, advice


def _wanted(snapshot: Snapshot) -> Found:
    supply = snapshot.supply
    if not supply:
        return
    users: dict[Profile, list[str]] = defaultdict(list)
    for pod in living(snapshot.all("pods")):
        for profile in claimed(pod):
            users[profile].append(full_name(pod))
    for profile, pods in users.items():
        if profile.attribute not in supply:
            text = f"{profile.attribute} is published by no node, and asked for by {_some(pods)}"
            yield State.WRONG, text, f"there is {', '.join(supply)}"
    if not any(profile.attribute not in supply for profile in users):
        yield State.GOOD, "every profile that pods ask for is published"


def _templates(snapshot: Snapshot) -> Found:
    there = {full_name(template) for template in snapshot.all("templates")}
    lacking: dict[str, dict[str, None]] = defaultdict(dict)
    for pod in living(snapshot.all("pods")):
        namespace = pod["metadata"]["namespace"]
        for profile in claimed(pod):
            if f"{namespace}/{profile.template}" not in there:
                lacking[namespace][profile.attribute] = None
    for namespace, names in lacking.items():
        text = f"{namespace} has no template for {', '.join(names)}, and pods that need it"
        advice = f"instaslice templates --apply -n {namespace} {' '.join(names)}"
        yield State.WRONG, text, advice
    if not lacking:
        yield State.GOOD, "every namespace has the templates that its pods need"


def _old_pods(snapshot: Snapshot) -> Found:
    waiting = [
        full_name(pod)
        for pod in living(snapshot.all("pods"))
        if wanted_limits(pod) and not pod["spec"].get("nodeName")
    ]
    if waiting:
        text = f"{_some(waiting)} wait with their limits, created without InstaSlice"
        yield (
            State.WRONG,
            text,
            "have them created anew, if instaslice.io/rewrite is not disabled",
        )


def _quotas(snapshot: Snapshot) -> Found:
    if snapshot.is_classic:
        key, counts = "count/resourceclaims.resource.k8s.io", "claims of every kind"
    else:
        key = f"{MIG_CLASS}.deviceclass.resource.k8s.io/devices"
        counts = "slices of all profiles together"
    for quota in snapshot.all("quotas"):
        names = [key for key in quota["spec"].get("hard") or {} if key.startswith(_QUOTA)]
        if names:
            text = f"{full_name(quota)} counts {', '.join(names)}, which rewritten pods do not use"
            yield State.UNSURE, text, f"limit {key} instead; it counts {counts}"


def _extended(snapshot: Snapshot) -> Found:
    for found in snapshot.all("classes"):
        resource = found.get("spec", {}).get("extendedResourceName") or ""
        if profiles.from_resource(resource):
            text = f"DeviceClass {found['metadata']['name']} maps {resource} itself"
            advice = "keep one: the scheduler's way, or InstaSlice, which comes first"
            yield State.UNSURE, text, advice


def _device_plugin(snapshot: Snapshot) -> Found:
    advice = "take the device plugin off the node, or have it leave MIG alone"
    for node in snapshot.all("nodes"):
        amounts = node.get("status", {}).get("allocatable") or {}
        # The kubelet keeps a resource, at 0, when its device plugin is gone.
        names = [n for n, amount in amounts.items() if profiles.from_resource(n) and amount != "0"]
        if not names:
            continue
        node_name = node["metadata"]["name"]
        text = f"node {node_name} advertises {', '.join(names)}"
        if not snapshot.is_classic and node_name in snapshot.inventory.nodes():
            yield State.WRONG, f"{text}, and publishes MIG slices for DRA as well", advice
        else:
            yield State.UNSURE, f"{text} by a device plugin", advice


#: By title, in the order in which things must be right.
CHECKS: Final[dict[str, Check]] = {
    "DRA": _dra,
    "webhook": _registered,
    "certificate": _certificate,
    "endpoints": _endpoints,
    "dry run": _dry_run,
    "driver": _device_class,
    "slices": _slices,
    "overlap": _overlap,
    "profiles": _wanted,
    "templates": _templates,
    "old pods": _old_pods,
    "quotas": _quotas,
    "device classes": _extended,
    "device plugin": _device_plugin,
}


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _minor(version: str) -> int:
    """34, of "v1.34.1"; 0 of what is none."""
    match = re.match(r"v?1\.(\d+)", version)
    return int(match[1]) if match else 0
