"""The workloads in the files of a repository, as a snapshot that `plan` reads. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Iterator

from instaslice.doctor.plan import FILE, make
from instaslice.doctor.snapshot import Snapshot, Unreadable
from instaslice.patch import Json
from instaslice.resource_api import NEWEST
from instaslice.resources import Resources

#: Where Kueue's manifests have its configuration.
KUEUE_CONFIGURATION = "kueue-manager-config"
#: Values in an object that are looked at: YAML's aliases make many of a few lines.
_MAX_VALUES = 200_000
_LISTS = {"ResourceQuota": "quotas", "LimitRange": "limits", "ClusterQueue": "queues"}


def read(
    documents: Iterable[tuple[str, object]], failures: dict[str, str], resources: Resources
) -> Snapshot:
    """A snapshot of what documents hold. documents: each with the path of its file.

    failures: by path, why a file could not be read.
    """
    lists: dict[str, list[Json]] = defaultdict(list)
    why = {}
    for path, manifest in ((path, each) for path, found in documents for each in _manifests(found)):
        try:
            listed = list(_listed(path, manifest))
            for name, each in listed:  # nobody has validated it
                make(Snapshot("", NEWEST, {name: [each]}, resources=resources))
        except (AttributeError, KeyError, TypeError, ValueError):
            why[path] = Unreadable(f"a {manifest['kind']} in it is not as Kubernetes defines it")
            continue
        for name, each in listed:
            lists[name].append(each)
    if "kueue" not in lists:
        lists.pop("queues", None)  # nobody knows what the configuration maps
    why |= {path: Unreadable(text) for path, text in failures.items()}
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


def _listed(path: str, manifest: Json) -> Iterator[tuple[str, Json]]:
    """The objects that matter in an object, each with the name of its list in a snapshot."""
    kind, metadata = manifest["kind"], manifest.get("metadata")
    texts = metadata if isinstance(metadata, dict) else {}
    name = str(texts.get("name") or texts.get("generateName") or "?")
    found = {"name": name, "namespace": str(texts.get("namespace") or "")}
    if kind == "ConfigMap" and name == KUEUE_CONFIGURATION:
        yield "kueue", manifest
    if kind in _LISTS and isinstance(manifest.get("spec"), dict):
        yield _LISTS[kind], {**manifest, "metadata": found}
    owner = {"kind": kind, "name": name, "controller": True}
    about = {**found, "ownerReferences": [owner], "annotations": {FILE: path}}
    for spec in _pod_specs(manifest):
        yield "pods", {"metadata": about, "spec": spec}


def _pod_specs(manifest: Json) -> Iterator[Json]:
    """Every pod spec in an object: what has containers, or limits as one of Argo's has."""
    values: list[object] = [manifest]
    for _ in range(_MAX_VALUES):
        value = values.pop() if values else None
        if isinstance(value, dict):
            containers, resources = value.get("containers"), value.get("resources")
            if isinstance(containers, list) and all(isinstance(each, dict) for each in containers):
                yield value
                continue
            if isinstance(resources, dict) and isinstance(resources.get("limits"), dict):
                yield {"containers": [value]}
            value = list(value.values())
        if isinstance(value, list):
            values += reversed(value)
        if not values:
            return
    raise ValueError("it has too many values")
