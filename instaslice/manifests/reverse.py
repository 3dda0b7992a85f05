"""Back again: limits of extended resources in the place of InstaSlice's claims.

For who returns to NVIDIA's MIG manager and device plugin. A limit is what it was, as its number; a
request that only repeated it does not come back, since the API server makes it of the limit.
"""

from collections.abc import Iterable
from typing import Any

from instaslice.containers import Container, containers, references
from instaslice.patch import Json, Operation, add, escape, pointer, remove
from instaslice.resource_api import template_name
from instaslice.resources import Resource, Resources
from instaslice.rewrite import Rewrite
from instaslice.templates import is_ours, stands_for


def reverse(pod: Json, resources: Resources) -> Rewrite:
    """What makes a pod ask for its devices by extended resources again.

    pod: a v1 Pod as decoded JSON; it is not modified.
    Raises InvalidPod.
    """
    every = list(containers(pod))
    declared = pod["spec"].get("resourceClaims")
    ours = _ours(declared or [], resources)
    warnings = []
    for name, why in _stay(every, ours).items():
        ours.pop(name)
        warnings.append(f"the claim {name} is left as it is: {why}")
    operations: list[Operation] = []
    for container in every:
        operations += _container(container, ours, resources)
    operations += _without(
        "/spec/resourceClaims",
        [
            i
            for i, claim in enumerate(declared or [])
            if isinstance(claim, dict) and claim.get("name") in ours
        ],
        len(declared or []),
    )
    return Rewrite(operations, {}, warnings)


def _ours(declared: Iterable[Any], resources: Resources) -> dict[str, str]:
    """The templates of claims that come from InstaSlice's, by the claim's name."""
    found = {}
    for claim in declared:
        template = template_name(claim)
        name = claim.get("name") if isinstance(claim, dict) else None
        if isinstance(name, str) and isinstance(template, str) and is_ours(template, resources):
            found[name] = template
    return found


def _stay(every: Iterable[Container], ours: Iterable[str]) -> dict[str, str]:
    """The claims that no limits can take the place of, and why."""
    #: By claim and request: who has it for as long as the pod runs.
    lasting: dict[tuple[str, object], list[str]] = {}
    used = set()
    for container in every:
        for name, request in references(container):
            used.add(name)
            if not container.is_ordinary_init:
                lasting.setdefault((name, request), []).append(container.name)
    why = {name: "no container uses it" for name in ours if name not in used}
    for (name, _), users in lasting.items():
        if name in ours and len(users) > 1:
            why[name] = f"{' and '.join(users)} share it, as no limit can"
    return why


def _container(container: Container, ours: dict[str, str], resources: Resources) -> list[Operation]:
    """Put limits in the place of a container's claims."""
    counts: dict[Resource, int] = {}
    for name, request in references(container):
        stands = stands_for(ours[name], request, resources) if name in ours else None
        if stands:
            counts[stands[0]] = counts.get(stands[0], 0) + stands[1]
    here = container.pointer
    gone = [
        index
        for index, claim in enumerate(container.claims)
        if isinstance(claim, dict) and claim.get("name") in ours
    ]
    operations = _without(f"{here}/claims", gone, len(container.claims))
    # What is mapped to a profile has been asked for by the name that is mapped.
    mapped = {resource: name for name, resource in resources.mapped.items()}
    limits = {mapped.get(resource, resource.name): count for resource, count in counts.items()}
    if not limits:
        return operations
    if not container.resources.get("limits"):
        return [add(f"{here}/limits", limits), *operations]
    for name, count in limits.items():
        operations.append(add(f"{here}/limits/{escape(name)}", count))
        if name in container.requests:
            operations.append(add(f"{here}/requests/{escape(name)}", count))
    return operations


def _without(path: str, gone: list[int], length: int) -> list[Operation]:
    """Remove elements of a list, from the last to the first, or the list with its last one."""
    if gone and len(gone) == length:
        return [remove(path)]
    return [remove(path + pointer(index)) for index in reversed(gone)]
