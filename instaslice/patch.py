"""JSON Patch (RFC 6902) operations and JSON Pointer (RFC 6901) escaping."""

from collections.abc import Iterable, Mapping
from typing import Any

#: A decoded JSON object.
Json = dict[str, Any]
Operation = Json


def escape(token: str) -> str:
    """Escape a JSON Pointer token (RFC 6901, section 4): first "~" as "~0", then "/" as "~1"."""
    return token.replace("~", "~0").replace("/", "~1")


def unescape(token: str) -> str:
    """Undo `escape`."""
    return token.replace("~1", "/").replace("~0", "~")


def pointer(*tokens: str | int) -> str:
    """The JSON Pointer to a member or an element below the root."""
    return "".join(f"/{escape(str(token))}" for token in tokens)


def add(path: str, value: object) -> Operation:
    """Add a member, replace it if it exists, or insert an element (RFC 6902, section 4.1)."""
    return {"op": "add", "path": path, "value": value}


def remove(path: str) -> Operation:
    """Remove the value at a path, which must exist (RFC 6902, section 4.2)."""
    return {"op": "remove", "path": path}


def replace(path: str, value: object) -> Operation:
    """Replace the value at a path, which must exist (RFC 6902, section 4.3)."""
    return {"op": "replace", "path": path, "value": value}


def extend(path: str, existing: object, values: list[Any]) -> list[Operation]:
    """The operations that append values to the list at a path.

    existing: the present list, or None if the member is missing or null.
    """
    if values and existing is None:
        return [add(path, values)]
    return [add(f"{path}/-", value) for value in values]


def change(
    path: str, existing: Json, gone: Iterable[str], changed: Mapping[str, object]
) -> list[Operation]:
    """The operations that remove and replace members of the object at a path.

    existing: the present object; names that it lacks are ignored. If no member would be left, the
    object itself is removed.
    """
    lost = [name for name in gone if name in existing]
    if lost and len(lost) == len(existing):
        return [remove(path)]
    operations = [remove(f"{path}/{escape(name)}") for name in lost]
    for name, value in changed.items():
        if name in existing:
            operations.append(replace(f"{path}/{escape(name)}", value))
    return operations


def apply(value: Any, operations: Iterable[Operation]) -> Any:
    """Apply operations to a decoded value, and return the result; the value is not modified.

    Each object on the way to a change is copied, since YAML aliases may share it between places.
    """
    for operation in operations:
        root = holder = [value]
        key: Any = 0
        for step in operation["path"].split("/")[1:]:
            holder[key] = holder = holder[key].copy()
            key = unescape(step)
            if isinstance(holder, list):
                key = len(holder) if step == "-" else int(step)
        if operation["op"] == "remove":
            del holder[key]
        elif operation["op"] == "add" and isinstance(holder, list) and holder is not root:
            holder.insert(key, operation["value"])
        else:
            holder[key] = operation["value"]
        value = root[0]
    return value
