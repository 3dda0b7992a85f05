"""Rewrites a pod that asks for devices as extended resources to ask for them through DRA.

The code refers to these rules by number:

R1  A MIG resource is `nvidia.com/mig-` and a well-spelt profile (`profiles`). Other names with that
    prefix stay, with a warning. A profile that no known GPU has is rewritten, with a warning. Other
    resources are rewritten if an administrator maps them (`resources`).
R2  A limit of n devices becomes one claim of n, named by a new UUID, from a template that asks for
    n (`templates`). There are three exceptions. A claim holds at most 32 devices, the API's bound,
    so a limit of 40 becomes two. In v1alpha2 a claim holds one device. R6 splits a limit if an init
    container uses some of its devices.
R3  The patch removes the resource from limits and requests, and a map that becomes empty.
R4  Claims that the pod already has stay, in their order; new ones follow.
R5  A limit of 0 asks for nothing and stays: containers decline a LimitRange's default by it.
R6  A pod holds as many devices as the scheduler counts for it (`claims`).
R7  What the API server would refuse is refused in the API server's words, never repaired.
R8  Bounds are checked before any loop over user input. A pod holds at most 112 devices, uses them
    at most 1,792 times, and has at most 1,792 entries in limits and requests, including those of 0.
    It has at most 224 claims of earlier passes, and 3,584 references to claims. Each of these
    claims is read once.
R9  Mirror pods stay unchanged, since the API server refuses claims on them.
R10 A later pass over its own result changes nothing. A limit that returns to a container with
    claims of that resource is a LimitRange's default, not a new wish. It becomes "0", which
    LimitRanger keeps and its checks accept. A limit in a container without such claims is a new
    wish, since another webhook may have added the container.
R11 An update may bring back limits that claims replaced; these are removed.
R12 The patch changes nothing else, except for an annotation that says what the pod asked for
    (`annotations`).
R13 Annotations ask for more than limits can (`annotations`).
"""

from collections.abc import Callable
from random import getrandbits
from typing import NamedTuple

from instaslice import annotations
from instaslice.claims import demands, new_claims, promised
from instaslice.containers import Decision, asking, count_devices
from instaslice.invalid import MAX_MESSAGES, Notice, printable, shorten
from instaslice.own_claims import decline, own_claims
from instaslice.patch import Json, Operation, change, extend
from instaslice.resource_api import ResourceAPI
from instaslice.resources import MIG, Resources
from instaslice.templates import DeviceClaim

#: Makes a claim's name from the name of the first container that uses it, and its template.
NewName = Callable[[str, str], str]


class Rewrite(NamedTuple):
    """A patch for a pod, and what it is based on."""

    operations: list[Operation]  #: RFC 6902; empty if the pod stays as it is
    claims: dict[DeviceClaim, int]  #: the numbers of new claims
    notices: list[Notice]  #: for the pod's author
    odd: list[str]  #: misspelt names of MIG resources (R1)
    requested: str = ""  #: what the pod asked for, if it has new claims

    @property
    def warnings(self) -> list[str]:
        """At most MAX_MESSAGES lines for the author."""
        return [*map(_left_alone, self.odd), *map(str, self.notices)][:MAX_MESSAGES]


def new_uuid(container: str, template: str) -> str:
    """Make a UUID of version 4 (RFC 9562); uuid4() takes much longer. The arguments are unused.

    It need not be secret, only unique in its pod.
    """
    digits = f"{getrandbits(128):032x}"
    variant = "89ab"[getrandbits(2)]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def rewrite(
    pod: Json, api: ResourceAPI, resources: Resources = MIG, new_name: NewName = new_uuid
) -> Rewrite:
    """Make the patch by which a new pod asks for its devices through DRA.

    pod: a v1 Pod as decoded JSON; it is not modified.
    Raises InvalidPod (R7, R8, R13).
    """
    found = annotations.of(pod)
    if annotations.MIRROR in found:
        return Rewrite([], {}, [], [])
    containers, odd = asking(pod, resources)
    if not containers:
        return Rewrite([], {}, [], odd)
    decisions = count_devices(containers)
    if own := own_claims(pod, resources):
        decisions = list(decline(decisions, own))
    wanted = demands(decisions, api)
    wishes, notices = promised(annotations.read(found, resources), wanted, api, again=bool(own))
    declared: list[Json] = []
    claims: dict[DeviceClaim, int] = {}
    references: list[list[Json]] = [[] for _ in decisions]
    for asks, uses in new_claims(wanted, api, wishes):
        name = new_name(decisions[uses[0][0]].container.name, asks.template)
        declared.append(api.pod_claim(name, asks.template))
        claims[asks] = claims.get(asks, 0) + 1
        for user, request in uses:
            reference = {"name": name, "request": request} if request else {"name": name}
            references[user].append(reference)
    operations: list[Operation] = []
    for each, fresh in zip(decisions, references, strict=True):
        operations += _container_operations(each, fresh)
    operations += extend("/spec/resourceClaims", pod["spec"].get("resourceClaims"), declared)
    for unknown in dict.fromkeys([each for claim in claims for each in claim.unknown]):
        text = f"InstaSlice knows no GPU with the MIG profile {unknown.profile}"
        notices.append(Notice(unknown.name, text))
    before = found.get(annotations.REQUESTED) if own else None
    requested = annotations.describe(decisions, before) if claims else ""
    return Rewrite(operations, claims, notices, odd, requested)


def _container_operations(decision: Decision, fresh: list[Json]) -> list[Operation]:
    """Replace a container's amounts (R3, R10) by references to its new claims (R4)."""
    container, claimed, declined = decision
    if not claimed and not declined:
        return []
    here, zeros = container.pointer, dict.fromkeys(declined, "0")
    operations = extend(f"{here}/claims", container.resources.get("claims"), fresh)
    operations += change(f"{here}/limits", container.limits, claimed, zeros)
    operations += change(f"{here}/requests", container.requests, claimed, zeros)
    return operations


def _left_alone(name: str) -> str:
    """The warning for a misspelt name of a MIG resource (R1)."""
    # Kubernetes asks for warnings of at most 120 characters, and a name may be long.
    shown = printable(shorten(name))
    return f"{shown} is left as it is: it is not a MIG profile such as mig-1g.5gb"
