"""JSON Patch (RFC 6902) operations and JSON Pointer (RFC 6901) escaping, by hand."""

from collections.abc import Iterable
from typing import Any

#: A decoded JSON object.
Json = dict[str, Any]
Operation = Json


def escape(token: str) -> str:
    """A token of a JSON Pointer (RFC 6901, section 4): "~" is "~0", and only then "/" is "~1"."""
    return token.replace("~", "~0").replace("/", "~1")


def pointer(*tokens: str | int) -> str:
    """A JSON Pointer to a member or an element below the root."""
    return "".join(f"/{escape(str(token))}" for token in tokens)


def add(path: str, value: object) -> Operation:
    """Add a member, replace it if it exists, or insert an element (RFC 6902, section 4.1)."""
    return {"op": "add", "path": path, "value": value}


def remove(path: str) -> Operation:
    """Remove what is at the path, which must exist (RFC 6902, section 4.2)."""
    return {"op": "remove", "path": path}


def replace(path: str, value: object) -> Operation:
    """Replace what is at the path, which must exist (RFC 6902, section 4.3)."""
    return {"op": "replace", "path": path, "value": value}


def extend(path: str, existing: object, values: list[Any]) -> list[Operation]:
    """The operations that append values to the list at a path.

    existing: what is there now, a list, or None where the member is missing or null. The first
    element makes the list, later ones are appended with "/-".
    """
    if not values:
        return []
    if existing is None:
        return [add(path, values)]
    return [add(path + "/-", value) for value in values]


def apply(value: Any, operations: Iterable[Operation]) -> Any:
    """Apply operations to a copy of a decoded value.

    What changes is copied on the way to it: places of a value may be one object (YAML's aliases).
    """
    for operation in operations:
        tokens = [unescape(token) for token in operation["path"].split("/")[1:]]
        value = _applied(value, tokens, operation)
    return value


def unescape(token: str) -> str:
    """The inverse of `escape`."""
    return token.replace("~1", "/").replace("~0", "~")


def _applied(value: Any, tokens: list[str], operation: Operation) -> Any:
    if not tokens:
        return operation["value"]
    first, *rest = tokens
    copy = value.copy()
    key: Any = first
    if isinstance(copy, list):
        key = len(copy) if first == "-" else int(first)
    if rest:
        copy[key] = _applied(copy[key], rest, operation)
    elif operation["op"] == "remove":
        del copy[key]
    elif isinstance(copy, list) and operation["op"] == "add":
        copy.insert(key, operation["value"])
    else:
        copy[key] = operation["value"]
    return copy
