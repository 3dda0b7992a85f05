"""Node labels that describe MIG slices, and how pods select nodes by them.

MIG manager, GPU Feature Discovery and GKE set these labels for the device plugin. Nodes where
NVIDIA's DRA driver cuts slices on demand lack them, so a pod that requires one fits no such node.

Source: NVIDIA/mig-parted; k8s-device-plugin, `internal/lm`; GKE, "Run multi-instance GPUs".
"""

import re
from collections.abc import Iterator
from itertools import chain, islice
from typing import Final, NamedTuple

from instaslice.patch import Json

#: Why a pod that sets nodeName fails, and what to do instead.
PAST_SCHEDULER: Final = (
    "only the scheduler allocates claims, and it does not see a pod with nodeName: the kubelet "
    "refuses it"
)
NODE_SELECTOR: Final = "choose the node by nodeSelector: kubernetes.io/hostname"
#: The most elements of a list, and requirements of a pod, to read.
MAX_READ: Final = 1_000

MIG_CONFIG: Final = "nvidia.com/mig.config"
MIG_STATE: Final = "nvidia.com/mig.config.state"
MIG_STRATEGY: Final = "nvidia.com/mig.strategy"
PRODUCT: Final = "nvidia.com/gpu.product"
GKE_PARTITION: Final = "cloud.google.com/gke-gpu-partition-size"

#: Labels that describe MIG whatever their value; strategy `mixed` has more, several per profile,
#: such as nvidia.com/mig-1g.5gb.count.
ALWAYS: Final = frozenset({MIG_CONFIG, MIG_STATE, MIG_STRATEGY, GKE_PARTITION})
_OF_A_PROFILE: Final = "nvidia.com/mig-"
#: How product names end under strategy `single`, where all GPUs are cut into the same slices.
_SINGLE: Final = re.compile(r"-MIG-([1-9][0-9]{0,2}g\.[1-9][0-9]{0,3}gb(?:\.[a-z.]+)?)$", re.ASCII)
#: Operators (NodeSelectorOperator) that a node without the label does not satisfy.
NEEDS_IT: Final = frozenset({"In", "Exists", "Gt", "Lt"})
_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_PREFERRED: Final = "preferredDuringSchedulingIgnoredDuringExecution"


class Selected(NamedTuple):
    """A label by which a pod selects its nodes."""

    path: str  #: in the pod's spec: "nodeSelector" or "affinity.nodeAffinity"
    label: str
    values: tuple[str, ...]  #: empty for any value
    is_required: bool  #: false if only preferred

    def __str__(self) -> str:
        return f"{self.label}={' or '.join(self.values)}" if self.values else self.label

    @property
    def single(self) -> str:
        """The profile that `nvidia.com/gpu` means on such nodes, "1g.5gb"; empty for none."""
        profiles = set(map(single_profile, self.values)) if self.label == PRODUCT else {""}
        return profiles.pop() if len(profiles) == 1 else ""


def single_profile(product: str) -> str:
    """The profile at the end of a `PRODUCT` value (strategy `single`); empty for none."""
    found = _SINGLE.search(product)
    return found[1] if found else ""


def selected(spec: Json) -> Iterator[Selected]:
    """Find the labels by which a pod's spec selects MIG nodes; skip malformed parts.

    It reads the first MAX_READ elements of each list and object; no real pod has more.
    """
    for label, value in islice(_dict(spec.get("nodeSelector")).items(), MAX_READ):
        if tells_of_mig(label, (str(value),)):
            yield Selected("nodeSelector", label, (str(value),), True)
    affinity = _dict(_dict(spec.get("affinity")).get("nodeAffinity"))
    required = _list(_dict(affinity.get(_REQUIRED)).get("nodeSelectorTerms"))
    preferred = [_dict(each).get("preference") for each in _list(affinity.get(_PREFERRED))]
    for is_required, terms in ((True, required), (False, preferred)):
        every = (_list(_dict(term).get("matchExpressions")) for term in terms)
        for requirement in map(_dict, islice(chain.from_iterable(every), MAX_READ)):
            label, values = str(requirement.get("key")), _list(requirement.get("values"))
            texts = tuple(map(str, values))
            if str(requirement.get("operator")) in NEEDS_IT and tells_of_mig(label, texts):
                yield Selected("affinity.nodeAffinity", label, texts, is_required)


def tells_of_mig(label: str, values: tuple[str, ...]) -> bool:
    """Whether a node label with one of these values describes MIG slices."""
    if label == PRODUCT:
        return bool(values) and all(map(single_profile, values))
    return label in ALWAYS or label.startswith(_OF_A_PROFILE)


def _dict(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value[:MAX_READ] if isinstance(value, list) else []
