"""A plan for the migration from the device plugin to DRA. Pure.

The input is a cluster's snapshot, or the manifests in the files of a repository. The plan has an
inventory, what blocks the migration, what the administrator has to decide, and which numbered
section of docs/migrate.md applies to which node and namespace. Only that page has the commands.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final

from instaslice import node_labels
from instaslice.cluster.client import ClusterError
from instaslice.cluster.gates import PARTITIONABLE
from instaslice.doctor import checks, policies
from instaslice.doctor.inventory import dig, grouped
from instaslice.doctor.policies import Policy
from instaslice.doctor.report import GOOD, UNSURE, WRONG, State, unread, wrapped
from instaslice.doctor.snapshot import GPU, Pod, Snapshot, advertised, some
from instaslice.patch import Json
from instaslice.resource_api import NEWEST, ResourceAPI, Unavailable
from instaslice.resources import Resources

_DAS: Final = "mig.das.com/"  #: OpenShift's removed operator wrote this in place of NVIDIA's name
_FILE: Final = "instaslice.io/file"  #: the annotation with the path of a workload's file
#: GPUs that need a reset to change their MIG mode (dra-driver-nvidia-gpu, guides/mig.md).
_AMPERE: Final = re.compile(r"\bA(?:100|30)\b|-A(?:100|30)-")
_GATES: Final = "FEATURE_GATES"
_DRIVER: Final = "NVIDIA's DRA driver"
#: Components, each with parts of its images' names.
_COMPONENTS: Final = {
    _DRIVER: ("dra-driver-nvidia-gpu", "k8s-dra-driver"),
    "device plugin": ("k8s-device-plugin",),
    "MIG manager": ("mig-manager",),
    "GPU operator": ("gpu-operator",),
    "Cluster Autoscaler": ("cluster-autoscaler",),
    "Karpenter": ("karpenter",),
    "Kueue": ("/kueue:",),
}

#: The numbered sections of docs/migrate.md.
SECTIONS: Final = {
    1: "The control plane",
    2: "InstaSlice, for namespaces that opt in",
    3: "Whole GPUs",
    4: "Quotas, LimitRanges, Kueue",
    5: "The driver",
    6: "A node with Hopper or later",
    7: "A node with A100 or A30 that is cut",
    8: "A node that serves whole GPUs",
    9: "A namespace",
    10: "Pods that choose their nodes",
    11: "The end",
}


FIRST_WITH_SCALER: Final = 35  #: Kubernetes' minor whose Cluster Autoscaler supports claims
#: The text of each decision, printed after the names that it concerns.
_TEXTS: Final = {
    "whole": "whole GPUs are served there, but an A100 or A30 in MIG mode has none: keep the "
    "device plugin on the node, or give up its whole GPUs",
    "no class": f"no DeviceClass has the extendedResourceName {GPU} that they request: map it",
    "7g": "version 0.4.1 of the driver with DynamicMIG cannot create a 7g slice (its issue 1480, "
    "now closed): choose another version or profile. A GPU in MIG mode cannot be requested as a "
    "whole instead",
    "shared": "InstaSlice leaves time-sliced resources alone; through DRA, the driver shares "
    "slices with its feature gate ConsumableShares (0.5, alpha)",
    "node name": f"{node_labels.PAST_SCHEDULER}; {node_labels.NODE_SELECTOR}",
    "das": f"OpenShift's removed operator wrote {_DAS}* into these pods in place of "
    "nvidia.com/mig-*: recreate them",
    "operator": "its validator expects the device plugin's resources on a node unless the plugin "
    "is off for the whole cluster",
    "Karpenter": "it ignores claims unless IGNORE_DRA_REQUESTS=false, and does not support "
    "extended resources through DRA (its issue 3231)",
}
#: Parts that a plan for files does not have.
_OF_CLUSTERS: Final = ("Cluster", "Nodes", "Sections of docs/migrate.md, in this order")
_ON: Final = {True: "on", False: "off", None: "unknown"}
_HOW: Final = {"limits": "", "claims": " (has claims)", "das": " (of OpenShift's removed operator)"}


@dataclass(frozen=True)
class Workload:
    """Pods of one owner that request devices in one way."""

    namespace: str  #: empty if its file names none
    owner: str  #: "Deployment/inference"; "Pod/p" for a pod without an owner
    pods: int  #: or pod specs, in a file
    asks: dict[str, str]  #: resources of one pod, with their amounts
    how: str  #: "limits", "claims" or "das"
    labels: tuple[str, ...] = ()  #: labels of MIG nodes that its pods select
    node_name: str = ""  #: set by the pod's author, bypassing the scheduler
    file: str = ""  #: its path; empty in a cluster

    def __str__(self) -> str:
        asks = ", ".join(f"{name}: {amount}" for name, amount in self.asks.items())
        # A file does not tell how many pods will have its spec.
        pods = f"{self.pods} pod{' spec' * bool(self.file)}{'s' * (self.pods != 1)}"
        where = " ".join(filter(None, (self.file, self.namespace, self.owner)))
        return f"{where}: {pods}, {asks}{_HOW[self.how]}"


class Node:
    """The GPUs of a node."""

    def __init__(self, node: Json, snapshot: Snapshot) -> None:
        labels = dig(node["metadata"], "labels")
        self.name: str = node["metadata"]["name"]
        self.product: str = labels.get(node_labels.PRODUCT) or ""
        #: Resources that the device plugin offers.
        self.advertised = {
            name: amount
            for name, amount in advertised(node).items()
            if (plain := name.removesuffix(".shared")) == GPU or snapshot.resources.find(plain)
        }
        config = map(labels.get, (node_labels.MIG_CONFIG, node_labels.MIG_STATE))
        self.config = " ".join(filter(None, config))  #: MIG manager's, and its state
        self.strategy: str = labels.get(node_labels.MIG_STRATEGY) or ""  #: "mixed", "single"
        self.published = self.name in snapshot.inventory.nodes  #: MIG slices, by the DRA driver

    @property
    def single(self) -> str:
        """The profile that `nvidia.com/gpu` stands for on this node, or empty."""
        return node_labels.single_profile(self.product) if self.strategy == "single" else ""

    @property
    def section(self) -> int:
        """The section of docs/migrate.md that applies to it."""
        if GPU in self.advertised and not self.single:
            return 8
        return 7 if _AMPERE.search(self.product) else 6

    def __str__(self) -> str:
        offered = ", ".join(f"{name}: {amount}" for name, amount in self.advertised.items())
        parts = [
            self.product,
            f"mig.config {self.config}" if self.config else "",
            f"strategy {self.strategy}" if self.strategy else "",
            f"the device plugin offers {offered}" if offered else "",
            "MIG slices are published for DRA" if self.published else "",
        ]
        return f"{self.name}: {'; '.join(filter(None, parts))}"


@dataclass(frozen=True)
class Item:
    """Something that blocks the migration, or that the administrator has to decide."""

    section: int  #: of docs/migrate.md
    text: str

    def __str__(self) -> str:
        return f"{self.text} (section {self.section})"


class Plan:
    """The migration's plan for a cluster, or for the objects of files."""

    def __init__(self, snapshot: Snapshot) -> None:
        api, seen = snapshot.api, snapshot.readable  # `unknown` names what that lacks
        dra = {"DRA": ClusterError(api.reason)} if isinstance(api, Unavailable) else {}
        self.kubernetes = snapshot.kubernetes
        self.resource_api = api.version if isinstance(api, ResourceAPI) else ""  #: "v1"; or empty
        self.minor = snapshot.minor
        self.driver_class = " ".join(snapshot.driver_class)
        self.has_driver = snapshot.driver_class[1] in seen.named("classes")
        self.gates = {name: known.on for name, known in snapshot.gates.items()}
        self.components = _components(seen.pods)  #: each with its version
        mode = checks.Registered(seen.webhook or {}).mode or "in an unknown mode"
        self.installed = mode if seen.webhook else ""  #: InstaSlice's mode; or empty
        self.workloads = _workloads(seen)
        every = (Node(each, seen) for each in seen.all("nodes"))
        self.nodes = [each for each in every if each.advertised or each.product or each.published]
        self.policies: list[Policy] = []
        for find in policies.FINDERS.values():
            with suppress(ClusterError):  # `unknown` has the reason
                self.policies += list(find(snapshot))
        has_gpus = GPU in snapshot.resources.mapped or "classes" in snapshot.failures
        self.blocks = list(self._blocks())
        self.decisions = list(self._decisions(has_gpus or GPU in snapshot.served_by_scheduler))
        self.sections = self._sections() if self.kubernetes else {}  #: with nodes and namespaces
        self.unknown = snapshot.failures | dra  #: why a part could not be read

    def _blocks(self) -> Iterator[Item]:
        is_on, version = self.gates.get(PARTITIONABLE), self.resource_api
        if not self.kubernetes:
            pass  # the plan is for files
        elif not version:
            yield Item(1, "DRA is not served: claims would be dropped, and pods run without a GPU")
        elif version != NEWEST.version:
            text = f"the cluster serves resource.k8s.io/{version}: before Kubernetes 1.34.2 no "
            text += "maintained driver of NVIDIA's creates slices on demand, and the feature gate "
            yield Item(1, f"{text}{PARTITIONABLE} that this needs is off by default")
        elif is_on is False:
            text = f"the feature gate {PARTITIONABLE} is off: the API server drops the driver's "
            text += "counters, and the scheduler gives the same part of a GPU to two claims"
            yield Item(1, text)
        elif is_on is None:
            yield Item(1, f"make sure that the feature gate {PARTITIONABLE} is on")
        if both := [node.name for node in self.nodes if node.published and node.advertised]:
            text = f"{some(both)}: the device plugin and the DRA driver allocate the same GPUs"
            yield Item(6, text)
        yield from self._policy_items(WRONG)

    def _policy_items(self, wanted: State) -> Iterator[Item]:
        findings = (policy.finding for policy in self.policies)
        return (Item(4, text) for state, text, _ in findings if state is wanted)

    def _decisions(self, has_gpus: bool) -> Iterator[Item]:
        """has_gpus: whether `GPU` is served through DRA."""
        yield from self._policy_items(UNSURE)
        work, nodes, runs = self.workloads, self.nodes, self.components.keys()
        asking = _names(each for each in work if GPU in each.asks and each.how == "limits")
        single = sorted({node.single for node in nodes if node.single})
        hint = f"map it to mig-{single[0]}" if len(single) == 1 else "one mapping cannot cover all"
        means = f"on nodes with strategy single, {GPU} means {' or '.join(single)}: {hint}"
        shared = {name for node in nodes for name in node.advertised if name.endswith(".shared")}
        labels = sorted({label for each in work for label in each.labels})
        scaler = runs & {"Cluster Autoscaler"} if self.minor < FIRST_WITH_SCALER else ()
        rows: list[tuple[int, Iterable[str], str]] = [
            (8, [node.name for node in nodes if node.section == 8], _TEXTS["whole"]),
            (3, asking if single else (), means),
            (3, asking if not single and not has_gpus else (), _TEXTS["no class"]),
            (5, _names(each for each in work if "7g." in " ".join(each.asks)), _TEXTS["7g"]),
            (5, sorted(shared), _TEXTS["shared"]),
            *((10, _names(each for each in work if n in each.labels), _relabel(n)) for n in labels),
            (10, _names(each for each in work if each.node_name), _TEXTS["node name"]),
            (10, _names(each for each in work if each.how == "das"), _TEXTS["das"]),
            (11, runs & {"GPU operator"}, _TEXTS["operator"]),
            (11, runs & {"Karpenter"}, _TEXTS["Karpenter"]),
            (11, scaler, "it supports claims from 1.35 on"),
        ]
        for section, names, text in rows:
            if names:
                yield Item(section, f"{some(names)}: {text}")

    def _sections(self) -> dict[int, list[str]]:
        wanted = [each for each in self.workloads if each.how != "claims"]
        old = [node for node in self.nodes if node.advertised]
        if not wanted and not old:
            return {}
        numbers = (2, 11, *(item.section for item in (*self.blocks, *self.decisions)))
        found: dict[int, list[str]] = {number: [] for number in numbers}
        if "DynamicMIG=true" not in self.components.get(_DRIVER, ""):
            found.setdefault(5, [])
        for node in old:
            found.setdefault(node.section, []).append(node.name)
        found[9] = list(dict.fromkeys(each.namespace for each in wanted))
        return dict(sorted(found.items()))

    def as_json(self) -> str:
        """A JSON object with its attributes."""
        sections = [
            {"section": number, "title": SECTIONS[number], "for": names}
            for number, names in self.sections.items()
        ]
        value = vars(self) | {"sections": sections}
        return json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n"

    def as_text(self, width: int = 0) -> str:
        """The plan for a terminal. width: columns to wrap at; 0 for no wrapping."""
        return self._rendered("{}\n", "  ", width)

    def as_markdown(self) -> str:
        """The plan for a ticket."""
        return "# From the device plugin to DRA\n\n" + self._rendered("## {}\n\n", "- ")

    def _rendered(self, heading: str, bullet: str, width: int = 0) -> str:
        parts = (
            heading.format(title) + "\n".join(bullet + wrapped(each, width, 4) for each in found)
            for title, found in self._parts()
        )
        return "\n\n".join(parts) + "\n"

    def _parts(self) -> list[tuple[str, list[str]]]:
        def told(text: str, *lists: str) -> str:
            return text if self.unknown.keys().isdisjoint(lists) else "unknown"

        served = f"resource.k8s.io/{self.resource_api}" if self.resource_api else "no DRA"
        has_class = "exists" if self.has_driver else told("does not exist", "classes")
        nothing = "none: no workload has limits for slices, and no device plugin offers any"
        cluster = [
            f"Kubernetes {self.kubernetes}, {served}",
            *(f"feature gate {name}: {_ON[on]}" for name, on in self.gates.items()),
            f"{self.driver_class}: {has_class}",
            *(f"{name}: {what}" for name, what in self.components.items()),
            f"InstaSlice: {self.installed or told('not installed', 'webhooks')}",
        ]
        sections = [
            f"{number}. {SECTIONS[number]}" + (f": {', '.join(names)}" if names else "")
            for number, names in self.sections.items()
        ]
        parts: dict[str, Iterable[object]] = {
            "Cluster": cluster,
            "Workloads": self.workloads or [told("none asks for slices or GPUs", "pods")],
            "Nodes": self.nodes or [told("none is known to have GPUs", "nodes")],
            "Quotas and limits": [item.text for item in self._policy_items(GOOD)],
            "Blockers": self.blocks,
            "Decisions": self.decisions,
            "Sections of docs/migrate.md, in this order": sections
            or [told(nothing, "pods", "nodes")],
            "Unknown": [each.text for each in unread(self.unknown.items())],
        }
        shown = {title: [*map(str, found)] for title, found in parts.items() if found}
        is_cluster = bool(self.kubernetes)
        return [each for each in shown.items() if is_cluster or each[0] not in _OF_CLUSTERS]


