"""What differs between the versions of resource.k8s.io, as data.

=========  ==========  ===================================================
version    Kubernetes  change (KEP-3063 up to v1alpha2, KEP-4381 after it)
=========  ==========  ===================================================
v1alpha2   1.27-1.30   a pod's claim names its template under `source`
v1alpha3   1.31        flat claims; requests with selectors
v1beta1    1.32        as v1alpha3
v1beta2    1.33        a request's fields move under `exactly`
v1         1.34        as v1beta2
=========  ==========  ===================================================
"""

from dataclasses import dataclass
from typing import Any, Final

GROUP: Final = "resource.k8s.io"


@dataclass(frozen=True, slots=True)
class ResourceAPI:
    """One version of resource.k8s.io."""

    version: str
    #: A pod's claim holds its template's name under `source` (PodResourceClaim.source).
    claim_source: bool = False

    def pod_claim(self, name: str, template: str) -> dict[str, Any]:
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
        ResourceAPI("v1alpha2", claim_source=True),
        ResourceAPI("v1alpha3"),
        ResourceAPI("v1beta1"),
        ResourceAPI("v1beta2"),
        ResourceAPI("v1"),
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
