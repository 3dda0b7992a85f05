"""The checks of a cluster: each yields findings about a snapshot. Pure."""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain
from typing import Final

from instaslice import node_labels, templates
from instaslice import webhook_configuration as configuration
from instaslice.cluster.client import ClusterError
from instaslice.cluster.gates import EXTENDED, GATES, PARTITIONABLE
from instaslice.doctor import policies
from instaslice.doctor import snapshot as seen
from instaslice.doctor.inventory import dig, grouped
from instaslice.doctor.report import GOOD, UNSURE, WRONG, Finding, Found, State, gather
from instaslice.doctor.snapshot import GPU, Pod, PodClaim, Snapshot, some
from instaslice.patch import Json
from instaslice.profiles import DRIVER, RESOURCE_PREFIX, Resource, known_profiles
from instaslice.resource_api import NEWEST, ResourceAPI
from instaslice.templates import CLASSIC_CLASS
from instaslice.webhook_configuration import ALL, BESIDE, LABEL, OPT_IN, WEBHOOK

FIRST_WITH_CONDITIONS: Final = 28  #: Kubernetes' minor with matchConditions
FIRST_WITH_EXTENDED: Final = 36  #: ... whose scheduler serves extended resources by default

#: The meaning of each mode, as the report states it.
_MODES: Final = {
    ALL: "InstaSlice gets every pod with a limit that it can rewrite",
    OPT_IN: f"InstaSlice gets pods of namespaces labelled {LABEL}=enabled",
    BESIDE: "InstaSlice gets only pods that the scheduler cannot serve by itself",
}
_NAMES: Final = re.compile(r"namein\[([^]]*)\]")  #: resources other than MIG's, in CEL
#: Fields of the webhook that are the same in every mode.
_FIXED: Final = ("rules", "matchPolicy", "objectSelector", "reinvocationPolicy")
_PRINTED: Final = "register what instaslice webhook-configuration{} prints"
Fault = tuple[str, str]  #: a text, and advice
#: The driver that a device class selects.
_DRIVER_IS: Final = re.compile(r"device\.driver\s*==\s*['\"]([^'\"]+)['\"]")


class Registered:
    """The pods that the API server sends to a registered webhook.

    Its conditions are compared with those that `instaslice webhook-configuration` prints, since
    InstaSlice does not evaluate CEL.
    """

    def __init__(self, webhook: Json) -> None:
        conditions = _conditions(webhook)
        named = _NAMES.search("".join(conditions))
        #: The resources other than MIG's that the conditions name.
        self.resources = frozenset(re.findall(r"'([^']*)'", named[1])) if named else frozenset()
        #: Whether only pods of labelled namespaces are sent.
        self.opt_in = any(
            requirement.get("key") == LABEL and requirement.get("operator") == "In"
            for requirement in dig(webhook, "namespaceSelector", "matchExpressions")
        )
        #: A key of `webhook_configuration.MODES`; empty if the conditions match none.
        self.mode = ""
        for each in (BESIDE, ALL):
            (printed,) = configuration.webhook_configuration(each, self.resources)["webhooks"]
            if conditions == _conditions(printed):
                self.mode = OPT_IN if self.opt_in and each == ALL else each
        #: Fields that differ from what InstaSlice prints.
        self.differences = [key for key in _FIXED if webhook.get(key) != printed[key]]
        # The API server calls webhooks with these values in dry runs.
        if webhook.get("sideEffects") not in ("None", "NoneOnDryRun"):
            self.differences.append("sideEffects")


def _conditions(webhook: Json) -> list[str]:
    """The CEL expressions of its matchConditions without blanks, which have no meaning."""
    every = (str(each.get("expression")) for each in dig(webhook, "matchConditions"))
    return ["".join(expression.split()) for expression in every]


