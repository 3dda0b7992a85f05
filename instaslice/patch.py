"""JSON Patch (RFC 6902) operations and JSON Pointer (RFC 6901) escaping, by hand."""

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
