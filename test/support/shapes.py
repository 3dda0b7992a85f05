"""Reviews that are large in one way each, to see what it costs to answer them.

Each takes how many of it there are to be, and gives a whole AdmissionReview.
"""

import copy
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from test.support.pods import MIG, limits, pod_of
from test.support.reviews import pod_review

Json = dict[str, Any]


def _named(name: str, amount: object, key: str = "limits") -> Json:
    return {"name": "c", "resources": {key: {name: amount}}}


def zero_entries(n: int) -> Json:
    entries = {f"nvidia.com/mig-1g.{i}gb": "0" for i in range(1, n + 1)}
    return pod_review(pod_of({"name": "c", "resources": {"limits": entries}}))


def request_entries(n: int) -> Json:
    entries = {f"nvidia.com/mig-1g.{i}gb": "1" for i in range(1, n + 1)}
    return pod_review(pod_of({"name": "c", "resources": {"requests": entries}}))


def containers(n: int) -> Json:
    return pod_review(pod_of(*(limits(0) for _ in range(n))))


def plain_containers(n: int) -> Json:
    return pod_review(pod_of(limits(1), *({"name": "c", "image": "i"} for _ in range(n))))


def init_containers(n: int) -> Json:
    return pod_review(pod_of(limits(2), initContainers=[limits(1) for _ in range(n)]))


def sidecars(n: int) -> Json:
    return pod_review(
        pod_of(limits(1), initContainers=[{**limits(0), "restartPolicy": "Always"}] * n)
    )


def claims(n: int) -> Json:
    """Claims that look like InstaSlice's, all used by one container."""
    names = [str(UUID(int=i, version=4)) for i in range(n)]
    declared = [{"name": name, "resourceClaimTemplateName": "mig-1g.5gb.x2"} for name in names]
    container = limits(1, claims=[{"name": name} for name in names])
    return pod_review(pod_of(container, resourceClaims=declared))


def other_claims(n: int) -> Json:
    """Claims with a template of a name of its own each."""
    declared = [
        {"name": str(UUID(int=i, version=4)), "resourceClaimTemplateName": f"same-gpu-mig-1g.{i}gb"}
        for i in range(n)
    ]
    return pod_review(pod_of(limits(1), resourceClaims=declared))


def _own(templates: list[str]) -> tuple[list[str], list[Json]]:
    """The names of claims that look like InstaSlice's, and their declarations."""
    names = [str(UUID(int=i, version=4)) for i in range(len(templates))]
    pairs = zip(names, templates, strict=True)
    return names, [{"name": n, "resourceClaimTemplateName": t} for n, t in pairs]


def _chain(i: int) -> str:
    """The name of a template of eight profiles that no other has."""
    return "mig-" + "-or-".join(f"{j + 1}g.{i * 8 + j + 1}gb" for j in range(8))


def _references(n: int, claims: list[str], requests: int = 0) -> list[Json]:
    found: list[Json] = [{"name": claims[i % len(claims)]} for i in range(n)]
    for i, each in enumerate(found if requests else ()):
        each["request"] = f"mig-1g-{i % requests + 1}gb-x2"
    return found


def references(n: int) -> Json:
    """200 claims of eight profiles each, and references that cycle through them."""
    names, declared = _own([_chain(i) for i in range(200)])
    return pod_review(pod_of(limits(1, claims=_references(n, names)), resourceClaims=declared))


def references_of_many(n: int) -> Json:
    names, declared = _own([_chain(i) for i in range(200)])
    each = [limits(1, claims=_references(20, names)) for _ in range(n)]
    return pod_review(pod_of(*each, resourceClaims=declared))


def placed_references(n: int) -> Json:
    names, declared = _own(["same-gpu-mig-1g.5gb"])
    container = limits(1, claims=_references(n, names, requests=9_999))
    return pod_review(pod_of(container, resourceClaims=declared))


def chains(n: int) -> Json:
    names, declared = _own([_chain(i % 1_000) for i in range(n)])
    return pod_review(pod_of(limits(1, claims=_references(1, names)), resourceClaims=declared))