def _dra(snapshot: Snapshot) -> Found:
    if isinstance(snapshot.api, ResourceAPI):
        yield GOOD, f"Kubernetes {snapshot.kubernetes} serves {snapshot.api.group_version}"
    else:
        advice = "Kubernetes 1.34 and later serve it; from 1.27 on, switch on the feature gate "
        advice += "DynamicResourceAllocation and the API server's --runtime-config"
        yield WRONG, snapshot.api.reason, advice


def _gates(snapshot: Snapshot) -> Found:
    states = grouped((gate.on, name) for name, gate in snapshot.gates.items())
    if on := states.get(True):
        yield GOOD, f"on: {', '.join(on)}"
    for name in states.get(False, []):
        state = UNSURE if name == PARTITIONABLE else GOOD
        yield state, f"off: {name}, needed for {GATES[name].needed_for}"
    if unknown := states.get(None):
        first = snapshot.gates[unknown[0]]
        text = f"could not find out whether {', '.join(unknown)} are on: {first.why}"
        yield UNSURE, text, seen.advice_on(first.status)


def _webhook(snapshot: Snapshot) -> Found:
    webhook = snapshot.webhook
    if webhook is None:
        text = f"no MutatingWebhookConfiguration has {WEBHOOK}: no pod is rewritten"
        yield WRONG, text, "install InstaSlice: docs/install.md"
        return
    found, policy = Registered(webhook), webhook.get("failurePolicy")
    has_conditions = bool(webhook.get("matchConditions"))
    yield GOOD, f"{WEBHOOK} is registered, failurePolicy {policy}"
    if 0 < snapshot.minor < FIRST_WITH_CONDITIONS:
        if policy == "Fail":
            text = "while InstaSlice is unavailable, no pod of the cluster can be created"
            advice = "Kubernetes 1.27 drops matchConditions: deploy the component kubernetes-1.27"
            yield WRONG, text, advice
    elif not has_conditions:
        text = "it has no matchConditions: every pod of the cluster is sent to it"
        yield UNSURE, text, _PRINTED.format("")
    elif policy == "Ignore":
        text = "while InstaSlice is unavailable, pods are admitted unchanged, and may stay Pending"
        yield UNSURE, text, "set failurePolicy: Fail, which affects only pods that are sent to it"
    client = dig(webhook, "clientConfig")
    if "service" in client and not client.get("caBundle"):
        advice = "with cert-manager, see its cainjector's log; without it, add the CA yourself"
        yield WRONG, "the configuration has no caBundle, so every call fails", advice
    if found.differences:
        text = f"these fields differ from what InstaSlice needs: {', '.join(found.differences)}"
        yield WRONG, text, _PRINTED.format("")
    mapped = snapshot.resources.mapped
    lacking = [name for name in mapped if name not in found.resources]
    if has_conditions and lacking:
        text = f"pods with {', '.join(lacking)} are not sent, though serve would rewrite them"
        options = "".join(f" --resource {name}=..." for name in mapped)
        yield WRONG, text, _PRINTED.format(options)
    if has_conditions and not found.mode:
        text = "its matchConditions are not InstaSlice's: doctor cannot tell which pods are sent"
        yield UNSURE, text, _PRINTED.format("")


def _label(namespace: Json) -> object:
    return dig(namespace, "metadata", "labels").get(LABEL)


