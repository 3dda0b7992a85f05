"""Texts cut into documents, and large Lists into their items, so that each is read by itself.

`kubectl get -o yaml` writes one document, a List. Its items are cut apart by their dashes, which no
other line of a block begins with in that column. In JSON they are where Python's decoder ends.
"""

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Final

#: A line that begins or ends a document. YAML allows neither in the first column anywhere else.
_MARKER: Final = re.compile(r"^(?:---|\.\.\.)(?=[ \t\r\n]|\Z)", re.MULTILINE)
#: What may stand before a document's first value: its marker, directives, comments, empty lines.
PREAMBLE: Final = re.compile(
    r"\ufeff?(?:(?:---|\.\.\.)(?=[ \t\r\n]|\Z))?(?:[ \t]*(?:#.*)?\r?\n|%.*\r?\n)*"
)
#: Where one object of JSON may end and another begin.
_BETWEEN: Final = re.compile(r"\}[ \t\r\n]*\{")
_BLANK: Final = re.compile(r"[ \t\r\n]*")
_JSON: Final = json.JSONDecoder(parse_float=str, parse_int=str)

_JSON_ITEMS: Final = re.compile(r'"items"[ \t\r\n]*:[ \t\r\n]*\[')
_ITEMS: Final = re.compile(r"^items:[ \t]*(?:#[^\n]*)?\r?\n(?P<indent> *)- ", re.MULTILINE)
#: An alias, which may lead from one item to another.
_ALIAS: Final = re.compile(
    r"(?:^[ \t]*|[:,\[{-][ \t]+)\*[A-Za-z0-9_-]+[ \t\r]*(?:[,\]}#]|$)", re.MULTILINE | re.ASCII
)
#: A block scalar may hold anything, but not in the first column.
_NEXT_KEY: Final = re.compile(r"^(?![ #\r\n]|- )", re.MULTILINE)
_KIND: Final = re.compile(r"""^kind:[ ]+["']?List\b""", re.MULTILINE)


def documents(text: str) -> Iterator[str]:
    """Cut a text in front of each marker, and between objects of JSON; joined, the text again."""
    start = 0
    for marker in _MARKER.finditer(text, 1):
        yield from _objects(text[start : marker.start()])
        start = marker.start()
    yield from _objects(text[start:])


def _objects(text: str) -> list[str]:
    """The texts of objects of JSON that follow one another, as kubectl reads them."""
    place = _skip(text, PREAMBLE.match(text).end())  # type: ignore[union-attr]
    # To look is cheaper than to read.
    if not text:
        return []
    if not text.startswith("{", place) or not _BETWEEN.search(text):
        return [text]
    cuts = [0]
    try:
        while place < len(text):
            if text[place] != "{":
                return [text]
            place = _skip(text, _JSON.raw_decode(text, place)[1])
            cuts.append(place)
    except (ValueError, RecursionError):
        return [text]
    return [text[a:b] for a, b in pairwise(cuts)]


def items(text: str) -> list[tuple[int, int]] | None:
    """Where the items of a List in YAML are, each with its dash; None if it is not such a list."""
    head = _ITEMS.search(text)
    if head is None or _ALIAS.search(text):
        return None
    first = head.start("indent")
    after = _NEXT_KEY.search(text, first)
    end = after.start() if after else len(text)
    if not (_KIND.search(text, 0, head.start()) or _KIND.search(text, end)):
        return None
    dash = re.compile(rf"^{head['indent']}- ", re.MULTILINE)
    starts = [match.start() for match in dash.finditer(text, first, end)]
    return [*pairwise([*starts, end])]


def items_of_json(text: str) -> list[tuple[int, int]] | None:
    """Where the items of a List in JSON are; None if it is not such a list."""
    head = _JSON_ITEMS.search(text)
    if head is None:
        return None
    found: list[tuple[int, int]] = []
    place = _skip(text, head.end())
    try:
        while not found or text[place] == ",":
            start = _skip(text, place + bool(found))
            stop = _JSON.raw_decode(text, start)[1]
            found.append((start, stop))
            place = _skip(text, stop)
        rest = _JSON.decode(text[: head.end()] + text[place:])
    except (ValueError, IndexError, RecursionError):
        return None
    return found if rest.get("kind") == "List" and rest.get("items") == [] else None


def _skip(text: str, place: int) -> int:
    return _BLANK.match(text, place).end()  # type: ignore[union-attr]