def _applied_again(new: Json) -> Json:
    """An update of a pod by which the limits of its containers come back."""
    old = copy.deepcopy(new)
    for each in old["request"]["object"]["spec"]["containers"]:
        each["resources"].pop("limits", None)
    request = {**new["request"], "operation": "UPDATE", "oldObject": old["request"]["object"]}
    return {**new, "request": request}


def empty_containers(n: int) -> Json:
    return pod_review(pod_of(limits(1), *[{}] * n, initContainers=[{}] * n))


def empty_resources(n: int) -> Json:
    return pod_review(pod_of(limits(1), *[{"resources": {"limits": {}}}] * n))


def other_limits(n: int) -> Json:
    each = {"resources": {"limits": {"a": 1}, "requests": {"a": 1}}}
    return pod_review(pod_of(limits(1), *[each] * n))


def empty_claims(n: int) -> Json:
    return pod_review(pod_of(limits(1), resourceClaims=[{}] * n))


def named_claims(n: int) -> Json:
    claims = [{"name": str(UUID(int=i, version=4))} for i in range(n)]
    return pod_review(pod_of(limits(1), resourceClaims=claims))


def short_odd_names(n: int) -> Json:
    entries = {f"nvidia.com/mig-{i}": 1 for i in range(n)} | {MIG: 1}
    return pod_review(pod_of({"name": "c", "resources": {"limits": entries}}))


def large_amounts(n: int) -> Json:
    """Amounts that are no quantity, in a pod of which only eight are told."""
    names = [f"nvidia.com/mig-1g.{i}gb" for i in range(1, 9)]
    return pod_review(pod_of(*(_named(name, [[0, {}]] * n) for name in names)))


def small_amounts(n: int) -> Json:
    return pod_review(pod_of(*(_named(MIG, "0e-9999999") for _ in range(n))))


def long_placement(n: int) -> Json:
    pod = pod_of(limits(2))
    pod["metadata"]["annotations"] = {"instaslice.io/placement": [[]] * n}
    return pod_review(pod)


def wishes_for_many(n: int) -> Json:
    """Chains for as many resources as a pod names, and containers that start after one another."""
    review = init_containers(n)
    others = [" or ".join(f"2g.{i + j}gb" for j in range(7)) for i in range(5, 200)]
    chains = "; ".join(f"1g.{i}gb or {other}" for i, other in enumerate(others, 5))
    review["request"]["object"]["metadata"]["annotations"] = {
        "instaslice.io/alternatives": chains[:15_900].rpartition(";")[0],
        "instaslice.io/placement": "same-gpu",
        "instaslice.io/requested": "x" * n,
    }
    return review


def many_profiles(n: int) -> Json:
    """Init containers that each use other parts of what all containers hold."""
    owner = limits(56)
    inits = [limits(i % 56 + 1) for i in range(min(n, 60))]
    more = [_named("nvidia.com/mig-2g.10gb", 1, "limits") for _ in range(56)]
    return pod_review(pod_of(owner, *more, initContainers=inits + [{}] * n))