def _mode(snapshot: Snapshot) -> Found:
    found = Registered(snapshot.webhook or {})
    modes = dict.fromkeys(filter(None, [found.mode, OPT_IN if found.opt_in else ""]))
    if modes:
        yield GOOD, "; ".join(f"{name}: {_MODES[name]}" for name in modes)
    if found.opt_in and "enabled" not in map(_label, snapshot.all("namespaces")):
        text = f"no namespace is labelled {LABEL}=enabled: nothing is rewritten"
        yield UNSURE, text, f"kubectl label namespace NAME {LABEL}=enabled"
    if found.mode != BESIDE:
        return
    is_old = 0 < snapshot.minor < FIRST_WITH_EXTENDED
    if not snapshot.is_on(EXTENDED, otherwise=not is_old):
        text = f"the scheduler of {snapshot.kubernetes} serves no extended resources: "
        text += "plain pods with MIG limits stay Pending"
        yield WRONG, text, f"use the mode all or opt-in; or switch on {EXTENDED}, from 1.34 on"
        return
    published = [profile.replace("+", ".") for profile in snapshot.inventory.supply]
    served = snapshot.served_by_scheduler if published else {}
    if lacking := [each for each in published if RESOURCE_PREFIX + each not in served]:
        names = some(RESOURCE_PREFIX + each for each in lacking)
        advice = f"instaslice deviceclasses {' '.join(lacking)} | kubectl apply -f -"
        yield WRONG, f"no DeviceClass has the extendedResourceName {names}", advice


def _endpoints(snapshot: Snapshot) -> Found:
    service = dig(snapshot.webhook or {}, "clientConfig", "service")
    if not service:
        return
    where = f"{service['namespace']}/{service['name']}"
    every = (each for found in snapshot.all("endpoints") for each in dig(found, "endpoints"))
    # Source: EndpointConditions, "a nil value should be interpreted as true".
    ready = (each for each in every if dig(each, "conditions").get("ready") is not False)
    if count := sum(len(dig(each, "addresses")) for each in ready):
        yield GOOD, f"{where} has {count} ready {'pod' if count == 1 else 'pods'}"
    else:
        advice = f"see the log of its pods: kubectl -n {service['namespace']} get pods"
        yield WRONG, f"{where} has no ready pod", advice


def _dry_run(snapshot: Snapshot) -> Found:
    for probe in snapshot.probes:
        what = f"{probe.resource} and {probe.annotation}" if probe.annotation else probe.resource
        where = f"a pod with {what} in {probe.namespace}"
        kept = f"{where} keeps its limits"
        answer = probe.answer
        if isinstance(answer, ClusterError):
            yield UNSURE, f"{where} could not be tried: {answer}"
        elif answer.status == 403 and "cannot create resource" in answer.reason:
            yield UNSURE, f"{where} could not be tried: {answer.reason}", seen.RIGHTS
        elif answer.status != 201:
            called = "does InstaSlice run (see endpoints), and does caBundle trust its certificate?"
            # The API server also sends this status if it cannot call a webhook.
            advice = called if answer.status == 500 else ""
            yield WRONG, f"{where} is refused: {answer.reason}", advice
        elif probe.resource not in Pod(answer.body, snapshot.resources).limits:
            yield GOOD, f"{where} is rewritten"
        elif snapshot.webhook is None:
            yield WRONG, kept, "register the webhook"
        elif Registered(snapshot.webhook).opt_in:
            advice = f"kubectl label namespace {probe.namespace} {LABEL}=enabled"
            yield UNSURE, kept, advice
        elif _label(snapshot.readable.named("namespaces").get(probe.namespace, {})) == "disabled":
            yield UNSURE, f"{kept}, since the namespace is labelled {LABEL}=disabled"
        else:
            yield WRONG, kept, "see webhook and endpoints; the log of InstaSlice may say more"


def _driver(snapshot: Snapshot) -> Found:
    kind, name = snapshot.driver_class
    if name in snapshot.named("classes"):
        yield GOOD, f"{kind} {name} exists"
    else:
        yield WRONG, f"there is no {kind} {name}", "install NVIDIA's DRA driver"


