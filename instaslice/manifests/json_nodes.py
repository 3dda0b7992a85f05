"""JSON with the places of its values. What is not looked at is skipped by Python's own decoder."""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final, NoReturn

from instaslice.manifests import scalars
from instaslice.manifests.nodes import BadDocument, Listing, Mapping, Member, Node

_BLANK: Final = re.compile(r"[ \t\n\r]*")


#: Where one object may end and another begin.
_BETWEEN: Final = re.compile(r"\}[ \t\r\n]*\{")


def _refuse(word: str) -> NoReturn:
    """NaN and Infinity, which Python reads and JSON has not."""
    raise ValueError(word)


def _number(text: str) -> Any:
    return scalars.number(text)


_DECODER: Final = json.JSONDecoder(parse_float=_number, parse_constant=_refuse)


def split(text: str) -> list[str] | None:
    """The texts of objects that follow one another, as kubectl reads them; joined, the text again.

    None where the text is something else, or one object.
    """
    # To look is cheaper than to read.
    if not text.lstrip(" \t\r\n").startswith("{") or not _BETWEEN.search(text):
        return None
    cuts = [0]
    place = _skip(text, 0)
    try:
        while place < len(text):
            if text[place] != "{":
                return None
            _, place = _DECODER.raw_decode(text, place)
            place = _skip(text, place)
            cuts.append(place)
    except (ValueError, RecursionError):
        return None
    return [text[a:b] for a, b in pairwise(cuts)]


def read(text: str) -> Node | None:
    """The root of a text of one JSON value, or None where it is not written so.

    Raises BadDocument where it is nested too deeply.
    """
    start = _skip(text, 0)
    try:
        value, end = _DECODER.raw_decode(text, start)
    except ValueError:
        return None
    except RecursionError:
        raise BadDocument("is nested too deeply") from None
    if _skip(text, end) != len(text):
        return None
    return _node(text, start, end, value)


def items(text: str) -> list[tuple[int, int]] | None:
    """Where the items of a List are; None where a text is no List of JSON.

    Nothing is kept of their values.
    """
    found: list[tuple[int, int]] = []
    is_list = False
    try:
        place = _opened(text, _skip(text, 0), "{")
        while text[place] != "}":
            key, place = scanstring(text, _opened(text, place, '"'))
            start = _opened(text, _skip(text, place), ":")
            if key == "items" and text[start] == "[":
                found, end = _elements(text, start)
            else:
                value, end = _DECODER.raw_decode(text, start)
                is_list = is_list or (key == "kind" and value == "List")
            place = _after(text, end, "}")
    except (ValueError, IndexError, RecursionError):
        return None
    return found if is_list and _skip(text, place + 1) == len(text) else None


def _elements(text: str, start: int) -> tuple[list[tuple[int, int]], int]:
    """Where the elements of an array are, and where it ends. Raises ValueError, IndexError."""
    found = []
    place = _opened(text, start, "[")
    while text[place] != "]":
        _, end = _DECODER.raw_decode(text, place)
        found.append((place, end))
        place = _after(text, end, "]")
    return found, place + 1


def _opened(text: str, place: int, character: str) -> int:
    """What comes behind a character that must be there. Raises ValueError, IndexError."""
    if text[place] != character:
        raise ValueError(f"no {character}")
    return place + 1 if character == '"' else _skip(text, place + 1)


def _after(text: str, place: int, closing: str) -> int:
    """The next member, or the closing bracket. Raises ValueError, IndexError."""
    place = _skip(text, place)
    if text[place] == closing:
        return place
    place = _opened(text, place, ",")
    if text[place] == closing:
        raise ValueError("nothing behind a comma")
    return place


def _node(text: str, start: int, end: int, value: Any) -> Node:
    if isinstance(value, dict):
        return Mapping(start, end, value, True, None, lambda: list(_members(text, start)))
    if isinstance(value, list):
        return Listing(start, end, value, True, None, lambda: list(_items(text, start)))
    return Node(start, end, value)


def _members(text: str, start: int) -> Iterator[Member]:
    """The members of an object that is known to be well-formed, from its brace on."""
    place = _skip(text, start + 1)
    while text[place] != "}":
        key, after = scanstring(text, place + 1)
        node = _value(text, _skip(text, _skip(text, after) + 1))
        yield Member(key, place, node)
        place = _next(text, node.end)


def _items(text: str, start: int) -> Iterator[Node]:
    place = _skip(text, start + 1)
    while text[place] != "]":
        node = _value(text, place)
        yield node
        place = _next(text, node.end)


def _value(text: str, start: int) -> Node:
    value, end = _DECODER.raw_decode(text, start)
    return _node(text, start, end, value)


def _next(text: str, place: int) -> int:
    """Where the next value, or the closing bracket, begins."""
    place = _skip(text, place)
    return _skip(text, place + 1) if text[place] == "," else place


def _skip(text: str, place: int) -> int:
    match = _BLANK.match(text, place)
    assert match is not None  # it matches the empty string
    return match.end()