def _plain(value: object) -> object:
    return str(value) if isinstance(value, ClusterError) else vars(value)


def _names(workloads: Iterable[Workload]) -> list[str]:
    return [f"{each.namespace or each.file} {each.owner}" for each in workloads]


def _relabel(label: str) -> str:
    profile = node_labels.single_profile(label)
    hint = f", or map {GPU} to mig-{profile}" if profile else ""
    return f"they choose nodes by the label {label}, which no node will have: remove it{hint}"


def _workloads(snapshot: Snapshot) -> list[Workload]:
    every = (one for pod in snapshot.pods for one in _workloads_of(pod))
    alike = grouped((json.dumps(vars(one), sort_keys=True), one) for one in every)
    found = [replace(same[0], pods=len(same)) for same in alike.values()]
    return sorted(found, key=lambda each: (each.namespace, each.owner, each.how, each.file))


def _workloads_of(pod: Pod) -> Iterator[Workload]:
    """Yield one for each way in which a pod requests devices."""
    limits = {name: n for name, n in pod.extended.items() if name in pod.limits or name == GPU}
    das = {name: n for name, n in pod.extended.items() if name.startswith(_DAS)}
    templates = Counter(claim.template for claim in pod.claims)
    claims = {name: str(count) for name, count in templates.items()}
    labels = tuple(map(str, node_labels.selected(pod.spec)))
    node = pod.node if pod.names_its_node else ""
    file = dig(pod.metadata, "annotations").get(_FILE, "")
    for how, asks in (("limits", limits), ("das", das), ("claims", claims)):
        if asks:
            yield Workload(pod.namespace, _owner(pod), 1, asks, how, labels, node, file)


