"""YAML and JSON as nodes that know their places in the text, read as kubectl reads them.

YAML's parser is libyaml, of which kubectl's is a port (sigs.k8s.io/yaml). JSON is read by itself:
it has surrogate pairs and long keys, which libyaml refuses.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final

import yaml

from instaslice.manifests import scalars

_PARSER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DEPTH: Final = 200
MAX_VALUES: Final = 1_000_000


class BadDocument(Exception):
    """The text is no document that can be edited; `str()` of it says why."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line  #: from 0, in the document


@dataclass(slots=True)
class Node:
    """A value and where it is written: text[start:end]."""

    start: int
    end: int
    value: Any  #: decoded JSON; an alias shares it with what it stands for
    kind: type = str  #: dict, list, or str for every scalar
    is_flow: bool = False
    target: "Node | None" = None  #: what an alias stands for
    parts: "Sequence[Part]" = ()  #: members, or items
    _own: "dict[str | None, Part] | None" = None

    def own(self) -> "dict[str | None, Part]":
        """The members by key, without merge keys; of several, the last."""
        if self._own is None:  # problems are looked up one by one, and may be one a member
            self._own = {part.key: part for part in self.parts if not part.is_merge}
        return self._own


@dataclass(slots=True)
class Part:
    """A member of a mapping, or an item of a list."""

    key: str | None  #: None for an item
    start: int  #: of its key, or its value
    node: Node
    is_merge: bool = False
    is_dead: bool = False  #: the key comes again, and the last one wins


def read(text: str, dead: list[Part] | None = None) -> tuple[Node | None, bool]:
    """The root of a document, None where it is empty, and whether it is JSON.

    dead: is told of members whose key comes again. Raises BadDocument.
    """
    dead = [] if dead is None else dead
    try:
        start = _BLANK.match(text).end()  # type: ignore[union-attr]
        node = _json(text, start, 0, dead) if text[start : start + 1] in ("{", "[") else None
        if node and _BLANK.fullmatch(text, node.end):
            return node, True
    except (ValueError, IndexError):
        pass
    dead.clear()
    return _yaml(text, dead), False


_BLANK: Final = re.compile(r"[ \t\n\r]*")
_SCALAR: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|true|false|null")
_WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}


def _json(text: str, place: int, depth: int, dead: list[Part]) -> Node:
    """The value of JSON at a place. Raises ValueError, IndexError, BadDocument."""
    if depth > MAX_DEPTH:
        raise BadDocument("is nested too deeply")
    if text[place] == '"':
        value, end = scanstring(text, place + 1)
        return Node(place, end, value)
    if text[place] not in "{[":
        match = _SCALAR.match(text, place)
        if match is None:
            raise ValueError("no value")
        word = match.group()
        value = _WORDS[word] if word in _WORDS else scalars.number(word)
        return Node(place, match.end(), value)
    kind, closer = (dict, "}") if text[place] == "{" else (list, "]")
    parts: list[Part] = []
    live: dict[str | None, Part] = {}
    node = Node(place, place, kind(), kind, is_flow=True, parts=parts)
    place = _skip(text, place + 1)
    while text[place] != closer:
        start, key = place, None
        if kind is dict:
            key, place = _key(text, place)
        below = _json(text, place, depth + 1, dead)
        part = Part(key, start, below)
        if key is None:
            node.value.append(below.value)
        else:
            _member(part, live, dead)
            node.value[key] = below.value
        parts.append(part)
        place = _skip(text, below.end)
        if text[place] == ",":
            place = _skip(text, place + 1)
            if text[place] == closer:
                raise ValueError("nothing behind a comma")
        elif text[place] != closer:
            raise ValueError("no comma")
    node.end = place + 1
    return node


def _member(part: Part, live: dict[str | None, Part], dead: list[Part]) -> None:
    """Note a member of a mapping, which takes the place of an earlier one with its key."""
    if before := live.get(part.key):
        before.is_dead = True
        dead.append(before)
    live[part.key] = part


def _key(text: str, place: int) -> tuple[str, int]:
    """A key, and where its value begins. Raises ValueError, IndexError."""
    if text[place] != '"':
        raise ValueError("no key")
    key, place = scanstring(text, place + 1)
    place = _skip(text, place)
    if text[place] != ":":
        raise ValueError("no colon")
    return key, _skip(text, place + 1)


def _skip(text: str, place: int) -> int:
    return _BLANK.match(text, place).end()  # type: ignore[union-attr]


