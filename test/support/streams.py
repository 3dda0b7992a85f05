"""Streams of manifests, rewritten as `instaslice rewrite` rewrites files."""

import re
import textwrap
from itertools import count
from typing import Any

from instaslice.manifests.documents import Document, Rewriter, Task
from instaslice.rewrite import NewName

Json = dict[str, Any]


def dedent(text: str) -> str:
    """A text without its first line, which is empty, and without its indentation."""
    return textwrap.dedent(text.removeprefix("\n"))


def rewritten(text: str, task: Task | None = None, **options: int) -> list[Document]:
    """Rewrite a stream; returns its documents."""
    return list(Rewriter(task or Task(), **options).each(text.encode()))


def resolved(*texts: str, task: Task | None = None) -> list[Document]:
    """Rewrite files; returns their documents, with the patches among them rewritten."""
    rewriter = Rewriter(task or Task())
    documents = [d for text in texts for d in rewriter.each(text.encode())]
    rewriter.resolve(documents)
    return documents


def after(text: str, task: Task | None = None) -> str:
    """Rewrite a stream that has no errors; returns its text."""
    documents = rewritten(text, task)
    assert [each.errors for each in documents if each.errors] == []
    return "".join(each.after for each in documents)


def numbered() -> NewName:
    """Names claims "claim-1", "claim-2", ..."""
    numbers = count(1)
    return lambda container, template: f"claim-{next(numbers)}"


def nameless(text: str) -> str:
    """A text with "UUID" in place of each UUID."""
    return re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "UUID", text)


def places(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The paths of a value and of everything in it."""
    inner = enumerate(value) if isinstance(value, list) else ()
    found = [*value.items()] if isinstance(value, dict) else [*inner]
    return [path, *(each for key, below in found for each in places(below, (*path, key)))]
