"""The differences between the versions of resource.k8s.io, as data.

=========  ==========  ===================================================
version    Kubernetes  change (KEP-3063 up to v1alpha2, KEP-4381 after it)
=========  ==========  ===================================================
v1alpha2   1.27-1.30   a pod's claim names its template under `source`;
                       a claim names a class, and parameters for the driver
v1alpha3   1.31        flat claims in pods; requests with CEL selectors
v1beta1    1.32        as v1alpha3
v1beta2    1.33        a request's fields move under `exactly`
v1         1.34        as v1beta2, and `firstAvailable` beside `exactly`
=========  ==========  ===================================================
"""

from dataclasses import dataclass, replace
from typing import Any, Final

GROUP: Final = "resource.k8s.io"

#: Features that only some versions have, or only clusters with a feature gate on.
#: A request may list several classes and get the first available: `firstAvailable` (KEP-4816, gate
#: DRAPrioritizedList, on by default since 1.34).
ALTERNATIVES: Final = "alternatives"
#: Devices may be required to share an attribute: `matchAttribute` (KEP-4381).
SAME_GPU: Final = "same-gpu"
#: Devices may be required to differ in one: `distinctAttribute` (KEP-5075, gate
#: DRAConsumableCapacity, on by default since 1.36). If it is off, the API server drops the field or
#: refuses the object.
DIFFERENT_GPUS: Final = "different-gpus"
#: The field of DeviceConstraint for each of these two placements.
CONSTRAINTS: Final = {SAME_GPU: "matchAttribute", DIFFERENT_GPUS: "distinctAttribute"}
#: A class may let the scheduler serve an extended resource: `extendedResourceName` (KEP-5004, gate
#: DRAExtendedResource, on by default since 1.36). The API server drops it if the gate is off.
EXTENDED_RESOURCES: Final = "extended-resources"


@dataclass(frozen=True, slots=True)
class ResourceAPI:
    """A version of resource.k8s.io, and the features of it that a cluster serves."""

    version: str
    #: The most devices of a claim: AllocationResultsMaxSize of the API. In v1alpha2 the driver's
    #: parameters ask for one.
    max_devices: int = 32
    #: A claim has `resourceClassName` and names a parameters object, instead of requests.
    is_classic: bool = False
    #: A request has its fields under `exactly`.
    has_exactly: bool = False
    #: A subset of the above; discovery removes those that the API server does not keep.
    features: frozenset[str] = frozenset()

    @property
    def without_proof(self) -> "ResourceAPI":
        """The version without the features that need a check with the API server.

        Kubernetes 1.34 keeps `distinctAttribute` while its gate is off, and its scheduler then
        ignores it, so a placement would silently have no effect.
        """
        return replace(self, features=self.features - {DIFFERENT_GPUS})

    @property
    def group_version(self) -> str:
        """The `apiVersion` of its objects, "resource.k8s.io/v1"."""
        return f"{GROUP}/{self.version}"

    def pod_claim(self, name: str, template: str) -> dict[str, Any]:
        """Make an element of a pod's `spec.resourceClaims`."""
        if self.is_classic:
            return {"name": name, "source": {"resourceClaimTemplateName": template}}
        return {"name": name, "resourceClaimTemplateName": template}


@dataclass(frozen=True, slots=True)
class Unavailable:
    """The reason, for an administrator, why no version of resource.k8s.io can be used."""

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
    """The template named by an element of `spec.resourceClaims`, in either form, or None."""
    if not isinstance(pod_claim, dict):
        return None
    source = pod_claim.get("source")
    holder = source if isinstance(source, dict) else pod_claim
    return holder.get("resourceClaimTemplateName")
