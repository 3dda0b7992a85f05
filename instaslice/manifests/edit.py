"""A document's text, changed where it must change and nowhere else.

Whole lines are put in and taken out where a block is edited, and members between their commas where
braces or brackets are. What an alias, or a merge key, brings into an edited place is written out
there. The result is read again and must mean what was meant, whatever the style of the text.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from instaslice.manifests import json_nodes, yaml_nodes
from instaslice.manifests.change import Change, Token, changed
from instaslice.manifests.flow import Edit, Flow
from instaslice.manifests.layout import Layout, column, first
from instaslice.manifests.nodes import BadDocument, Listing, Mapping, Member, Node, walk

UNWRITABLE: Final = "cannot be rewritten in this layout; try -o json"


class Edited(NamedTuple):
    """A document's text after a change."""

    text: str
    value: Any  #: what it means
    edits: list[Edit]  #: what led to it, in order, of the text with an end of its last line


def edit(
    text: str,
    root: Node,
    change: Change,
    layout: Layout,
    names: re.Pattern[str] | None = None,
) -> Edited:
    """Make a change in the text of a document.

    root: the document as it was read from the text. layout: of what is new.
    names: that it was read with.
    Raises BadDocument where the result would not mean what the change makes of the document.
    """
    meaning = changed(root.value, change)
    # Then every line has an end.
    whole = text if text.endswith("\n") else text + "\n"
    editor = _Editor(whole)
    if not editor.can_enter(root, change):
        raise BadDocument(UNWRITABLE)
    if not layout.is_json and "*" in text:
        change = _without_sharing(root, change)
    editor.enter(root, change, layout)
    # What is put in at a place comes before what is taken out from there on.
    edits = sorted(editor.edits, key=lambda edit: (edit[0], edit[1] > edit[0]))
    result = _apply(whole, edits)
    if whole is not text:
        result = result.removesuffix("\n").removesuffix("\r")
    try:
        # What was read whole has an alias, which the result need not have.
        names = None if root.omitted is None else names
        again = (json_nodes if layout.is_json else yaml_nodes).read(result, names)
    except BadDocument:
        again = None
    if again is None or (again.value, again.omitted) != (meaning, root.omitted):
        raise BadDocument(UNWRITABLE)
    return Edited(result, meaning, edits)


