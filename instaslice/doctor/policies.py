"""The effect of rewriting on quotas, LimitRanges and Kueue's queues. Pure.

`FINDERS` yield data; `TEXTS` has the sentences.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from instaslice.cluster.gates import EXTENDED
from instaslice.doctor.inventory import dig
from instaslice.doctor.report import GOOD, UNSURE, Found, State
from instaslice.doctor.snapshot import Snapshot, full_name, is_zero, some
from instaslice.patch import Json
from instaslice.profiles import Resource

REQUESTS: Final = "requests."  #: how a ResourceQuota names an extended resource
DEVICES: Final = ".deviceclass.resource.k8s.io/devices"  #: ... a class's devices, from v1alpha3 on
CLAIMS: Final = "count/resourceclaims.resource.k8s.io"  #: ... claims, in v1alpha2
FIRST_WITH_POLICIES: Final = 30  #: Kubernetes' minor with ValidatingAdmissionPolicy (GA)

#: The ValidatingAdmissionPolicies of config/components/policies, and the risk without each.
_LIMITRANGES: Final = "instaslice-limitranges"
OWN: Final = {
    _LIMITRANGES: "the max of a LimitRange does not apply to rewritten pods",
    "instaslice-service-account": "InstaSlice's token can create any template or class",
}

#: The sign and the sentence for each effect, and the advice if no command can change it.
TEXTS: Final = {
    "counts": "✓ {kind} {name} still counts {keys}",
    "ignores": "! {kind} {name} limits {keys}, but counts no rewritten pods{detail}",
    "evaded": "! {kind} {name} limits {keys} in its scope ({detail}), but counts no rewritten "
    "pods: claims have no scope",
    "refuses": "✗ LimitRange {name} has {keys} in its {detail}, which no rewritten pod can "
    "satisfy: all are refused",
    "lifted": "! LimitRange {name} has a max of {keys}, which does not apply to rewritten pods"
    " -> deploy InstaSlice's component policies: docs/quotas.md",
    "lifted-before-1.30": "! LimitRange {name} has a max of {keys}, which does not apply to "
    "rewritten pods: the policies for that need Kubernetes 1.30"
    " -> use a ResourceQuota: docs/quotas.md",
    "mapped": "✓ Kueue's configuration maps the device classes of {keys}",
    "unmapped": "✗ queues cover {keys}, but Kueue's deviceClassMappings lack their device classes: "
    "it admits no rewritten pod without a Job (Jobs count by the limits in their templates)",
}


@dataclass(frozen=True)
class Policy:
    """The effect of rewriting on one object that names a rewritten resource."""

    kind: str  #: "ResourceQuota", "LimitRange" or "Kueue"
    name: str  #: "ml/gpus"; empty for Kueue's configuration
    effect: str  #: a key of `TEXTS`
    keys: tuple[str, ...]  #: the names in it, "requests.nvidia.com/mig-1g.5gb"
    detail: str = ""  #: a LimitRange's "max for type Pod"; a quota's scope or a caution
    command: str = ""  #: fixes it; empty for none

    @property
    def finding(self) -> tuple[State, str, str]:
        """Its state, text and advice."""
        shape, _, advice = TEXTS[self.effect].partition(" -> ")
        sign, _, text = shape.partition(" ")
        text = text.format(**vars(self) | {"keys": some(self.keys)})
        return State(sign), text, advice or self.command


def findings(find: Callable[[Snapshot], Iterator[Policy]], snapshot: Snapshot) -> Found:
    """Yield a finding for each policy from one of `FINDERS`."""
    return (policy.finding for policy in find(snapshot))


def counts(snapshot: Snapshot, resource: Resource) -> bool:
    """Whether a quota on an extended resource counts rewritten pods.

    The API server charges a claim to the extended resource of its class (KEP-5004).
    """
    if resource.device_class in snapshot.named("classes"):
        return resource.device_class in snapshot.served_by_scheduler.get(resource.name, [])
    # InstaSlice creates the class with the first template that uses it.
    return resource.has_own_class and snapshot.is_on(EXTENDED, otherwise=False)


def quota_key(snapshot: Snapshot, resource: Resource) -> str:
    """The key by which a quota counts the claims of rewritten pods."""
    return CLAIMS if snapshot.is_classic else resource.device_class + DEVICES


def _quotas(snapshot: Snapshot) -> Iterator[Policy]:
    for quota in snapshot.all("quotas"):
        where, name = f"-n {quota['metadata']['namespace']}", quota["metadata"]["name"]
        hard, scopes = dig(quota["spec"], "hard"), scope(quota["spec"])
        named = {key: key.removeprefix(REQUESTS) for key in hard if key.startswith(REQUESTS)}
        asked = {key: each for key, n in named.items() if (each := snapshot.resources.find(n))}
        ignored = {key: each for key, each in asked.items() if not counts(snapshot, each)}
        wanted: dict[str, object] = {}
        for key, resource in ignored.items():
            wanted.setdefault(quota_key(snapshot, resource), hard[key])
        if scopes:
            # Claims have no scope: pkg/quota/v1/evaluator/core, `claimEvaluator`.
            keys = tuple(key for key in hard if key in asked or key.endswith(DEVICES))
            new = {key: hard[key] for key in keys if key not in ignored} | wanted
            limits = ",".join(f"{key}={amount}" for key, amount in new.items())
            command = f"kubectl {where} create quota {name}-unscoped --hard={limits}"
            if keys:
                yield Policy("ResourceQuota", full_name(quota), "evaded", keys, scopes, command)
            continue
        if counted := tuple(key for key in asked if key not in ignored):
            yield Policy("ResourceQuota", full_name(quota), "counts", counted)
        if ignored:
            caution = ""
            if snapshot.is_classic:
                caution = "; a quota on claims counts claims of every kind"
            elif not all(resource.has_own_class for resource in ignored.values()):
                caution = "; a quota on its class counts all devices of the class"
            patch = json.dumps({"spec": {"hard": wanted}}, separators=(",", ":"))
            command = f"kubectl {where} patch resourcequota {name} --type=merge -p '{patch}'"
            keys = tuple(ignored)
            yield Policy("ResourceQuota", full_name(quota), "ignores", keys, caution, command)


def scope(spec: Json) -> str:
    """A quota's scopes, "PriorityClass In high"; empty for none."""
    texts = [str(scope) for scope in dig(spec, "scopes")]
    for each in dig(spec, "scopeSelector", "matchExpressions"):
        values = ", ".join(map(str, dig(each, "values")))
        texts.append(f"{each.get('scopeName')} {each.get('operator')} {values}".rstrip())
    return "; ".join(texts)


