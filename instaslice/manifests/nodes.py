"""YAML and JSON as nodes that know their places in the text, read as kubectl reads them.

YAML's parser is libyaml, of which kubectl's is a port (sigs.k8s.io/yaml). JSON is read by itself:
it has surrogate pairs and long keys, which libyaml refuses.
"""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final, NamedTuple

import yaml

from instaslice.manifests import scalars

_PARSER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
MAX_DEPTH: Final = 200
MAX_VALUES: Final = 1_000_000
_TOO_DEEP: Final = "is nested too deeply"


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
    has_alias: bool = False  #: it is one, or one is in it
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


class _Event(NamedTuple):
    """What a parser finds at text[start:end]: a scalar, or where a collection begins or ends."""

    kind: type | None  #: dict, list, or str for a scalar and an alias; None for an end
    start: int
    end: int
    value: Any = None  #: of a scalar
    is_flow: bool = True
    is_plain: bool = False  #: without quotes
    anchor: str | None = None
    alias: str | None = None


def read(text: str, dead: list[Part] | None = None) -> tuple[Node | None, bool]:
    """The root of a document, None where it is empty, and whether it is JSON.

    dead: is told of members whose key comes again. Raises BadDocument.
    """
    is_json = _is_json(text)
    events = _of_json(text) if is_json else _of_yaml(text)
    try:
        first = next(events, None)
        builder = _Builder(text, events, [] if dead is None else dead)
        return (builder.node(first, 0) if first else None), is_json
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why, place = error.problem or error.context or "is not YAML", mark.index if mark else 0
    except yaml.reader.ReaderError as error:
        why, place = str(error.reason), error.position
    raise _bad(text, why, place)


def _bad(text: str, why: str, place: int) -> BadDocument:
    return BadDocument(why, text.count("\n", 0, place))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


_JSON: Final = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=_refuse)
_BEGINS_JSON: Final = re.compile(r"[ \t\n\r]*[{\[]")
#: Strings, brackets and words, where a text is known to be JSON.
_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]|[^ \t\n\r,:"\[\]{}]+', re.DOTALL)
_KINDS: Final = {"{": dict, "[": list, "}": None, "]": None}
_WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}


def _is_json(text: str) -> bool:
    """Whether a text is an object or a list of JSON. Raises BadDocument."""
    try:
        return bool(_BEGINS_JSON.match(text)) and _JSON.decode(text) is not None
    except ValueError:
        return False
    except RecursionError:
        raise BadDocument(_TOO_DEEP) from None


def _of_json(text: str) -> Iterator[_Event]:
    for match in _TOKEN.finditer(text):
        word, (start, end) = match.group(), match.span()
        if word in _KINDS:
            yield _Event(_KINDS[word], start, end)
        elif word[0] == '"':
            yield _Event(str, start, end, scanstring(text, start + 1)[0])
        else:
            yield _Event(str, start, end, _WORDS[word] if word in _WORDS else scalars.number(word))


def _of_yaml(text: str) -> Iterator[_Event]:
    """Raises BadDocument, yaml.MarkedYAMLError, yaml.reader.ReaderError."""
    parser = _PARSER(text)
    try:
        while not isinstance(event := parser.get_event(), yaml.StreamEndEvent):
            start, end = event.start_mark.index, event.end_mark.index
            if isinstance(event, yaml.CollectionEndEvent):
                yield _Event(None, start, end)
            elif isinstance(event, yaml.AliasEvent):
                yield _Event(str, start, end, alias=event.anchor)
            elif isinstance(event, yaml.ScalarEvent):
                try:
                    value = scalars.meaning(event.value, event.tag, event.implicit[0])
                except scalars.BadScalar as bad:
                    raise _bad(text, str(bad), start) from None
                if event.style in ("|", ">"):
                    end = _block_end(text, start, end)
                is_plain = not event.style
                yield _Event(str, start, end, value, is_plain=is_plain, anchor=event.anchor)
            elif isinstance(event, yaml.CollectionStartEvent):
                kind = dict if isinstance(event, yaml.MappingStartEvent) else list
                is_flow = bool(event.flow_style)
                yield _Event(kind, start, end, is_flow=is_flow, anchor=event.anchor)
    finally:
        parser.dispose()


def _block_end(text: str, start: int, end: int) -> int:
    """Where a block scalar ends: before the empty lines after it, unless it keeps them."""
    header, block = text[start : text.find("\n", start)].partition("#")[0], text[start:end]
    if "+" in header:
        return end - (len(block) - len(block.removesuffix("\n").removesuffix("\r")))
    lines = block.rstrip()
    return start + len(lines) + len(block[len(lines) :].partition("\n")[0].removesuffix("\r"))


class _Builder:
    """Makes nodes of events."""

    def __init__(self, text: str, events: Iterator[_Event], dead: list[Part]) -> None:
        self.text, self.events, self.dead = text, events, dead
        self.anchors: dict[str, Node | None] = {}  #: None while it is open
        self.sizes: dict[int, int] = {}
        self.copies = 0

    def node(self, event: _Event, depth: int) -> Node:
        """What begins with an event. Raises BadDocument."""
        kind, start, end, value, is_flow, _, anchor, alias = event
        if depth > MAX_DEPTH:
            raise _bad(self.text, _TOO_DEEP, start)
        if alias is not None:
            return self.alias(alias, start, end)
        if anchor:
            self.anchors[anchor] = None
        if kind in (dict, list):
            node = Node(start, end, kind(), kind, is_flow)
            self.fill(node, depth)
        else:
            node = Node(start, end, value)
        if anchor:
            self.anchors[anchor] = node
        return node

    def alias(self, name: str, start: int, end: int) -> Node:
        target = self.anchors.get(name)
        if target is None:
            why = "holds itself" if name in self.anchors else "is not defined"
            raise _bad(self.text, f"the anchor {name!r} {why}", start)
        self.copies += self.size(target)
        if self.copies > MAX_VALUES:
            raise _bad(self.text, f"stands for more than {MAX_VALUES:,} values", start)
        return Node(start, end, target.value, target=target, has_alias=True)

    def fill(self, node: Node, depth: int) -> None:
        """Read a collection up to its end."""
        parts: list[Part] = []
        node.parts = parts
        live: dict[str | None, Part] = {}
        for event in self.events:
            if event.kind is None:
                # A block ends where the next thing begins, for libyaml.
                node.end = event.end if node.is_flow or not parts else parts[-1].node.end
                return
            first = self.node(event, depth + 1)
            if node.kind is list:
                parts.append(Part(None, first.start, first))
                node.value.append(first.value)
                node.has_alias |= first.has_alias
                continue
            try:
                key = scalars.key(first.value)
            except scalars.BadScalar as bad:
                raise _bad(self.text, str(bad), node.start) from None
            value = self.node(next(self.events), depth + 1)
            node.has_alias |= value.has_alias
            parts.append(Part(key, first.start, value, event.is_plain and key == "<<"))
            if parts[-1].is_merge:
                self.merge(node, value.value)
                continue
            if before := live.get(key):
                before.is_dead = True
                self.dead.append(before)
            live[key] = parts[-1]
            node.value[key] = value.value

    def merge(self, node: Node, value: Any) -> None:
        for source in reversed(value if isinstance(value, list) else [value]):
            if not isinstance(source, dict):
                why = "a merge key (<<) needs a mapping, or a list of them"
                raise _bad(self.text, why, node.start)
            node.value.update(source)

    def size(self, node: Node) -> int:
        if id(node) not in self.sizes:
            below = [node.target] if node.target else [part.node for part in node.parts]
            self.sizes[id(node)] = 1 + sum(map(self.size, below))
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
