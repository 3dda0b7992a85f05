"""Checks of what else in a cluster names MIG resources: quotas, LimitRanges, Kueue. Pure."""

import json
from collections.abc import Iterator
from typing import Any, Final

from instaslice import profiles
from instaslice.cluster.gates import EXTENDED
from instaslice.doctor.findings import Found, State
from instaslice.doctor.snapshot import Snapshot, full_name, some
from instaslice.patch import Json
from instaslice.quantity import InvalidQuantity, nanos
from instaslice.resources import Resource

#: How a ResourceQuota names an extended resource; there is nothing but requests of one.
REQUESTS: Final = "requests."
#: ... and the devices of a class, from resource.k8s.io/v1alpha3 on.
DEVICES: Final = ".deviceclass.resource.k8s.io/devices"
#: ... and claims, in v1alpha2.
CLAIMS: Final = "count/resourceclaims.resource.k8s.io"


def named(snapshot: Snapshot, hard: Json) -> Iterator[tuple[str, Resource]]:
    """The keys of a quota's `hard` that are for resources which are rewritten."""
    for key in hard:
        resource = snapshot.resources.find(key.removeprefix(REQUESTS))
        if resource and key.startswith(REQUESTS):
            yield key, resource


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


def quotas(snapshot: Snapshot) -> Found:
    """Which quotas count on, and what to write where they do not."""
    for quota in snapshot.all("quotas"):
        hard = quota["spec"].get("hard") or {}
        asked = dict(named(snapshot, hard))
        deaf = {key: each for key, each in asked.items() if not counts(snapshot, each)}
        good = [key for key in asked if key not in deaf]
        if good:
            yield State.GOOD, f"{full_name(quota)} counts on: {some(good)}"
        if deaf:
            text = f"{full_name(quota)} limits {some(deaf)}, which rewritten pods do not use"
            yield State.UNSURE, text, _patch(snapshot, quota, deaf)
        for text in _through_another_class(snapshot, quota, asked):
            advice = "delete the template: InstaSlice makes it anew, through the profile's class"
            yield State.UNSURE, text, advice


def unpatch(snapshot: Snapshot, quota: Json) -> str:
    """The command that takes back what `quotas` advises for one; empty where it advises nothing."""
    hard = quota["spec"].get("hard") or {}
    deaf = [each for _, each in named(snapshot, hard) if not counts(snapshot, each)]
    keys = dict.fromkeys(instead(snapshot, each) for each in deaf)
    return _merge(quota, dict.fromkeys(key for key in keys if key not in hard)) if keys else ""


def _merge(quota: Json, hard: dict[str, Any]) -> str:
    patch = json.dumps({"spec": {"hard": hard}}, separators=(",", ":"))
    where = f"-n {quota['metadata']['namespace']} patch resourcequota {quota['metadata']['name']}"
    return f"kubectl {where} --type=merge -p '{patch}'"


def _patch(snapshot: Snapshot, quota: Json, deaf: dict[str, Resource]) -> str:
    """The command that has a quota count rewritten pods, too."""
    hard = quota["spec"]["hard"]
    wanted: dict[str, Any] = {}
    for key, resource in deaf.items():
        wanted.setdefault(instead(snapshot, resource), hard[key])
    command = _merge(quota, wanted)
    note = ""
    if snapshot.is_classic:
        note = " (it counts claims of every kind)"
    elif any(not resource.has_own_class for resource in deaf.values()):
        note = " (a class without a profile of its own counts all of its devices together)"
    return command + note


def _through_another_class(
    snapshot: Snapshot, quota: Json, asked: dict[str, Resource]
) -> Iterator[str]:
    """Templates that were there before, and ask through a class which the quota does not count."""
    namespace = quota["metadata"]["namespace"]
    by_template = {resource.template: resource for resource in asked.values()}
    for template in snapshot.lists.get("templates", []):
        resource = by_template.get(template["metadata"]["name"])
        if resource is None or template["metadata"].get("namespace") != namespace:
            continue
        devices = (template["spec"].get("spec") or {}).get("devices") or {}
        for request in devices.get("requests") or []:
            asks = request.get("exactly") or request
            name = asks.get("deviceClassName")
            if name and name != resource.device_class:
                yield f"template {full_name(template)} asks through {name}, which it does not count"


def limit_ranges(snapshot: Snapshot) -> Found:
    """LimitRanges that would refuse every rewritten pod."""
    for found in snapshot.all("limits"):
        for limit in found["spec"].get("limits") or []:
            kind = limit.get("type")
            for field in ("min", "max"):
                if field == "max" and kind != "Pod":
                    continue
                names = [
                    name
                    for name, amount in (limit.get(field) or {}).items()
                    if snapshot.resources.find(name) and (field == "max" or not _is_zero(amount))
                ]
                if names:
                    text = (
                        f"LimitRange {full_name(found)} has a {field} of {some(names)} for type "
                        f"{kind}, so that every rewritten pod is refused"
                    )
                    advice = "take it out: a rewritten pod has no such limit that could please it"
                    yield State.WRONG, text, advice


def _is_zero(amount: object) -> bool:
    try:
        return nanos(amount) == 0
    except InvalidQuantity:
        return False


def kueue(snapshot: Snapshot) -> Found:
    """Queues that count resources which rewritten pods do not ask for by that name."""
    covered = dict.fromkeys(
        name
        for queue in snapshot.all("queues")
        for group in queue["spec"].get("resourceGroups") or []
        for name in group.get("coveredResources") or []
        if snapshot.resources.find(name)
    )
    if not covered:
        return
    text = " ".join(
        str(value)
        for found in snapshot.all("kueue")
        for value in (found.get("data") or {}).values()
    )
    resources = [resource for name in covered if (resource := snapshot.resources.find(name))]
    lacking = [each for each in resources if each.device_class not in text]
    if not lacking:
        yield State.GOOD, f"Kueue's configuration maps the classes of {some(covered)}"
        return
    names = [resource.name for resource in lacking]
    found = (
        f"queues cover {some(names)}, and Kueue's deviceClassMappings do not have their classes: "
        "Kueue admits Jobs by the limits in their templates, and no rewritten pod of its own"
    )
    short = " ".join(each.profile.attribute if each.profile else each.name for each in lacking)
    yield State.UNSURE, found, f"instaslice deviceclasses --kueue {short}"


def device_classes(snapshot: Snapshot) -> Found:
    """Classes by which the scheduler serves what is rewritten, too."""
    served = snapshot.served_by_scheduler
    if not served:
        return
    names = [name for every in served.values() for name in every]
    noun, verb = ("DeviceClass", "maps") if len(names) == 1 else ("DeviceClasses", "map")
    text = f"{len(names)} {noun} {verb} {some(served)} for the scheduler"
    yield State.GOOD, f"{text}, which serves pods that are not rewritten"
    for resource, several in served.items():
        if len(several) > 1 and profiles.from_resource(resource):
            yield (
                State.UNSURE,
                f"{resource} is mapped by {some(several)}: the scheduler takes the newest",
                "keep one",
            )
