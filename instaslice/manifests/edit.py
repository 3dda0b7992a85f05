"""Edits a document's text, and changes only the parts that must change.

`edit` compares the nodes of a text with the value that it must have, and edits the text where they
differ. It then reads the result again, which must have exactly that value.
"""

import json
import re
import textwrap
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, NamedTuple

from instaslice.manifests import scalars
from instaslice.manifests.nodes import BadDocument, Node, Part, read, walk

UNWRITABLE: Final = "cannot be rewritten in this layout; try -o json"


class Edit(NamedTuple):
    """Replaces text[start:end] with `new`."""

    start: int
    end: int
    new: str


def edit(text: str, root: Node, meaning: Any, layout: "Layout | None" = None) -> list[Edit]:
    """The edits, in order, that give the text the value `meaning`.

    layout: of JSON; None for YAML. Raises BadDocument if the layout does not allow it.
    """
    whole = text if text.endswith("\n") else text + "\n"
    editor = _Editor(whole, layout)
    if root.target or not root.parts or editor.replaced(root, meaning):
        raise BadDocument(UNWRITABLE)
    editor.enter(root, meaning, _Style())
    edits = sorted(editor.edits, key=lambda each: (each.start, each.end > each.start))
    if any(one.end > other.start for one, other in pairwise(edits)):
        raise BadDocument(UNWRITABLE)
    if whole is not text and edits and edits[-1].end >= len(text):
        edits = _stripped(whole, root, edits)
        result = applied(whole, edits).removesuffix("\n").removesuffix("\r")
        start = min(edits[0].start, len(text), len(result))
        edits = [Edit(start, len(text), result[start:])]
    with suppress(BadDocument):
        again, _ = read(applied(text, edits))
        if again and again.value == meaning:
            return edits
    raise BadDocument(UNWRITABLE)


def applied(text: str, edits: Iterable[Edit], start: int = 0, stop: int | None = None) -> str:
    """text[start:stop] after edits in it, which come in order."""
    parts = []
    for each in edits:
        parts += [text[start : each.start], each.new]
        start = each.end
    return "".join([*parts, text[start:stop]])


def edited(text: str, meaning: Any) -> str:
    """A text with edits that give it the value `meaning`. Raises BadDocument."""
    root, is_json = read(text)
    if root is None:
        raise BadDocument(UNWRITABLE)
    return applied(text, edit(text, root, meaning, json_layout(text) if is_json else None))


def _stripped(text: str, root: Node, edits: list[Edit]) -> list[Edit]:
    """Keep a block scalar at the end of a text without a final line end."""
    while root.parts:
        root = root.parts[-1].node
    header = _HEADER.match(text, root.start)
    return sorted([*edits, Edit(*header.span("keeps"), "-")]) if header and root.is_block else edits


class Layout(NamedTuple):
    """The layout of JSON."""

    unit: str | None  #: of indentation; None for JSON on one line or indented by hand
    comma: str = ", "
    colon: str = ": "


def json_layout(text: str) -> Layout:
    """The layout of a JSON text, or of the beginning of one."""
    lines = re.match(r'\s*\{\r?\n([ \t]+)"', text)
    by_hand = re.search(r'^[ \t]*(?:"[^"\\]*": ?)?[\[{][ \t]*[^\s\]}]', text, re.MULTILINE)
    is_compact = lines is None and '": ' not in text and '", ' not in text
    unit = lines[1] if lines and not by_hand else None
    return Layout(unit, ",", ":") if is_compact else Layout(unit)


@dataclass(frozen=True, slots=True)
class _Style:
    """The indentation of nearby blocks, in columns."""

    step: int = 2  #: from a mapping to a mapping in it
    dash: int = 0  #: from a mapping to the dashes of a list in it
    gap: int = 2  #: from a dash to the item


_GONE: Final = object()
#: The header of a block scalar.
_HEADER: Final = re.compile(
    r"(?:[&!]\S+[ \t]+)*[|>][0-9]?(?P<keeps>\+?)(?=[0-9]?[ \t\r]*(?:#.*)?$)", re.MULTILINE
)
#: Blanks, line ends and comments, which YAML allows between members.
_GAP: Final = re.compile(r"(?:[ \t\r\n]|(?:(?<=[ \t\r\n])#[^\n]*))*")
_REST_OF_LINE: Final = re.compile(r"[ \t]*(?:#[^\n]*)?\r?\n")


