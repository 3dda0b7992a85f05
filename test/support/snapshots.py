"""The objects of a cluster that `doctor` reads, as plain data."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from instaslice.cluster.client import Answer
from instaslice.cluster.gates import GATES, Known
from instaslice.doctor.policies import OWN
from instaslice.doctor.snapshot import Probe, Snapshot
from instaslice.resource_api import NEWEST, VERSIONS
from instaslice.resources import MIG
from instaslice.templates import from_template, objects
from instaslice.webhook_configuration import ALL, webhook_configuration

Json = dict[str, Any]


def webhook(mode: str = ALL, *resources: str, **fields: Any) -> Json:
    """A MutatingWebhookConfiguration as InstaSlice prints it; fields: of the webhook."""
    manifest = webhook_configuration(mode, resources)
    (found,) = manifest["webhooks"]
    found["clientConfig"]["caBundle"] = "Q0E="
    return {"metadata": manifest["metadata"], "webhooks": [{"name": "other"}, found | fields]}


def pod(
    name: str = "p", template: str = "", limit: str = "", node: str = "", phase: str = "Pending"
) -> Json:
    """A pod in the namespace ml."""
    limits = {"limits": {f"nvidia.com/{limit}": "1"}} if limit else {}
    spec: Json = {"containers": [{"name": "c", "resources": limits}]}
    if template:
        spec["resourceClaims"] = [{"name": "0123456789", "resourceClaimTemplateName": template}]
    if node:
        spec["nodeName"] = node
    status = {"phase": phase}
    return {"metadata": {"name": name, "namespace": "ml"}, "spec": spec, "status": status}


def named(name: str, namespace: str = "ml", **fields: Any) -> Json:
    return {"metadata": {"name": name, "namespace": namespace}, **fields}


def slice_(*profiles: str, pool: str = "node-1", generation: int = 1, basic: bool = False) -> Json:
    """A ResourceSlice of a node whose GPU has been cut into slices of some profiles."""
    listed: list[Json] = []
    for index, profile in enumerate(profiles):
        texts = {"profile": profile, "type": "mig", "uuid": f"MIG-{pool}-{index}"}
        body: Json = {"attributes": {key: {"string": text} for key, text in texts.items()}}
        listed.append({"name": f"mig-{index}", **({"basic": body} if basic else body)})
    listed.append({"name": "gpu-0", "attributes": {"type": {"string": "gpu"}}})
    return {
        "spec": {
            "driver": "gpu.nvidia.com",
            "pool": {"name": pool, "generation": generation},
            "nodeName": pool,
            "devices": listed,
        }
    }


def claim(*names: str, pool: str = "node-1", driver: str = "gpu.nvidia.com") -> Json:
    results = [{"driver": driver, "pool": pool, "device": name} for name in names]
    return {"status": {"allocation": {"devices": {"results": results}}}}


def template(name: str, namespace: str = "ml") -> Json:
    """The template of that name, as InstaSlice creates it."""
    found = from_template(name, MIG)
    assert found
    return objects(NEWEST, found, namespace)[-1]


def own_classes(name: str) -> list[Json]:
    """The DeviceClasses that a template uses, as InstaSlice creates them."""
    found = from_template(name, MIG)
    assert found
    return objects(NEWEST, found)[:-1]


def bindings(*policies: str, actions: tuple[str, ...] = ("Deny",)) -> list[Json]:
    """ValidatingAdmissionPolicyBindings."""
    return [{"spec": {"policyName": name, "validationActions": [*actions]}} for name in policies]


#: A cluster in which `doctor` finds nothing wrong.
HEALTHY = Snapshot(
    kubernetes="v1.36.3",
    api=VERSIONS["v1"],
    lists={
        "webhooks": [{"metadata": {"name": "others"}}, webhook()],
        "endpoints": [{"endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]}],
        "classes": [named("mig.nvidia.com", "", spec={}), *own_classes("mig-1g.5gb")],
        "slices": [slice_("1g.5gb", "1g.5gb+me")],
        "claims": [named("theirs") | claim("mig-1")],
        "templates": [template("mig-1g.5gb")],
        "policies": [named(name, "") for name in OWN],
        "bindings": bindings(*OWN),
        "pods": [pod(template="mig-1g.5gb"), pod("old", limit="mig-7g.40gb", phase="Succeeded")],
        "nodes": [named("node-1", "", status={"allocatable": {"nvidia.com/mig-1g.5gb": "0"}})],
        "quotas": [named("q", spec={"hard": {"requests.cpu": "1"}}), named("empty", spec={})],
    },
    probes=(Probe("default", "nvidia.com/mig-1g.5gb", Answer(201, pod(template="mig-1g.5gb"))),),
    gates=dict.fromkeys(GATES, Known(True)),
)


def with_lists(snapshot: Snapshot = HEALTHY, /, **lists: list[Json]) -> Snapshot:
    return replace(snapshot, lists=snapshot.lists | lists)


def device_class(name: str, extended: str = "", driver: str = "gpu.nvidia.com") -> Json:
    """A DeviceClass of a driver's devices."""
    selectors = [{"cel": {"expression": f"device.driver == '{driver}' && true"}}]
    more = {"extendedResourceName": extended} if extended else {}
    return {"metadata": {"name": name}, "spec": {"selectors": selectors, **more}}


def recorded(name: str) -> dict[str, str]:
    """Reports by case, as a file of test/doctor has them. name: of the file."""
    text = (Path(__file__).parents[1] / "doctor" / name).read_text()
    parts = (part.partition("\n") for part in text.rstrip().split("\n== ")[1:])
    return {case: report and report + "\n" for case, _, report in parts}
