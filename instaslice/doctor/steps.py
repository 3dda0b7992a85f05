"""The steps of a change-over, in their order, for what a plan has found. Pure.

Sources of the order: dra-driver-nvidia-gpu, site/content/docs/guides/gpu-allocation/mig.md
("Limitations and considerations": with DynamicMIG the driver destroys, as it starts, every slice
that it has not made; on Ampere, MIG mode is on before); docs/migrate.md has them all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from instaslice.cluster.gates import EXTENDED, PARTITIONABLE
from instaslice.doctor.plan import GPU, SCHEDULER_SINCE, Node, Plan, Workload
from instaslice.webhook_configuration import LABEL

#: Where NVIDIA's chart is to run the driver: by its GPU operator's documentation.
DRA_LABEL: Final = "nvidia.com/dra-kubelet-plugin"
#: By which the GPU operator puts its parts on a node.
PLUGIN_LABEL: Final = "nvidia.com/gpu.deploy.device-plugin"
MANAGER_LABEL: Final = "nvidia.com/gpu.deploy.mig-manager"
MIG_LABEL: Final = "nvidia.com/mig.config"
CHART: Final = "oci://registry.k8s.io/dra-driver-nvidia/charts/dra-driver-nvidia-gpu"

#: What `kubectl rollout restart` takes.
_RESTARTED: Final = ("Deployment", "StatefulSet", "DaemonSet")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do, and how to take it back."""

    title: str
    why: str
    commands: tuple[str, ...] = ()
    back: tuple[str, ...] = ()


def steps(plan: Plan) -> list[Step]:
    """All steps for a cluster; none where there is nothing to change over."""
    wanted = [workload for workload in plan.workloads if workload.how != "claims"]
    old = [node for node in plan.nodes if node.advertised]
    if not wanted and not old:
        return []
    return [
        *_prepare(plan),
        *_install(plan),
        *_adapt(plan),
        *_driver(plan),
        *(step for node in old for step in _node(node)),
        *_namespaces(plan, wanted),
        *_finish(plan),
    ]


def _prepare(plan: Plan) -> Iterator[Step]:
    if not plan.resource_api:
        yield Step(
            "Switch DRA on",
            "Without it the API server drops claims silently, and pods would run without a GPU: "
            "Kubernetes 1.34 serves it; before, it takes the feature gate "
            "DynamicResourceAllocation and --runtime-config",
        )
    elif plan.resource_api != "v1":
        yield Step(
            "Upgrade to Kubernetes 1.34 or later",
            f"resource.k8s.io/{plan.resource_api} is served, and no driver of NVIDIA's that is "
            "maintained cuts slices on demand before 1.34.2",
        )
    if plan.gates.get(PARTITIONABLE) is False:
        yield Step(
            f"Switch on the feature gate {PARTITIONABLE}",
            "In the API server and the scheduler (on from Kubernetes 1.36). Without it the "
            "driver's counters are dropped, and the same place of a GPU is handed out twice",
            (
                f"kube-apiserver ... --feature-gates={PARTITIONABLE}=true",
                f"kube-scheduler ... --feature-gates={PARTITIONABLE}=true",
            ),
            ("take the flag away, once no driver has DynamicMIG",),
        )


def _install(plan: Plan) -> Iterator[Step]:
    mapping = _mapping(plan)
    if plan.installed:
        yield Step(
            "Have InstaSlice rewrite only the namespaces that opted in",
            f"It is there, in mode {plan.installed}: no pod may ask for DRA before a node has it",
            ('make deploy IMG=... COMPONENTS="cert-manager opt-in"',),
            ("make deploy with the components of today",),
        )
    else:
        yield Step(
            "Install InstaSlice, for namespaces that opt in",
            "Nothing is rewritten yet: no namespace is labelled. With your own certificates, put "
            "own-certificates in place of cert-manager",
            ('make deploy IMG=... COMPONENTS="cert-manager opt-in"',),
            ("make undeploy",),
        )
    if mapping:
        deploy = 'make deploy IMG=... COMPONENTS="cert-manager opt-in"'
        yield Step(
            f"Map {GPU}",
            "Pods ask for it, too, and nothing else would serve them without the device plugin",
            (f"{deploy} RESOURCES={mapping}",),
            (deploy,),
        )


def _mapping(plan: Plan) -> str:
    """What `nvidia.com/gpu` has to be mapped to, where pods ask for it; empty for nothing."""
    if not any(GPU in workload.asks for workload in plan.workloads):
        return ""
    single = {node.single for node in plan.nodes if node.single}
    if len(single) == 1:
        return f"{GPU}=mig-{single.pop()}"
    served = plan.gates.get(EXTENDED)
    if served or (served is None and plan.minor >= SCHEDULER_SINCE):
        return ""  # the driver's class gpu.nvidia.com has the name
    return f"{GPU}=gpu.nvidia.com"


def _adapt(plan: Plan) -> Iterator[Step]:
    for policy in plan.policies:
        if policy.command:
            yield Step(
                f"Adapt {policy.what}",
                policy.becomes,
                (policy.command,),
                (policy.back,) if policy.back else (),
            )