def _owner(pod: Pod) -> str:
    """The controller of a pod; a Deployment in place of its ReplicaSet."""
    suffix = f"-{dig(pod.metadata, 'labels').get('pod-template-hash')}"
    for owner in dig(pod.metadata, "ownerReferences"):
        kind, name = owner["kind"], owner["name"]
        if owner.get("controller") and kind == "ReplicaSet" and name.endswith(suffix):
            return f"Deployment/{name.removesuffix(suffix)}"
        if owner.get("controller"):
            return f"{kind}/{name}"
    return f"Pod/{pod.metadata['name']}"


def _components(pods: Iterable[Pod]) -> dict[str, str]:
    """The components that the migration affects, each with its image's tag."""
    found: dict[str, str] = {}
    for pod, container in ((p, each) for p in pods for each in dig(p.spec, "containers")):
        image = str(container.get("image") or "")
        for name, parts in _COMPONENTS.items():
            if name not in found and any(part in image for part in parts):
                tag = image.rpartition("/")[2].partition("@")[0].partition(":")[2]
                where = f"{tag or 'of an unknown version'} in {pod.namespace}"
                # The driver's chart sets its feature gates in this variable.
                gates = (e.get("value") for e in dig(container, "env") if e.get("name") == _GATES)
                found[name] = ", ".join([where, *filter(None, gates)])
    return found


