"""YAML with the places of its values, as kubectl reads it. Needs the extra `cli`.

The parser is libyaml, of which the parser in sigs.k8s.io/yaml, and so in kubectl, is a port. Its
events are put together here, since its own loader knows no places and reads scalars in another way.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.events import (
    AliasEvent,
    DocumentEndEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)

from instaslice.manifests import scalars
from instaslice.manifests.nodes import BadDocument, Listing, Mapping, Member, Node

#: libyaml's parser where PyYAML was built with it, as its wheels are.
_PARSER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: More values than a manifest has, and few enough to be read at once: aliases can be nested so that
#: a short text stands for billions (a "billion laughs"). What has no alias has what it has.
MAX_VALUES: Final = 1_000_000
#: Nested deeper than any manifest, and not as deep as Python's own limit (1,000 calls).
MAX_DEPTH: Final = 200


@dataclass(slots=True)
class _Open:
    """A collection that has begun and not ended."""

    node: Mapping | Listing
    anchor: str | None
    members: list[Member]
    items: list[Node]
    key: tuple[str, int, bool] | None = None  #: of the member whose value comes next
    seen: set[str] = field(default_factory=set)


def read(text: str) -> Node | None:
    """The root of one document, or None where it is empty. Raises BadDocument."""
    try:
        return _Reader(text).read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise BadDocument(
            error.problem or error.context or "is not YAML",
            text.count("\n", 0, mark.index) if mark else 0,
        ) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) if isinstance(error.position, int) else 0
        raise BadDocument(str(error.reason), line) from None


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.open: list[_Open] = []
        self.anchors: dict[str, Node] = {}
        self.inside: set[str] = set()  #: anchors of what is open
        self.sizes: dict[int, int] = {}  #: by id, how many values a node stands for
        self.copies = 0  #: values that aliases stand for
        self.root: Node | None = None

    def read(self) -> Node | None:
        parser = _PARSER(self.text)
        try:
            next_event = parser.get_event
            while True:
                event = next_event()
                handle = _HANDLERS.get(type(event))
                if handle is not None:
                    handle(self, event)
                elif isinstance(event, DocumentEndEvent | StreamEndEvent):
                    return self.root
        finally:
            parser.dispose()

    def _line(self, event: Any) -> int:
        """The line, from 0, on which an event begins. libyaml knows other line ends, too."""
        return self.text.count("\n", 0, event.start_mark.index)

    def start(self, event: Any) -> None:
        if len(self.open) >= MAX_DEPTH:
            raise BadDocument("is nested too deeply", self._line(event))
        start, end = event.start_mark.index, event.end_mark.index
        members: list[Member] = []
        items: list[Node] = []
        node: Mapping | Listing
        if isinstance(event, MappingStartEvent):
            node = Mapping(start, end, {}, bool(event.flow_style), None, members)
        else:
            node = Listing(start, end, [], bool(event.flow_style), None, items)
        if event.anchor:
            self.inside.add(event.anchor)
        self.open.append(_Open(node, event.anchor, members, items))

    def end(self, event: Any) -> None:
        done = self.open.pop()
        node = done.node
        last = done.members[-1].node if done.members else done.items[-1] if done.items else None
        # A block ends where the next thing begins, for libyaml.
        node.end = event.end_mark.index if node.is_flow or not last else last.end
        self.put(node, done.anchor, event)

    def scalar(self, event: Any) -> None:
        start, end = event.start_mark.index, event.end_mark.index
        try:
            if event.tag is not None:
                value = scalars.tagged(event.value, event.tag)
            else:
                value = scalars.plain(event.value) if event.implicit[0] else event.value
        except scalars.BadScalar as bad:
            raise BadDocument(str(bad), self._line(event)) from None
        if event.style in ("|", ">"):
            end = self._block_end(start, end)
        self.put(Node(start, end, value), event.anchor, event)

    def _block_end(self, start: int, end: int) -> int:
        """Where a block scalar ends: before the empty lines after it, unless it keeps them."""
        header = self.text[start : self.text.find("\n", start)].partition("#")[0]
        text = self.text[start:end]
        if "+" in header:
            return end - (len(text) - len(text.removesuffix("\n").removesuffix("\r")))
        lines = text.rstrip()
        # Blanks at the end of the last line are of its text.
        rest = text[len(lines) :].partition("\n")[0]
        return start + len(lines) + len(rest.removesuffix("\r"))

    def alias(self, event: Any) -> None:
        if event.anchor in self.inside:
            raise BadDocument(f"the anchor {event.anchor!r} holds itself", self._line(event))
        if event.anchor not in self.anchors:
            raise BadDocument(f"found undefined alias {event.anchor!r}", self._line(event))
        target = self.anchors[event.anchor]
        self.copies += self._size(target)
        if self.copies > MAX_VALUES:
            raise BadDocument(f"stands for more than {MAX_VALUES:,} values", self._line(event))
        node = Node(event.start_mark.index, event.end_mark.index, target.value, target=target)
        self.put(node, None, event)

    def _size(self, node: Node) -> int:
        """How many values a node stands for."""
        known = self.sizes.get(id(node))
        if known is None:
            below: Iterable[Node] = ()
            if isinstance(node, Mapping):
                below = (member.node for member in node.members)
            elif isinstance(node, Listing):
                below = node.items
            elif node.target:
                below = (node.target,)
            known = self.sizes[id(node)] = 1 + sum(map(self._size, below))
        return known

    def put(self, node: Node, anchor: str | None, event: Any) -> None:
        """A value is complete: give it to what holds it."""
        if anchor is not None:
            self.inside.discard(anchor)
            self.anchors[anchor] = node
        if not self.open:
            self.root = node
            return
        holder = self.open[-1]
        if isinstance(holder.node, Listing):
            holder.items.append(node)
            holder.node.value.append(node.value)
        elif holder.key is None:
            holder.key = self._key(holder, node, event)
        else:
            key, start, is_merge = holder.key
            holder.key = None
            holder.members.append(Member(key, start, node, is_merge))
            if is_merge:
                _merge(holder.node.value, node.value, lambda: self._line(event))
            else:
                holder.node.value[key] = node.value

    def _key(self, holder: _Open, node: Node, event: Any) -> tuple[str, int, bool]:
        try:
            key = scalars.key(node.value)
        except scalars.BadScalar as bad:
            raise BadDocument(str(bad), self._line(event)) from None
        is_merge = key == "<<" and isinstance(event, ScalarEvent) and event.style == ""
        if key in holder.seen and not is_merge:
            raise BadDocument(f"found duplicate key {key!r}", self._line(event))
        holder.seen.add(key)
        return key, node.start, is_merge


_HANDLERS: Final[dict[type, Any]] = {
    MappingStartEvent: _Reader.start,
    SequenceStartEvent: _Reader.start,
    MappingEndEvent: _Reader.end,
    SequenceEndEvent: _Reader.end,
    ScalarEvent: _Reader.scalar,
    AliasEvent: _Reader.alias,
}


def _merge(into: dict[str, Any], value: Any, line: Callable[[], int]) -> None:
    """Put the members of a mapping, or of several, into one that has "<<".

    A member that stands before the "<<" gives way, as kubectl has it; one that comes later wins.
    """
    sources = value if isinstance(value, list) else [value]
    for source in reversed(sources):
        if not isinstance(source, dict):
            raise BadDocument("a merge key (<<) needs a mapping, or a list of them", line())
        into.update(source)
