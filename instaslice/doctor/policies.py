"""What else in a cluster names resources that are rewritten: quotas, LimitRanges, Kueue. Pure.

Data: `report.of_policy` has the sentences.
"""

import json
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from instaslice.cluster.gates import EXTENDED
from instaslice.doctor.snapshot import Snapshot, full_name, is_zero
from instaslice.patch import Json
from instaslice.resources import Resource

#: How a ResourceQuota names an extended resource; there is nothing but requests of one.
REQUESTS: Final = "requests."
#: ... and the devices of a class, from resource.k8s.io/v1alpha3 on.
DEVICES: Final = ".deviceclass.resource.k8s.io/devices"
#: ... and claims, in v1alpha2.
CLAIMS: Final = "count/resourceclaims.resource.k8s.io"
#: The first minor version of Kubernetes whose API server can hold a LimitRange's max by itself
#: (ValidatingAdmissionPolicy, GA).
FIRST_WITH_POLICIES: Final = 30


class Policy(NamedTuple):
    """What becomes of one object that names what is rewritten."""

    kind: str  #: "ResourceQuota", "LimitRange" or "Kueue"
    name: str  #: "ml/gpus"; empty for Kueue's configuration
    #: counts, ignores, evaded (quotas); refuses, lifted, lifted-before-1.30 (LimitRanges); mapped,
    #: unmapped (Kueue). Keys of `report.POLICIES`.
    effect: str
    keys: tuple[str, ...]  #: what it names, "requests.nvidia.com/mig-1g.5gb"
    detail: str = ""  #: of a LimitRange "max for type Pod", of a quota its scope or a caution
    command: str = ""  #: what makes it right; empty for none
    back: str = ""  #: what takes that back


def counts(snapshot: Snapshot, resource: Resource) -> bool:
    """Whether a quota on an extended resource counts rewritten pods.

    The API server charges a claim to the extended resource of its class (KEP-5004).
    """
    classes = {found["metadata"]["name"] for found in snapshot.all("classes")}
    if resource.device_class in classes:
        return resource.device_class in snapshot.served_by_scheduler.get(resource.name, [])
    # InstaSlice makes it with the first template that asks through it.
    gate = snapshot.gates.get(EXTENDED)
    return resource.has_own_class and bool(gate and gate.on)


def instead(snapshot: Snapshot, resource: Resource) -> str:
    """What a quota names to count rewritten pods that it would not count otherwise."""
    return CLAIMS if snapshot.is_classic else resource.device_class + DEVICES


def quotas(snapshot: Snapshot) -> Iterator[Policy]:
    """Quotas that count on, that do not, and that pods escape by a scope. Raises Unreadable."""
    for quota in snapshot.all("quotas"):
        spec, name = quota["spec"], full_name(quota)
        hard = spec.get("hard") or {}
        asked = {
            key: resource
            for key in hard
            if key.startswith(REQUESTS)
            and (resource := snapshot.resources.find(key.removeprefix(REQUESTS)))
        }
        if scopes := scope(spec):
            keys = [key for key in hard if key in asked or key.endswith(DEVICES)]
            if keys:
                # Claims have no scope: pkg/quota/v1/evaluator/core, `claimEvaluator`.
                limits = ",".join(f"{_counting(snapshot, key, asked)}={hard[key]}" for key in keys)
                where = f"-n {quota['metadata']['namespace']}"
                other = f"{quota['metadata']['name']}-unscoped"
                command = f"kubectl {where} create quota {other} --hard={limits}"
                back = f"kubectl {where} delete quota {other}"
                yield Policy("ResourceQuota", name, "evaded", tuple(keys), scopes, command, back)
            continue
        ignored = {key: each for key, each in asked.items() if not counts(snapshot, each)}
        if good := tuple(key for key in asked if key not in ignored):
            yield Policy("ResourceQuota", name, "counts", good)
        if ignored:
            wanted: dict[str, Any] = {}
            for key, resource in ignored.items():
                wanted.setdefault(instead(snapshot, resource), hard[key])
            caution = ""
            if snapshot.is_classic:
                caution = "it counts claims of every kind"
            elif not all(resource.has_own_class for resource in ignored.values()):
                caution = "a class without a profile of its own counts all of its devices together"
            gone = dict.fromkeys(key for key in wanted if key not in hard)
            commands = _merge(quota, wanted), _merge(quota, gone)
            yield Policy("ResourceQuota", name, "ignores", tuple(ignored), caution, *commands)