#: The lists of a snapshot, by the kinds of their objects.
_LISTS: Final = {"ResourceQuota": "quotas", "LimitRange": "limits", "ClusterQueue": "queues"}
#: The values examined in one object: with YAML's aliases a few lines can hold billions.
_MAX_VALUES: Final = 200_000


def of_files(
    documents: Iterable[tuple[str, object]], failures: dict[str, str], resources: Resources
) -> Plan:
    """Make the plan for documents of files, each with its path.

    failures: why a file cannot be read, by path.
    """
    every: list[tuple[str, Json]] = []
    why = {}
    for path, manifest in ((path, each) for path, found in documents for each in _manifests(found)):
        try:
            listed = [*_listed(path, manifest)]
            Plan(Snapshot("", NEWEST, grouped(listed), resources=resources))  # it may be invalid
            every += listed
        except (AttributeError, KeyError, TypeError, ValueError):
            why[path] = ClusterError(f"it has an invalid {manifest['kind']}")
    lists = grouped(every)
    if "kueue" not in lists:
        lists.pop("queues", None)  # the mapped classes are unknown
    why |= {path: ClusterError(text) for path, text in failures.items()}
    return Plan(Snapshot("", NEWEST, lists, why, resources=resources))


def _manifests(document: object) -> Iterator[Json]:
    """Yield the object of a document, or the items of a List."""
    if isinstance(document, dict) and isinstance(document.get("kind"), str):
        items = document.get("items")
        if document["kind"].endswith("List") and isinstance(items, list):
            for item in items:
                yield from _manifests(item)
        else:
            yield document