class _Editor:
    def __init__(self, text: str, layout: Layout | None) -> None:
        self.text, self.is_json = text, layout is not None
        self.edits: list[Edit] = []
        self.changed: set[int] = set()  #: nodes with an edit in them
        self.has_aliases = "*" in text
        self.unit, self.comma, self.colon = layout or Layout(None)

    def put(self, start: int, end: int, new: str) -> None:
        self.edits.append(Edit(start, end, new))

    def pairs(self, node: Node, new: Any) -> list[tuple[Part, Any]]:
        """Pair each part with its new value, or with _GONE."""
        if node.kind is dict:
            # A member that a later one overrides stays only as long as that one.
            return [
                (p, p.node.value if p.is_dead and p.key in new else new.get(p.key, _GONE))
                for p in node.parts
                if not p.is_merge
            ]
        found, rest = [], list(new)
        for index, part in enumerate(node.parts):
            left = len(node.parts) - index
            if rest and (part.node.value == rest[0] or len(rest) >= left):
                found.append((part, rest.pop(0)))
            else:
                found.append((part, _GONE))
        return found

    def replaced(self, node: Node, new: Any) -> bool:
        """Whether the whole value must be written again."""
        if node.target or not isinstance(new, node.kind) or node.kind is str:
            return True
        if node.is_flow:
            return self.text[node.end - 1] not in "}]"
        if not new or node.kind is dict:
            return not new
        return all(v is _GONE for _, v in self.pairs(node, new))

    def is_shared(self, node: Node) -> bool:
        """Whether a node is an alias of a node that has changed."""
        return node.target is not None and any(id(n) in self.changed for n in walk(node.target))

    def enter(self, node: Node, new: Any, style: _Style) -> None:
        """Edit a collection. An alias of a node that has changed is written out."""
        style, before = self.near(node, style), len(self.edits)
        pairs = self.pairs(node, new)
        merges = [part for part in node.parts if part.is_merge]
        own = {part.key for part, _ in pairs}
        if node.kind is dict:
            merged = {k: v for k, v in node.value.items() if k not in own}
            is_split = any(new.get(k, _GONE) != v for k, v in merged.items()) or any(
                self.is_shared(n) for m in merges for n in walk(m.node)
            )
            if is_split or node.is_flow:
                pairs += [(m, _GONE if is_split else m.node.value) for m in merges]
            known = own if is_split else own | set(merged)
            fresh: list[Any] = [(k, v) for k, v in new.items() if k not in known]
        else:
            fresh = list(new[sum(value is not _GONE for _, value in pairs) :])
        pairs.sort(key=lambda pair: pair[0].start)
        for part, value in pairs:
            if value is _GONE:
                self.changed.update(map(id, walk(part.node)))
        (self.flow if node.is_flow else self.block)(node, pairs, fresh, style)
        if len(self.edits) > before:
            self.changed.add(id(node))

    def part(self, part: Part, value: Any, style: _Style) -> bool:
        """Edit a part that stays. Returns whether it must be written again instead."""
        node = part.node
        is_same = value == node.value and type(value) is type(node.value)
        if self.is_shared(node) or not (is_same or part.is_merge or not self.replaced(node, value)):
            self.changed.update(map(id, walk(node)))
            return True
        # An unchanged collection may have an alias of a node that changes.
        if not part.is_merge and (not is_same or (self.has_aliases and node.parts)):
            self.enter(node, value, style)
        return False

    def flow(self, node: Node, pairs: list[Any], fresh: list[Any], style: _Style) -> None:
        """Remove members, and put new ones in the place of the first of them, or at the end."""
        spans = [(part.start, part.node.end) for part, _ in pairs]
        gone = [index for index, (_, value) in enumerate(pairs) if value is _GONE]
        if len(gone) == len(spans):
            opening = self.text.index("{" if node.kind is dict else "[", node.start)
            whole = dict(fresh) if node.kind is dict else fresh
            self.put(opening, node.end, self.value(whole, self.indent(node.start)))
            return
        for part, value in pairs:
            if value is not _GONE and self.part(part, value, style):
                written = self.value(value, self.indent(part.start))
                self.put(part.node.start, part.node.end, written)
        margin = self.indent(spans[-1][0])
        new = [
            f"{self.value(each[0])}{self.colon}{self.value(each[1], margin)}"
            if node.kind is dict
            else self.value(each, margin)
            for each in fresh
        ]
        between = f",{self.nl(node)}{margin}"
        if new and gone:
            glue = between if self.has_own_lines(*spans[gone[0]]) else self.comma
            self.put(*spans[gone[0]], glue.join(new))
        elif new:
            self.append(*spans[-1], new, between)
        out = gone[1:] if new else gone
        last = max(index for index in range(len(spans)) if index not in out)
        for index in out:
            if index < last:
                self.take_member(spans, index, gone)
        if out and out[-1] > last:
            self.cut_members(spans, last)

    def append(self, start: int, end: int, new: list[str], between: str) -> None:
        """Insert members after the last one, text[start:end]."""
        comma = self.comma_behind(end)
        trailing = "" if comma is None else ","
        if self.has_own_lines(start, end):
            if comma is None:
                self.put(end, end, ",")
            place, (line_end, margin) = self.next_line(end), between[1:].split("\n")
            self.put(place, place, f"{margin}{between.join(new)}{trailing}{line_end}\n")
            return
        # If each member has a line, the last one may share its line with the bracket.
        glue = self.comma if self.text[self.line(start) : start].strip(" \t") else between
        place = end if comma is None else comma + 1
        head = glue if comma is None else glue.removeprefix(",")
        self.put(place, place, head + glue.join(new) + trailing)

    def take_member(self, spans: list[tuple[int, int]], index: int, gone: list[int]) -> None:
        """Remove a member that is not the last one."""
        start, end = spans[index]
        comma, after = self.comma_behind(end) or end, spans[index + 1][0]
        if self.has_own_lines(start, end):
            self.put(self.line(start), self.next_line(comma), "")
        elif "\n" not in self.text[comma:after]:
            self.put(start, after, "")
        else:
            before = self.comma_behind(spans[index - 1][1]) if index else None
            if before is not None and index - 1 not in gone and "\n" not in self.text[before:start]:
                start = before + 1
            self.put(start, comma + 1, "")

    def cut_members(self, spans: list[tuple[int, int]], last: int) -> None:
        """Remove all members after one."""
        comma, trailing = self.comma_behind(spans[last][1]) or 0, self.comma_behind(spans[-1][1])
        if all(self.has_own_lines(*span) for span in spans[last + 1 :]):
            if trailing is None:
                self.put(comma, comma + 1, "")
            for start, end in spans[last + 1 :]:
                self.put(self.line(start), self.next_line(end), "")
        else:
            end = spans[-1][1] if trailing is None else trailing + 1
            self.put(comma + (trailing is not None), end, "")

    def comma_behind(self, place: int) -> int | None:
        """The place of the comma after a member that ends at `place`; None if it has none."""
        end = _GAP.match(self.text, place).end()  # type: ignore[union-attr]
        return end if self.text[end] == "," else None

    def has_own_lines(self, start: int, end: int) -> bool:
        """Whether a member shares its lines only with blanks and comments."""
        comma = self.comma_behind(end)
        if comma is not None and "\n" not in self.text[end:comma]:
            end = comma + 1
        before = self.text[self.line(start) : start]
        return not before.strip() and bool(_REST_OF_LINE.match(self.text, end))

    def value(self, value: Any, margin: str = "") -> str:
        """Format a value on one line, or with the indentation of the JSON around it."""
        if not self.is_json:
            return _flow(value)
        separators = (self.comma, self.colon) if self.unit is None else None
        text = json.dumps(value, ensure_ascii=False, indent=self.unit, separators=separators)
        return text.replace("\n", "\n" + margin)

    def block(self, node: Node, pairs: list[Any], fresh: list[Any], style: _Style) -> None:
        margin = self.column(self.first(node))
        made = dict(fresh) if node.kind is dict else list(fresh)
        lines = _block(made, margin, style) if made else []
        going = [part for part, value in pairs if value is _GONE]
        for part, value in pairs:
            if value is not _GONE and self.part(part, value, style):
                self.renew(part, value, margin, style)
        end = self.first(node)
        for part, value in pairs:
            if value is _GONE:
                self.take_out(node, part, end, lines if part is going[0] else [])
            end = part.node.end
        if lines and not going:
            place = self.next_line(node.end)
            self.put(place, place, self.joined(lines, place))

    def take_out(self, node: Node, part: Part, after: int, lines: list[str]) -> None:
        """Replace a part with lines; comments on separate lines stay."""
        start, stop = self.line(part.start), self.next_line(part.node.end)
        if node.kind is list:
            start = self.line(self.dash(after, part.start, self.column(self.first(node))))
        scalar_spans = [(n.start, n.end) for n in walk(part.node) if n.kind is str]
        place = self.next_line(part.start)
        lines = list(lines)
        while place < stop:
            line = self.text[place : self.next_line(place)]
            if line.lstrip().startswith("#") and not any(a <= place < b for a, b in scalar_spans):
                lines.append(line.rstrip("\r\n"))
            place = self.next_line(place)
        head = self.text[start : part.start]
        if node.kind is list or not head.strip():
            self.put(start, stop, self.joined(lines, start))
        elif lines and not lines[0].lstrip().startswith("#"):  # behind the dash of an item
            lines[0] = lines[0].lstrip()
            self.put(part.start, stop, self.joined(lines, start))
        else:
            later = next(p.start for p in node.parts if p.start > part.start)
            self.put(part.start, later, "")
            self.put(start, start, self.joined(lines, start))

    def renew(self, part: Part, value: Any, margin: int, style: _Style) -> None:
        """Write a part's value again; a comment after it stays."""
        node = part.node
        before = node.start
        if node.is_block and isinstance(value, str):
            before = self.next_line(before)
            # "+" keeps the empty lines at the end.
            is_kept = "+" in self.text[node.start : before].partition("#")[0]
            old = self.text[before : node.end].lstrip()
            new = textwrap.indent(value, " " * self.column(node.end - len(old)))
            new = new.removesuffix("\n") if is_kept else new.rstrip("\n")
            written = self.joined(new.split("\n"), before)
            self.put(before, node.end, written.removesuffix("\n").removesuffix("\r"))
            return
        if part.key is None:
            lines = _block(value, self.column(node.start), style)
            self.put(node.start, node.end, self.joined(lines, before).strip())
            return
        while self.text[before - 1] in " \t":
            before -= 1
        if not value or not isinstance(value, dict | list):
            if node.kind is not str and not node.is_flow and not node.target:
                before = len(self.text[: self.first(node)].rstrip())
            self.put(before, node.end, " " + self.value(value))
            return
        inner = margin + (style.dash if isinstance(value, list) else style.step)
        stop = self.next_line(node.end)
        lines = _block(value, inner, style)
        if self.text[before - 1] == "\n":
            self.put(before, stop, self.joined(lines, before))
        else:
            self.put(before, node.end, "")
            self.put(stop, stop, self.joined(lines, stop))

    def near(self, node: Node, style: _Style) -> _Style:
        """The style of a block, as far as its parts show it; else the given style."""
        step, dash, gap = style.step, style.dash, style.gap
        if node.is_flow:
            return style
        for part in node.parts:
            below = part.node
            if node.kind is list:
                gap = self.column(part.start) - self.column(self.first(node))
                break
            if below.kind is str or below.is_flow or below.target:
                continue
            offset = self.column(self.first(below)) - self.column(part.start)
            if below.kind is list and 0 <= offset <= 8:
                dash, start = offset, below.parts[0].start
                if self.line(start) == self.line(self.first(below)):
                    gap = self.column(start) - self.column(self.first(below))
            elif below.kind is dict and 0 < offset <= 8:
                step = offset
        return _Style(step, dash, gap if 2 <= gap <= 8 else style.gap)

    def first(self, node: Node) -> int:
        """The start of a block: its first key or dash, not its anchor."""
        if not node.parts or (node.kind is list and self.text.startswith("-", node.start)):
            return node.start
        start = node.parts[0].start
        return start if node.kind is dict else self.text.rfind("-", node.start, start)

    def dash(self, after: int, start: int, margin: int) -> int:
        place = self.text.find("-", after, start + 1)
        while place >= 0:
            comment = "#" in self.text[max(after, self.line(place)) : place]
            if self.column(place) == margin and not comment:
                return place
            place = self.text.find("-", place + 1, start + 1)
        raise BadDocument(UNWRITABLE)

    def line(self, place: int) -> int:
        return self.text.rfind("\n", 0, place) + 1

    def next_line(self, place: int) -> int:
        return self.text.index("\n", place) + 1

    def column(self, place: int) -> int:
        return place - self.line(place)

    def indent(self, place: int) -> str:
        return re.match(r"[ \t]*", self.text[self.line(place) : place]).group()  # type: ignore

    def nl(self, node: Node) -> str:
        return "\r\n" if "\r\n" in self.text[node.start : node.end] else "\n"

    def joined(self, lines: list[str], place: int) -> str:
        """Join lines with the line end of the line before a place."""
        end = self.text.rfind("\n", 0, place)
        end = self.text.index("\n") if end < 0 else end
        line_end = "\r\n" if self.text[end - 1 : end] == "\r" else "\n"
        return "".join(line + line_end for line in lines)


_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*", re.ASCII)


def _flow(value: Any) -> str:
    """Format a value as YAML on one line, which every YAML reader understands alike."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_flow(k)}: {_flow(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, str) and _SAFE.fullmatch(value) and scalars.plain(value) == value:
        return value
    is_text = isinstance(value, str) and value.isprintable()
    return json.dumps(value, ensure_ascii=not is_text)


def _block(value: Any, margin: int, style: _Style) -> list[str]:
    """Format a value as a block of lines. margin: the column of its keys or dashes."""
    if not value or not isinstance(value, dict | list):
        return [" " * margin + _flow(value)]
    lines = []
    for each in value:
        if isinstance(value, list):
            first, *others = _block(each, margin + style.gap, style)
            lines += [" " * margin + "-" + first[margin + 1 :], *others]
            continue
        head, below = f"{' ' * margin}{_flow(each)}:", value[each]
        if below and isinstance(below, dict | list):
            inner = margin + (style.dash if isinstance(below, list) else style.step)
            lines += [head, *_block(below, inner, style)]
        else:
            lines.append(f"{head} {_flow(below)}")
    return lines
