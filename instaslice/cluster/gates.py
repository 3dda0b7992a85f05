"""Detects which feature gates of the API server are on, by dry runs.

InstaSlice cannot read gates. If a gate is off, the API server drops the gate's fields silently, or
refuses the object without them. So InstaSlice sends dry runs that create objects with such fields,
and compares the answers with the objects. The scheduler's gates cannot be detected; administrators
normally set both alike.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, NamedTuple
from urllib.parse import quote

from instaslice.cluster.client import PLURALS, Answer, Caller, ClusterError
from instaslice.patch import Json
from instaslice.resource_api import ALTERNATIVES, DIFFERENT_GPUS, ResourceAPI

PARTITIONABLE: Final = "DRAPartitionableDevices"
EXTENDED: Final = "DRAExtendedResource"
PRIORITIZED: Final = "DRAPrioritizedList"
CONSUMABLE: Final = "DRAConsumableCapacity"

_TEMPLATE: Final = "ResourceClaimTemplate"
_ASKS: Final = {"deviceClassName": "gpu.nvidia.com"}


class Gate(NamedTuple):
    """A feature gate, and how to detect it."""

    needed_for: str
    kind: str
    spec: Json  #: of a resource.k8s.io/v1 object, which is kept whole only if the gate is on
    feature: str = ""  #: the member of `ResourceAPI.features` that needs the gate; may be empty


def _claim(request: Json, **more: object) -> Json:
    return {"spec": {"devices": {"requests": [{"name": "any", **request}], **more}}}


GATES: Final[Mapping[str, Gate]] = {
    PARTITIONABLE: Gate(
        "slices that are cut on demand (DynamicMIG)",
        "ResourceSlice",
        {
            "driver": "instaslice.invalid",
            "nodeName": "instaslice.invalid",
            "pool": {"name": "instaslice", "generation": 1, "resourceSliceCount": 1},
            "sharedCounters": [{"name": "set", "counters": {"counter": {"value": "1"}}}],
        },
    ),
    EXTENDED: Gate(
        "the scheduler's own way (KEP-5004), and quotas on requests.nvidia.com/mig-*",
        "DeviceClass",
        {"extendedResourceName": "instaslice.invalid/probe"},
    ),
    PRIORITIZED: Gate(
        "the annotation instaslice.io/alternatives",
        _TEMPLATE,
        _claim({"firstAvailable": [{"name": "one", **_ASKS}]}),
        ALTERNATIVES,
    ),
    # With the gate off, 1.34 keeps distinctAttribute, which its scheduler ignores, but drops
    # `capacity`, which has the same gate; 1.35 and 1.36 refuse the constraint (tested).
    CONSUMABLE: Gate(
        "the annotation instaslice.io/placement: different-gpus",
        _TEMPLATE,
        _claim(
            {"exactly": {**_ASKS, "capacity": {"requests": {"memory": "1Gi"}}}},
            constraints=[{"distinctAttribute": "gpu.nvidia.com/parentUUID"}],
        ),
        DIFFERENT_GPUS,
    ),
}


class Known(NamedTuple):
    """The state of a gate."""

    on: bool | None  #: None if unknown
    why: str = ""  #: the reason why it is unknown
    status: int = 0  #: the HTTP status of that answer; 0 for no answer


def find_out(cluster: Caller, api: ResourceAPI, known: ResourceAPI, namespace: str) -> ResourceAPI:
    """Remove the features that the API server does not keep from a version of resource.k8s.io.

    known: the fallback for gates that cannot be detected.
    namespace: for the dry runs of templates.
    """
    features = set(api.features)
    for name, gate in GATES.items():
        if gate.feature in features:
            verdict = ask(cluster, api, name, namespace).on
            if verdict is False or (verdict is None and gate.feature not in known.features):
                features.remove(gate.feature)
    return api if features == api.features else replace(api, features=frozenset(features))


def ask(cluster: Caller, api: ResourceAPI, name: str, namespace: str) -> Known:
    """Detect one gate by a dry run. namespace: for objects that need one."""
    gate = GATES[name]
    metadata, where = {"name": "instaslice-probe"}, api.group_version
    manifest = {"apiVersion": where, "kind": gate.kind, "metadata": metadata, "spec": gate.spec}
    if gate.kind == _TEMPLATE:
        metadata["namespace"] = namespace
        where += f"/namespaces/{quote(namespace, safe='')}"
    try:
        answer = cluster.call("POST", f"/apis/{where}/{PLURALS[gate.kind]}?dryRun=All", manifest)
    except ClusterError as error:
        return Known(None, str(error))
    return judge(gate.spec, answer)


def judge(spec: object, answer: Answer) -> Known:
    """Derive the state of a gate from the answer to a dry run of its spec.

    If the object is invalid without the dropped fields, the API server answers 422 and names a
    field of the spec. An admission policy also refuses with 422, but names no field.
    """
    if answer.status == 201:
        return Known(_is_in(spec, answer.body.get("spec")))
    details = answer.body.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    if answer.status == 422 and isinstance(causes, list):
        fields = [str(each.get("field")) for each in causes if isinstance(each, dict)]
        if any(field.startswith("spec.") for field in fields):
            return Known(False)
    return Known(None, answer.reason, answer.status)


def _is_in(sent: object, found: object) -> bool:
    """Whether the answer has everything that was sent; the API server may add defaults."""
    if isinstance(sent, dict):
        return isinstance(found, dict) and all(
            key in found and _is_in(value, found[key]) for key, value in sent.items()
        )
    if isinstance(sent, list):
        return isinstance(found, list) and len(sent) == len(found) and all(map(_is_in, sent, found))
    return sent == found