@dataclass(slots=True)
class _Editor:
    """Collects the edits of a text whose last line has an end."""

    text: str
    edits: list[Edit] = field(default_factory=list)

    def can_enter(self, node: Node, change: Change) -> bool:
        """Whether a change can be made within a node; else its whole value is written anew."""
        if node.target is not None:
            return False
        if isinstance(node, Mapping):
            # A pair in brackets, [a: 1], is a mapping without braces.
            return not node.is_flow or self.text[node.end - 1] == "}"
        if isinstance(node, Listing):
            return node.is_flow or len(change.gone) < len(node.items)
        return False

    def enter(self, node: Node, change: Change, layout: Layout) -> None:
        """Make a change within a node."""
        is_cut = isinstance(node, Mapping | Listing) and node.is_cut
        if is_cut and (change.gone or change.put or change.more):
            raise BadDocument(UNWRITABLE)
        if isinstance(node, Mapping):
            layout = layout.near(node, self.text)
            own = node.own()
            if not change.gone <= own.keys():
                _write_out_merged(node, change)
            put = dict(change.put)
            for token, below in change.below.items():
                member = own.get(str(token))
                if member is not None and self.can_enter(member.node, below):
                    self.enter(member.node, below, layout)
                else:
                    put[token] = changed(node.value[token], below)
            edit_mapping = self._flow_mapping if node.is_flow else self._block_mapping
            edit_mapping(node, change.gone, put, layout)
        elif isinstance(node, Listing):
            layout = layout.near(node, self.text)
            put = dict(change.put)
            for token, below in change.below.items():
                item = node.items[int(token)]
                if self.can_enter(item, below):
                    self.enter(item, below, layout)
                else:
                    put[token] = changed(item.value, below)
            edit_listing = self._flow_listing if node.is_flow else self._block_listing
            edit_listing(node, change, put, layout)

    # Blocks.

    def _block_mapping(
        self, node: Mapping, gone: set[Token], put: dict[Token, Any], layout: Layout
    ) -> None:
        own = node.own()
        margin = column(self.text, node.members[0].start)
        leaving = [member for member in node.members if member.key in gone]
        lines: list[str] = []
        for key, value in put.items():
            if str(key) in own:
                self._replace_value(own[str(key)], value, margin, layout)
            else:
                lines += layout.entry(str(key), value, margin)
        if len(leaving) == len(node.members) and not lines:
            self._write(first(node, self.text), node.end, "{}")
            return
        for index, member in enumerate(leaving):
            # What is new stands where the first that goes has stood.
            self._take_out(node, member, lines if index == 0 else [])
        if lines and not leaving:
            self._insert(self._next_line(node.end), lines)

    def _take_out(self, node: Mapping, member: Member, lines: list[str]) -> None:
        """Put lines in the place of a member; comments that have lines of their own stay."""
        start, stop = self._line(member.start), self._next_line(member.node.end)
        lines = lines + self._comments(member, stop)
        if not self.text[start : member.start].strip():
            self._write_lines(start, stop, lines)
        elif lines and not lines[0].lstrip().startswith("#"):
            # It stands behind the dash of an item.
            self._write_lines(member.start, stop, [lines[0].lstrip(), *lines[1:]])
        else:
            after = next(m.start for m in node.members if m.start > member.start)
            self._write(member.start, after, "")
            self._insert(start, lines)

    def _comments(self, member: Member, stop: int) -> list[str]:
        """The lines of comment within a member that is taken out."""
        texts = [(node.start, node.end) for _, node in walk(member.node) if _is_scalar(node)]
        found = []
        place = self._next_line(member.start)
        while place < stop:
            after = self._next_line(place)
            line = self.text[place:after]
            if line.lstrip().startswith("#") and not any(a <= place < b for a, b in texts):
                found.append(line.rstrip("\r\n"))
            place = after
        return found

    def _replace_value(self, member: Member, value: Any, margin: int, layout: Layout) -> None:
        """Write a member's value anew; a comment behind it stays."""
        node = member.node
        before = node.start
        while self.text[before - 1] in " \t":
            before -= 1
        if value and isinstance(value, dict | list):
            lines = layout.block(value, layout.inner(value, margin))
            if self.text[before - 1] == "\n":
                self._write_lines(before, self._next_line(node.end), lines)
            else:
                self._write(before, node.end, "")
                self._insert(self._next_line(node.end), lines)
        elif isinstance(node, Mapping | Listing) and not node.is_flow:
            before = len(self.text[: first(node, self.text)].rstrip())
            self._write(before, node.end, " " + layout.flow(value))
        else:
            self._write(before, node.end, " " + layout.flow(value))

    def _block_listing(
        self, node: Listing, change: Change, put: dict[Token, Any], layout: Layout
    ) -> None:
        for index, value in put.items():
            item = node.items[int(index)]
            lines = layout.block(value, column(self.text, item.start))
            self._write_lines(item.start, item.end, [lines[0].lstrip(), *lines[1:]], whole=False)
        margin = column(self.text, first(node, self.text))
        end = first(node, self.text)
        for index, item in enumerate(node.items):
            if index in change.gone:
                dash = self._dash(end, item, margin)
                self._write_lines(self._line(dash), self._next_line(item.end), [])
            end = item.end
        if change.more:
            lines = [line for value in change.more for line in layout.item(value, margin)]
            self._insert(self._next_line(node.end), lines)

    def _dash(self, after: int, item: Node, margin: int) -> int:
        """The dash of an item: between its predecessor's end and itself, in the dashes' column."""
        place = self.text.find("-", after, item.start + 1)
        while place >= 0:
            in_comment = "#" in self.text[max(after, self._line(place)) : place]
            if column(self.text, place) == margin and not in_comment:
                return place
            place = self.text.find("-", place + 1, item.start + 1)
        raise BadDocument(UNWRITABLE)

    # Brackets and braces.

    def _flow_mapping(
        self, node: Mapping, gone: set[Token], put: dict[Token, Any], layout: Layout
    ) -> None:
        own = node.own()
        spans = [(member.start, member.node.end) for member in node.members]
        out = {index for index, member in enumerate(node.members) if member.key in gone}
        new = {}
        for key, value in put.items():
            if str(key) in own:
                self._replace_in_flow(own[str(key)].node, value, layout)
            else:
                new[str(key)] = value
        flow = Flow(self.text, node, spans, layout)
        self.edits += flow.edits(out, [layout.member(k, v, flow.margin) for k, v in new.items()])

    def _flow_listing(
        self, node: Listing, change: Change, put: dict[Token, Any], layout: Layout
    ) -> None:
        for index, value in put.items():
            self._replace_in_flow(node.items[int(index)], value, layout)
        spans = [(item.start, item.end) for item in node.items]
        flow = Flow(self.text, node, spans, layout)
        new = [layout.flow(value, flow.margin) for value in change.more]
        self.edits += flow.edits({int(index) for index in change.gone}, new)

    def _replace_in_flow(self, node: Node, value: Any, layout: Layout) -> None:
        blank = " " if self.text[node.start - 1] == ":" and not layout.is_json else ""
        margin = self.text[self._line(node.start) : node.start]
        margin = margin[: len(margin) - len(margin.lstrip())]
        self._write(node.start, node.end, blank + layout.flow(value, margin))

    # Text.

    def _line(self, place: int) -> int:
        """Where the line of a place begins."""
        return self.text.rfind("\n", 0, place) + 1

    def _next_line(self, place: int) -> int:
        return self.text.index("\n", place) + 1

    def _line_end(self, place: int) -> str:
        """The line end for new lines at a place: that of the line before it."""
        end = self.text.rfind("\n", 0, place)
        end = self.text.index("\n") if end < 0 else end
        return "\r\n" if self.text[end - 1 : end] == "\r" else "\n"

    def _write(self, start: int, end: int, new: str) -> None:
        self.edits.append((start, end, new))

    def _write_lines(
        self, start: int, stop: int, lines: Sequence[str], *, whole: bool = True
    ) -> None:
        line_end = self._line_end(start)
        self._write(start, stop, line_end.join(lines) + (line_end if lines and whole else ""))

    def _insert(self, place: int, lines: Sequence[str]) -> None:
        self._write_lines(place, place, lines)


