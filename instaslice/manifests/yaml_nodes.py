"""YAML with the places of its values, as kubectl reads it. Needs the extra `cli`.

The parser is libyaml, of which the parser in sigs.k8s.io/yaml, and so in kubectl, is a port. Its
events are put together here, since its own loader knows no places and reads scalars in another way.
"""

import re
from collections.abc import Iterable
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
from instaslice.manifests.builder import Builder
from instaslice.manifests.nodes import BadDocument, Listing, Mapping, Node

#: libyaml's parser where PyYAML was built with it, as its wheels are.
_PARSER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

#: More values than a manifest has, and few enough to be read at once: aliases can be nested so that
#: a short text stands for billions (a "billion laughs"). What has no alias has what it has.
MAX_VALUES: Final = 1_000_000


class _Shared(Exception):
    """An alias or a merge key, for which what it stands for must be there."""


def read(text: str, names: re.Pattern[str] | None = None) -> Node | None:
    """The root of one document, or None where it is empty. Raises BadDocument.

    names: leave out what has none of these, unless it is read anyway (`builder`). A document with
    aliases is read whole.
    """
    try:
        try:
            return _Reader(text, names).read()
        except _Shared:
            return _Reader(text, None).read()
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
    def __init__(self, text: str, names: re.Pattern[str] | None) -> None:
        self.text = text
        self.builder = Builder(text, names)
        self.open = self.builder.open
        self.anchors: dict[str, Node] = {}
        self.inside: set[str] = set()  #: anchors of what is open
        self.sizes: dict[int, int] = {}  #: by id, how many values a node stands for
        self.copies = 0  #: values that aliases stand for

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
                    return self.builder.root
        except (BadDocument, scalars.BadScalar) as bad:
            # libyaml knows other line ends, too.
            line = self.text.count("\n", 0, event.start_mark.index)
            raise BadDocument(str(bad), line) from None
        finally:
            parser.dispose()

    def start(self, event: Any) -> None:
        if self._awaits_key():
            scalars.key(None)  # raises BadScalar
        start, end = event.start_mark.index, event.end_mark.index
        is_flow = bool(event.flow_style)
        if isinstance(event, MappingStartEvent):
            self.builder.begin(Mapping(start, end, {}, is_flow), event.anchor)
        else:
            self.builder.begin(Listing(start, end, [], is_flow), event.anchor)
        if event.anchor:
            self.inside.add(event.anchor)

    def end(self, event: Any) -> None:
        done = self.open[-1]
        # A block ends where the next thing begins, for libyaml.
        end = done.last if done.last and not done.node.is_flow else event.end_mark.index
        if done.anchor:
            self.inside.discard(done.anchor)
            self.anchors[done.anchor] = done.node
        self.builder.end(end)

    def scalar(self, event: Any) -> None:
        start, end = event.start_mark.index, event.end_mark.index
        if event.tag is not None:
            value = scalars.tagged(event.value, event.tag)
        else:
            value = scalars.plain(event.value) if event.implicit[0] else event.value
        if event.style in ("|", ">"):
            end = self._block_end(start, end)
        is_key = self._awaits_key()
        if is_key:
            self._key(value, event, is_plain=event.style == "")
        if event.anchor or not is_key:
            node = Node(start, end, value)
            if event.anchor:
                self.anchors[event.anchor] = node
            if not is_key:
                self.builder.scalar(node)

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
            raise BadDocument(f"the anchor {event.anchor!r} holds itself")
        if event.anchor not in self.anchors:
            raise BadDocument(f"found undefined alias {event.anchor!r}")
        if self.builder.names is not None:
            raise _Shared
        target = self.anchors[event.anchor]
        self.copies += self._size(target)
        if self.copies > MAX_VALUES:
            raise BadDocument(f"stands for more than {MAX_VALUES:,} values")
        if self._awaits_key():
            self._key(target.value, event, is_plain=False)
            return
        start, end = event.start_mark.index, event.end_mark.index
        self.builder.scalar(Node(start, end, target.value, target=target))

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

    def _awaits_key(self) -> bool:
        if not self.open:
            return False
        holder = self.open[-1]
        return holder.key is None and isinstance(holder.node, Mapping)

    def _key(self, value: Any, event: Any, *, is_plain: bool) -> None:
        key = value if isinstance(value, str) else scalars.key(value)
        seen = self.open[-1].seen
        is_merge = is_plain and key == "<<"
        if is_merge and self.builder.names is not None:
            raise _Shared
        if key in seen and not is_merge:
            raise BadDocument(f"found duplicate key {key!r}")
        seen.add(key)
        self.builder.key(key, event.start_mark.index, event.end_mark.index, is_merge=is_merge)


_HANDLERS: Final[dict[type, Any]] = {
    MappingStartEvent: _Reader.start,
    SequenceStartEvent: _Reader.start,
    MappingEndEvent: _Reader.end,
    SequenceEndEvent: _Reader.end,
    ScalarEvent: _Reader.scalar,
    AliasEvent: _Reader.alias,
}
