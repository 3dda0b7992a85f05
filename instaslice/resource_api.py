"""What differs between the versions of resource.k8s.io, as data.

=========  ==========  ===================================================
version    Kubernetes  change (KEP-3063 up to v1alpha2, KEP-4381 after it)
=========  ==========  ===================================================
v1alpha2   1.27-1.30   a pod's claim names its template under `source`;
                       a claim names a class, and parameters of the driver's
v1alpha3   1.31        flat claims in pods; requests with CEL selectors
v1beta1    1.32        as v1alpha3
v1beta2    1.33        a request's fields move under `exactly`
v1         1.34        as v1beta2
=========  ==========  ===================================================

A shape is JSON in which "{template}", "{attribute}" and "{label}" stand for the spellings of a
`profiles.Profile`.
"""

from dataclasses import dataclass
from typing import Final

from instaslice.patch import Json

GROUP: Final = "resource.k8s.io"

#: NVIDIA's DRA driver: the device class of its MIG slices, and the attribute with their profile.
DEVICE_CLASS: Final = "mig.nvidia.com"
PROFILE_IS: Final = "device.attributes['gpu.nvidia.com'].profile == '{attribute}'"

_REQUEST: Final[Json] = {
    "deviceClassName": DEVICE_CLASS,
    "selectors": [{"cel": {"expression": PROFILE_IS}}],
}
_FLAT: Final[Json] = {"devices": {"requests": [{"name": "{label}", **_REQUEST}]}}
_EXACTLY: Final[Json] = {"devices": {"requests": [{"name": "{label}", "exactly": _REQUEST}]}}
_CLASSIC: Final[Json] = {
    "resourceClassName": "gpu.nvidia.com",
    "parametersRef": {
        "apiGroup": "gpu.resource.nvidia.com",
        "kind": "MigDeviceClaimParameters",
        "name": "{template}",
    },
}
#: What the driver of that time reads a profile from, beside the template.
_CLASSIC_PARAMETERS: Final[Json] = {
    "apiVersion": "gpu.resource.nvidia.com/v1alpha1",
    "kind": "MigDeviceClaimParameters",
    "metadata": {"name": "{template}"},
    "spec": {"profile": "{attribute}"},
}


@dataclass(frozen=True, slots=True)
class ResourceAPI:
    """One version of resource.k8s.io."""

    version: str
    claim_spec: Json  #: shape of a ResourceClaim's spec that asks for one slice
    parameters: tuple[Json, ...] = ()  #: shapes of what that spec refers to
    #: A pod's claim holds its template's name under `source` (PodResourceClaim.source).
    claim_source: bool = False

    def pod_claim(self, name: str, template: str) -> Json:
        """An element of a pod's `spec.resourceClaims`."""
        source = {"resourceClaimTemplateName": template}
        return {"name": name, "source": source} if self.claim_source else {"name": name, **source}


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Why no version of resource.k8s.io can be used, as an administrator reads it."""

    reason: str


#: By version, oldest first.
VERSIONS: Final = {
    api.version: api
    for api in (
        ResourceAPI("v1alpha2", _CLASSIC, (_CLASSIC_PARAMETERS,), claim_source=True),
        ResourceAPI("v1alpha3", _FLAT),
        ResourceAPI("v1beta1", _FLAT),
        ResourceAPI("v1beta2", _EXACTLY),
        ResourceAPI("v1", _EXACTLY),
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
