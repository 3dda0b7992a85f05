"""Reviews that are each large in one way, to measure the cost of their answers.

A shape is a function from a number, of containers for example, to an AdmissionReview.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, Final
from uuid import UUID

from test.support.pods import MIG, limits, pod_of
from test.support.reviews import pod_review

Json = dict[str, Any]
Shape = Callable[[int], Json]


def _pod(*containers: Json, **spec: Any) -> Json:
    return pod_review(pod_of(*containers, **spec))


def _asking(entries: dict[str, Any], key: str = "limits") -> Json:
    return {"name": "c", "resources": {key: entries}}


def _profiles(n: int, amount: str) -> dict[str, Any]:
    return {f"nvidia.com/mig-1g.{i}gb": amount for i in range(1, n + 1)}


def _annotated(annotations: Json, review: Json | None = None) -> Json:
    review = review or _pod(limits(1))
    review["request"]["object"]["metadata"]["annotations"] = annotations
    return review


def _own(templates: Iterable[str]) -> tuple[list[str], list[Json]]:
    """The names of claims that look like InstaSlice's, and their declarations."""
    declared = [
        {"name": str(UUID(int=i, version=4)), "resourceClaimTemplateName": template}
        for i, template in enumerate(templates)
    ]
    return [each["name"] for each in declared], declared


_OWN: Final = _own(["mig-1g.5gb"])[1]


def _chain(i: int) -> str:
    """The name of a template of eight profiles that no other template has."""
    return "mig-" + "-or-".join(f"{j + 1}g.{i * 8 + j + 1}gb" for j in range(8))


def _references(n: int, claims: list[str]) -> list[Json]:
    return [{"name": claims[i % len(claims)]} for i in range(n)]


def _claims(n: int) -> Json:
    """Claims that look like InstaSlice's, all used by one container."""
    names, declared = _own("mig-1g.5gb.x2" for _ in range(n))
    return _pod(limits(1, claims=_references(n, names)), resourceClaims=declared)


def _referring(n: int, containers: int = 1) -> Json:
    """200 claims of eight profiles each, and references that cycle through them."""
    names, declared = _own(_chain(i) for i in range(200))
    each = [limits(1, claims=_references(n, names)) for _ in range(containers)]
    return _pod(*each, resourceClaims=declared)


def _placed(n: int) -> Json:
    names, declared = _own(["same-gpu-mig-1g.5gb"])
    claims = [{"name": names[0], "request": f"mig-1g-{i % 9_999 + 1}gb-x2"} for i in range(n)]
    return _pod(limits(1, claims=claims), resourceClaims=declared)


def _chains(n: int) -> Json:
    names, declared = _own(_chain(i % 1_000) for i in range(n))
    return _pod(limits(1, claims=_references(1, names)), resourceClaims=declared)


def _large_amounts(n: int) -> Json:
    """Large amounts that are not quantities, in eight containers: a message names at most eight."""
    return _pod(*(_asking({name: [[0, {}]] * n}) for name in _profiles(8, "")))


def _wishes(n: int) -> Json:
    """Alternatives for many resources, and init containers."""
    others = [" or ".join(f"2g.{i + j}gb" for j in range(7)) for i in range(5, 200)]
    chains = "; ".join(f"1g.{i}gb or {other}" for i, other in enumerate(others, 5))
    annotations = {
        "instaslice.io/alternatives": chains[:15_900].rpartition(";")[0],
        "instaslice.io/placement": "same-gpu",
        "instaslice.io/requested": "\x7f" * n,
    }
    return _annotated(annotations, _pod(limits(2), initContainers=[limits(1) for _ in range(n)]))


def _groups(n: int) -> Json:
    """Init containers that each use a different part of the slices of the containers."""
    inits = [limits(i % 56 + 1) for i in range(min(n, 60))]
    more = [_asking({"nvidia.com/mig-2g.10gb": 1}) for _ in range(56)]
    return _pod(limits(56), *more, initContainers=inits + [{}] * n)


