"""Rewrites strategic-merge patches for bases that are rewritten, too.

A patch is not a whole object, since its base has the rest. It is rewritten so that the rewritten
base with the rewritten patch equals the rewritten result of both. kustomize merges containers by
name, and replaces all of `resourceClaims` and `claims`, which its schema does not know.
"""

import copy
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from instaslice.manifests.leftovers import is_kustomization
from instaslice.manifests.workloads import (
    ANY,
    BUILT_IN,
    Manifest,
    Path,
    Template,
    at,
    listed,
    places,
)
from instaslice.patch import Json
from instaslice.resources import Resources

#: Kinds of the group apps that require a selector.
_NEED_SELECTOR: Final = {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"}
_CONTAINERS: Final = ("containers", "initContainers")
_AMOUNTS: Final = ("limits", "requests")
_DIRECTIVE: Final = "$patch"
#: Keys of a Kustomization that name patches, and its other sources.
_PATCHES: Final = ("patches", "patchesStrategicMerge", "patchesJson6902")
_BUILT_FROM: Final = ("resources", "bases", "components")
#: Where objects in a cluster hold what a Kustomization holds at its root, by API group.
_HOLDERS: Final[dict[str | None, tuple[Path, ...]]] = {
    "kustomize.toolkit.fluxcd.io": (("spec",),),
    "helm.toolkit.fluxcd.io": (("spec", "postRenderers", ANY, "kustomize"),),
    "argoproj.io": (
        ("spec", "source", "kustomize"),
        ("spec", "sources", ANY, "kustomize"),
        ("spec", "template", "spec", "source", "kustomize"),
    ),
}
#: The end of a JSON Pointer to a container's limits, or to what holds them.
HELD: Final = r"ontainers/[0-9]+(?:/resources(?:/limits)?)?"


class Builds:
    """The sources of the Kustomizations among the files. All paths are normalized."""

    def __init__(self) -> None:
        self.refers: dict[str, set[str]] = {}  #: by folder: what its Kustomization names
        #: Files that hold patches, with their targets; `{}` stands for several targets.
        self.patches: dict[str, Json | None] = {}
        self.resources: set[str] = set()  #: files that hold whole objects

    def note(self, name: str, kustomization: Json) -> None:
        """Note the sources of a Kustomization in a file."""
        folder = os.path.normpath(os.path.dirname(name))

        def named(*keys: str) -> Iterator[tuple[str, Json | None]]:
            for each in (each for key in keys for each in listed(kustomization.get(key))):
                path = each.get("path") if isinstance(each, dict) else each
                if isinstance(path, str) and "\n" not in path:
                    yield os.path.normpath(os.path.join(folder, path)), _target(each)

        files = list(named(*_PATCHES))
        for file, target in files:
            self.patches[file] = target if self.patches.get(file, target) == target else {}
        sources = {file for file, _ in named(*_BUILT_FROM)}
        self.resources |= sources
        self.refers[folder] = sources.union(file for file, _ in files)

    def role(self, file: str) -> bool | None:
        """Whether a Kustomization names a file as a patch, or as a resource; None for neither."""
        return True if file in self.patches else False if file in self.resources else None

    def has_another(self, file: str, others: Iterable[str]) -> bool:
        """Whether one build may use the patches of a file and of one of the others.

        A file that no Kustomization names may belong to that of its folder.
        """
        homes = [(each, os.path.dirname(each) or ".") for each in (file, *others)]
        for folder in {*self.refers, homes[0][1]}:
            build = [folder]
            for each in build:
                build += self.refers.get(each, set()).difference(build)
            is_used = [
                each in build or (home in build and self.role(each) is None) for each, home in homes
            ]
            if is_used[0] and any(is_used[1:]):
                return True
        return False


def kustomizations(manifest: Manifest) -> Iterator[tuple[Path, Json]]:
    """Yield the Kustomizations in an object, each with its path."""
    for pattern in _HOLDERS.get(manifest.group, ((),) if is_kustomization(manifest) else ()):
        yield from places(manifest.value, pattern)


def inline(manifest: Manifest) -> Iterator[tuple[Path, str, Json | None]]:
    """Yield the path, the text and the target of each inline patch in an object.

    A text may also be the name of a file.
    """
    for path, found in kustomizations(manifest):
        for key in _PATCHES:
            for index, each in enumerate(listed(found.get(key))):
                is_entry = isinstance(each, dict)
                text = each.get("patch") if is_entry else each
                if isinstance(text, str):
                    where: Path = (*path, key, index)
                    yield (*where, "patch") if is_entry else where, text, _target(each)


def _target(entry: Any) -> Json | None:
    """The target of an entry in a Kustomization; None if it has none."""
    target = at(entry, ("target",))
    return target if isinstance(target, dict) else None


def wanted(patch: Manifest, target: Json | None) -> Json:
    """The group, kind and name of a patch's base, as far as they are known.

    kustomize prefers the target to what the patch itself says. A target holds regular expressions,
    and labels that may exclude an object.
    """
    if target is None:
        found = {"group": patch.group, "kind": patch.kind, "name": patch.name}
    else:
        found = {key: target.get(key) for key in ("group", "kind", "name")}
    return {k: v for k, v in found.items() if isinstance(v, str) and not re.search(r"[^\w.-]", v)}


def of_operations(operations: list[Any]) -> Manifest:
    """A JSON patch (RFC 6902), which names no object itself."""
    return Manifest((), {"operations": operations}, None, "", None, "")


def template(patch: Manifest) -> Template:
    """The pod template of a patch."""
    spec = spec_of(patch)
    found = at(patch.value, spec)
    return Template(spec[:-1], spec, {"spec": found if isinstance(found, dict) else {}})


def spec_of(manifest: Manifest) -> Path:
    """The path of the pod's spec in one of Kubernetes' own objects; empty for others.

    A patch may have neither apiVersion nor kind: then its containers show the path.
    """
    if manifest.place is not None:
        return (*manifest.place, "spec")
    places = dict.fromkeys(BUILT_IN.values()) if not manifest.kind and not manifest.group else ()
    every: Iterator[Path] = ((*place, "spec") for place in places)
    return next((path for path in every if any(_containers(manifest.value, path))), ())


def is_patch(manifest: Manifest, role: bool | None) -> bool:
    """Whether a manifest is a patch: it has directives, or lacks what every object needs.

    role: of its file, from `Builds`. kustomize can add a selector to a resource.
    """
    spec = spec_of(manifest)
    if not spec or role is not None or not manifest.kind:
        return bool(spec) and role is not False
    if not manifest.name:
        return False
    needs_selector = manifest.group in ("apps", None) and manifest.kind in _NEED_SELECTOR
    return (
        (needs_selector and not at(manifest.value, ("spec", "selector")))
        or has_directive(manifest.value)
        or any("image" not in each for _, each in _containers(manifest.value, spec))
    )


def concerns(patch: Manifest, resources: Resources) -> bool:
    """Whether a patch may affect the limits or claims of a pod, or how they are rewritten."""
    path = spec_of(patch)
    spec = at(patch.value, path) if path else None
    marks = [at(patch.value, (*path[:-1], "metadata", key)) for key in ("labels", "annotations")]
    if any("instaslice.io/" in str(each) for each in marks):
        return True
    if not isinstance(spec, dict):
        return any(
            each.get("op") in ("remove", "replace")
            and re.search(rf"{HELD}\Z", str(each.get("path")))
            for each in _objects(patch.value.get("operations"))
        )
    containers = [each for _, each in _containers(spec)]
    held = [each.get("resources", {}) for each in containers]
    amounts = [each.get(key, {}) for each in held if isinstance(each, dict) for key in _AMOUNTS]
    return (
        "resourceClaims" in spec
        or any("$" in key for each in (spec, *containers) for key in each)
        or any(map(has_directive, held))
        or any(not isinstance(each, dict) or "claims" in each for each in held)
        or any(not isinstance(each, dict) or any(map(resources.find, each)) for each in amounts)
    )


def has_claims(patch: Manifest) -> bool:
    """Whether a patch declares or uses claims."""
    spec = at(patch.value, spec_of(patch))
    used = (
        at(each, ("resources", "claims")) for _, each in _containers(patch.value, spec_of(patch))
    )
    return bool(at(spec, ("resourceClaims",))) or any(used)


def has_directive(value: Any) -> bool:
    """Whether a patch holds a directive, such as `$patch`."""
    if isinstance(value, dict):
        return any(key.startswith("$") or has_directive(below) for key, below in value.items())
    return isinstance(value, list) and any(map(has_directive, value))


def merged(base: Any, patch: Any, key: str = "") -> Any:
    """Merge a patch into a base as kustomize does, as far as it affects pods' devices."""
    if isinstance(base, list) and isinstance(patch, list) and key in _CONTAINERS:
        return _merged_list(base, patch)
    if not isinstance(patch, dict):
        return patch
    if not isinstance(base, dict) or patch.get(_DIRECTIVE) == "replace":
        base = {}
    result = dict(base)
    for name, value in patch.items():
        if name.startswith("$"):
            continue
        if value is None or (isinstance(value, dict) and value.get(_DIRECTIVE) == "delete"):
            result.pop(name, None)
        else:
            result[name] = merged(base.get(name), value, name)
    return result


def _merged_list(base: list[Any], patch: list[Any]) -> list[Any]:
    if {_DIRECTIVE: "replace"} in patch:
        return [merged({}, each) for each in patch if each != {_DIRECTIVE: "replace"}]
    result, new = list(base), []
    for each in _objects(patch):
        found = _find(result, each)
        if each.get(_DIRECTIVE) == "delete":
            result = [other for other in result if other is not found]
        elif found is None:
            new.append(merged({}, each))
        else:
            result[result.index(found)] = merged(found, each)
    return [*new, *result]


def rewritten(base: Manifest, patch: Manifest, rewrite: Callable[[Manifest], Json]) -> Json | None:
    """Rewrite a patch so that the rewritten base with it equals the rewritten merge of both.

    None if no patch does that, or if it is a JSON patch. rewrite: returns a rewritten object.
    """
    if not spec_of(patch):
        return None
    spec, after = spec_of(base), rewrite(base)
    both = base._replace(value=merged(base.value, patch.value))
    wanted = _named_alike(rewrite(both), after, spec)
    result = copy.deepcopy(patch.value)
    for kind, container in _containers(wanted, spec):
        own = _find(at(result, (*spec, kind)), container)
        _strip(own, container)
        found = _find(at(merged(after, result), (*spec, kind)), container)
        if found is not None and _claims(found) != _claims(container):
            if own is None:
                own = {"name": container.get("name")}
                _below(result, spec).setdefault(kind, []).append(own)
            _below(own, ("resources",))["claims"] = _claims(container)
    claims = at(wanted, (*spec, "resourceClaims"))
    if at(merged(after, result), (*spec, "resourceClaims")) != claims:
        _below(result, spec)["resourceClaims"] = claims
    return result if _devices(merged(after, result), spec) == _devices(wanted, spec) else None


def _named_alike(wanted: Json, after: Json, spec: Path) -> Json:
    """Rename the wanted claims to the base's, if the same containers use them."""
    old, new = _users(after, spec), _users(wanted, spec)
    free = {name: users for name, users in old.items() if name not in new}
    text = json.dumps(wanted)
    for name, users in new.items():
        like = next((each for each in free if free[each] == users), None)
        if name not in old and like:
            text = text.replace(json.dumps(name), json.dumps(like))
            del free[like]
    result: Json = json.loads(text)
    return result


def _users(value: Json, spec: Path) -> dict[str, list[Any]]:
    """The names of the containers that use each of a pod's claims."""
    declared = _objects(at(value, (*spec, "resourceClaims")))
    users: dict[str, list[Any]] = {str(claim.get("name")): [] for claim in declared}
    for _, container in _containers(value, spec):
        for claim in _objects(_claims(container)):
            users.setdefault(str(claim.get("name")), []).append(container.get("name"))
    return users


def _strip(container: Json | None, wanted: Json) -> None:
    """Remove the amounts that became claims from a patch's container."""
    held = at(container, ("resources",))
    if not container or not isinstance(held, dict):
        return
    for key in _AMOUNTS:
        if isinstance(amounts := held.get(key), dict):
            stays = at(wanted, ("resources", key)) or {}
            held[key] = {k: v for k, v in amounts.items() if v is None or k in stays}
            if not held[key]:
                del held[key]
    if not held:
        del container["resources"]


def _devices(value: Json, spec: Path) -> Any:
    """All resources and claims of a pod, in a form that can be compared."""
    containers = []
    for kind, each in _containers(value, spec):
        held = each.get("resources")
        full = {k: v for k, v in held.items() if v} if isinstance(held, dict) else {}
        containers.append([kind, each.get("name"), full])
    return sorted(containers, key=str), at(value, (*spec, "resourceClaims")) or None


def _below(value: Json, path: Iterable[str | int]) -> Json:
    """Return the object at a path; create it if it does not exist."""
    for step in map(str, path):
        if not isinstance(value.get(step), dict):
            value[step] = {}
        value = value[step]
    return value


def _claims(container: Json) -> Any:
    return at(container, ("resources", "claims")) or None


def _find(listed: Any, like: Json) -> Json | None:
    """The object in a list with the same name as another object."""
    return next((each for each in _objects(listed) if each.get("name") == like.get("name")), None)


def _containers(value: Json, spec: Path = ()) -> Iterator[tuple[str, Json]]:
    """Yield the containers of a spec at a path, each with the name of its list."""
    for kind in _CONTAINERS:
        for each in _objects(at(value, (*spec, kind))):
            yield kind, each


def _objects(value: object) -> list[Json]:
    """The objects in a list; none if the value is not a list."""
    return [each for each in listed(value) if isinstance(each, dict)]
