"""Which feature gates the API server has on, told by what it would keep of objects never made.

A gate that is off is written nowhere that InstaSlice may read. The API server then drops the gate's
fields in silence, or refuses the object because of what is left of it. So it is asked to create
objects with such fields, as dry runs, and its answers are compared with them. The scheduler has
gates of its own, which nobody can ask; any sane cluster sets both alike.
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
    """How to tell whether a gate is on."""

    needed_for: str
    kind: str
    spec: Json  #: an object's of resource.k8s.io/v1, that only the gate lets through whole
    feature: str = ""  #: of `ResourceAPI.features`, that goes with the gate; empty for none


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
    # With the gate off, 1.34 keeps distinctAttribute, which its scheduler does not know, but it
    # drops `capacity`, of the same gate; 1.35 and 1.36 refuse the constraint (seen).
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
    """The state of a gate, as far as it is known."""

    on: bool | None  #: None where nobody could tell
    why: str = ""  #: ... and why not
    status: int = 0  #: ... by which HTTP status; 0 for no answer


def find_out(cluster: Caller, api: ResourceAPI, known: ResourceAPI, namespace: str) -> ResourceAPI:
    """A version of resource.k8s.io without the features that the API server does not keep.

    known: is believed where there is no answer, or InstaSlice may not ask.
    namespace: where templates would be made; none is.
    """
    features = set(api.features)
    for name, gate in GATES.items():
        if gate.feature in features:
            verdict = ask(cluster, api, name, namespace).on
            if verdict is False or (verdict is None and gate.feature not in known.features):
                features.remove(gate.feature)
    return api if features == api.features else replace(api, features=frozenset(features))


def ask(cluster: Caller, api: ResourceAPI, name: str, namespace: str) -> Known:
    """Ask the API server for one gate. namespace: where an object would be made, if it has one."""
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
    """The state of the gate that a spec needs, according to an answer.

    The API server refuses as invalid (422) what is not whole without the fields that it drops, and
    names a field of the spec. An admission policy refuses with 422 too, and names none.
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
    """Whether all that was sent came back; the API server adds defaults."""
    if isinstance(sent, dict):
        return isinstance(found, dict) and all(
            key in found and _is_in(value, found[key]) for key, value in sent.items()
        )
    if isinstance(sent, list):
        return isinstance(found, list) and len(sent) == len(found) and all(map(_is_in, sent, found))
    return sent == found
