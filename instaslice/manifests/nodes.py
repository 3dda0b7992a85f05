"""A document as a tree of nodes, each of which knows its place in the text.

`yaml_nodes.read` and `json_nodes.read` make them, `edit` uses them to change the text where it
must change and nowhere else.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class BadDocument(Exception):
    """The text is not a document that can be edited; `str()` of it says why."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line  #: from 0, in the document


@dataclass(slots=True)
class Node:
    """A value and where it is written: text[start:end], with an anchor or a tag before it.

    The end is behind the last character of the value itself, on the same line, also where the
    parser reads on over comments and empty lines.
    """

    start: int
    end: int
    value: Any  #: decoded JSON; nodes that are aliases share it with what they stand for
    is_flow: bool = False  #: a collection in brackets or braces
    target: "Node | None" = None  #: what an alias stands for
    omitted: int | None = None  #: of a root: a hash of what was left out; None where nothing may be


class Member(NamedTuple):
    """A key and its value."""

    key: str
    start: int  #: of the key
    node: Node
    is_merge: bool = False  #: the key is "<<", which merges the value's members


@dataclass(slots=True)
class Mapping(Node):
    """A mapping; `value` has the members that are merged into it, too."""

    members: list[Member] = field(default_factory=list)  #: those that are written here
    is_cut: bool = False  #: some are left out
    _own: dict[str, Member] | None = field(default=None, compare=False, repr=False)

    def own(self) -> dict[str, Member]:
        """The members by key, without merge keys; of a mapping that is complete."""
        if self._own is None:  # problems are looked up one by one, and may be one a member
            self._own = {member.key: member for member in self.members if not member.is_merge}
        return self._own


@dataclass(slots=True)
class Listing(Node):
    """A sequence."""

    items: list[Node] = field(default_factory=list)  #: those that are written here
    is_cut: bool = False  #: some stand for what is left out


def child(node: Node, token: str | int) -> tuple[int, Node] | None:
    """The node at a key or an index, and where it begins with its key, or None if it is not here.

    Looks through an alias; a member that is merged in is not here.
    """
    node = node.target or node
    if isinstance(node, Mapping):
        found = node.own().get(str(token))
        return (found.start, found.node) if found else None
    if isinstance(node, Listing) and str(token).isdecimal() and int(token) < len(node.items):
        item = node.items[int(token)]
        return item.start, item
    return None


def locate(node: Node, tokens: Sequence[str | int]) -> int:
    """Where the value at a path begins, with its key; its nearest parent if it has none."""
    start = node.start
    for token in tokens:
        found = child(node, token)
        if found is None:
            break
        # What an alias stands for is elsewhere, and the alias is what was typed here.
        start, node = found
        if node.target is not None:
            break
    return start


def walk(
    node: Node, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], Node]]:
    """Every node with its path, not through aliases."""
    yield path, node
    if isinstance(node, Mapping):
        for member in node.members:
            yield from walk(member.node, (*path, member.key))
    elif isinstance(node, Listing):
        for index, item in enumerate(node.items):
            yield from walk(item, (*path, index))