def _limit_ranges(snapshot: Snapshot) -> Iterator[Policy]:
    """Yield LimitRanges that refuse every rewritten pod, or that do not apply to any."""
    limits = [(e, limit) for e in snapshot.all("limits") for limit in dig(e["spec"], "limits")]
    for (found, limit), side in ((each, side) for each in limits for side in ("min", "max")):
        keys = tuple(
            key
            for key, amount in dig(limit, side).items()
            if snapshot.resources.find(key) and (side == "max" or not is_zero(amount))
        )
        policy = partial(Policy, "LimitRange", name := full_name(found))
        if keys and (side == "min" or limit.get("type") == "Pod"):
            namespace, _, short = name.partition("/")
            edit = f"kubectl -n {namespace} edit limitrange {short}"
            yield policy("refuses", keys, f"{side} for type {limit.get('type')}", edit)
        elif keys and 0 < snapshot.minor < FIRST_WITH_POLICIES:
            yield policy("lifted-before-1.30", keys)
        elif keys and "policies" in snapshot.lists and _lack(snapshot, _LIMITRANGES):
            yield policy("lifted", keys)


def _lack(snapshot: Snapshot, name: str) -> str:
    """Why one of InstaSlice's policies does not deny; empty if it does."""
    if name not in snapshot.named("policies"):
        return "does not exist"
    specs = (each.get("spec") or {} for each in snapshot.all("bindings"))
    mine = (dig(each, "validationActions") for each in specs if each.get("policyName") == name)
    return "" if any("Deny" in actions for actions in mine) else "has no binding that denies"


def own_policies(snapshot: Snapshot) -> Found:
    """Check whether InstaSlice's own policies exist and deny."""
    if snapshot.webhook is None or 0 < snapshot.minor < FIRST_WITH_POLICIES:
        return
    lacking = {name: how for name in OWN if (how := _lack(snapshot, name))}
    for name, how in lacking.items():
        text = f"the ValidatingAdmissionPolicy {name} {how}: {OWN[name]}"
        yield UNSURE, text, "deploy InstaSlice's component policies: docs/security.md"
    if not lacking:
        yield GOOD, f"{' and '.join(OWN)} exist and deny"


def _kueue(snapshot: Snapshot) -> Iterator[Policy]:
    covered = {
        name: resource
        for queue in snapshot.all("queues")
        for group in dig(queue["spec"], "resourceGroups")
        for name in dig(group, "coveredResources")
        if (resource := snapshot.resources.find(name))
    }
    mapped = [str(text) for found in snapshot.all("kueue") for text in dig(found, "data").values()]
    lacking = [each for each in covered.values() if each.device_class not in " ".join(mapped)]
    if lacking:
        names = [each.profile or each.name for each in lacking]
        command = f"instaslice deviceclasses --kueue {' '.join(names)}"
        yield Policy("Kueue", "", "unmapped", tuple(each.name for each in lacking), "", command)
    elif covered:
        yield Policy("Kueue", "", "mapped", tuple(covered))


#: The functions that yield policies, for a cluster or files, by their checks' titles.
FINDERS: Final = {"quotas": _quotas, "limit ranges": _limit_ranges, "Kueue": _kueue}