def _driver(plan: Plan) -> Iterator[Step]:
    there = plan.components.get("NVIDIA's DRA driver")
    if there and "DynamicMIG=true" in there:
        return
    verb = "Switch on DynamicMIG in" if there else "Install"
    selector = f"kubeletPlugin.nodeSelector.{DRA_LABEL}=true".replace("nvidia.com", r"nvidia\.com")
    yield Step(
        f"{verb} NVIDIA's DRA driver, on nodes that are labelled for it",
        "With DynamicMIG (alpha) it cuts slices on demand; as it starts it destroys every slice "
        "that it has not made, so it must not start where the device plugin still serves pods. "
        "DynamicMIG excludes MPS, its health checks and passthrough. No node is labelled yet",
        (
            f"helm upgrade --install dra-driver-nvidia-gpu {CHART} "
            "--namespace dra-driver-nvidia-gpu --create-namespace "
            "--set gpuResourcesEnabledOverride=true --set featureGates.DynamicMIG=true "
            f"--set-string '{selector}'"
            + (
                " --set nvidiaDriverRoot=/run/nvidia/driver"
                if "GPU operator" in plan.components
                else ""
            ),
        ),
        ("helm uninstall --namespace dra-driver-nvidia-gpu dra-driver-nvidia-gpu",),
    )


def _node(node: Node) -> Iterator[Step]:
    name = node.name
    if node.published:
        why = "The driver is there already, beside the device plugin: both give out the same GPUs"
    else:
        offered = ", ".join(f"{key}: {amount}" for key, amount in node.advertised.items())
        why = f"{node.product or 'a GPU node'}, which offers {offered}"
    mode = []
    if node.needs_mig_mode:
        why += ". An A100 or A30 switches MIG mode on by a reset only, so before the driver comes"
        # The state is MIG manager's, of the last cut until it has begun with this one.
        mode = [
            f"kubectl label node {name} {MIG_LABEL}=all-enabled "
            f"{MIG_LABEL}.state=pending --overwrite",
            f"kubectl wait node/{name} "
            f"--for=jsonpath='{{.metadata.labels.nvidia\\.com/mig\\.config\\.state}}'=success "
            "--timeout=15m",
        ]
    config = node.config.partition(" ")[0]
    restore = (f"kubectl label node {name} {MIG_LABEL}={config} --overwrite",) if config else ()
    yield Step(
        f"Change node {name} over",
        why,
        (
            f"kubectl drain {name} --ignore-daemonsets --delete-emptydir-data",
            *mode,
            f"kubectl label node {name} {PLUGIN_LABEL}=false {MANAGER_LABEL}=false --overwrite",
            f"kubectl label node {name} {DRA_LABEL}=true --overwrite",
            f"kubectl get resourceslices --field-selector spec.nodeName={name}",
            f"kubectl uncordon {name}",
        ),
        (
            f"kubectl drain {name} --ignore-daemonsets --delete-emptydir-data",
            f"kubectl label node {name} {DRA_LABEL}-",
            f"kubectl label node {name} {PLUGIN_LABEL}=true {MANAGER_LABEL}=true --overwrite",
            *restore,
            f"kubectl uncordon {name}",
        ),
    )


def _namespaces(plan: Plan, wanted: list[Workload]) -> Iterator[Step]:
    for namespace in dict.fromkeys(workload.namespace for workload in wanted):
        mine = [workload for workload in wanted if workload.namespace == namespace]
        restarts = [
            f"kubectl -n {namespace} rollout restart {each.owner.lower()}"
            for each in mine
            if each.owner.partition("/")[0] in _RESTARTED
        ]
        others = [each.owner for each in mine if each.owner.partition("/")[0] not in _RESTARTED]
        why = f"{sum(each.pods for each in mine)} pods: {', '.join(each.owner for each in mine)}"
        if any(each.how == "das" for each in mine):
            why += (
                ". Those with mig.das.com/* are of OpenShift's removed operator, which wrote that "
                "into pods in place of nvidia.com/mig-*: create them anew"
            )
        if others:
            why += f". Create anew what no rollout restarts: {', '.join(others)}"
        if plan.minor < SCHEDULER_SINCE:
            why += ". As many nodes as these pods need must be changed over before"
        yield Step(
            f"Change namespace {namespace} over",
            why,
            (
                f"kubectl label namespace {namespace} {LABEL}=enabled",
                *dict.fromkeys(restarts),
                f"instaslice doctor -n {namespace}",
            ),
            (f"kubectl label namespace {namespace} {LABEL}-", *dict.fromkeys(restarts)),
        )


def _finish(plan: Plan) -> Iterator[Step]:
    mode = "kubernetes-1.36" if plan.minor >= SCHEDULER_SINCE else ""
    components = f"cert-manager {mode}".strip()
    what = (
        "From Kubernetes 1.36 on the scheduler serves plain limits by device classes, and "
        "InstaSlice what it cannot"
        if mode
        else "Every namespace is rewritten from here on"
    )
    yield Step(
        "Leave the labels behind",
        f"{what}; take the component away to have every pod rewritten" if mode else what,
        (f'make deploy IMG=... COMPONENTS="{components}"',),
        ('make deploy IMG=... COMPONENTS="cert-manager opt-in"',),
    )
    if "GPU operator" in plan.components:
        yield Step(
            "Take the device plugin and MIG manager away for good",
            "No node has them any more, and a new node should not get them",
            (
                "kubectl patch clusterpolicies.nvidia.com/cluster-policy --type=merge -p "
                '\'{"spec":{"devicePlugin":{"enabled":false},"migManager":{"enabled":false}}}\'',
            ),
            (
                "kubectl patch clusterpolicies.nvidia.com/cluster-policy --type=merge -p "
                '\'{"spec":{"devicePlugin":{"enabled":true},"migManager":{"enabled":true}}}\'',
            ),
        )
