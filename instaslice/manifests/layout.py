"""Values as text, laid out as what is around them."""

import json
import re
from typing import Any, Final, NamedTuple

from instaslice.manifests import scalars
from instaslice.manifests.nodes import Listing, Mapping

#: Text that needs no quotes in YAML anywhere, if it is neither a number nor a word.
_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_./-]*", re.ASCII)


class Layout(NamedTuple):
    """How new text is to look."""

    is_json: bool = False
    comma: str = ", "
    colon: str = ": "
    unit: str | None = None  #: of JSON with a line for each value: what a level is indented by
    step: int = 2  #: columns from a mapping to a mapping in it
    dash: int = 0  #: columns from a mapping to the dashes of a sequence in it
    gap: int = 2  #: columns from a dash to what follows it

    def near(self, node: Mapping | Listing, text: str) -> "Layout":
        """The layout of what lies in a collection: as that is laid out, as far as it shows."""
        found = self
        if isinstance(node, Mapping) and not node.is_flow:
            for member in node.members:
                value = member.node
                if not isinstance(value, Mapping | Listing) or value.is_flow:
                    continue
                offset = column(text, first(value, text)) - column(text, member.start)
                # A collection behind its own anchor may begin anywhere.
                if isinstance(value, Listing) and 0 <= offset <= 8:
                    found = found._replace(dash=offset)
                elif isinstance(value, Mapping) and 0 < offset <= 8:
                    found = found._replace(step=offset)
        elif isinstance(node, Listing) and not node.is_flow and node.items:
            gap = column(text, node.items[0].start) - column(text, first(node, text))
            if 2 <= gap <= 8:
                found = found._replace(gap=gap)
        return found

    def flow(self, value: Any, margin: str = "") -> str:
        """A value on one line, or in JSON of many lines on as many.

        margin: what the line that it begins on is indented by.
        """
        if self.is_json:
            if self.unit is None:
                return json.dumps(value, ensure_ascii=False, separators=(self.comma, self.colon))
            text = json.dumps(value, ensure_ascii=False, indent=self.unit)
            return text.replace("\n", "\n" + margin)
        if isinstance(value, dict):
            return "{" + ", ".join(f"{self.member(k, v)}" for k, v in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ", ".join(map(self.flow, value)) + "]"
        return scalar(value)

    def member(self, key: str, value: Any, margin: str = "") -> str:
        """A member of a flow mapping."""
        return f"{self.flow(key)}{self.colon}{self.flow(value, margin)}"

    def block(self, value: Any, margin: int) -> list[str]:
        """The lines of a value that is a block. margin: the column of its keys, or dashes."""
        lines: list[str] = []
        if isinstance(value, dict) and value:
            for key, item in value.items():
                lines += self.entry(key, item, margin)
        elif isinstance(value, list) and value:
            for item in value:
                lines += self.item(item, margin)
        else:
            lines.append(" " * margin + self.flow(value))
        return lines

    def entry(self, key: str, value: Any, margin: int) -> list[str]:
        """The lines of a member of a block mapping."""
        head = " " * margin + scalar(key) + ":"
        if not value or not isinstance(value, dict | list):
            return [f"{head} {self.flow(value)}"]
        return [head, *self.block(value, self.inner(value, margin))]

    def inner(self, value: dict[str, Any] | list[Any], margin: int) -> int:
        """The column of a collection that is a member of a block mapping."""
        return margin + (self.dash if isinstance(value, list) else self.step)

    def item(self, value: Any, margin: int) -> list[str]:
        """The lines of an item of a block sequence."""
        first_line, *others = self.block(value, margin + self.gap)
        return [" " * margin + "-" + first_line[margin + 1 :], *others]


def scalar(value: Any) -> str:
    """A scalar as YAML that kubectl, and any other reader, takes for the same."""
    if not isinstance(value, str):
        return json.dumps(value)
    if _SAFE.fullmatch(value) and scalars.plain(value) == value:
        return value
    return json.dumps(value, ensure_ascii=not value.isprintable())


def column(text: str, place: int) -> int:
    """The column of a place, from 0."""
    return place - (text.rfind("\n", 0, place) + 1)


def first(node: Mapping | Listing, text: str) -> int:
    """Where a block begins: its first key, or its first dash; not its anchor."""
    if isinstance(node, Mapping):
        return node.members[0].start if node.members else node.start
    if text[node.start : node.start + 1] == "-" or not node.items:
        return node.start
    return text.rfind("-", node.start, node.items[0].start)


def json_layout(text: str) -> Layout:
    """The layout of a text of JSON."""
    lines = re.match(r'\s*\{\r?\n([ \t]+)"', text)
    # A line that opens something and goes on with it was laid out by hand.
    by_hand = re.search(r'^[ \t]*(?:"[^"\\]*": ?)?[\[{][ \t]*[^\s\]}]', text, re.MULTILINE)
    compact = lines is None and '": ' not in text and '", ' not in text
    return Layout(
        is_json=True,
        comma="," if compact else ", ",
        colon=":" if compact else ": ",
        unit=lines[1] if lines and not by_hand else None,
    )