def _listed(path: str, manifest: Json) -> Iterator[tuple[str, Json]]:
    """Yield the objects that a plan needs from one object, each with its list in a snapshot."""
    kind, metadata = manifest["kind"], manifest.get("metadata")
    texts = metadata if isinstance(metadata, dict) else {}
    name = str(texts.get("name") or texts.get("generateName") or "?")
    found = {"name": name, "namespace": str(texts.get("namespace") or "")}
    if kind == "ConfigMap" and name == "kueue-manager-config":  # as in Kueue's manifests
        yield "kueue", manifest
    if kind in _LISTS and isinstance(manifest.get("spec"), dict):
        yield _LISTS[kind], {**manifest, "metadata": found}
    owner = {"kind": kind, "name": name, "controller": True}
    about = {**found, "ownerReferences": [owner], "annotations": {_FILE: path}}
    for spec in _pod_specs(manifest):
        yield "pods", {"metadata": about, "spec": spec}


def _pod_specs(manifest: Json) -> Iterator[Json]:
    """Yield every pod spec in an object, and every container of Argo's as a spec."""
    values: list[object] = [manifest]
    for _ in range(_MAX_VALUES):
        value = values.pop() if values else None
        if isinstance(value, dict):
            containers, resources = value.get("containers"), value.get("resources")
            if isinstance(containers, list) and all(isinstance(each, dict) for each in containers):
                yield value
                continue
            if isinstance(resources, dict) and isinstance(resources.get("limits"), dict):
                yield {"containers": [value]}
            value = list(value.values())
        if isinstance(value, list):
            values += reversed(value)
        if not values:
            return
    raise ValueError("it has too many values")