def scope(spec: Json) -> str:
    """A quota's scopes, "PriorityClass In high"; empty for none."""
    texts = [str(scope) for scope in spec.get("scopes") or []]
    for each in (spec.get("scopeSelector") or {}).get("matchExpressions") or []:
        values = ", ".join(map(str, each.get("values") or []))
        texts.append(f"{each.get('scopeName')} {each.get('operator')} {values}".rstrip())
    return "; ".join(texts)


def _counting(snapshot: Snapshot, key: str, asked: dict[str, Resource]) -> str:
    resource = asked.get(key)
    return key if resource is None or counts(snapshot, resource) else instead(snapshot, resource)


def _merge(quota: Json, hard: dict[str, Any]) -> str:
    patch = json.dumps({"spec": {"hard": hard}}, separators=(",", ":"))
    where = f"-n {quota['metadata']['namespace']} patch resourcequota {quota['metadata']['name']}"
    return f"kubectl {where} --type=merge -p '{patch}'"


def limit_ranges(snapshot: Snapshot) -> Iterator[Policy]:
    """LimitRanges that refuse every rewritten pod, or hold none. Raises Unreadable."""
    for found in snapshot.all("limits"):
        where, name = found["metadata"]["namespace"], found["metadata"]["name"]
        edit = f"kubectl -n {where} edit limitrange {name}"
        for limit in found["spec"].get("limits") or []:
            kind = limit.get("type")
            for field in ("min", "max"):
                keys = tuple(
                    key
                    for key, amount in (limit.get(field) or {}).items()
                    if snapshot.resources.find(key) and (field == "max" or not is_zero(amount))
                )
                if keys and (field == "min" or kind == "Pod"):
                    detail = f"{field} for type {kind}"
                    yield Policy("LimitRange", f"{where}/{name}", "refuses", keys, detail, edit)
                elif keys and 0 < snapshot.minor < FIRST_WITH_POLICIES:
                    yield Policy("LimitRange", f"{where}/{name}", "lifted-before-1.30", keys)
                elif keys and "policies" in snapshot.lists and not _holds_limits(snapshot):
                    yield Policy("LimitRange", f"{where}/{name}", "lifted", keys)


def _holds_limits(snapshot: Snapshot) -> bool:
    """Whether a ValidatingAdmissionPolicy with LimitRanges as parameters is there."""
    kinds = [(each.get("spec") or {}).get("paramKind") or {} for each in snapshot.all("policies")]
    return any(kind.get("kind") == "LimitRange" for kind in kinds)


def kueue(snapshot: Snapshot) -> Iterator[Policy]:
    """Queues of resources that rewritten pods do not ask for by that name. Raises Unreadable."""
    covered = dict.fromkeys(
        name
        for queue in snapshot.all("queues")
        for group in queue["spec"].get("resourceGroups") or []
        for name in group.get("coveredResources") or []
        if snapshot.resources.find(name)
    )
    texts = [str(v) for found in snapshot.all("kueue") for v in (found.get("data") or {}).values()]
    found = [resource for name in covered if (resource := snapshot.resources.find(name))]
    lacking = [each for each in found if each.device_class not in " ".join(texts)]
    if lacking:
        names = [each.profile.attribute if each.profile else each.name for each in lacking]
        command = f"instaslice deviceclasses --kueue {' '.join(names)}"
        yield Policy("Kueue", "", "unmapped", tuple(each.name for each in lacking), "", command)
    elif covered:
        yield Policy("Kueue", "", "mapped", tuple(covered))