def _is_scalar(node: Node) -> bool:
    return not isinstance(node, Mapping | Listing)


def _apply(text: str, edits: Iterable[Edit]) -> str:
    """The text after edits in order. Raises BadDocument where two overlap."""
    parts = []
    place = 0
    for start, end, new in edits:
        if start < place:
            raise BadDocument(UNWRITABLE)
        parts += [text[place:start], new]
        place = end
    return "".join((*parts, text[place:]))


def _without_sharing(root: Node, change: Change) -> Change:
    """A change that leaves alone what an edited node means elsewhere, where an alias names it.

    Aliases of what is edited are written out, and so are merge keys of it.
    """
    edited: set[int] = set()

    def mark(node: Node, change: Change) -> None:
        edited.add(id(node))
        for token, below in change.below.items():
            found = _child(node, token)
            if found is not None and found.target is None:
                mark(found, below)
        for token in (*change.gone, *change.put):
            found = _child(node, token)
            if found is not None:
                edited.update(id(inner) for _, inner in walk(found))

    mark(root, change)
    for path, node in list(walk(root)):
        if id(node.target) in edited:
            _write_out(root, change, path, node)
    return change


def _child(node: Node, token: Token) -> Node | None:
    if isinstance(node, Mapping):
        member = node.own().get(str(token))
        return member.node if member else None
    return node.items[int(token)] if isinstance(node, Listing) else None


def _write_out(root: Node, change: Change, path: tuple[Token, ...], alias: Node) -> None:
    """Have an alias, or a merge key with it, written out, unless its place changes anyway."""
    holder = root
    # A list of merged mappings: <<: [*a, *b].
    merge = "<<" in path and path.index("<<")
    steps = path if merge is False else path[: merge + 1]
    for token in steps[:-1]:
        if token in change.put or token in change.gone:
            return
        change = change.below.setdefault(token, Change())
        found = _child(holder, token)
        assert found is not None
        holder = found
    last = steps[-1]
    if merge is False:
        if last not in change.put and last not in change.gone and last not in change.below:
            change.put[last] = alias.value
        return
    assert isinstance(holder, Mapping)
    _write_out_merged(holder, change)


def _write_out_merged(node: Mapping, change: Change) -> None:
    """Have the members that are merged into a mapping written out, and its merge keys taken out."""
    own = node.own()
    for key, value in node.value.items():
        if key not in own and key not in change.gone and key not in change.put:
            change.put[key] = changed(value, change.below.pop(key, Change()))
    change.gone.add("<<")