def _slices(snapshot: Snapshot) -> Found:
    if snapshot.is_classic:
        yield GOOD, "in v1alpha2 only the driver knows which slices exist"
        return
    if not snapshot.inventory.supply:
        advice = "does NVIDIA's DRA driver run on the GPU nodes, and is MIG enabled on them?"
        yield WRONG, "no ResourceSlice publishes a MIG slice", advice
    for profile, found in snapshot.inventory.supply.items():
        text = f"{profile}: {found.free} free, {found.published} published"
        if found.tainted:
            text += f", {found.tainted} of them tainted"
        if found.shared:
            text += f", {found.shared} of them shared: several claims may have one"
        yield GOOD, text
    for pool in snapshot.inventory.pools:
        if pool.problem:
            advice = "wait for the driver, or see the log of its kubelet plugin on that node"
            yield UNSURE, f"no slice of pool {pool.name} is free: {pool.problem}", advice
    taints = {d.taint: d.name.device for d in snapshot.inventory.devices if d.taint}
    for taint, device in taints.items():
        text = f"{device} has the taint {taint}, which keeps claims away"
        yield UNSURE, text, "the driver's health check or a DeviceTaintRule sets it"


def _overlap(snapshot: Snapshot) -> Found:
    if names := [each.name.device for each in snapshot.inventory.devices if each.may_overlap]:
        text = f"{some(names)} consume no counters: the scheduler can give the same part of a GPU "
        text += "to two claims, and the driver fails for the second"
        advice = f"the API server drops the counters: switch on the feature gate {PARTITIONABLE} "
        advice += "there and in the scheduler (on from Kubernetes 1.36), then restart the driver's "
        advice += "kubelet plugins, which publish them again"
        yield WRONG, text, advice


def _mapped(snapshot: Snapshot) -> Found:
    if failure := snapshot.failures.get("mapping"):
        yield WRONG, f"InstaSlice's mapping is wrong: {failure}", "see the log of InstaSlice"
    if failure := snapshot.failures.get("own pods"):
        yield UNSURE, f"InstaSlice's mapping is unknown: {failure}", seen.advice_on(failure.status)
    for name, resource in snapshot.resources.mapped.items():
        what = f"{name} is mapped to {resource.device_class}"
        if resource.has_own_class:
            yield GOOD, f"{what}, which InstaSlice creates when a pod needs it"
            continue
        if not (found := snapshot.named("classes").get(resource.device_class)):
            yield WRONG, f"{what}, which does not exist", "install the driver that provides it"
            continue
        selectors = (dig(each, "cel") for each in dig(found, "spec", "selectors"))
        drivers = _DRIVER_IS.findall("\n".join(str(each.get("expression")) for each in selectors))
        specs = (each["spec"] for each in snapshot.all("slices"))
        mine = (dig(spec, "devices") for spec in specs if spec.get("driver") in drivers)
        free, published = "", sum(map(len, mine))
        if DRIVER in drivers and resource.device_class == CLASSIC_CLASS:
            gpus = snapshot.inventory.whole_gpus()
            free, published = f"{gpus.free} free, ", gpus.published
        if published:
            yield GOOD, f"{what}: {free}{published} published"
        elif drivers:
            text = f"{what}, but the driver {drivers[0]} publishes no devices"
            yield WRONG, text, "does it run on the nodes?"
        else:
            yield UNSURE, f"{what}, whose selectors name no driver", "does one publish them?"


def _profiles(snapshot: Snapshot) -> Found:
    if not snapshot.is_classic:
        every = _of_waiting(snapshot, unpublished)
        yield from _faults(every, "every profile that pods wait for is published")


def _templates(snapshot: Snapshot) -> Found:
    existing = (
        (f, "") for name in snapshot.named("templates") for f in _changed_template(snapshot, name)
    )
    every = chain(existing, _of_waiting(snapshot, template_faults))
    yield from _faults(every, "every template that pods wait for exists")


def _device_classes(snapshot: Snapshot) -> Found:
    known = (each for each in known_profiles() if each.device_class in snapshot.named("classes"))
    existing = ((fault, "") for each in known for fault in _changed_class(snapshot, each))
    yield from _faults(chain(existing, _of_waiting(snapshot, class_faults)))
    served = snapshot.served_by_scheduler
    if count := sum(map(len, served.values())):
        classes = "1 DeviceClass" if count == 1 else f"{count} DeviceClasses"
        yield GOOD, f"by {classes}, the scheduler itself serves limits of {some(served)}"
    for name, several in served.items():
        if len(several) > 1 and name.startswith(RESOURCE_PREFIX):
            text = f"{some(several)} all serve {name}: the scheduler takes the newest"
            yield UNSURE, text, "keep one"


