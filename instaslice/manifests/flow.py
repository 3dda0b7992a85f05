"""Members and items between braces or brackets, taken out and put in together with their commas."""

import re
from collections.abc import Sequence
from typing import Final

from instaslice.manifests.layout import Layout
from instaslice.manifests.nodes import Node

#: text[start:end] becomes the string.
Edit = tuple[int, int, str]
Span = tuple[int, int]

#: Blanks, line ends, and comments, which YAML allows between members.
_GAP: Final = re.compile(r"(?:[ \t\r\n]|(?:(?<=[ \t\r\n])#[^\n]*))*")
_REST_OF_LINE: Final = re.compile(r"[ \t]*(?:#[^\n]*)?\r?\n")


class Flow:
    """What is between the braces or brackets of one collection."""

    def __init__(self, text: str, node: Node, spans: Sequence[Span], layout: Layout) -> None:
        """spans: where each member is, from its key to the end of its value."""
        self.text = text
        self.spans = spans
        self.closing = node.end - 1
        self.comma = layout.comma
        self.unit = layout.unit
        #: What lines in it are indented by.
        self.margin = self._indent(spans[-1][0] if spans else node.start)
        if not spans and self.unit is not None:
            self.margin += self.unit
        self.opening = text.index(
            {"}": "{", "]": "["}[text[self.closing]], node.start, self.closing
        )

    def edits(self, gone: set[int], new: list[str]) -> list[Edit]:
        """Take members out, by index, and put new ones in: where the first was, or at the end."""
        if len(gone) == len(self.spans):
            return self._fill(new)
        out = sorted(gone)
        found: list[Edit] = []
        if out and new:
            start, end = self.spans[out[0]]
            glue = f",\n{self.margin}" if self._has_own_lines(out[0]) else self.comma
            found.append((start, end, self._lines(glue.join(new))))
            out = out[1:]
        elif new:
            found += self._append(new)
        last = len(self.spans) - 1
        while last in out:
            last -= 1
        found += [self._take_out(index, gone) for index in out if index < last]
        return found + self._cut(last, [index for index in out if index > last])

    def _fill(self, new: list[str]) -> list[Edit]:
        """Put new members in the place of all."""
        if self.unit is None or not new:
            return [(self.opening + 1, self.closing, self.comma.join(new))]
        text = f"\n{self.margin}" + f",\n{self.margin}".join(new)
        text += f"\n{self.margin.removesuffix(self.unit)}"
        return [(self.opening + 1, self.closing, self._lines(text))]

    def _append(self, new: list[str]) -> list[Edit]:
        last = len(self.spans) - 1
        end = self.spans[-1][1]
        comma = self._comma(last)
        if self._has_own_lines(last):
            after = self.text.index("\n", end) + 1
            text = self.margin + f",\n{self.margin}".join(new) + ("\n" if comma is None else ",\n")
            added = (after, after, self._lines(text))
            return [added] if comma is not None else [(end, end, ","), added]
        glue = self.comma
        if not self.text[self._line(self.spans[-1][0]) : self.spans[-1][0]].strip(" \t"):
            # Each has a line, and the last one shares it with the bracket.
            glue = f",\n{self.margin}"
        if comma is not None:
            text = glue.removeprefix(",") + glue.join(new) + ","
            return [(comma + 1, comma + 1, self._lines(text))]
        return [(end, end, self._lines(glue + glue.join(new)))]

    def _take_out(self, index: int, gone: set[int]) -> Edit:
        """Take out a member that has others behind it."""
        start, _ = self.spans[index]
        comma = self._comma(index)
        assert comma is not None  # since there are others behind it
        if self._has_own_lines(index):
            return self._line(start), self.text.index("\n", comma) + 1, ""
        after = self.spans[index + 1][0]
        if "\n" not in self.text[comma:after]:
            return start, after, ""
        before = self._comma(index - 1) if index and index - 1 not in gone else None
        if before is not None and "\n" not in self.text[before:start]:
            start = before + 1
        return start, comma + 1, ""

    def _cut(self, last: int, out: list[int]) -> list[Edit]:
        """Take out the members behind the last one that stays."""
        if not out:
            return []
        comma = self._comma(last)
        trailing = self._comma(out[-1])
        assert comma is not None
        if not all(map(self._has_own_lines, out)):
            end = self.spans[out[-1]][1] if trailing is None else trailing + 1
            return [(comma + (trailing is not None), end, "")]
        lines = [
            (self._line(start), self.text.index("\n", end) + 1, "")
            for start, end in (self.spans[index] for index in out)
        ]
        return lines if trailing is not None else [(comma, comma + 1, ""), *lines]

    def _comma(self, index: int) -> int | None:
        """Where the comma behind a member is."""
        gap = _GAP.match(self.text, self.spans[index][1])
        assert gap is not None  # it matches the empty string
        return gap.end() if self.text[gap.end()] == "," else None

    def _has_own_lines(self, index: int) -> bool:
        """Whether nothing but blanks and comments shares the lines of a member."""
        start, end = self.spans[index]
        comma = self._comma(index)
        if comma is not None and "\n" not in self.text[end:comma]:
            end = comma + 1
        before = self.text[self._line(start) : start]
        return not before.strip() and bool(_REST_OF_LINE.match(self.text, end))

    def _line(self, place: int) -> int:
        return self.text.rfind("\n", 0, place) + 1

    def _indent(self, place: int) -> str:
        line = self.text[self._line(place) : place]
        return line[: len(line) - len(line.lstrip(" \t"))]

    def _lines(self, text: str) -> str:
        """Text with the line ends of the document."""
        end = self.text.find("\n", self.opening)
        return text.replace("\n", "\r\n") if self.text[end - 1 : end] == "\r" else text
