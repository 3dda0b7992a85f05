"""The MutatingWebhookConfiguration by which the API server sends InstaSlice its pods, as data.

Pure. A mode says which pods are InstaSlice's; a pod must pass all of its conditions to be sent, so
that failing closed can stop no other pod.

====================  ==============================================================================
mode                  what is sent
====================  ==============================================================================
all                   every pod with a limit that is rewritten
opt-in                likewise, in namespaces labelled `instaslice.io/rewrite: enabled`
beside-the-scheduler  what the scheduler's own way (KEP-5004, Kubernetes 1.36) cannot do: pods with
                      an annotation of InstaSlice's, or with more devices than a claim holds
====================  ==============================================================================

Source: MutatingWebhook.matchConditions (KEP-3716, Kubernetes 1.28), evaluated by the API server
with a budget; an error in one refuses the pod. The API server passes on `containers: null`, and
leaves out what is empty.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from instaslice.annotations import ALTERNATIVES, PLACEMENT
from instaslice.patch import Json
from instaslice.profiles import RESOURCE_PREFIX
from instaslice.resource_api import NEWEST

NAME: Final = "instaslice"
#: The webhook in it: as metrics, error messages and audit annotations name it.
WEBHOOK: Final = "rewrite.instaslice.io"
#: Where `config/` installs InstaSlice.
NAMESPACE: Final = "instaslice-system"
#: On a namespace or a pod: "disabled" keeps InstaSlice away; in mode opt-in, "enabled" on a
#: namespace lets it in.
LABEL: Final = "instaslice.io/rewrite"
ALL: Final = "all"
OPT_IN: Final = "opt-in"
BESIDE: Final = "beside-the-scheduler"

# A request without a limit is refused by the API server itself, so limits are enough.
_HAS_A_LIMIT: Final = """\
['containers', 'initContainers'].exists(kind,
  kind in object.spec && object.spec[kind] != null && object.spec[kind].exists(container,
    has(container.resources) && has(container.resources.limits) &&
      container.resources.limits.exists(name, {is_ours})))"""
# Labels and finalizers of pods that had their slices before InstaSlice came are not its business.
_IS_NEW: Final = "request.operation == 'CREATE' || object.spec != oldObject.spec"
# The sum counts init containers in full, and so at least what the scheduler would ask for. What is
# no integer is refused by the API server itself; what is huge must not overflow.
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

#: Conditions by name, in the order in which they are asked.
_CONDITIONS: Final = {"has-a-mig-limit": _HAS_A_LIMIT, "is-new-or-has-another-spec": _IS_NEW}
_BESIDE: Final = {"is-too-much-for-the-scheduler": _IS_TOO_MUCH_FOR_THE_SCHEDULER}

#: What `LABEL` must be, as operator and value of a label selector.
_NOT_DISABLED: Final = ("NotIn", "disabled")

#: By mode: the conditions, and what a namespace's label must be.
MODES: Final[Mapping[str, tuple[Mapping[str, str], tuple[str, str]]]] = {
    ALL: (_CONDITIONS, _NOT_DISABLED),
    OPT_IN: (_CONDITIONS, ("In", "enabled")),
    BESIDE: (_CONDITIONS | _BESIDE, _NOT_DISABLED),
}


def webhook_configuration(
    mode: str = ALL, resources: Iterable[str] = (), namespace: str = NAMESPACE
) -> Json:
    """The manifest of a MutatingWebhookConfiguration, without a caBundle.

    mode: a key of `MODES`. resources: names of extended resources that are rewritten, beside MIG
    slices, "nvidia.com/gpu". namespace: where InstaSlice's Service is.
    """
    service = {"name": NAME, "namespace": namespace, "path": "/mutate", "port": 443}
    not_ours = _selects("kubernetes.io/metadata.name", "NotIn", "kube-system", namespace)
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": NAME},
        "webhooks": [
            {
                "name": WEBHOOK,
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"service": service},
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "resources": ["pods"],
                        "operations": ["CREATE", "UPDATE"],
                        "scope": "Namespaced",
                    }
                ],
                "matchPolicy": "Equivalent",
                "matchConditions": match_conditions(mode, resources),
                "namespaceSelector": {
                    "matchExpressions": [not_ours, _selects(LABEL, *MODES[mode][1])]
                },
                "objectSelector": {"matchExpressions": [_selects(LABEL, *_NOT_DISABLED)]},
                "failurePolicy": "Fail",
                "reinvocationPolicy": "IfNeeded",
                "sideEffects": "NoneOnDryRun",
                "timeoutSeconds": 5,
            }
        ],
    }


def match_conditions(mode: str = ALL, resources: Iterable[str] = ()) -> list[Json]:
    """The webhook's `matchConditions` alone; parameters as those of `webhook_configuration`."""
    # Names of resources and annotations have nothing to escape in CEL.
    mapped = sorted(set(resources))
    or_mapped = f" || name in {mapped}" if mapped else ""
    values = {
        "is_ours": f"name.startsWith('{RESOURCE_PREFIX}'){or_mapped}",
        "annotations": [ALTERNATIVES, PLACEMENT],
        "most": NEWEST.max_devices,  # since the scheduler makes one claim for all of a pod
    }
    conditions = MODES[mode][0].items()
    return [{"name": name, "expression": shape.format(**values)} for name, shape in conditions]


def _selects(key: str, operator: str, *values: str) -> Json:
    """A LabelSelectorRequirement."""
    return {"key": key, "operator": operator, "values": list(values)}