# The faults of a claim. A pod waits for a template until the claim exists, and for a device class
# and a published profile until the claim has devices.


def template_faults(snapshot: Snapshot, pod: Pod, own: PodClaim) -> Iterator[Fault]:
    """Whether a claim's template is missing, or asks for something else."""
    name = f"{pod.namespace}/{own.template}"
    if name in snapshot.named("templates"):
        yield from _changed_template(snapshot, name)
    elif not snapshot.claim_of(pod, own):
        text = f"there is no ResourceClaimTemplate {own.template} in {pod.namespace}"
        yield text, f"instaslice templates --apply -n {pod.namespace} {own.template}"


def class_faults(snapshot: Snapshot, _: Pod, own: PodClaim) -> Iterator[Fault]:
    """Whether a DeviceClass of a claim is missing, or selects something else."""
    for resource in own.asks.choices:
        yield from _changed_class(snapshot, resource)


def unpublished(snapshot: Snapshot, _: Pod, own: PodClaim) -> Iterator[Fault]:
    """Whether no node publishes a profile that a claim asks for."""
    supply = snapshot.inventory.supply
    advice = f"nodes publish {', '.join(supply)}" if supply else "does the DRA driver run?"
    for request in own.asks.requests if not snapshot.is_classic else ():
        if (wanted := request.profiles(supply)) and supply.keys().isdisjoint(wanted):
            yield f"no node publishes {seen.choices(request)}", advice


def _changed_template(snapshot: Snapshot, full_name: str) -> Iterator[Fault]:
    namespace, _, name = full_name.partition("/")
    claim, api = templates.from_template(name, snapshot.resources), snapshot.api
    if not claim or not isinstance(api, ResourceAPI) or templates.why_not(api, claim):
        return
    ours = templates.objects(api, claim)[-1]
    if why := templates.difference(ours, snapshot.named("templates")[full_name]):
        text = f"ResourceClaimTemplate {full_name} differs from what InstaSlice creates, so "
        command = f"kubectl -n {namespace} delete resourceclaimtemplate {name}"
        yield f"{text}pods get other devices: {why}", command


def _changed_class(snapshot: Snapshot, resource: Resource) -> Iterator[Fault]:
    if snapshot.is_classic or not resource.has_own_class:
        return
    name, found = resource.device_class, snapshot.named("classes").get(resource.device_class)
    command = f"instaslice deviceclasses {resource.template} | kubectl apply -f -"
    specs = [dig(templates.device_class(NEWEST, resource), "spec"), dig(found or {}, "spec")]
    if snapshot.api != NEWEST or not snapshot.is_on(EXTENDED, otherwise=True):
        specs = [{**each, "extendedResourceName": None} for each in specs]  # it has no effect
    if found is None:
        yield f"there is no DeviceClass {name}", command
    elif why := templates.difference(*({"spec": each} for each in specs)):
        yield f"DeviceClass {name} differs from what InstaSlice creates: {why}", command


def _of_waiting(
    snapshot: Snapshot, faults: Callable[[Snapshot, Pod, PodClaim], Iterator[Fault]]
) -> Iterator[tuple[Fault, str]]:
    """The faults of claims without devices, each with the name of its pod."""
    return ((f, pod.full_name) for pod, own in snapshot.waiting for f in faults(snapshot, pod, own))


def _faults(found: Iterable[tuple[Fault, str]], good: str = "", state: State = WRONG) -> Found:
    """Report each fault once, with the pods that need what it is about; else what is good."""
    by_fault = grouped(found)
    for (text, advice), pods in by_fault.items():
        names = some(dict.fromkeys(filter(None, pods)))
        yield state, text + (f" (pods: {names})" if names else ""), advice
    if good and not by_fault:
        yield GOOD, good


