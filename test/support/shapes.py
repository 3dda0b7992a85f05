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
}
