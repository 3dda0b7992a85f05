"""Rewrite a pod, and inspect the result."""

from instaslice.resource_api import NEWEST, ResourceAPI
from instaslice.resources import MIG, Resources
from instaslice.rewrite import rewrite
from test.support.pods import Json
from test.support.reviews import apply


def rewritten(pod: Json, api: ResourceAPI = NEWEST, resources: Resources = MIG) -> Json:
    return apply(rewrite(pod, api, resources).operations, pod)


def template_of(claim: Json) -> str:
    return str(claim.get("source", claim)["resourceClaimTemplateName"])


def slices_of(template: str) -> tuple[str, int]:
    """The template for one slice, and the number of slices: ("mig-1g.5gb", 2) of mig-1g.5gb.x2."""
    base, _, count = template.partition(".x")
    return base, int(count or 1)


def claims_of(container: Json) -> list[str]:
    return [c["name"] for c in (container.get("resources") or {}).get("claims") or []]


def templates_of(pod: Json, api: ResourceAPI = NEWEST) -> list[str]:
    return [template_of(claim) for claim in rewritten(pod, api)["spec"]["resourceClaims"]]
