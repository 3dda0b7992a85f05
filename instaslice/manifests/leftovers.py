"""Limits that `rewrite` leaves in a document: where they are, and what becomes of them.

Nothing passes in silence: a MIG resource that is a key anywhere, but as a label or in a status, was
meant to be one of a container, of a quota, or of what such a thing is made from.
"""

import re
from collections.abc import Iterator, Set
from typing import Any, Final, NamedTuple

from instaslice import profiles
from instaslice.manifests.workloads import Kinds, Manifest, Path
from instaslice.patch import Json
from instaslice.resources import Resources

#: Under these a resource's name is a label, or a key of what Kubernetes reports.
_NO_LIMITS: Final = frozenset(
    {"labels", "annotations", "matchLabels", "nodeSelector", "capacity", "allocatable", "status"}
)
#: Under these it was meant to be a resource, however it is spelt.
_LIMITS: Final = frozenset({"limits", "requests"})
#: A quota's key, without what is in front of the resource.
_QUOTA: Final = re.compile(r"(?:requests|limits)\.")
#: A resource that text gives an amount, or that a JSON Pointer ends with.
_IN_TEXT: Final = re.compile(
    r"(?<![a-z0-9.-])(?P<name>[a-z0-9.-]+\.[a-z]+(?P<slash>/|~1)[A-Za-z0-9._-]+)[\"']?"
    r"(?:[ \t]*(?P<gives>[:=])|[ \t\r]*$)",
    re.MULTILINE | re.ASCII,
)

_KUSTOMIZE: Final = (
    "rewrite what kustomize makes of it (kubectl kustomize ... | instaslice rewrite -)"
)
_VALUES: Final = (
    "left as it is: this looks like a Helm values file, so render it first "
    "(helm template ... | instaslice rewrite -)"
)
_POD_LEVEL: Final = "the API server refuses an extended resource at the level of the pod"
#: Where a Kustomization has patches.
_PATCHES: Final = {"patches", "patchesStrategicMerge", "patchesJson6902"}
_SEES_NO_CLAIMS: Final = "left as it is: a LimitRange sees no claims"
_FOR_ALIASES: Final = "it is there for aliases, and the API server drops it"
_WEIGHTS: Final = {_POD_LEVEL: "error", _FOR_ALIASES: "note"}
_QUOTA_COUNTS: Final = (
    "left as it is: a quota counts the claims of rewritten pods from Kubernetes 1.36 on; before, "
    "have one on CLASS.deviceclass.resource.k8s.io/devices"
)


class Leftover(NamedTuple):
    """A limit that is left as it is."""

    path: Path  #: of the key, or of the text that it is in
    line: int | None  #: in a text, from 0; None for a key
    container: str  #: the name of the container that has it, or empty
    reason: str = ""  #: what it is left in, and what becomes of it
    weight: str = "left"  #: or "error", or "note"


def leftovers(
    manifest: Manifest, handled: Set[Path], kinds: Kinds, resources: Resources
) -> Iterator[Leftover]:
    """The limits that are left in a manifest.

    handled: the paths of what was rewritten, or is to be left without a word.
    """
    for found in _find(manifest.value, manifest.path, "", handled, resources):
        below = found.path[len(manifest.path) :]
        reason = _reason(manifest, below, kinds, is_text=found.line is not None)
        yield found._replace(reason=reason, weight=_WEIGHTS.get(reason, "left"))


def in_patch(operations: list[Any], resources: Resources) -> Iterator[Leftover]:
    """The limits in a JSON patch (RFC 6902)."""
    for found in _find(operations, (), "", frozenset(), resources):
        yield found._replace(reason=f"left as it is in a JSON patch: {_KUSTOMIZE}")


