"""Which feature gates the API server has on, told by what it keeps of an object. Pure.

It drops fields whose gate is off, silently, also in a dry run. The scheduler has gates of its own,
which nobody can ask; they are set alike in any sane cluster.
"""

from typing import Final, NamedTuple

from instaslice.cluster.client import Answer
from instaslice.patch import Json
from instaslice.resource_api import GROUP, ResourceAPI

PARTITIONABLE: Final = "DRAPartitionableDevices"
EXTENDED: Final = "DRAExtendedResource"
PRIORITIZED: Final = "DRAPrioritizedList"
CONSUMABLE: Final = "DRAConsumableCapacity"

_REQUEST: Final[Json] = {"deviceClassName": "instaslice.invalid"}


class Gate(NamedTuple):
    """How to tell whether a gate is on."""

    needed_for: str
    kind: str
    plural: str
    namespaced: bool
    spec: Json  #: an object's, in resource.k8s.io/v1
    path: tuple[str | int, ...]  #: of the field that is dropped, in the object


_TEMPLATE: Final = ("ResourceClaimTemplate", "resourceclaimtemplates", True)
_DEVICES: Final = ("spec", "spec", "devices")

GATES: Final = {
    PARTITIONABLE: Gate(
        "slices that are cut on demand (DynamicMIG)",
        *("ResourceSlice", "resourceslices", False),
        {
            "driver": "instaslice.invalid",
            "nodeName": "instaslice.invalid",
            "pool": {"name": "instaslice", "generation": 1, "resourceSliceCount": 1},
            "sharedCounters": [{"name": "set", "counters": {"counter": {"value": "1"}}}],
        },
        ("spec", "sharedCounters"),
    ),
    EXTENDED: Gate(
        "the scheduler's own way (KEP-5004), and quotas on requests.nvidia.com/mig-*",
        *("DeviceClass", "deviceclasses", False),
        {"extendedResourceName": "instaslice.invalid/probe"},
        ("spec", "extendedResourceName"),
    ),
    PRIORITIZED: Gate(
        "the annotation instaslice.io/alternatives",
        *_TEMPLATE,
        {
            "spec": {
                "devices": {
                    "requests": [{"name": "r", "firstAvailable": [{"name": "a", **_REQUEST}]}]
                }
            }
        },
        (*_DEVICES, "requests", 0, "firstAvailable"),
    ),
    CONSUMABLE: Gate(
        "the annotation instaslice.io/placement: different-gpus",
        *_TEMPLATE,
        # Another field of the same gate: 1.34 keeps `distinctAttribute` though it is off (seen).
        {
            "spec": {
                "devices": {
                    "requests": [
                        {"name": "r", "exactly": {**_REQUEST, "capacity": {"requests": {"c": "1"}}}}
                    ]
                }
            }
        },
        (*_DEVICES, "requests", 0, "exactly", "capacity"),
    ),
}


class Known(NamedTuple):
    """What was learnt of a gate."""

    on: bool | None  #: None where nobody could tell
    why: str = ""  #: ... and why not


def probe(api: ResourceAPI, name: str, namespace: str) -> tuple[str, Json]:
    """Where to POST which object, as a dry run."""
    gate = GATES[name]
    where = f"/namespaces/{namespace}" if gate.namespaced else ""
    path = f"/apis/{GROUP}/{api.version}{where}/{gate.plural}?dryRun=All"
    metadata = {"generateName": "instaslice-doctor-"}
    version = f"{GROUP}/{api.version}"
    manifest = {"apiVersion": version, "kind": gate.kind, "metadata": metadata, "spec": gate.spec}
    return path, manifest


def judge(name: str, answer: Answer) -> Known:
    """What an answer says of a gate.

    A template that asks for nothing once a field is gone is invalid (422); who may not create such
    an object is told nothing (403).
    """
    if answer.status == 201:
        return Known(bool(_at(answer.body, GATES[name].path)))
    return Known(False) if answer.status == 422 else Known(None, answer.reason)


def _at(value: object, path: tuple[str | int, ...]) -> object:
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value
