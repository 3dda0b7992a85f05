"""Pods of every kind for hypothesis, and the expected result, computed in another way.

The expected pod is an edited copy, built slice by slice without a patch. The number of slices comes
from the closed formula of R6.
"""

import copy
from collections.abc import Iterator
from itertools import groupby
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

Json = dict[str, Any]

#: A quarter of the profile's examples, for tests whose examples cost tens of milliseconds.
FEWER = settings(max_examples=(settings.default or settings()).max_examples // 4)

PREFIX = "nvidia.com/mig-"
PROFILES = ["1g.5gb", "1g.5gb.me", "3g.20gb", "1g.24gb-me", "9g.999gb"]
ODD = ["nvidia.com/mig-banana", "nvidia.com/mig-1g.5gb.shared"]
OTHERS = ["cpu", "memory", "nvidia.com/gpu", "example.com/a~b/c", *ODD]

#: Spellings of the quantity n.
SPELLINGS = [
    "{n}",
    "+{n}",
    "0{n}",
    "{n}e0",
    "{n}E0",
    "{n}000m",
    "{n}000000u",
    "{n}.0",
    "0.00{n}k",
    "{n}000e-3",
]


# Created once: creating strategies for each draw took half of the time of a property test.
_YES_OR_NO: st.SearchStrategy[bool] = st.booleans()
_NULL_OR_EMPTY = st.sampled_from(["null", "empty"])
#: A small number, and a spelling of it.
_AMOUNTS = st.tuples(st.integers(0, 4), st.sampled_from(SPELLINGS) | st.none()).map(
    lambda pair: (pair[0], pair[0] if pair[1] is None else pair[1].format(n=pair[0]))
)
_MIG = st.dictionaries(st.sampled_from(PROFILES), _AMOUNTS, max_size=3)
_OTHERS = st.dictionaries(st.sampled_from(OTHERS), st.just("1"), max_size=2)
_ORDER = st.permutations(range(5))  # there are at most five entries
_ONE_IN_TEN = st.integers(0, 9).map(lambda n: n == 0)
_REQUESTS = st.sampled_from(["same", "other", "missing"])
_CLAIMS = st.sampled_from([0, 0, 0, 1, 2])
_NAMES = st.text("abc", min_size=1, max_size=5)
_POLICIES = st.sampled_from([None, None, "Always", "missing"])
_POD_CLAIMS = st.sampled_from(["missing", "null", "empty", "theirs"])


def _nothing(draw: st.DrawFn, empty: Any) -> Any:
    """Null or empty, which mean the same."""
    return None if draw(_NULL_OR_EMPTY) == "null" else empty


@st.composite
def _resources(draw: st.DrawFn) -> Json | None:
    if draw(_ONE_IN_TEN):
        return None
    found: Json = {}
    mig, other = draw(_MIG), draw(_OTHERS)
    named = sorted(
        [*((PREFIX + profile, text) for profile, (_, text) in mig.items()), *other.items()]
    )
    limits: Json = dict(named[at] for at in draw(_ORDER) if at < len(named))
    # The API server copies limits into requests; a user may have written them, in any spelling.
    requests: Json = dict(other) if draw(_YES_OR_NO) else {}
    for profile, (n, text) in mig.items():
        spelling = draw(_REQUESTS)
        if spelling != "missing":
            requests[PREFIX + profile] = text if spelling == "same" else f"{n}000m"
    for key, values in (("limits", limits), ("requests", requests)):
        if bool(values) or draw(_YES_OR_NO):
            found[key] = values or _nothing(draw, {})
    claims = draw(_CLAIMS)
    if claims or draw(_YES_OR_NO):
        names = [{"name": "theirs"}, {"name": "ours", "request": "gpu"}][:claims]
        found["claims"] = names or _nothing(draw, [])
    return found


_RESOURCES = _resources()


@st.composite
def _containers(draw: st.DrawFn, init: bool) -> Json:
    container: Json = {"name": draw(_NAMES), "x-unknown": {"kept": [1]}}
    if init:
        policy = draw(_POLICIES)
        if policy != "missing":
            container["restartPolicy"] = policy
    found = draw(_RESOURCES)
    if found is not None or draw(_YES_OR_NO):
        container["resources"] = found
    return container


_CONTAINERS = st.lists(_containers(init=False), min_size=1, max_size=4)
_INIT_CONTAINERS = st.lists(_containers(init=True), max_size=4)


@st.composite
def pods(draw: st.DrawFn) -> Json:
    """Any mix of containers, init containers and sidecars, valid as far as MIG goes."""
    spec: Json = {"containers": draw(_CONTAINERS)}
    inits = draw(_INIT_CONTAINERS)
    if bool(inits) or draw(_YES_OR_NO):
        spec["initContainers"] = inits or _nothing(draw, [])
    claims = draw(_POD_CLAIMS)
    if claims != "missing":
        theirs = [
            {"name": "theirs", "resourceClaimName": "shared"},
            {"name": "ours", "resourceClaimTemplateName": "mig-1g.5gb"},
        ]
        spec["resourceClaims"] = {"null": None, "empty": [], "theirs": theirs}[claims]
    pod: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    if draw(_YES_OR_NO):
        pod["status"] = {}
    return pod


def each(pod: Json) -> Iterator[tuple[str, int, Json]]:
    """Containers and then init containers, each with its kind and index."""
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(pod["spec"].get(kind) or []):
            yield kind, index, container


def asked(container: Json) -> dict[str, int]:
    """Template for one slice -> slices that a container's limits ask for, if not 0."""
    limits = (container.get("resources") or {}).get("limits") or {}
    found = {
        name.removeprefix("nvidia.com/"): number(text)
        for name, text in limits.items()
        if name.removeprefix(PREFIX) in PROFILES
    }
    return {template: slices for template, slices in found.items() if slices}


def number(text: str | int) -> int:
    """The n of a spelling."""
    texts = {t.format(n=n): n for n in range(5) for t in SPELLINGS}
    return text if isinstance(text, int) else texts[text]


def is_ordinary(kind: str, container: Json) -> bool:
    return kind == "initContainers" and container.get("restartPolicy") != "Always"


def held(pod: Json, template: str) -> int:
    """The number of slices of a template that the pod holds: the formula of R6."""
    lasting, most, before = 0, 0, 0
    for kind, _, container in each(pod):
        slices = asked(container).get(template, 0)
        if is_ordinary(kind, container):
            most = max(most, slices + before)
            continue
        lasting += slices
        if kind == "initContainers":
            before += slices
    return max(lasting, most)


def expected(pod: Json, *, nested: bool = False, most: int = 32) -> Json:
    """The pod after rewriting, its new claims named "1", "2", ... in order.

    nested: claims name their template under `source` (v1alpha2).
    most: the slices that a claim can hold.
    """
    result = copy.deepcopy(pod)
    claims = hand_out(pod, most)
    for user, (_, _, container) in enumerate(each(result)):
        mine = [str(n) for n, (users, _, _) in enumerate(claims, 1) if user in users]
        if container.get("resources"):
            edit(container, mine)
    if claims:
        declared = [
            declare(str(n), template + (f".x{slices}" if slices > 1 else ""), nested)
            for n, (_, template, slices) in enumerate(claims, 1)
        ]
        result["spec"]["resourceClaims"] = [*(pod["spec"].get("resourceClaims") or []), *declared]
    return result


class Slot:
    """A slice that a pod holds, and the containers that use it."""

    def __init__(self, owner: int | None, free_after: int) -> None:
        self.owner = owner
        self.free_after = free_after  #: only init containers before this index use it
        self.users = set() if owner is None else {owner}


def hand_out(pod: Json, most: int) -> list[tuple[set[int], str, int]]:
    """The claims of a pod: its users, its template for one slice, and its number of slices.

    Each slice is given to its owner, and then to the init containers that reach it. Neighbours with
    the same users form a claim.
    """
    every = list(each(pod))
    claims: list[tuple[set[int], str, int]] = []
    for template in dict.fromkeys(t for *_, c in every for t in asked(c)):
        slots: list[Slot] = []
        sidecars: list[Slot] = []
        for user, (kind, index, container) in enumerate(every):
            mine = asked(container).get(template, 0)
            if kind == "containers":
                slots += [Slot(user, 10**6) for _ in range(mine)]
            elif not is_ordinary(kind, container):
                sidecars = [*(Slot(user, index) for _ in range(mine)), *sidecars]
        extras = held(pod, template) - len(slots) - len(sidecars)
        slots += [Slot(None, 10**6) for _ in range(extras)] + sidecars
        for user, (kind, index, container) in enumerate(every):
            if is_ordinary(kind, container):
                mine = asked(container).get(template, 0)
                reached = [slot for slot in slots if slot.free_after > index][:mine]
                assert len(reached) == mine
                for slot in reached:
                    slot.users.add(user)
        for _, run in groupby(slots, key=lambda slot: (slot.owner, sorted(slot.users))):
            same = list(run)
            starts = range(0, len(same), most)
            claims += [(same[0].users, template, len(same[s : s + most])) for s in starts]
    return sorted(claims, key=lambda claim: min(claim[0]))


def edit(container: Json, new: list[str]) -> None:
    """Replace a container's MIG resources that are not 0 by claims."""
    resources = container["resources"]
    gone = {f"nvidia.com/{template}" for template in asked(container)}
    for key in ("limits", "requests"):
        amounts = resources.get(key) or {}
        left = {name: n for name, n in amounts.items() if name not in gone}
        if left:
            resources[key] = left
        elif amounts:
            del resources[key]
    if new:
        resources["claims"] = [*(resources.get("claims") or []), *({"name": n} for n in new)]


def is_mig(resource: str) -> bool:
    return resource.removeprefix(PREFIX) in PROFILES


def declare(name: str, template: str, nested: bool) -> Json:
    source = {"resourceClaimTemplateName": template}
    return {"name": name, "source": source} if nested else {"name": name, **source}


# -- pods written by hand ------------------------------------------------------------------------

MIG = "nvidia.com/mig-1g.5gb"


def pod_of(*containers: Json, **spec: Any) -> Json:
    return {"metadata": {"name": "p"}, "spec": {"containers": list(containers), **spec}}


def limits(n: object, **more: Any) -> Json:
    return {"name": "c", "resources": {"limits": {MIG: n}, **more}}