def is_patch(value: object) -> bool:
    """Whether a document is a JSON patch (RFC 6902)."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(each, dict) and "op" in each and "path" in each for each in value)
    )


def _find(
    value: Any, path: Path, container: str, handled: Set[Path], resources: Resources
) -> Iterator[Leftover]:
    if path in handled:
        return
    if isinstance(value, str):
        for line in _in_text(value, resources):
            yield Leftover(path, line, container)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _find(item, (*path, index), container, handled, resources)
    elif isinstance(value, dict):
        holder = path[-1] if path else ""
        inner = _name_of(value, path) or container
        for key, item in value.items():
            if _is_limit(key, holder, resources):
                yield Leftover((*path, key), None, inner)
            elif key not in _NO_LIMITS:
                yield from _find(item, (*path, key), inner, handled, resources)


def _is_limit(key: str, holder: str | int, resources: Resources) -> bool:
    name = _QUOTA.sub("", key, count=1)
    is_odd = holder in _LIMITS and name.startswith(profiles.RESOURCE_PREFIX)
    return is_odd or resources.find(name) is not None


def _name_of(value: Json, path: Path) -> str:
    """The name of a container: an item of a list that is called so, or what holds one."""
    kind = str(path[-2]) if len(path) > 1 and isinstance(path[-1], int) else ""
    name = value.get("name")
    is_one = kind.lower().endswith("containers") or "container" in value
    return name if is_one and isinstance(name, str) else ""


def _in_text(text: str, resources: Resources) -> Iterator[int]:
    """The lines, from 0, of a text in which a resource is given an amount."""
    for match in _IN_TEXT.finditer(text):
        start = text.rfind("\n", 0, match.start()) + 1
        is_remark = text[start : match.start()].lstrip().startswith("#")
        # A name alone is no limit, but what a JSON pointer ends with is one.
        is_limit = match["gives"] is not None or match["slash"] == "~1"
        name = _QUOTA.sub("", match["name"].replace("~1", "/"), count=1)
        if is_limit and not is_remark and resources.find(name):
            yield text.count("\n", 0, match.start())


def _reason(manifest: Manifest, below: Path, kinds: Kinds, *, is_text: bool) -> str:
    kind, group = manifest.kind, manifest.group
    if _is_kustomization(manifest):
        return f"left as it is in a patch: {_KUSTOMIZE}"
    if is_text:
        return "left as it is in text, which is not looked into: rewrite it as a file of its own"
    if not kind and group is None:
        return _VALUES
    if str(below[0]).startswith("x-"):
        return _FOR_ALIASES
    if kind == "ResourceQuota":
        return _QUOTA_COUNTS
    if kind == "LimitRange":
        return _limit_range(manifest, below)
    if not manifest.is_built_in and group is not None:
        return _custom(manifest, below, kinds)
    if below[-4:-2] == ("spec", "resources"):
        return _POD_LEVEL
    if "ephemeralContainers" in below:
        return "left as it is: the API server refuses resources of an ephemeral container"
    return f"left as it is: {kind or 'a manifest without kind'} has no limits of a container there"


def _is_kustomization(manifest: Manifest) -> bool:
    # Neither its kind nor its version need be given.
    if manifest.group is None and manifest.kind in ("", "Kustomization"):
        return manifest.kind != "" or not _PATCHES.isdisjoint(manifest.value)
    return manifest.group == "kustomize.config.k8s.io"


def _limit_range(manifest: Manifest, below: Path) -> str:
    """What becomes of a LimitRange, which sees no claims (LimitRanger, plugin/pkg/admission)."""
    item: Any = manifest.value
    for step in below[:-2]:  # to what has "min", "max" or a default
        item = item[step]
    of = item.get("type") if isinstance(item, dict) else ""
    if below[-2] == "min" or (below[-2] == "max" and of == "Pod"):
        return f"{_SEES_NO_CLAIMS}, and so refuses every rewritten pod"
    return f"{_SEES_NO_CLAIMS}: it bounds no rewritten pod, and the webhook rewrites its defaults"


def _custom(manifest: Manifest, below: Path, kinds: Kinds) -> str:
    kind = f"{manifest.group}/{manifest.kind}"
    if (manifest.group, manifest.kind) in kinds:
        return f"left as it is: it is in no pod template that --kinds {kind}=... names"
    text = (
        f"left as it is: {manifest.kind} is a custom resource, which may not keep claims; "
        "the webhook rewrites the pods that are made from it"
    )
    place = _template_path(below)
    return f"{text} (if it keeps them: --kinds {kind}={place})" if place else text


def _template_path(below: Path) -> str:
    """Where the pod template around a limit is, as --kinds takes it; empty where none shows."""
    for index, step in enumerate(below):
        if step in ("containers", "initContainers") and index:
            end = index - 1 if below[index - 1] == "spec" and index > 1 else index
            steps = ["[*]" if isinstance(step, int) else f".{step}" for step in below[:end]]
            return "".join(steps).removeprefix(".")
    return ""
