"""What is shown of documents: the result as YAML, JSON or patches, a diff, or a word.

Each kind of output is told of files and documents as they come by, and writes at once what it can.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any, Final

from instaslice.manifests.diff import Diff, coloured
from instaslice.manifests.model import Document
from instaslice.patch import Json

Write = Callable[[str], object]


class Output:
    """Shows nothing."""

    def begin(self, name: str) -> None:
        """A file begins. name: as it was typed."""

    def documents(self, documents: list[Document], offset: int) -> None:
        """Some documents of the file: all between two markers.

        offset: where in the file they begin, in bytes.
        """

    def end(self, *, is_bad: bool) -> None:
        """The file ends. is_bad: something in it could not be handled."""

    def finish(self, added: dict[str, list[Json]]) -> None:
        """No more files. added: templates to append, by the file that needs them first."""


class AsYAML(Output):
    """One stream of documents, without those that are wrong."""

    def __init__(self, write: Write) -> None:
        self.write = write
        self.last = ""  #: what was written last
        self.is_first_of_file = False

    def begin(self, name: str) -> None:
        self.is_first_of_file = True

    def documents(self, documents: list[Document], offset: int) -> None:
        for document in documents:
            if not document.errors:
                self._write(document.after, is_apart=self.is_first_of_file)
                self.is_first_of_file = False

    def finish(self, added: dict[str, list[Json]]) -> None:
        for manifest in _all(added):
            self._write(dump(manifest), is_apart=True)

    def _write(self, text: str, *, is_apart: bool) -> None:
        """Write a document; with its marker, where it stood apart from the one before it."""
        if not text:
            return
        self.write(join(self.last, text) if is_apart else text)
        self.last = text[-1:]


class AsJSON(Output):
    """One object; where there are more, a List of them, as kubectl writes and reads them."""

    _INDENT: Final = 4

    def __init__(self, write: Write) -> None:
        self.write = write
        self.waiting: Any = None  #: the first, until it is known whether it is the only one
        self.count = 0

    def documents(self, documents: list[Document], offset: int) -> None:
        for document in documents:
            if document.value is not None:
                self._add(document.value)

    def finish(self, added: dict[str, list[Json]]) -> None:
        for manifest in _all(added):
            self._add(manifest)
        if self.count == 1:
            self.write(self._text(self.waiting) + "\n")
        elif self.count:
            self.write("\n    ]\n}\n")
        else:
            self.write(self._text({"apiVersion": "v1", "kind": "List", "items": []}) + "\n")

    def _add(self, value: Any) -> None:
        self.count += 1
        if self.count == 1:
            self.waiting = value
            return
        if self.count == 2:
            self.write('{\n    "apiVersion": "v1",\n    "kind": "List",\n    "items": [')
            self._item(self.waiting, "")
        self._item(value, ",")

    def _item(self, value: Any, comma: str) -> None:
        margin = "\n" + " " * (2 * self._INDENT)
        self.write(comma + margin + self._text(value).replace("\n", margin))

    def _text(self, value: Any) -> str:
        return json.dumps(value, indent=self._INDENT, ensure_ascii=False)


class AsPatches(Output):
    """A patch on a line for each document, `[]` where nothing changes."""

    def __init__(self, write: Write) -> None:
        self.write = write

    def documents(self, documents: list[Document], offset: int) -> None:
        for document in documents:
            if not document.errors and not document.is_empty:
                self.write(json.dumps(document.operations) + "\n")


class AsDiff(Output):
    """A unified diff of each file."""

    def __init__(self, write: Write, *, colour: bool, waits: bool) -> None:
        """waits: whether templates may be added to a file that has ended."""
        self.write = write
        self.colour = colour
        self.waits = waits
        self.name = ""
        self.diff = Diff("")
        self.lines: list[str] = []
        self.last = ""
        #: With their names, the lines of their diffs, and what they end with.
        self.files: list[tuple[str, Diff, list[str], str]] = []

    def begin(self, name: str) -> None:
        self.name = name
        self.diff = Diff(name)
        self.lines = []
        self.last = ""

    def documents(self, documents: list[Document], offset: int) -> None:
        # Objects of JSON may share a line.
        before = "".join(document.before for document in documents)
        edits = []
        offset = 0
        for document in documents:
            edits += [(start + offset, end + offset, new) for start, end, new in document.edits]
            offset += len(document.before)
        self._show(self.diff.change(before, edits) if edits else self.diff.keep(before))
        self.last = (documents[-1].after or before)[-1:]

    def end(self, *, is_bad: bool) -> None:
        if self.waits:
            self.files.append((self.name, self.diff, self.lines, self.last))
        else:
            self._show(self.diff.end())

    def finish(self, added: dict[str, list[Json]]) -> None:
        self.waits = False
        for name, diff, lines, last in self.files:
            for line in lines:
                self.write(line)
            diff.append(stream(last, added.pop(name, [])))
            self._show(diff.end())

    def _show(self, lines: Iterable[str]) -> None:
        for line in lines:
            shown = coloured(line) if self.colour else line
            if self.waits:
                self.lines.append(shown)
            else:
                self.write(shown)


def _all(added: dict[str, list[Json]]) -> Iterable[Json]:
    return (manifest for manifests in added.values() for manifest in manifests)


def join(last: str, text: str) -> str:
    """A document behind others: from a new line on, and with a marker.

    last: the end of what is before it, empty where nothing is.
    """
    if not last:
        return text
    line_end = "" if last.endswith("\n") else "\n"
    return line_end + ("" if text.startswith(("---", "...")) else "---\n") + text


def stream(last: str, manifests: Iterable[Json]) -> str:
    """Manifests as documents behind others; `last` as in `join`."""
    text = ""
    for manifest in manifests:
        text += join(text or last, dump(manifest))
    return text


def dump(value: Json) -> str:
    """A manifest of InstaSlice's own as YAML."""
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False))
