"""What `instaslice rewrite` makes of a document. No file is read or written here.

A document in which nothing changes is kept to the byte, one that is wrong is left as it is, and
every limit that is left in either is told of. A document that names nothing of interest is not even
parsed.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

from instaslice.manifests import json_nodes, lists, yaml_nodes
from instaslice.manifests.layout import json_layout
from instaslice.manifests.model import Document, Problem, Task
from instaslice.manifests.nodes import BadDocument
from instaslice.manifests.part import Part
from instaslice.manifests.workloads import LABEL
from instaslice.profiles import RESOURCE_PREFIX
from instaslice.resources import Resources

#: What may stand before a document's first value: its marker, directives, comments, empty lines.
_PREAMBLE: Final = re.compile(
    r"\ufeff?(?:(?:---|\.\.\.)(?=[ \t\r\n]|\Z))?(?:[ \t]*(?:#.*)?\r?\n|%.*\r?\n)*"
)
#: Nothing, or a comment at the end of a file that has no newline there.
_REMARK: Final = re.compile(r"[ \t]*(?:#.*)?\Z")
#: Helm's way to say "put a value here".
_HELM: Final = re.compile(r"\{\{.*?\}\}")
RENDER: Final = (
    "looks like a Helm template: render it first (helm template ... | instaslice rewrite -)"
)
#: Between quotes, other ways to write the characters of a name.
_ESCAPE: Final = re.compile(
    r"\\(?:(?P<slash>/)|\r?\n[ \t]*|x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})"
    r"|U(?P<w>[0-9a-fA-F]{8}))"
)

#: Texts smaller than this are read whole, which is faster. A tree takes up to 60 times the room of
#: its text: 4 MB.
SMALL: Final = 1 << 16


class Rewriter:
    """Rewrites documents one after the other, and remembers what they say of namespaces."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.disabled: set[str] = set()  #: namespaces that are labelled so
        self._names = _names(task.resources)

    def needs_look(self, text: str) -> bool:
        """Whether a document names anything that matters here."""
        if self._names.search(text):
            return True
        return "\\" in text and bool(self._names.search(_ESCAPE.sub(_unescaped, text)))

    def _names_for(self, text: str) -> re.Pattern[str] | None:
        """What is to be named by all that is read in a text; None where it is read whole."""
        is_whole = self.task.needs_values or len(text) < SMALL
        return None if is_whole else self._names

    def each(self, data: bytes, line: int = 1, offset: int = 0) -> Iterator[Document]:
        """Likewise, of bytes that are a document, or objects of JSON that follow one another.

        offset: where in the file they begin.
        """
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            bad = Document(line, "", "")
            bad.errors.append(Problem(line, "", f"is not UTF-8 at byte {offset + error.start}"))
            yield bad
            return
        for part in json_nodes.split(text) or [text]:
            yield self.rewrite(part, line)
            line += part.count("\n")

    def rewrite(self, text: str, line: int = 1) -> Document:
        """Rewrite every pod and pod template in a document.

        text: YAML or JSON, with what stands before it. line: its first in the file, from 1.
        Raises nothing: what is wrong with a document is in its `errors`.
        """
        preamble = _PREAMBLE.match(text)
        assert preamble is not None  # it matches the empty string
        document = Document(line + preamble.group().count("\n"), text, text)
        body = text[preamble.end() :]
        if _REMARK.fullmatch(body):
            document.is_empty = True
        elif self.task.needs_values or self.needs_look(body):
            try:
                document.after = preamble.group() + self._rewritten(document, body)
            except BadDocument as bad:
                document.errors.append(Problem(document.line + bad.line, "", str(bad)))
            self._judge(document, body)
        return document

    def _rewritten(self, document: Document, body: str) -> str:
        """What becomes of a document's text. Raises BadDocument."""
        if len(body) > lists.LARGE and not self.task.needs_values:
            items = lists.cut_json(body)
            document.is_json = items is not None
            items = items or lists.cut(body)
            if items:
                return self._items(document, body, items)
        names = self._names_for(body)
        root = json_nodes.read(body, names)
        document.is_json = root is not None
        root = root or yaml_nodes.read(body, names)
        if root is None:
            document.is_empty = True
            return body
        offset = len(document.before) - len(body)
        part = Part(document, self.task, self.disabled, document.line, offset, names=names)
        return part.rewrite(body, root)

    def _items(self, document: Document, body: str, items: list[lists.Item]) -> str:
        """The text of a large list, item by item. Raises BadDocument."""
        layout = json_layout(body[: items[0].stop]) if document.is_json else None
        read = json_nodes.read if document.is_json else yaml_nodes.read
        parts = []
        offset = len(document.before) - len(body)
        line, done = document.line, 0
        for index, (start, stop) in enumerate(items):
            line += body.count("\n", done, start)
            parts.append(body[done:start])
            text = body[start:stop]
            if self.needs_look(text):
                try:
                    names = self._names_for(text)
                    root = read(text, names)
                    assert root is not None  # an object of JSON, or a list of one item
                    place = line, offset + start, ("items", index)
                    part = Part(document, self.task, self.disabled, *place, names=names)
                    text = part.rewrite(text, root, layout)
                except BadDocument as bad:
                    raise BadDocument(str(bad), line - document.line + bad.line) from None
            parts.append(text)
            line += body.count("\n", start, stop)
            done = stop
        parts.append(body[done:])
        return "".join(parts)

    def _judge(self, document: Document, body: str) -> None:
        """Make of errors, and of limits that are left, what was asked for."""
        if self.task.is_strict:
            document.errors += document.left
            document.left = []
        if not document.errors:
            return
        document.discard()
        helm = _HELM.search(body)
        if helm:
            line = document.line + body.count("\n", 0, helm.start())
            document.errors = [Problem(line, "", RENDER)]


def _names(resources: Resources) -> re.Pattern[str]:
    """What a document that matters has in it: a resource, a template, or the label.

    Or what may hide one: text in base64.
    """
    mapped: Iterable[str] = (
        text for name, resource in resources.mapped.items() for text in (name, resource.template)
    )
    texts = sorted({RESOURCE_PREFIX, LABEL, *mapped})
    # In a JSON Pointer a slash is "~1".
    spelt = [re.escape(text).replace("/", "(?:/|~1)") for text in texts]
    return re.compile("|".join([*spelt, r"\bmig-[1-9]", "[!:]binary"]))


def _unescaped(match: re.Match[str]) -> str:
    if match["slash"]:
        return "/"
    digits = match["x"] or match["u"] or match["w"]
    # No name has a character beyond Unicode's.
    return chr(min(int(digits, 16), 0x10FFFF)) if digits else ""