def _limits(snapshot: Snapshot) -> Found:
    plugins = (seen.advertised(node) for node in snapshot.all("nodes"))
    served = {*snapshot.served_by_scheduler, *chain.from_iterable(plugins)}
    recreate = f"recreate the pods, unless {LABEL} is disabled for them"
    # The class of the GPU operator's GPUCluster has no extendedResourceName, unlike the driver's.
    map_it = f"map it (serve --resource {GPU}=gpu.nvidia.com): docs/resources.md"
    yield from _faults(
        (
            (f"pods with {name} were not rewritten, and nothing else serves it", advice),
            pod.full_name,
        )
        for pod in snapshot.pods
        for name in ({} if pod.node else pod.extended)
        if name not in served
        if (advice := recreate if name in pod.limits else map_it if name == GPU else "")
    )


def _node_names(snapshot: Snapshot) -> Found:
    fault = node_labels.PAST_SCHEDULER, node_labels.NODE_SELECTOR
    pods = filter(snapshot.is_past_scheduler, snapshot.pods)
    yield from _faults((fault, pod.full_name) for pod in pods)


def _node_labels(snapshot: Snapshot) -> Found:
    nodes = [dig(node["metadata"], "labels") for node in snapshot.all("nodes")]
    lacking: list[tuple[Fault, str]] = []
    advice = "remove it from the pods: docs/migrate.md, section 10"
    for pod in snapshot.pods:
        for wanted in node_labels.selected(pod.spec) if not pod.node else ():
            values = [labels[wanted.label] for labels in nodes if wanted.label in labels]
            # The operators Gt and Lt compare numbers.
            fits = not wanted.values or any(n in wanted.values or n.isdecimal() for n in values)
            if wanted.is_required and not (values and fits):
                lacking.append(((f"no node has the label {wanted}", advice), pod.full_name))
    yield from _faults(lacking, state=UNSURE)


def _device_plugin(snapshot: Snapshot) -> Found:
    nodes, published = snapshot.all("nodes"), snapshot.inventory.nodes
    found = grouped(
        ((", ".join(names), node["metadata"]["name"] in published), node["metadata"]["name"])
        for node in nodes
        if (names := sorted(filter(snapshot.resources.find, seen.advertised(node))))
    )
    for (resources, is_published), where in found.items():
        text = f"the device plugin offers {resources} on {some(where)}"
        devices = "slices" if resources.startswith(RESOURCE_PREFIX) else "devices"
        if is_published:
            text += ", where the DRA driver publishes slices: both hand out the same GPUs"
            yield WRONG, text, "remove one of them from the node: docs/migrate.md"
        else:
            advice = "remove it from a node before you install the driver there: docs/migrate.md"
            yield UNSURE, f"{text}: rewritten pods cannot have these {devices}", advice


#: By title. A check may depend on those before it.
CHECKS: Final[dict[str, Callable[[Snapshot], Found]]] = {
    "DRA": _dra,
    "gates": _gates,
    "webhook": _webhook,
    "mode": _mode,
    "endpoints": _endpoints,
    "dry run": _dry_run,
    "driver": _driver,
    "slices": _slices,
    "overlap": _overlap,
    "mapped": _mapped,
    "profiles": _profiles,
    "templates": _templates,
    "device classes": _device_classes,
    "limits": _limits,
    "node names": _node_names,
    "node labels": _node_labels,
    **{title: partial(policies.findings, find) for title, find in policies.FINDERS.items()},
    "policies": policies.own_policies,
    "device plugin": _device_plugin,
}


def examine(snapshot: Snapshot) -> list[Finding]:
    """Run every check on a cluster."""
    return gather((title, check(snapshot)) for title, check in CHECKS.items())
