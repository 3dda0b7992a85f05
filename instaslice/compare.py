"""How an object that is there differs from the one that InstaSlice makes by that name.

Anyone who may create templates in a namespace may take a name before InstaSlice needs it, and so
decide what other people's pods get: every device of a class, another class, admin access.
"""

import json
from collections.abc import Iterator
from typing import Final

from instaslice.patch import Json

#: Fields that the API server fills in (pkg/apis/resource, defaults.go of v1alpha2 and v1), or
#: leaves out as empty.
_DEFAULTS: Final = {"allocationMode": ("ExactCount", "WaitForFirstConsumer"), "count": (1,)}
_EMPTY: Final[tuple[object, ...]] = (None, False, "", [], {})
#: Differences that are told, and characters of a value: part of it is what somebody typed.
_TOLD: Final = 4
_SHOWN: Final = 40


def difference(ours: Json, theirs: Json) -> str:
    """How the `spec` of an object differs, in words for its user, or "" where it asks for the same.

    ours: what `templates.objects` makes. theirs: as the API server has it, in the same version.
    """
    found = list(_walk("", ours.get("spec"), theirs.get("spec")))
    more = f", and {len(found) - _TOLD} more" if len(found) > _TOLD else ""
    return ", ".join(found[:_TOLD]) + more


def _walk(path: str, ours: object, theirs: object) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        mine, other = _stated(ours), _stated(theirs)
        for key in {**mine, **other}:
            here = key if path in ("", "spec", "devices") else f"{path}.{key}"
            yield from _walk(here, mine.get(key), other.get(key))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from _walk(f"{path}[{index}]", *pair)
    elif ours != theirs:
        here = ascii(path[:80])[1:-1] or "spec"
        if ours is None:
            yield f"{here} is {_brief(theirs)}"
        else:
            yield f"{here} is {_brief(theirs)}, not {_brief(ours)}"


def _stated(fields: Json) -> Json:
    """Fields without those that say what holds anyhow, such as metadata of null alone."""
    deep = {k: _stated(v) if isinstance(v, dict) else v for k, v in fields.items()}
    return {k: v for k, v in deep.items() if v not in _EMPTY and v not in _DEFAULTS.get(k, ())}


def _brief(value: object) -> str:
    if value is None:
        return "missing"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "set"
    text = json.dumps(value) if not isinstance(value, str) else ascii(value)[1:-1]
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
