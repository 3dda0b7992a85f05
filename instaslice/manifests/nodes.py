"""Reads YAML and JSON, as kubectl does, into nodes that know their places in the text.

The parser of YAML is libyaml; kubectl's is a port of it (sigs.k8s.io/yaml). JSON has a separate
reader, since libyaml refuses its surrogate pairs and long keys.
"""

import json
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
_TOO_DEEP: Final = "is nested too deeply"


class BadDocument(Exception):
    """The text cannot be read or edited; `str()` of it says why."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line  #: from 0, in the document


@dataclass(slots=True)
class Node:
    """A value and its place: text[start:end]."""

    start: int
    end: int
    value: Any  #: decoded JSON; an alias shares it with its target
    kind: type = str  #: dict, list, or str for every scalar
    is_flow: bool = False
    is_block: bool = False  #: whether it is a block scalar, which has a header
    target: "Node | None" = None  #: of an alias
    parts: "Sequence[Part]" = ()  #: members, or items
    _own: "dict[str | None, Part] | None" = None

    def own(self) -> "dict[str | None, Part]":
        """The members by key, without merge keys; the last one of each key."""
        if self._own is None:  # cached, since every member may have a problem to locate
            self._own = {part.key: part for part in self.parts if not part.is_merge}
        return self._own


@dataclass(slots=True)
class Part:
    """A member of a mapping, or an item of a list."""

    key: str | None  #: None for an item
    start: int  #: of its key, or its value
    node: Node
    is_merge: bool = False
    is_dead: bool = False  #: a later member with the same key overrides it


#: An event of a parser: a scalar or the beginning of a collection, with its anchor's name; an
#: alias, with that name and True; or the end of a collection, of the kind `_END`.
_Found = tuple[Node, str | None, bool]
_END: Final = type(None)


def read(text: str, dead: list[Part] | None = None) -> tuple[Node | None, bool]:
    """Return the root of a document, None if it is empty, and whether the document is JSON.

    dead: receives the members that later ones override. Raises BadDocument.
    """
    is_json = _is_json(text)
    events = _of_json(text) if is_json else _of_yaml(text)
    try:
        first = next(events, None)
        builder = _Builder(text, events, [] if dead is None else dead)
        root = builder.node(*first, 0) if first else None
        if another := next(events, None):
            raise _bad(text, "holds several documents", another[0].start)
        return root, is_json
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why, place = error.problem or error.context or "is not YAML", mark.index if mark else 0
    except yaml.reader.ReaderError as error:
        why, place = str(error.reason), error.position
    raise _bad(text, why, place)


def _bad(text: str, why: str, place: int) -> BadDocument:
    return BadDocument(why, text.count("\n", 0, place))


#: It refuses NaN and Infinity, which are not JSON: `int` raises ValueError for them.
JSON: Final = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=int)
_BEGINS_JSON: Final = re.compile(r"[ \t\n\r]*[{\[]")
#: Strings, brackets and words of a text that is known to be JSON.
_TOKEN: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]|[^ \t\n\r,:"\[\]{}]+', re.DOTALL)
_KINDS: Final[dict[str, type]] = {"{": dict, "[": list, "}": _END, "]": _END}
_WORDS: Final[dict[str, Any]] = {"true": True, "false": False, "null": None}


def _is_json(text: str) -> bool:
    """Whether a text is a JSON object or list. Raises BadDocument."""
    try:
        return bool(_BEGINS_JSON.match(text)) and JSON.decode(text) is not None
    except ValueError:
        return False
    except RecursionError:
        raise BadDocument(_TOO_DEEP) from None


def _of_json(text: str) -> Iterator[_Found]:
    for match in _TOKEN.finditer(text):
        word, (start, end) = match.group(), match.span()
        if kind := _KINDS.get(word):
            yield Node(start, end, kind(), kind, is_flow=True), None, False
        elif word[0] == '"':
            yield Node(start, end, scanstring(text, start + 1)[0]), None, False
        else:
            value = _WORDS[word] if word in _WORDS else scalars.number(word)
            yield Node(start, end, value), None, False


def _of_yaml(text: str) -> Iterator[_Found]:
    """Raises BadDocument, yaml.MarkedYAMLError, yaml.reader.ReaderError."""
    parser = _PARSER(text)
    while not isinstance(event := parser.get_event(), yaml.StreamEndEvent):
        start, end = event.start_mark.index, event.end_mark.index
        if isinstance(event, yaml.ScalarEvent):
            try:
                value = scalars.meaning(event.value, event.tag, event.implicit[0])
            except scalars.BadScalar as bad:
                raise _bad(text, str(bad), start) from None
            is_block = event.style in ("|", ">")
            end = _block_end(text, start, end) if is_block else end
            yield Node(start, end, value, is_block=is_block), event.anchor, False
        elif isinstance(event, yaml.AliasEvent):
            yield Node(start, end, None), event.anchor, True
        elif isinstance(event, yaml.CollectionStartEvent):
            kind = dict if isinstance(event, yaml.MappingStartEvent) else list
            yield Node(start, end, kind(), kind, bool(event.flow_style)), event.anchor, False
        elif isinstance(event, yaml.CollectionEndEvent):
            yield Node(start, end, None, _END), None, False


def _block_end(text: str, start: int, end: int) -> int:
    """The end of a block scalar: before the empty lines after it, unless it keeps them."""
    header, block = text[start : text.find("\n", start)].partition("#")[0], text[start:end]
    if "+" in header:
        return end - (len(block) - len(block.removesuffix("\n").removesuffix("\r")))
    lines = block.rstrip()
    return start + len(lines) + len(block[len(lines) :].partition("\n")[0].removesuffix("\r"))


class _Builder:
    """Builds nodes from events."""

    def __init__(self, text: str, events: Iterator[_Found], dead: list[Part]) -> None:
        self.text, self.events, self.dead = text, events, dead
        self.anchors: dict[str, Node | None] = {}  #: None until the node is complete
        self.sizes: dict[int, int] = {}
        self.copies = 0

    def node(self, node: Node, name: str | None, is_alias: bool, depth: int) -> Node:
        """Complete a node with its parts. name: of its anchor. Raises BadDocument."""
        if depth > MAX_DEPTH:
            raise _bad(self.text, _TOO_DEEP, node.start)
        if name and is_alias:
            self.link(node, name)
        elif name:
            self.anchors[name] = None
        if node.kind is not str:
            self.fill(node, depth)
        if name and not is_alias:
            self.anchors[name] = node
        return node

    def link(self, node: Node, name: str) -> None:
        """Link an alias to the node that has its anchor."""
        target = self.anchors.get(name)
        if target is None:
            why = "holds itself" if name in self.anchors else "is not defined"
            raise _bad(self.text, f"the anchor {name!r} {why}", node.start)
        self.copies += self.size(target)
        if self.copies > MAX_VALUES:
            raise _bad(self.text, f"stands for more than {MAX_VALUES:,} values", node.start)
        node.target, node.value = target, target.value

    def fill(self, node: Node, depth: int) -> None:
        """Read a collection up to its end."""
        parts: list[Part] = []
        own: dict[str | None, Part] = {}
        node.parts = parts
        for found in self.events:
            if found[0].kind is _END:
                # For libyaml, a block ends only at the beginning of the next token.
                node.end = found[0].end if node.is_flow or not parts else parts[-1].node.end
                return
            first = self.node(*found, depth + 1)
            if node.kind is list:
                parts.append(Part(None, first.start, first))
                node.value.append(first.value)
                continue
            try:
                key = scalars.key(first.value)
            except scalars.BadScalar as bad:
                raise _bad(self.text, str(bad), node.start) from None
            is_merge = key == "<<" and self.text.endswith("<<", first.start, first.end)
            value = self.node(*next(self.events), depth + 1)
            parts.append(Part(key, first.start, value, is_merge))
            if is_merge:
                self.merge(node, value.value)
                continue
            if before := own.get(key):
                before.is_dead = True
                self.dead.append(before)
            own[key] = parts[-1]
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
    """Yield a node and all nodes below it, without following aliases."""
    yield node
    for part in node.parts:
        yield from walk(part.node)


def locate(node: Node, path: Sequence[str | int]) -> tuple[int, Node]:
    """Find the value at a path, or else its nearest parent: its start with its key, and its node.

    The path does not lead through aliases, which have no text below them.
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