def _node_labels(n: int) -> Json:
    term = {"matchExpressions": [{"key": "nvidia.com/mig.config", "operator": "Exists"}, *[{}] * n]}
    required = {"nodeSelectorTerms": [term, *[{}] * n]}
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": required}
    selector = {f"nvidia.com/mig-{i}": "" for i in range(n // 4)}
    spec = {"nodeSelector": selector, "affinity": {"nodeAffinity": affinity}, "nodeName": "x" * n}
    return _pod(limits(1), **spec)


def _node_products(n: int) -> Json:
    values = ["A-MIG-1g.5gb"] * n
    expression = {"key": "nvidia.com/gpu.product", "operator": "In", "values": values}
    preferred = [{"preference": {"matchExpressions": [expression]}}]
    affinity = {"preferredDuringSchedulingIgnoredDuringExecution": preferred}
    return _pod(limits(1), affinity={"nodeAffinity": affinity})


def _long_names(n: int) -> Json:
    names = [f"nvidia.com/mig-{i}" + "-or-" * n for i in range(10)]
    claim = str(UUID(int=1, version=4))
    claims = [{"name": claim, "resourceClaimTemplateName": name[11:]} for name in names]
    return _pod(*(_asking({name: "1"}) for name in names), limits(1), resourceClaims=claims)


def _copied(value: Json) -> Json:
    """A copy as the API server's JSON would make it, which is faster than `copy.deepcopy`."""
    made: Json = json.loads(json.dumps(value))
    return made


def _updates(n: int) -> Json:
    """An update that brings back the limits of containers that have claims."""
    (name,), declared = _own(["mig-1g.5gb"])
    container = {"name": "c", "resources": {"claims": [{"name": name}]}}
    old = pod_of(*[container] * n, resourceClaims=declared)
    new = _copied(old)
    for each in new["spec"]["containers"][:1_000]:
        each["resources"]["limits"] = {MIG: "1"}
    return pod_review(new, operation="UPDATE", oldObject=old)


def _again(shape: Shape) -> Shape:
    """A shape's update that brings back the limits of its containers."""

    def made(n: int) -> Json:
        new = shape(n)
        old = _copied(new["request"]["object"])
        for each in old["spec"]["containers"]:
            each["resources"].pop("limits", None)
        return {**new, "request": {**new["request"], "operation": "UPDATE", "oldObject": old}}

    return made


def _annotated_again(n: int) -> Json:
    new = _again(_referring)(n)
    annotations = {"instaslice.io/requested": "\x7f" * n}
    new["request"]["oldObject"]["metadata"]["annotations"] = annotations
    return new


def _zeros(n: int) -> Json:
    return _pod(_asking(_profiles(n, "0")))


def _others(n: int) -> Json:
    each = {"resources": {"limits": {"a": 1}, "requests": {"a": 1}}}
    return _pod(limits(1), *[each] * n)


def _or_bigger(profiles: int) -> Json:
    """The annotation that allows bigger slices for a number of profiles."""
    chains = (f"1g.{i}gb or bigger" for i in range(1, profiles + 1))
    return {"instaslice.io/alternatives": "; ".join(chains)}


def _bigger(n: int) -> Json:
    """Wishes for bigger slices, and claims that an earlier pass created for them."""
    names, declared = _own(f"mig-1g.{i % 9_999 + 1}gb-or-bigger.x2" for i in range(n))
    container = limits(1, claims=_references(n, names))
    return _annotated(_or_bigger(min(n, 700)), _pod(container, resourceClaims=declared))


def _defaults(n: int) -> Json:
    """Limits that a LimitRange sets again beside the claims that replaced them."""
    names, declared = _own(["mig-1g.5gb.x2"] * 200)
    each = [limits(2, claims=[{"name": names[i % 200]}], requests={MIG: 2}) for i in range(n)]
    return _pod(*each, resourceClaims=declared)


SHAPES: Final[dict[str, Shape]] = {
    "limits of 0 in one container": _zeros,
    "requests in one container": lambda n: _pod(_asking(_profiles(n, "1"), "requests")),
    "containers that ask for 0": lambda n: _pod(*(limits(0) for _ in range(n))),
    "containers that ask for nothing": lambda n: _pod(
        limits(1), *({"name": "c", "image": "i"} for _ in range(n))
    ),
    "init containers": lambda n: _pod(limits(2), initContainers=[limits(1) for _ in range(n)]),
    "sidecars": lambda n: _pod(
        limits(1), initContainers=[{**limits(0), "restartPolicy": "Always"}] * n
    ),
    "claims of its own": _claims,
    "claims of others": lambda n: _pod(
        limits(1), resourceClaims=_own(f"same-gpu-mig-1g.{i}gb" for i in range(n))[1]
    ),
    "resources that are not MIG": lambda n: _pod(
        _asking({**{f"example.com/r{i}": "1" for i in range(n)}, MIG: "1"})
    ),
    "names that are not profiles": lambda n: _pod(
        _asking({f"nvidia.com/mig-{i}" + "x" * 40: "1" for i in range(n)})
    ),
    "long names": _long_names,
    "long amounts": lambda n: _pod(*(_asking({MIG: "1" * n}) for _ in range(10))),
    "a long annotation": lambda n: _annotated(
        {"instaslice.io/alternatives": "; ".join(f"1g.{i}gb or 2g.{i}gb" for i in range(1, n + 1))}
    ),
    "updates": _updates,
    "references to chains": _referring,
    "containers that refer to chains": lambda n: _referring(20, n),
    "requests of a placed claim": _placed,
    "claims of chains": _chains,
    "containers of nothing": lambda n: _pod(limits(1), *[{}] * n, initContainers=[{}] * n),
    "limits of nothing": lambda n: _pod(limits(1), *[{"resources": {"limits": {}}}] * n),
    "limits of others": _others,
    "claims of nothing": lambda n: _pod(limits(1), resourceClaims=[{}] * n),
    "claims of only a name": lambda n: _pod(
        limits(1), resourceClaims=[{"name": str(UUID(int=i, version=4))} for i in range(n)]
    ),
    "short names that are not profiles": lambda n: _pod(
        _asking({**{f"nvidia.com/mig-{i}": 1 for i in range(n)}, MIG: 1})
    ),
    "large amounts": _large_amounts,
    "small amounts": lambda n: _pod(*(_asking({MIG: "0e-9999999"}) for _ in range(n))),
    "a long placement": lambda n: _annotated(
        {"instaslice.io/placement": [[]] * n}, _pod(limits(2))
    ),
    "wishes and init containers": _wishes,
    "many groups": _groups,
    "node labels": _node_labels,
    "node products": _node_products,
    "bigger slices": _bigger,
    "bigger slices of many": lambda n: _annotated(
        _or_bigger(112), _pod(_asking(_profiles(112, "1")), *[limits(0)] * n)
    ),
    "defaults of a LimitRange": _defaults,
    "an annotation that an update changes": _annotated_again,
    "an annotation of an earlier pass": lambda n: _annotated(
        {"instaslice.io/requested": "\x7f" * n}, _pod(limits(1), limits(0), resourceClaims=_OWN)
    ),
}
for _name in (
    "limits of 0 in one container",
    "references to chains",
    "containers that refer to chains",
    "requests of a placed claim",
    "claims of chains",
    "limits of others",
    "bigger slices",
    "defaults of a LimitRange",
):
    SHAPES[f"{_name}, updated"] = _again(SHAPES[_name])
