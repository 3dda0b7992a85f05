"""The tree of a document's nodes, put together as its parser meets them.

What matters is a small part of a large document, and a tree of all of it would take dozens of times
the room of its text. So what names nothing of interest is left out as soon as it ends: a collection
is empty then, and of the members of a large one no trace is left. What is left out is hashed: two
texts mean the same where their trees are equal, and their hashes are.
"""

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, Final

from instaslice.manifests.nodes import BadDocument, Listing, Mapping, Member, Node

#: Nested deeper than any manifest, and not as deep as Python's own limit (1,000 calls).
MAX_DEPTH: Final = 200
#: Members of a collection that are kept as what they are, whether they matter or not: no object of
#: Kubernetes' API has as many fields, and what has more is a map, or a list.
MAX_FIELDS: Final = 256
#: Keys that matter: a pod is looked into, and its claims need not have names of InstaSlice's.
_MATTER: Final = frozenset({"containers", "initContainers", "claims"})
#: What is under these keys is read, or edited, though it may name nothing itself: what identifies
#: a manifest, and the resources and claims of a pod. Of containers, only those that matter are.
_READ: Final = {
    **dict.fromkeys(("containers", "initContainers"), False),
    **dict.fromkeys(("metadata", "annotations", "resourceClaims"), True),
    **dict.fromkeys(("resources", "limits", "requests"), True),
}
#: What is read is of these types, or null; what is not has to be told of, though it names nothing.
_TYPES: Final[dict[str | None, type[Node]]] = {
    **dict.fromkeys(("containers", "initContainers", "resourceClaims", "claims"), Listing),
    **dict.fromkeys(("metadata", "annotations", "resources", "limits", "requests"), Mapping),
}
#: Members that are kept wherever they stand: they say what a manifest, or a container, is.
_KEPT: Final = frozenset({"apiVersion", "kind", "name", "restartPolicy"})
#: Between quotes, other ways to write a character.
_ESCAPE: Final = r"|\\[xuU/\r\n]"
#: An item of a large list that is left out.
_SCALAR: Final = Node(0, 0, None)
_MAPPING: Final = Mapping(0, 0, {})
_LISTING: Final = Listing(0, 0, [])


@dataclass(slots=True)
class Open:
    """A collection that has begun and not ended."""

    node: Mapping | Listing
    anchor: str | None
    is_read: bool  #: it is kept where what holds it is kept
    reads_all: bool  #: so is what is in it
    matters: bool = False
    key: str | None = None  #: of the member whose value comes next
    key_start: int = 0
    key_matters: bool = False
    is_merge: bool = False  #: the key is "<<"
    seen: set[str] = field(default_factory=set)  #: keys
    last: int = 0  #: the end of the last value in it
    hash: int = 0  #: of all that is in it
    omitted: int = 0  #: of what is left out of it


class Builder:
    """Makes a tree of scalars, and of collections that begin and end."""

    def __init__(self, text: str, names: re.Pattern[str] | None) -> None:
        """names: what matters has one of these; None where all does."""
        self.names = names
        self.open: list[Open] = []
        self.root: Node | None = None
        self.omitted = 0  #: a hash of what is left out
        self._places = re.finditer(names.pattern + _ESCAPE, text) if names else iter(())
        self._never = len(text)
        self._place = self._next()  #: where the next name may be

    def _next(self) -> int:
        found = next(self._places, None)
        return found.start() if found else self._never

    def begin(self, node: Mapping | Listing, anchor: str | None = None) -> None:
        """A collection begins. Raises BadDocument."""
        if len(self.open) >= MAX_DEPTH:
            raise BadDocument("is nested too deeply")
        is_read = reads_all = False
        if self.open:
            holder = self.open[-1]
            key = holder.key
            if key is None:
                is_read = reads_all = holder.reads_all
            else:
                is_read = holder.key_matters or key in _READ
                reads_all = _READ.get(key, holder.key_matters)
        self.open.append(Open(node, anchor, is_read, reads_all))

    def end(self, end: int) -> None:
        """The innermost collection ends. Raises BadDocument."""
        done = self.open.pop()
        node = done.node
        node.end = end
        if self.names is not None and self.open and not (done.matters or done.is_read):
            node.value = {} if isinstance(node, Mapping) else []
            if isinstance(node, Mapping):
                node.members = []
            else:
                node.items = []
            self.open[-1].omitted = hash((self.open[-1].omitted, done.hash))
        elif done.omitted:
            self.omitted = hash((self.omitted, done.omitted))
        self._put(node, done.hash, done.matters, done.is_read)

    def scalar(self, node: Node) -> None:
        """A scalar, as a value. Raises BadDocument."""
        matters = node.end > self._place and self._matters(node.start, node.end, node.value)
        self._put(node, node.value, matters)

    def key(self, key: str, start: int, end: int, *, is_merge: bool = False) -> None:
        """A key of the innermost collection, at text[start:end]."""
        holder = self.open[-1]
        holder.key = key
        holder.key_start = start
        found = end > self._place and self._matters(start, end, key)
        holder.key_matters = found or key in _MATTER
        holder.is_merge = is_merge

    def _matters(self, start: int, end: int, value: object) -> bool:
        """Whether a scalar that ends behind the next place of a name has one."""
        while self._place < start:
            self._place = self._next()
        if end <= self._place or self.names is None or not isinstance(value, str):
            return False
        return self.names.search(value) is not None

    def _put(self, node: Node, meaning: Hashable, matters: bool, is_read: bool = False) -> None:
        """A value is complete: give it to what holds it."""
        if not self.open:
            self.root = node
            node.omitted = None if self.names is None else self.omitted
            return
        holder = self.open[-1]
        into, key = holder.node, holder.key
        holder.last = node.end
        if self.names is not None:
            is_wrong = node.value is not None and not isinstance(node, _TYPES.get(key, Node))
            matters = matters or holder.key_matters or is_wrong
            holder.matters = holder.matters or matters
            holder.hash = hash((holder.hash, key, meaning))
        is_kept = matters or is_read or holder.reads_all or self.names is None
        if isinstance(into, Listing):
            if not is_kept and len(into.items) >= MAX_FIELDS:
                into.is_cut = True
                holder.omitted = hash((holder.omitted, meaning))
                is_mapping, is_listing = isinstance(node, Mapping), isinstance(node, Listing)
                node = _MAPPING if is_mapping else _LISTING if is_listing else _SCALAR
            into.items.append(node)
            into.value.append(node.value)
            return
        assert key is not None
        holder.key = None
        if holder.is_merge:
            _merge(into.value, node.value)
        elif is_kept or len(into.members) < MAX_FIELDS or key in _KEPT:
            into.value[key] = node.value
        else:
            into.is_cut = True
            holder.omitted = hash((holder.omitted, key, meaning))
            return
        into.members.append(Member(key, holder.key_start, node, holder.is_merge))


def _merge(into: dict[str, Any], value: Any) -> None:
    """Put the members of a mapping, or of several, into one that has "<<". Raises BadDocument.

    A member that stands before the "<<" gives way, as kubectl has it; one that comes later wins.
    """
    sources = value if isinstance(value, list) else [value]
    for source in reversed(sources):
        if not isinstance(source, dict):
            raise BadDocument("a merge key (<<) needs a mapping, or a list of them")
        into.update(source)
