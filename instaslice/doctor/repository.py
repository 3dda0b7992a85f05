"""The workloads in the files of a repository, as a snapshot that `plan` reads. Pure."""

from collections.abc import Iterable, Iterator

from instaslice.doctor.plan import FILE
from instaslice.doctor.snapshot import Snapshot, Unreadable
from instaslice.patch import Json
from instaslice.resource_api import NEWEST
from instaslice.resources import Resources

#: Where Kueue's manifests have its configuration.
KUEUE_CONFIGURATION = "kueue-manager-config"
_LISTS = {"ResourceQuota": "quotas", "LimitRange": "limits", "ClusterQueue": "queues"}


def read(
    documents: Iterable[tuple[str, object]], failures: dict[str, str], resources: Resources
) -> Snapshot:
    """A snapshot of what documents hold. documents: each with the path of its file.

    failures: by path, why a file could not be read.
    """
    lists: dict[str, list[Json]] = {"pods": [], "classes": []}
    for path, document in documents:
        for manifest in _manifests(document):
            kind, found = manifest["kind"], _metadata(manifest)
            if kind == "ConfigMap" and found["name"] == KUEUE_CONFIGURATION:
                lists.setdefault("kueue", []).append(manifest)
            if kind in _LISTS and isinstance(manifest.get("spec"), dict):
                lists.setdefault(_LISTS[kind], []).append({**manifest, "metadata": found})
            for spec in _pod_specs(manifest):
                owner = {"kind": kind, "name": found["name"], "controller": True}
                about = {**found, "ownerReferences": [owner], "annotations": {FILE: path}}
                lists["pods"].append({"metadata": about, "spec": spec})
    if "kueue" not in lists:
        lists.pop("queues", None)  # nobody knows what the configuration maps
    why = {path: Unreadable(text) for path, text in failures.items()}
    return Snapshot("", NEWEST, lists, why, resources=resources)


def _manifests(document: object) -> Iterator[Json]:
    """The objects of a document: itself, or the items of a List."""
    if isinstance(document, dict) and isinstance(document.get("kind"), str):
        items = document.get("items")
        if document["kind"].endswith("List") and isinstance(items, list):
            for item in items:
                yield from _manifests(item)
        else:
            yield document


def _metadata(manifest: Json) -> dict[str, str]:
    found = manifest.get("metadata")
    texts = found if isinstance(found, dict) else {}
    name = texts.get("name") or texts.get("generateName") or "?"
    return {"name": str(name), "namespace": str(texts.get("namespace") or "")}


def _pod_specs(value: object) -> Iterator[Json]:
    """Every pod spec in a value: what has containers, or limits as one of Argo's has."""
    if isinstance(value, dict):
        containers = value.get("containers")
        if isinstance(containers, list) and all(isinstance(each, dict) for each in containers):
            yield {**value, **{key: _containers(value.get(key)) for key in _CONTAINERS}}
            return
        resources = value.get("resources")
        if isinstance(resources, dict) and isinstance(resources.get("limits"), dict):
            yield {"containers": _containers([value])}
        for below in value.values():
            yield from _pod_specs(below)
    elif isinstance(value, list):
        for below in value:
            yield from _pod_specs(below)


_CONTAINERS = ("containers", "initContainers")


def _containers(found: object) -> list[Json]:
    """Containers with limits that are an object, which is all that a plan looks at."""
    listed = [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    every = []
    for each in listed:
        resources = each.get("resources")
        limits = resources.get("limits") if isinstance(resources, dict) else None
        every.append({**each, "resources": {"limits": limits if isinstance(limits, dict) else {}}})
    return every