def _yaml(text: str, dead: list[Part]) -> Node | None:
    parser = _PARSER(text)
    try:
        while not isinstance(parser.peek_event(), yaml.DocumentStartEvent):
            if isinstance(parser.get_event(), yaml.StreamEndEvent):
                return None
        parser.get_event()
        return _Reader(text, parser, dead).node(0)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = text.count("\n", 0, mark.index) if mark else 0
        raise BadDocument(error.problem or error.context or "is not YAML", line) from None
    except yaml.reader.ReaderError as error:
        raise BadDocument(str(error.reason), text.count("\n", 0, error.position)) from None
    finally:
        parser.dispose()


class _Reader:
    def __init__(self, text: str, parser: Any, dead: list[Part]) -> None:
        self.text, self.parser, self.dead = text, parser, dead
        self.anchors: dict[str | None, Node | None] = {}  #: None while it is open
        self.sizes: dict[int, int] = {}
        self.copies = 0

    def node(self, depth: int) -> Node:
        event = self.parser.get_event()
        try:
            return self._node(event, depth)
        except (scalars.BadScalar, BadDocument) as bad:
            if getattr(bad, "line", 0):
                raise
            line = self.text.count("\n", 0, event.start_mark.index)
            raise BadDocument(str(bad), line) from None

    def _node(self, event: Any, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise BadDocument("is nested too deeply")
        start, end = event.start_mark.index, event.end_mark.index
        if isinstance(event, yaml.AliasEvent):
            target = self.anchors.get(event.anchor)
            if target is None:
                why = "holds itself" if event.anchor in self.anchors else "is not defined"
                raise BadDocument(f"the anchor {event.anchor!r} {why}")
            self.copies += self._size(target)
            if self.copies > MAX_VALUES:
                raise BadDocument(f"stands for more than {MAX_VALUES:,} values")
            return Node(start, end, target.value, target=target)
        if event.anchor:
            self.anchors[event.anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            value = event.value
            if event.tag is not None:
                value = scalars.tagged(value, event.tag)
            elif event.implicit[0]:
                value = scalars.plain(value)
            if event.style in ("|", ">"):
                end = self._block_end(start, end)
            node = Node(start, end, value)
        else:
            kind = dict if isinstance(event, yaml.MappingStartEvent) else list
            node = Node(start, end, kind(), kind, bool(event.flow_style))
            self._fill(node, depth)
        if event.anchor:
            self.anchors[event.anchor] = node
        return node

    def _fill(self, node: Node, depth: int) -> None:
        node.parts = parts = []
        live: dict[str | None, Part] = {}
        while not isinstance(self.parser.peek_event(), yaml.CollectionEndEvent):
            if node.kind is list:
                item = self.node(depth + 1)
                parts.append(Part(None, item.start, item))
                node.value.append(item.value)
                continue
            is_plain = getattr(self.parser.peek_event(), "style", "-") in (None, "")
            name = self.node(depth + 1)
            key = scalars.key(name.value)
            is_merge = is_plain and key == "<<" and name.target is None
            value = self.node(depth + 1)
            parts.append(Part(key, name.start, value, is_merge))
            if is_merge:
                sources = value.value if isinstance(value.value, list) else [value.value]
                for source in reversed(sources):
                    if not isinstance(source, dict):
                        raise BadDocument("a merge key (<<) needs a mapping, or a list of them")
                    node.value.update(source)
            else:
                _member(parts[-1], live, self.dead)
                node.value[key] = value.value
        event = self.parser.get_event()
        # A block ends where the next thing begins, for libyaml.
        is_block = not node.is_flow
        node.end = parts[-1].node.end if parts and is_block else event.end_mark.index

    def _block_end(self, start: int, end: int) -> int:
        """Where a block scalar ends: before the empty lines after it, unless it keeps them."""
        header = self.text[start : self.text.find("\n", start)].partition("#")[0]
        text = self.text[start:end]
        if "+" in header:
            return end - (len(text) - len(text.removesuffix("\n").removesuffix("\r")))
        lines = text.rstrip()
        rest = text[len(lines) :].partition("\n")[0]
        return start + len(lines) + len(rest.removesuffix("\r"))

    def _size(self, node: Node) -> int:
        if id(node) not in self.sizes:
            below = [node.target] if node.target else [part.node for part in node.parts]
            self.sizes[id(node)] = 1 + sum(map(self._size, below))
        return self.sizes[id(node)]


def walk(node: Node) -> Iterator[Node]:
    """A node and all that are written in it."""
    yield node
    for part in node.parts:
        yield from walk(part.node)


def locate(node: Node, path: Sequence[str | int]) -> tuple[int, Node]:
    """Where the value at a path begins, with its key, and its node; its nearest parent's if none.

    Of an alias nothing is written below it.
    """
    start = node.start
    for token in path:
        found = None
        if node.kind is dict:
            found = node.own().get(str(token))
        elif str(token).isdecimal() and int(token) < len(node.parts):
            found = node.parts[int(token)]
        if found is None:
            break
        start, node = found.start, found.node
    return start, node
