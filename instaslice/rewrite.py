"""A pod that asks for devices by extended resources, rewritten to ask for them through DRA.

The rules, as they are numbered where the code applies them:

R1  A MIG resource is `nvidia.com/mig-` and a well-spelt profile (`profiles`). Any other name with
    that prefix is left as it is, with a warning. A profile that no known GPU has is rewritten,
    with a warning. Other resources are rewritten where an administrator maps them (`resources`).
R2  A limit of n devices becomes one claim of n, named by a fresh UUID, from a template that asks
    for n (`templates`). Three exceptions: a claim holds at most 32, the API's own bound, so a limit
    of 40 has two; in v1alpha2 a claim holds one; and R6 splits a limit of which an init container
    uses a part.
R3  The resource leaves limits and requests, and a map left empty goes too.
R4  Claims that the pod already has stay, in their order; new ones follow.
R5  A limit of 0 asks for nothing and stays as it is: so a container declines the default of a
    LimitRange.
R6  Devices are held as the scheduler holds them (`claims`).
R7  What the API server would refuse is refused in the API server's words, never repaired.
R8  Bounds are checked before any loop over what was typed: at most 112 devices held by a pod, 1,792
    uses of them, and 1,792 entries in limits and requests, those of 0 counted. Of claims that an
    earlier pass may have made, and of references to them, a pod has at most twice as many. Each of
    those claims is understood once.
R9  Mirror pods are left alone: the API server refuses claims on them.
R10 A later pass over its own result changes nothing. A limit that comes back beside a container's
    own claims of that resource is a LimitRange's default and no new wish: it becomes "0", which
    LimitRanger leaves alone and its checks accept. A limit in a container without such claims is a
    wish, for another webhook may have added the container.
R11 On update, limits that only return to where claims already stand for them are taken out.
R12 The patch touches nothing else, but for an annotation that the webhook adds, of what the pod
    asked for (`annotations`).
R13 Annotations ask for more than limits can (`annotations`).
"""

from collections.abc import Callable
from secrets import token_hex
from typing import Final, NamedTuple

from instaslice import annotations
from instaslice.claims import demands, new_claims, promised
from instaslice.containers import Settled, asking, count_devices, settle
from instaslice.invalid import MAX_MESSAGES, Notice, printable, shorten
from instaslice.own_claims import devices_of, own_claims
from instaslice.patch import Json, Operation, change, extend
from instaslice.resource_api import ResourceAPI
from instaslice.resources import MIG, Resources
from instaslice.templates import DeviceClaim

#: By a random digit, the digit of a UUID that says its variant.
_VARIANTS: Final = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))

#: Names a claim: given the name of the first container that uses it, and its template.
NewName = Callable[[str, str], str]


class Rewrite(NamedTuple):
    """A patch for a pod, and the understanding that led to it."""

    operations: list[Operation]  #: RFC 6902; empty where nothing is to be done
    claims: dict[DeviceClaim, int]  #: new ones, by what they ask for
    notices: list[Notice]  #: for the person who wrote the pod
    odd: list[str]  #: names that begin like a MIG resource and are none (R1)
    requested: str = ""  #: what the pod asked for, where it has new claims

    @property
    def warnings(self) -> list[str]:
        """A few lines for the author."""
        return [*map(_left_alone, self.odd), *map(str, self.notices)][:MAX_MESSAGES]


def new_uuid(container: str, template: str) -> str:
    """A UUID of version 4 (RFC 9562), whatever the claim is for; uuid4() takes much longer."""
    digits = token_hex(16)
    variant = _VARIANTS[digits[16]]
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"


def rewrite(
    pod: Json, api: ResourceAPI, resources: Resources = MIG, new_name: NewName = new_uuid
) -> Rewrite:
    """Make a new pod ask for its devices through DRA.

    pod: a v1 Pod as decoded JSON; it is not modified.
    Raises InvalidPod (R7, R8, R13).
    """
    found = annotations.of(pod)
    if annotations.MIRROR in found:
        return Rewrite([], {}, [], [])
    containers, odd = asking(pod, resources)
    if not containers:
        return Rewrite([], {}, [], odd)
    counts = count_devices(containers)
    own = own_claims(pod, resources)
    settled = list(map(settle, containers, counts, devices_of(containers, own)))
    wanted = demands(settled, api)
    wishes, notices = promised(annotations.read(found, resources), wanted, api, again=bool(own))
    declared: list[Json] = []
    claims: dict[DeviceClaim, int] = {}
    references: list[list[Json]] = [[] for _ in settled]
    for asks, uses in new_claims(wanted, api, wishes):
        name = new_name(settled[uses[0][0]].container.name, asks.template)
        declared.append(api.pod_claim(name, asks.template))
        claims[asks] = claims.get(asks, 0) + 1
        for user, request in uses:
            reference = {"name": name, "request": request} if request else {"name": name}
            references[user].append(reference)
    operations: list[Operation] = []
    for each, fresh in zip(settled, references, strict=True):
        operations += _container_operations(each, fresh)
    operations += extend("/spec/resourceClaims", pod["spec"].get("resourceClaims"), declared)
    unknown = {profile.resource: profile for claim in claims for profile in claim.unknown}
    for name, profile in unknown.items():
        text = f"InstaSlice knows no GPU with the MIG profile {profile.attribute}"
        notices.append(Notice(name, text))
    before = found.get(annotations.REQUESTED) if own else None
    requested = annotations.describe(settled, before) if claims else ""
    return Rewrite(operations, claims, notices, odd, requested)


def _container_operations(settled: Settled, fresh: list[Json]) -> list[Operation]:
    """Take what is claimed out of a container (R3, R10) and put its new claims in (R4)."""
    container, claimed, declined = settled
    if not claimed and not declined:
        return []
    here, zeros = container.pointer, dict.fromkeys(declined, "0")
    operations = extend(f"{here}/claims", container.resources.get("claims"), fresh)
    operations += change(f"{here}/limits", container.limits, claimed, zeros)
    operations += change(f"{here}/requests", container.requests, claimed, zeros)
    return operations


def _left_alone(name: str) -> str:
    """The warning for a name that starts like a MIG resource and is not one (R1)."""
    # Kubernetes asks for warnings of at most 120 characters, and the name is what a user typed.
    shown = printable(shorten(name))
    return f"{shown} is left as it is: it is not spelt like a MIG profile, as mig-1g.5gb is"
