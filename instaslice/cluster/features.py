"""Which features of resource.k8s.io the API server keeps, asked by objects that are never made.

A feature gate that is off is written nowhere that InstaSlice may read. The API server then drops
the gate's fields in silence, or refuses the object because of what is left of it. So it is asked to
create a ResourceClaimTemplate with such fields, as a dry run, and what it answers is compared.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final
from urllib.parse import quote

from instaslice.cluster.client import PLURALS, Answer, Caller, ClusterError
from instaslice.patch import Json
from instaslice.resource_api import ALTERNATIVES, DIFFERENT_GPUS, GROUP, ResourceAPI

_ASKS: Final = {"deviceClassName": "gpu.nvidia.com"}
_ATTRIBUTE: Final = "gpu.nvidia.com/parentUUID"

#: By feature, a claim (DeviceClaim of resource.k8s.io/v1) that only its gate lets through whole.
#: With DRAConsumableCapacity off, 1.34 keeps distinctAttribute, which its scheduler does not know,
#: but it drops `capacity`, of the same gate; 1.35 and 1.36 refuse the constraint (seen).
PROBES: Final[Mapping[str, Json]] = {
    ALTERNATIVES: {"requests": [{"name": "any", "firstAvailable": [{"name": "one", **_ASKS}]}]},
    DIFFERENT_GPUS: {
        "requests": [
            {"name": "one", "exactly": {**_ASKS, "capacity": {"requests": {"memory": "1Gi"}}}}
        ],
        "constraints": [{"distinctAttribute": _ATTRIBUTE}],
    },
}


def find_out(cluster: Caller, api: ResourceAPI, known: ResourceAPI, namespace: str) -> ResourceAPI:
    """A version of resource.k8s.io without the features that the API server does not keep.

    known: is believed where there is no answer, or InstaSlice may not ask.
    namespace: where templates would be made; none is.
    """
    features = set(api.features)
    for feature in features & PROBES.keys():
        verdict = _keeps(cluster, api, PROBES[feature], namespace)
        if verdict is False or (verdict is None and feature not in known.features):
            features.remove(feature)
    return api if features == api.features else replace(api, features=frozenset(features))


def _keeps(cluster: Caller, api: ResourceAPI, devices: Json, namespace: str) -> bool | None:
    kind = "ResourceClaimTemplate"
    template = {
        "apiVersion": f"{GROUP}/{api.version}",
        "kind": kind,
        "metadata": {"name": "instaslice-probe", "namespace": namespace},
        "spec": {"spec": {"devices": devices}},
    }
    where = f"{GROUP}/{api.version}/namespaces/{quote(namespace, safe='')}/{PLURALS[kind]}"
    try:
        answer = cluster.call("POST", f"/apis/{where}?dryRun=All", template)
    except ClusterError:
        return None
    return kept(template["spec"], answer)


def kept(spec: object, answer: Answer) -> bool | None:
    """Whether the API server would keep all of a spec, by its answer; None where that says nothing.

    It refuses as invalid (422) what is not whole without the fields that it drops, and names a
    field of the claim. An admission policy refuses with 422 too, and names none.
    """
    if answer.status == 201:
        return _is_in(spec, answer.body.get("spec"))
    details = answer.body.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    fields = [
        str(cause.get("field"))
        for cause in (causes if isinstance(causes, list) else [])
        if isinstance(cause, dict)
    ]
    is_ours = any(field.startswith("spec.spec.devices") for field in fields)
    return False if answer.status == 422 and is_ours else None


def _is_in(sent: object, found: object) -> bool:
    """Whether all that was sent came back; the API server adds defaults."""
    if isinstance(sent, dict):
        return isinstance(found, dict) and all(
            key in found and _is_in(value, found[key]) for key, value in sent.items()
        )
    if isinstance(sent, list):
        return isinstance(found, list) and len(sent) == len(found) and all(map(_is_in, sent, found))
    return sent == found
