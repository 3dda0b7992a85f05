"""Strategic-merge patches: what becomes of one whose base is rewritten.

A patch is no object: what it leaves out, its base has. It is rewritten so that kustomize makes of
the rewritten base what `rewrite` makes of base and patch together. kustomize merges containers by
name and replaces `resourceClaims` and `claims`, which its schema does not know, as a whole.
"""

import copy
import os
from collections.abc import Callable, Iterator
from typing import Any, Final

from instaslice.manifests.workloads import BUILT_IN, Manifest, Path, at
from instaslice.patch import Json
from instaslice.resources import Resources

#: Kinds of the group apps, whose objects need a selector.
_NEED_SELECTOR: Final = {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"}
_CONTAINERS: Final = ("containers", "initContainers")
_DIRECTIVE: Final = "$patch"


def files_of(kustomization: Json, folder: str) -> Iterator[str]:
    """The files of patches that a Kustomization in a folder names."""
    listed = [kustomization.get(key) for key in ("patches", "patchesStrategicMerge")]
    for each in (each for patches in listed if isinstance(patches, list) for each in patches):
        path = each.get("path") if isinstance(each, dict) else each
        if isinstance(path, str) and "\n" not in path:
            yield os.path.normpath(os.path.join(folder, path))


def folders_of(kustomization: Json, folder: str) -> Iterator[str]:
    """What else a Kustomization in a folder is built from."""
    for key in ("resources", "bases", "components"):
        listed = kustomization.get(key)
        for path in listed if isinstance(listed, list) else ():
            if isinstance(path, str):
                yield os.path.normpath(os.path.join(folder, path))


def inline(kustomization: Json) -> Iterator[tuple[Path, str]]:
    """The patches that stand in a Kustomization as text, with their paths."""
    for key in ("patches", "patchesStrategicMerge"):
        patches = kustomization.get(key)
        for index, each in enumerate(patches if isinstance(patches, list) else ()):
            path: Path = (key, index, "patch") if isinstance(each, dict) else (key, index)
            text = at(kustomization, path)
            if isinstance(text, str) and "\n" in text:
                yield path, text


def looks_like_one(manifest: Manifest) -> bool:
    """Whether a manifest lacks what every object has, or has what only patches have."""
    place = BUILT_IN.get((manifest.group or "", manifest.kind))
    if manifest.group is None or place is None or manifest.path or not manifest.name:
        return False
    needs_selector = manifest.group == "apps" and manifest.kind in _NEED_SELECTOR
    if needs_selector and not at(manifest.value, ("spec", "selector")):
        return True
    return _has_directive(manifest.value) or any(
        "image" not in each
        for kind in _CONTAINERS
        for each in _list(at(manifest.value, (*place, "spec", kind)))
    )


def concerns(spec: Any, resources: Resources) -> bool:
    """Whether a patch of a pod's spec can matter to what the pod has by limits, or by claims."""
    if not isinstance(spec, dict):
        return False
    if _has_directive(spec) or "resourceClaims" in spec:
        return True
    for kind in _CONTAINERS:
        for each in _list(spec.get(kind)):
            held = each.get("resources", {})
            if not isinstance(held, dict) or "claims" in held:
                return True
            for amounts in (held.get(key, {}) for key in ("limits", "requests")):
                if not isinstance(amounts, dict) or any(map(resources.find, amounts)):
                    return True
    return False


def _has_directive(value: Any) -> bool:
    if isinstance(value, dict):
        return any(key.startswith("$") or _has_directive(below) for key, below in value.items())
    return isinstance(value, list) and any(map(_has_directive, value))


def merged(base: Any, patch: Any, key: str = "") -> Any:
    """What kustomize makes of a base and a patch, as far as pods' devices are concerned."""
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
    result = list(base)
    new = []
    for each in _list(patch):
        index = _index(result, each.get("name"))
        if each.get(_DIRECTIVE) == "delete":
            if index is not None:
                del result[index]
        elif index is None:
            new.append(merged({}, each))
        else:
            result[index] = merged(result[index], each)
    return [*new, *result]


def rewritten(
    base: Json, after: Json, patch: Json, place: Path, rewrite: Callable[[Json], Json]
) -> Json | None:
    """The patch that makes of `after` what `rewrite` makes of base and patch; None if none does.

    base, after: an object before and after it was rewritten. place: of its pod template.
    """
    wanted = _named_alike(rewrite(merged(base, patch)), after, place)
    result = copy.deepcopy(patch)
    spec: Path = (*place, "spec")
    for kind in _CONTAINERS:
        for container in _list(at(wanted, (*spec, kind))):
            _strip(result, (*spec, kind), container)
    there = merged(after, result)
    for kind in _CONTAINERS:
        for container in _list(at(wanted, (*spec, kind))):
            name = container.get("name")
            found = _list(at(there, (*spec, kind)))
            index = _index(found, name)
            claims = _claims(container)
            if index is not None and _claims(found[index]) != claims:
                _held(_own(result, (*spec, kind), name))["claims"] = claims or None
    listed = at(wanted, (*spec, "resourceClaims"))
    if at(merged(after, result), (*spec, "resourceClaims")) != listed:
        _below(result, spec)["resourceClaims"] = listed
    return result if _devices(merged(after, result), spec) == _devices(wanted, spec) else None


def _named_alike(wanted: Json, after: Json, place: Path) -> Json:
    """What is wanted with the names of the base's claims, where the same containers have one."""
    old, new = _users(after, place), _users(wanted, place)
    names = {}
    free = {name: users for name, users in old.items() if name not in new}
    for name, users in new.items():
        like = next((each for each in free if free[each] == users), None)
        if name not in old and like:
            names[name] = like
            del free[like]

    def renamed(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: renamed(below) for key, below in value.items()}
        if isinstance(value, list):
            return [renamed(each) for each in value]
        return names.get(value, value) if isinstance(value, str) else value

    return renamed(wanted)  # type: ignore[no-any-return]


def _users(value: Json, place: Path) -> dict[str, list[Any]]:
    """Who uses each of a pod's claims."""
    users: dict[str, list[Any]] = {}
    for claim in _list(at(value, (*place, "spec", "resourceClaims"))):
        users[str(claim.get("name"))] = []
    for kind in _CONTAINERS:
        for container in _list(at(value, (*place, "spec", kind))):
            for claim in _list(_claims(container)):
                users.setdefault(str(claim.get("name")), []).append(container.get("name"))
    return users


def _strip(patch: Json, path: Path, wanted: Json) -> None:
    """Take amounts out of a patch's container that became claims."""
    found = _list(at(patch, path))
    index = _index(found, wanted.get("name"))
    held = at(found, (index, "resources")) if index is not None else None
    if not isinstance(held, dict):
        return
    for key in ("limits", "requests"):
        amounts = held.get(key)
        if not isinstance(amounts, dict):
            continue
        stays = at(wanted, ("resources", key)) or {}
        for name in [each for each, amount in amounts.items() if amount is not None]:
            if name not in stays:
                del amounts[name]
        if not amounts:
            del held[key]
    if not held:
        del found[index or 0]["resources"]


def _devices(value: Json, spec: Path) -> Any:
    """What a pod has of devices, and of everything else that resources are."""
    containers = [
        [kind, each.get("name"), _full(each.get("resources"))]
        for kind in _CONTAINERS
        for each in _list(at(value, (*spec, kind)))
    ]
    return sorted(containers, key=str), at(value, (*spec, "resourceClaims")) or None


def _full(resources: Any) -> Any:
    """Resources without what is empty."""
    return {k: v for k, v in resources.items() if v} if isinstance(resources, dict) else {}


def _own(patch: Json, path: Path, name: Any) -> Json:
    """A patch's container; made, where it has none of that name."""
    *above, kind = path
    listed = _below(patch, tuple(above)).setdefault(str(kind), [])
    index = _index(listed, name)
    if index is None:
        listed.append({"name": name})
        index = -1
    found: Json = listed[index]
    return found


def _held(container: Json) -> Json:
    if not isinstance(container.get("resources"), dict):
        container["resources"] = {}
    held: Json = container["resources"]
    return held


def _below(value: Json, path: Path) -> Json:
    """The object at a path; made, where there is none."""
    for step in map(str, path):
        if not isinstance(value.get(step), dict):
            value[step] = {}
        value = value[step]
    return value


def _claims(container: Json) -> Any:
    return at(container, ("resources", "claims")) or None


def _index(listed: list[Any], name: Any) -> int | None:
    return next(
        (i for i, e in enumerate(listed) if isinstance(e, dict) and e.get("name") == name), None
    )


def _list(value: object) -> list[Json]:
    """The objects of a list; none of what is no list."""
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
