"""The MutatingWebhookConfiguration that makes the API server send pods to InstaSlice.

The mode decides which pods are sent. A pod is sent only if it meets all conditions of the mode, so
that the webhook, which fails closed, can block no other pod.

====================  ==============================================================================
mode                  pods that are sent
====================  ==============================================================================
all                   every pod with a limit that InstaSlice rewrites
opt-in                the same, in namespaces labelled `instaslice.io/rewrite: enabled`
beside-the-scheduler  those that the scheduler cannot serve itself (KEP-5004, Kubernetes 1.36):
                      with an annotation of InstaSlice, or more devices than a claim holds
====================  ==============================================================================

Source: MutatingWebhook.matchConditions (KEP-3716, Kubernetes 1.28), evaluated by the API server
with a cost budget; an error in one refuses the pod. The API server keeps `containers: null`, and
leaves out empty fields.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from instaslice.annotations import ALTERNATIVES, PLACEMENT
from instaslice.patch import Json
from instaslice.profiles import RESOURCE_PREFIX
from instaslice.resource_api import NEWEST

NAME: Final = "instaslice"
#: The webhook's name in metrics, error messages and audit annotations.
WEBHOOK: Final = "rewrite.instaslice.io"
#: Where `config/` installs InstaSlice.
NAMESPACE: Final = "instaslice-system"
#: On a namespace or a pod, "disabled" keeps pods from InstaSlice; in mode opt-in, namespaces need
#: "enabled".
LABEL: Final = "instaslice.io/rewrite"
ALL: Final = "all"
OPT_IN: Final = "opt-in"
BESIDE: Final = "beside-the-scheduler"

# The API server refuses a request without a limit, so it is enough to look at limits.
_HAS_A_LIMIT: Final = """\
['containers', 'initContainers'].exists(kind,
  kind in object.spec && object.spec[kind] != null && object.spec[kind].exists(container,
    has(container.resources) && has(container.resources.limits) &&
      container.resources.limits.exists(name, {is_ours})))"""
# Changes of labels or finalizers do not concern InstaSlice, and old pods must not be blocked.
_IS_NEW: Final = "request.operation == 'CREATE' || object.spec != oldObject.spec"
# The sum counts init containers in full, so it is at least what the scheduler would ask for. The
# API server refuses amounts that are not integers; huge amounts must not overflow.
_IS_TOO_MUCH_FOR_THE_SCHEDULER: Final = """\
has(object.metadata.annotations) && {annotations}.exists(key, key in object.metadata.annotations) ||
['containers', 'initContainers'].map(kind,
  kind in object.spec && object.spec[kind] != null ? object.spec[kind].map(container,
    has(container.resources) && has(container.resources.limits) ?
      container.resources.limits.map(name, !({is_ours}) ? 0 :
        quantity(container.resources.limits[name]).isGreaterThan(quantity('{most}')) ? {most} + 1 :
        quantity(container.resources.limits[name]).isInteger() ?
          quantity(container.resources.limits[name]).asInteger() : 0).sum() : 0).sum() : 0
).sum() > {most}"""

#: Conditions by name, in the order of their evaluation.
_CONDITIONS: Final = {"has-a-mig-limit": _HAS_A_LIMIT, "is-new-or-has-another-spec": _IS_NEW}
_BESIDE: Final = {"is-too-much-for-the-scheduler": _IS_TOO_MUCH_FOR_THE_SCHEDULER}

#: The operator and the value of a label selector for `LABEL`.
_NOT_DISABLED: Final = ("NotIn", "disabled")

#: For each mode, its conditions and its selector for the label of namespaces.
MODES: Final[Mapping[str, tuple[Mapping[str, str], tuple[str, str]]]] = {
    ALL: (_CONDITIONS, _NOT_DISABLED),
    OPT_IN: (_CONDITIONS, ("In", "enabled")),
    BESIDE: (_CONDITIONS | _BESIDE, _NOT_DISABLED),
}


def webhook_configuration(
    mode: str = ALL, resources: Iterable[str] = (), namespace: str = NAMESPACE
) -> Json:
    """Make a MutatingWebhookConfiguration, without a caBundle.

    mode: a key of `MODES`. resources: the names of mapped extended resources, "nvidia.com/gpu".
    namespace: that of InstaSlice's Service.
    """
    service = {"name": NAME, "namespace": namespace, "path": "/mutate", "port": 443}
    pods = {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}
    not_ours = _selects("kubernetes.io/metadata.name", "NotIn", "kube-system", namespace)
    webhook = {
        "name": WEBHOOK,
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": service},
        "rules": [{**pods, "operations": ["CREATE", "UPDATE"], "scope": "Namespaced"}],
        "matchPolicy": "Equivalent",
        "matchConditions": match_conditions(mode, resources),
        "namespaceSelector": {"matchExpressions": [not_ours, _selects(LABEL, *MODES[mode][1])]},
        "objectSelector": {"matchExpressions": [_selects(LABEL, *_NOT_DISABLED)]},
        "failurePolicy": "Fail",
        "reinvocationPolicy": "IfNeeded",
        "sideEffects": "NoneOnDryRun",
        "timeoutSeconds": 5,
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": NAME},
        "webhooks": [webhook],
    }


def match_conditions(mode: str = ALL, resources: Iterable[str] = ()) -> list[Json]:
    """Make the webhook's `matchConditions`; parameters as in `webhook_configuration`."""
    # Names of resources and annotations need no escaping in CEL.
    mapped = sorted(set(resources))
    or_mapped = f" || name in {mapped}" if mapped else ""
    values = {
        "is_ours": f"name.startsWith('{RESOURCE_PREFIX}'){or_mapped}",
        "annotations": [ALTERNATIVES, PLACEMENT],
        "most": NEWEST.max_devices,  # the scheduler creates one claim for a whole pod
    }
    conditions = MODES[mode][0].items()
    return [{"name": name, "expression": shape.format(**values)} for name, shape in conditions]


def _selects(key: str, operator: str, *values: str) -> Json:
    """A LabelSelectorRequirement."""
    return {"key": key, "operator": operator, "values": list(values)}
