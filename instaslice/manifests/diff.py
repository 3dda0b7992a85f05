"""A unified diff, made as the documents come by: no file is held in memory as a whole."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from difflib import SequenceMatcher
from typing import Final

from instaslice.manifests.flow import Edit

#: Lines of context, as diff -u and git have it.
CONTEXT: Final = 3
#: Colours of a terminal (ECMA-48, SGR), by how a line begins.
_COLOURS: Final = {"---": "1", "+++": "1", "@@": "36", "-": "31", "+": "32"}


class Diff:
    """The diff of one file."""

    def __init__(self, name: str) -> None:
        self.name = name.lstrip("/")
        self.old = self.new = 1  #: the next lines, from 1
        self.before: deque[str] = deque(maxlen=CONTEXT)  #: the last lines that are the same
        self.hunk: list[str] = []  #: lines of the hunk that is open, with their marks
        self.start = (0, 0)  #: its first lines
        self.same = 0  #: lines at its end that are the same
        self.is_first = True

    def change(self, before: str, edits: Iterable[Edit]) -> Iterator[str]:
        """What edits in order make of a piece of the file; yields lines that are complete."""
        done = 0
        if not before.endswith("\n"):
            # The last line of a file. Few have such a line, and they are short.
            yield from self._compare(before, _edited(before, edits))
            return
        for start, stop, new in _by_lines(before, edits):
            yield from self.keep(before[done:start])
            yield from self._compare(before[start:stop], new)
            done = stop
        yield from self.keep(before[done:])

    def _compare(self, before: str, after: str) -> Iterator[str]:
        old, new = _lines(before), _lines(after)
        for tag, i, j, k, m in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
            if tag == "equal":
                yield from self.keep("".join(old[i:j]))
            else:
                self._change(old[i:j], new[k:m])

    def append(self, text: str) -> None:
        """Documents are added behind the last; `text` as `output.join` makes it."""
        lines = _lines(text)
        if not text.startswith("\n"):
            self._change([], lines)
        elif self.hunk and self.hunk[-1].startswith("+"):
            # The file's last line, which has no end, gets one.
            self.hunk[-1] += "\n"
            self._change([], lines[1:])
        else:
            last = self.before.pop()
            if self.hunk:
                self.hunk.pop()
                self.same -= 1
            self.old -= 1
            self.new -= 1
            self._change([last], [last + "\n", *lines[1:]])

    def end(self) -> Iterator[str]:
        """The lines of the last hunk."""
        if self.hunk:
            yield from self._close()

    def keep(self, text: str) -> Iterator[str]:
        """A piece of the file stays as it is; yields lines of the diff that are complete."""
        place = 0
        while self.hunk and place < len(text):
            after = text.find("\n", place) + 1 or len(text)
            self.hunk.append(" " + text[place:after])
            self.before.append(text[place:after])
            self.same += 1
            self.old += 1
            self.new += 1
            place = after
            # What comes next may be a change, whose context begins where this one's ends.
            if self.same > 2 * CONTEXT:
                yield from self._close()
        if place < len(text):
            lines = text.count("\n", place) + (not text.endswith("\n"))
            self.old += lines
            self.new += lines
            tail = len(text)
            for _ in range(CONTEXT):
                tail = max(text.rfind("\n", place, max(place, tail - 1)) + 1, place)
            self.before.extend(_lines(text[tail:]))

    def _change(self, old: list[str], new: list[str]) -> None:
        if not (old or new):
            return
        if not self.hunk:
            self.start = self.old - len(self.before), self.new - len(self.before)
            self.hunk = [" " + line for line in self.before]
        self.hunk += ["-" + line for line in old]
        self.hunk += ["+" + line for line in new]
        self.same = 0
        self.before.clear()
        self.old += len(old)
        self.new += len(new)

    def _close(self) -> Iterator[str]:
        extra = max(0, self.same - CONTEXT)
        lines = self.hunk[: len(self.hunk) - extra]
        if self.is_first:
            self.is_first = False
            yield f"--- a/{self.name}\n"
            yield f"+++ b/{self.name}\n"
        old = sum(line[0] != "+" for line in lines)
        new = sum(line[0] != "-" for line in lines)
        yield f"@@ -{_range(self.start[0], old)} +{_range(self.start[1], new)} @@\n"
        for line in lines:
            yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        self.hunk, self.same = [], 0


def _range(start: int, length: int) -> str:
    # An empty range is named by the line before it.
    return str(start) if length == 1 else f"{start if length else start - 1},{length}"


def coloured(line: str) -> str:
    """A line of a diff as a terminal shows it."""
    code = next((c for start, c in _COLOURS.items() if line.startswith(start)), None)
    return f"\x1b[{code}m{line[:-1]}\x1b[0m\n" if code else line


def _lines(text: str) -> list[str]:
    """Lines with their ends; only line feeds end them, for diff and patch, too."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _edited(text: str, edits: Iterable[Edit]) -> str:
    """What edits make of a text whose last line has no end; they were made where it has one."""
    whole = text + "\n"
    place = 0
    parts = []
    for start, end, new in edits:
        parts += [whole[place:start], new]
        place = end
    return "".join([*parts, whole[place:]]).removesuffix("\n").removesuffix("\r")


def _by_lines(text: str, edits: Iterable[Edit]) -> Iterator[Edit]:
    """Edits as they change whole lines; those that share a line are one."""
    parts: list[str] = []  #: of what becomes of text[first:last], up to `place`
    first = place = last = 0
    for start, end, new in edits:
        if start >= last and parts:
            yield first, last, "".join([*parts, text[place:last]])
            parts = []
        if not parts:
            first = place = text.rfind("\n", 0, start) + 1
        parts += [text[place:start], new]
        place = last = end
        is_whole = new.endswith("\n") or (not new and start == first)
        if not (is_whole and text[end - 1 : end] == "\n"):
            last = text.find("\n", end) + 1 or len(text)
    if parts:
        yield first, last, "".join([*parts, text[place:last]])
