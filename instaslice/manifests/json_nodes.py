"""JSON with the places of its values, read without a value of what does not matter."""

import re
from itertools import pairwise
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final, Protocol

from instaslice.manifests import scalars
from instaslice.manifests.builder import Builder
from instaslice.manifests.nodes import BadDocument, Listing, Mapping, Node

_BLANK: Final = re.compile(r"[ \t\n\r]*")
#: A value that is no collection and no string (RFC 8259, sections 3 and 6).
_SCALAR: Final = re.compile(
    r"(?P<integer>-?(?:0|[1-9][0-9]*))(?P<real>(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?)"
    r"|true|false|null"
)
_WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}
#: Where one object may end and another begin.
_BETWEEN: Final = re.compile(r"\}[ \t\r\n]*\{")


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
            place = _skip(text, end(text, place))
            cuts.append(place)
    except (ValueError, BadDocument):
        return None
    return [text[a:b] for a, b in pairwise(cuts)]


def read(text: str, names: re.Pattern[str] | None = None) -> Node | None:
    """The root of a text of one JSON value, or None where it is not written so.

    names: leave out what has none of these, unless it is read anyway (`builder`).
    Raises BadDocument where it is nested too deeply.
    """
    builder = Builder(text, names)
    try:
        place = _parse(text, _skip(text, 0), builder)
    except ValueError:
        return None
    return builder.root if _skip(text, place) == len(text) else None


def end(text: str, place: int) -> int:
    """Where the value at a place ends. Raises ValueError where it is not JSON, and BadDocument."""
    return _parse(text, place, _Nothing())


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
                found, stop = _elements(text, start)
            else:
                stop = end(text, start)
                is_list = is_list or (key == "kind" and text[start:stop] == '"List"')
            place = _after(text, stop, "}")
    except (ValueError, IndexError, BadDocument):
        return None
    return found if is_list and _skip(text, place + 1) == len(text) else None


def _elements(text: str, start: int) -> tuple[list[tuple[int, int]], int]:
    """Where the elements of an array are, and where it ends. Raises ValueError, IndexError."""
    found = []
    place = _opened(text, start, "[")
    while text[place] != "]":
        stop = end(text, place)
        found.append((place, stop))
        place = _after(text, stop, "]")
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


class _Sink(Protocol):
    """What is told of the values of a text."""

    def begin(self, node: Mapping | Listing, /) -> None:
        """A collection begins."""

    def key(self, key: str, start: int, end: int, /) -> None:
        """A key of it."""

    def scalar(self, node: Node, /) -> None:
        """A value that is no collection."""

    def end(self, end: int, /) -> None:
        """The collection ends."""


class _Nothing:
    """Keeps nothing."""

    def begin(self, node: Mapping | Listing) -> None:
        pass

    def key(self, key: str, start: int, end: int) -> None:
        pass

    def scalar(self, node: Node) -> None:
        pass

    def end(self, end: int) -> None:
        pass


def _parse(text: str, place: int, sink: _Sink) -> int:
    """Tell a sink of the value at a place, and return where it ends. Raises ValueError."""
    try:
        return _values(text, place, sink)
    except IndexError:
        raise ValueError("ends too soon") from None


def _values(text: str, place: int, sink: _Sink) -> int:
    closers: list[str] = []
    while True:
        opener = text[place]
        if opener in "{[":
            closers.append("}" if opener == "{" else "]")
            if opener == "{":
                sink.begin(Mapping(place, place, {}, True))
            else:
                sink.begin(Listing(place, place, [], True))
            place = _skip(text, place + 1)
            if text[place] != closers[-1]:
                if opener == "{":
                    place = _key(text, place, sink)
                continue
        else:
            place = _scalar(text, place, sink)
        # Behind a value, or at the bracket that closes an empty collection.
        while closers:
            place = _skip(text, place)
            if text[place] == closers[-1]:
                place += 1
                closers.pop()
                sink.end(place)
            elif text[place] == ",":
                place = _skip(text, place + 1)
                if closers[-1] == "}":
                    place = _key(text, place, sink)
                break
            else:
                raise ValueError("no comma")
        else:
            return place


def _key(text: str, place: int, sink: _Sink) -> int:
    """A key and its colon; returns where its value begins."""
    if text[place] != '"':
        raise ValueError("no key")
    stop: int
    key, stop = scanstring(text, place + 1)
    sink.key(key, place, stop)
    # JSON is written in two ways: `"a":1` and `"a": 1`.
    return _opened(text, stop if text[stop] == ":" else _skip(text, stop), ":")


def _scalar(text: str, place: int, sink: _Sink) -> int:
    stop: int
    if text[place] == '"':
        value, stop = scanstring(text, place + 1)
    else:
        match = _SCALAR.match(text, place)
        if match is None:
            raise ValueError("no value")
        stop = match.end()
        if not match["integer"]:
            value = _WORDS[match.group()]
        else:
            value = scalars.number(match.group()) if match["real"] else int(match["integer"])
    sink.scalar(Node(place, stop, value))
    return stop


def _skip(text: str, place: int) -> int:
    if place < len(text) and text[place] not in " \t\n\r":
        return place
    match = _BLANK.match(text, place)
    assert match is not None  # it matches the empty string
    return match.end()
