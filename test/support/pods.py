"""Pods of every kind for hypothesis, and what InstaSlice must make of them, computed another way.

The expected pod is built by editing a copy of the pod, not by a patch, and the number of claims by
the closed formula of R6, not by handing out claims one after the other.
"""

import copy
from collections.abc import Iterator
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

#: Ways to write n.
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


def amounts() -> st.SearchStrategy[tuple[int, str | int]]:
    """A small number, and a spelling of it."""
    return st.tuples(st.integers(0, 4), st.sampled_from(SPELLINGS) | st.none()).map(
        lambda pair: (pair[0], pair[0] if pair[1] is None else pair[1].format(n=pair[0]))
    )


@st.composite
def resources(draw: st.DrawFn) -> Json | None:
    if draw(st.integers(0, 9)) == 0:
        return None
    found: Json = {}
    mig = draw(st.dictionaries(st.sampled_from(PROFILES), amounts(), max_size=3))
    other = draw(st.dictionaries(st.sampled_from(OTHERS), st.just("1"), max_size=2))
    limits: Json = {PREFIX + profile: text for profile, (_, text) in mig.items()} | other
    limits = dict(draw(st.permutations(sorted(limits.items()))))
    # The API server copies limits into requests; a user may have written them, in any spelling.
    requests: Json = dict(draw(st.sampled_from([other, {}])))
    for profile, (n, text) in mig.items():
        spelling = draw(st.sampled_from(["same", "other", "missing"]))
        if spelling != "missing":
            requests[PREFIX + profile] = text if spelling == "same" else f"{n}000m"
    for key, values in (("limits", limits), ("requests", requests)):
        if values or draw(st.sampled_from([True, False])):
            found[key] = values or draw(st.sampled_from([None, {}]))
    claims = draw(st.sampled_from([0, 0, 0, 1, 2]))
    if claims or draw(st.booleans()):
        names = [{"name": "theirs"}, {"name": "ours", "request": "gpu"}][:claims]
        found["claims"] = names or draw(st.sampled_from([None, []]))
    return found


@st.composite
def containers(draw: st.DrawFn, init: bool) -> Json:
    container: Json = {
        "name": draw(st.text("abc", min_size=1, max_size=5)),
        "x-unknown": {"kept": [1]},
    }
    if init:
        policy = draw(st.sampled_from([None, None, "Always", "missing"]))
        if policy != "missing":
            container["restartPolicy"] = policy
    found = draw(resources())
    if found is not None or draw(st.booleans()):
        container["resources"] = found
    return container


@st.composite
def pods(draw: st.DrawFn) -> Json:
    """Any mix of containers, init containers and sidecars, valid as far as MIG goes."""
    spec: Json = {"containers": draw(st.lists(containers(init=False), min_size=1, max_size=4))}
    inits = draw(st.lists(containers(init=True), max_size=4))
    if inits or draw(st.sampled_from([True, False])):
        spec["initContainers"] = inits or draw(st.sampled_from([None, []]))
    theirs = [
        {"name": "theirs", "resourceClaimName": "shared"},
        {"name": "ours", "resourceClaimTemplateName": "mig-1g.5gb"},
    ]
    claims = draw(st.sampled_from(["missing", None, [], theirs]))
    if claims != "missing":
        spec["resourceClaims"] = copy.deepcopy(claims)
    pod: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": spec}
    if draw(st.booleans()):
        pod["status"] = {}
    return pod


def each(pod: Json) -> Iterator[tuple[str, int, Json]]:
    """Containers and then init containers, each with its kind and index."""
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(pod["spec"].get(kind) or []):
            yield kind, index, container


def asked(container: Json) -> dict[str, int]:
    """Template -> slices that a container's limits ask for."""
    limits = (container.get("resources") or {}).get("limits") or {}
    return {
        name.removeprefix("nvidia.com/"): number(text)
        for name, text in limits.items()
        if name.removeprefix(PREFIX) in PROFILES
    }


def number(text: str | int) -> int:
    """The n that `amounts` spelt."""
    texts = {t.format(n=n): n for n in range(5) for t in SPELLINGS}
    return text if isinstance(text, int) else texts[text]


def is_ordinary(kind: str, container: Json) -> bool:
    return kind == "initContainers" and container.get("restartPolicy") != "Always"


def held(pod: Json, template: str) -> int:
    """How many claims of a template the pod holds: the formula of R6."""
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


def expected(pod: Json, nested: bool) -> Json:
    """The pod after rewriting, its new claims named "<template>/<number>".

    nested: claims name their template under `source` (v1alpha2).
    """
    result = copy.deepcopy(pod)
    handed, order = hand_out(pod)
    for kind, index, container in each(result):
        if container.get("resources"):
            edit(container, handed.get((kind, index), []))
    if order:
        declared = [declare(name, template, nested) for name, template in order]
        result["spec"]["resourceClaims"] = [*(pod["spec"].get("resourceClaims") or []), *declared]
    return result


def hand_out(pod: Json) -> tuple[dict[tuple[str, int], list[str]], list[tuple[str, str]]]:
    """New claims for each container, and all of them with their templates in order."""
    handed: dict[tuple[str, int], list[str]] = {}
    order: list[tuple[str, str]] = []
    #: The claims of each template: (name, index of the init container before which it is free).
    pool: dict[str, list[tuple[str, int]]] = {}

    def make(template: str, bound: int) -> str:
        claims = pool.setdefault(template, [])
        claims.append((f"{template}/{len(claims) + 1}", bound))
        order.append((claims[-1][0], template))
        return claims[-1][0]

    always = 10**6
    for kind, index, container in each(pod):
        if not is_ordinary(kind, container):
            bound = index if kind == "initContainers" else always
            handed[kind, index] = [
                make(template, bound)
                for template, slices in asked(container).items()
                for _ in range(slices)
            ]
    for kind, index, container in each(pod):
        if is_ordinary(kind, container):
            handed[kind, index] = names = []
            for template, slices in asked(container).items():
                while sum(bound > index for _, bound in pool.get(template, [])) < slices:
                    make(template, always)
                free = [name for name, bound in pool.get(template, []) if bound > index]
                names += free[:slices]
    return handed, order


def edit(container: Json, new: list[str]) -> None:
    """Take the MIG resources out of a container, and put claims in."""
    resources = container["resources"]
    touched = False
    for key in ("limits", "requests"):
        amounts = resources.get(key) or {}
        left = {name: n for name, n in amounts.items() if not is_mig(name)}
        touched |= left != amounts
        if left:
            resources[key] = left
        elif amounts:
            del resources[key]
    if new:
        resources["claims"] = [*(resources.get("claims") or []), *({"name": n} for n in new)]
    if touched and all(value is None for value in resources.values()):
        del container["resources"]


def is_mig(resource: str) -> bool:
    return resource.removeprefix(PREFIX) in PROFILES


def declare(name: str, template: str, nested: bool) -> Json:
    source = {"resourceClaimTemplateName": template}
    return {"name": name, "source": source} if nested else {"name": name, **source}
