"""The differences between the versions of resource.k8s.io, as data.

=========  ==========  ===================================================
version    Kubernetes  change (KEP-3063 up to v1alpha2, KEP-4381 after it)
=========  ==========  ===================================================
v1alpha2   1.27-1.30   a pod's claim names its template under `source`;
                       a claim names a class, and parameters of the driver's
v1alpha3   1.31        flat claims in pods; requests with CEL selectors
v1beta1    1.32        as v1alpha3
v1beta2    1.33        a request's fields move under `exactly`
v1         1.34        as v1beta2, and `firstAvailable` beside `exactly`
=========  ==========  ===================================================
"""

from dataclasses import dataclass, replace
from typing import Any, Final

GROUP: Final = "resource.k8s.io"

#: What only some versions, or clusters with a feature gate on, can do.
#: A request for the first of several classes that can be had: `firstAvailable` (KEP-4816, gate
#: DRAPrioritizedList, on by default since 1.34).
ALTERNATIVES: Final = "alternatives"
#: Devices that agree in an attribute: `matchAttribute` (KEP-4381).
SAME_GPU: Final = "same-gpu"
#: Devices that differ in one: `distinctAttribute` (KEP-5075, gate DRAConsumableCapacity, on by
#: default since 1.36). The API server drops it, or refuses it, where the gate is off.
DIFFERENT_GPUS: Final = "different-gpus"
#: By such a wish for the devices of a claim, the constraint on them (DeviceConstraint).
CONSTRAINTS: Final = {SAME_GPU: "matchAttribute", DIFFERENT_GPUS: "distinctAttribute"}
#: The scheduler serves an extended resource by a class: `extendedResourceName` (KEP-5004, gate
#: DRAExtendedResource, on by default since 1.36). The API server drops it where the gate is off.
EXTENDED_RESOURCES: Final = "extended-resources"


@dataclass(frozen=True, slots=True)
class ResourceAPI:
    """One version of resource.k8s.io, and what of it a cluster serves."""

    version: str
    #: Devices that one claim can hold: AllocationResultsMaxSize of the API. The parameters that
    #: v1alpha2's driver reads hold one.
    max_devices: int = 32
    #: A claim asks by `resourceClassName` and an object of the driver's, and not by requests.
    is_classic: bool = False
    #: A request holds what it asks for under `exactly`.
    has_exactly: bool = False
    #: Of those above; discovery takes away what the API server does not keep.
    features: frozenset[str] = frozenset()

    @property
    def without_proof(self) -> "ResourceAPI":
        """The version as far as it can be relied on without asking the API server.

        Kubernetes 1.34 keeps `distinctAttribute` while its gate is off, and its scheduler then
        ignores it: a placement would silently mean nothing.
        """
        return replace(self, features=self.features - {DIFFERENT_GPUS})

    @property
    def group_version(self) -> str:
        """The `apiVersion` of its objects, "resource.k8s.io/v1"."""
        return f"{GROUP}/{self.version}"

    def pod_claim(self, name: str, template: str) -> dict[str, Any]:
        """An element of a pod's `spec.resourceClaims`."""
        source = {"resourceClaimTemplateName": template}
        return {"name": name, "source": source} if self.is_classic else {"name": name, **source}


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Why no version of resource.k8s.io can be used, as an administrator reads it."""

    reason: str


_PLACED: Final = frozenset({SAME_GPU})
_EVERY: Final = frozenset({ALTERNATIVES, SAME_GPU, DIFFERENT_GPUS, EXTENDED_RESOURCES})

#: By version, oldest first.
VERSIONS: Final = {
    api.version: api
    for api in (
        ResourceAPI("v1alpha2", max_devices=1, is_classic=True),
        ResourceAPI("v1alpha3", features=_PLACED),
        ResourceAPI("v1beta1", features=_PLACED),
        ResourceAPI("v1beta2", has_exactly=True, features=_PLACED),
        ResourceAPI("v1", has_exactly=True, features=_EVERY),
    )
}
NEWEST: Final = VERSIONS["v1"]


def template_name(pod_claim: object) -> object:
    """The template that an element of `spec.resourceClaims` names, in either shape, or None."""
    if not isinstance(pod_claim, dict):
        return None
    source = pod_claim.get("source")
    holder = source if isinstance(source, dict) else pod_claim
    return holder.get("resourceClaimTemplateName")