def node_labels(n: int) -> Json:
    term = {"matchExpressions": [{"key": "nvidia.com/mig.config", "operator": "Exists"}, *[{}] * n]}
    required = {"nodeSelectorTerms": [term, *[{}] * n]}
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": required}
    selector = {f"nvidia.com/mig-{i}": "" for i in range(n // 4)}
    spec = {"nodeSelector": selector, "affinity": {"nodeAffinity": affinity}, "nodeName": "x" * n}
    return pod_review(pod_of(limits(1), **spec))


def node_products(n: int) -> Json:
    values = ["A-MIG-1g.5gb"] * n
    expression = {"key": "nvidia.com/gpu.product", "operator": "In", "values": values}
    preferred = [{"preference": {"matchExpressions": [expression]}}]
    affinity = {"preferredDuringSchedulingIgnoredDuringExecution": preferred}
    return pod_review(pod_of(limits(1), affinity={"nodeAffinity": affinity}))


def updates_of_one(n: int) -> Json:
    return _applied_again(zero_entries(n))


def updates_of_annotations(n: int) -> Json:
    new = _applied_again(references(n))
    old = new["request"]["oldObject"]
    old["metadata"]["annotations"] = {"instaslice.io/requested": "x" * n}
    return new


def other_resources(n: int) -> Json:
    entries = {f"example.com/r{i}": "1" for i in range(n)} | {MIG: "1"}
    return pod_review(pod_of({"name": "c", "resources": {"limits": entries}}))


def odd_names(n: int) -> Json:
    entries = {f"nvidia.com/mig-{i}" + "x" * 40: "1" for i in range(n)}
    return pod_review(pod_of({"name": "c", "resources": {"limits": entries}}))


def long_names(n: int) -> Json:
    names = [f"nvidia.com/mig-{i}" + "-or-" * n for i in range(10)]
    claims = [
        {"name": str(UUID(int=1, version=4)), "resourceClaimTemplateName": name[11:]}
        for name in names
    ]
    return pod_review(
        pod_of(*(_named(name, "1") for name in names), limits(1), resourceClaims=claims)
    )


def long_amounts(n: int) -> Json:
    return pod_review(pod_of(*(_named(MIG, "1" * n) for _ in range(10))))


def annotations(n: int) -> Json:
    pod = pod_of(limits(1))
    chains = "; ".join(f"1g.{i}gb or 2g.{i}gb" for i in range(1, n + 1))
    pod["metadata"]["annotations"] = {"instaslice.io/alternatives": chains}
    return pod_review(pod)


def updates(n: int) -> Json:
    """A manifest that is applied again, of containers that have claims."""
    name = str(UUID(int=1, version=4))
    declared = [{"name": name, "resourceClaimTemplateName": "mig-1g.5gb"}]
    container = {"name": "c", "resources": {"claims": [{"name": name}]}}
    old = pod_of(*(copy.deepcopy(container) for _ in range(n)), resourceClaims=declared)
    new = copy.deepcopy(old)
    for each in new["spec"]["containers"][:1_000]:
        each["resources"]["limits"] = {MIG: "1"}
    return pod_review(new, operation="UPDATE", oldObject=old)


SHAPES: Final[dict[str, Callable[[int], Json]]] = {
    "limits of 0 in one container": zero_entries,
    "requests in one container": request_entries,
    "containers that ask for 0": containers,
    "containers that ask for nothing": plain_containers,
    "init containers": init_containers,
    "sidecars": sidecars,
    "claims of its own": claims,
    "claims of others": other_claims,
    "resources that are not MIG": other_resources,
    "names that are not profiles": odd_names,
    "long names": long_names,
    "long amounts": long_amounts,
    "a long annotation": annotations,
    "updates": updates,
    "references to chains": references,
    "references to chains, updated": lambda n: _applied_again(references(n)),
    "containers that refer to chains": references_of_many,
    "containers that refer to chains, updated": lambda n: _applied_again(references_of_many(n)),
    "requests of a placed claim": placed_references,
    "requests of a placed claim, updated": lambda n: _applied_again(placed_references(n)),
    "claims of chains": chains,
    "claims of chains, updated": lambda n: _applied_again(chains(n)),
    "containers of nothing": empty_containers,
    "limits of nothing": empty_resources,
    "limits of others": other_limits,
    "limits of others, updated": lambda n: _applied_again(other_limits(n)),
    "claims of nothing": empty_claims,
    "claims of only a name": named_claims,
    "short names that are not profiles": short_odd_names,
    "large amounts": large_amounts,
    "small amounts": small_amounts,
    "a long placement": long_placement,
    "wishes and init containers": wishes_for_many,
    "many groups": many_profiles,
    "node labels": node_labels,
    "node products": node_products,
    "limits of 0, updated": updates_of_one,
    "an annotation that an update changes": updates_of_annotations,
}
