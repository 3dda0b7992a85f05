"""`instaslice rewrite`: reads files, and shows or writes what becomes of them.

What to make of a document is decided in `documents`; here are files, what is told, and exit codes.
"""

import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO, Final, TextIO

from instaslice.manifests.documents import Rewriter
from instaslice.manifests.model import Document, Need, Problem, Task
from instaslice.manifests.output import AsDiff, AsJSON, AsPatches, AsYAML, Output, Write
from instaslice.manifests.progress import Progress
from instaslice.manifests.replace import InPlace
from instaslice.manifests.stream import pieces
from instaslice.patch import Json
from instaslice.templates import DeviceClaim, from_template, objects, why_not

#: The exit codes.
FINE: Final = 0
WOULD_CHANGE: Final = 1  #: with --check
LEFT: Final = 3  #: with --check: limits that are not rewritten are left
BAD: Final = 2  #: a file or a document that could not be handled
#: The worst last; of all that happen, the worst counts.
_WORSE: Final = (FINE, WOULD_CHANGE, LEFT, BAD)

STANDARD_INPUT: Final = "-"
#: Templates that are named before "and N more".
MAX_NAMED: Final = 8

OUTPUTS: Final[dict[str, Callable[[Write], Output]]] = {
    "yaml": AsYAML,
    "json": AsJSON,
    "patch": AsPatches,
}


@dataclass(frozen=True, slots=True)
class Options:
    """What was asked for on the command line."""

    task: Task = field(default_factory=Task)
    output: str = "yaml"  #: a key of OUTPUTS
    diff: bool = False
    check: bool = False
    in_place: bool = False
    with_templates: bool = False
    colour: bool = False


def run(names: Sequence[str], options: Options, out: BinaryIO, err: TextIO) -> int:
    """Rewrite files, and return the exit code.

    names: paths, "-" for standard input.
    out: what becomes of them, or of where they differ. err: what is to be told, a line each.
    Raises OSError where `out` or `err` cannot be written.
    """
    job = Job(options, out, err)
    try:
        for name in names or [STANDARD_INPUT]:
            job.file(name)
        return job.finish()
    finally:
        job.close()


class Job:
    """Files, one after the other, and what is told of all of them."""

    def __init__(
        self,
        options: Options,
        out: BinaryIO,
        err: TextIO,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.options = options
        self.out = out
        self.rewriter = Rewriter(options.task)
        self.progress = Progress(err, now)
        self.code = FINE
        self.needs: dict[Need, str] = {}  #: with the file that has it first
        self.is_new: set[Need] = set()  #: of documents that change
        self.has: set[Need] = set()
        self.claims: dict[str, DeviceClaim] = {}  #: by template

        shares_terminal = out.isatty()

        def write(text: str) -> None:
            if shares_terminal:
                self.progress.clear()
            # A lone surrogate ("\ud800"), which JSON allows, cannot be encoded in UTF-8.
            out.write(text.encode(errors="replace"))

        waits = options.with_templates
        self.outputs: list[Output] = []
        if options.diff:
            self.outputs.append(AsDiff(write, colour=options.colour, waits=waits))
        self.in_place = InPlace(self.progress.say, waits=waits) if options.in_place else None
        if self.in_place:
            self.outputs.append(self.in_place)
        if not (options.diff or options.in_place or options.check):
            self.outputs.append(OUTPUTS[options.output](write))

    def file(self, name: str) -> None:
        """Rewrite one file."""
        try:
            with ExitStack() as stack:
                source, size = _open(name, stack, in_place=self.options.in_place)
                self.progress.begin(name, size)
                self._documents(name, source)
        except _Unreadable as error:
            self.progress.say(f"instaslice: {name}: {error}")
            self._worse(BAD)

    def _documents(self, name: str, source: IO[bytes]) -> None:
        is_bad = has_changed = False
        for output in self.outputs:
            output.begin(name)
        for piece in pieces(_reader(source)):
            documents = list(self.rewriter.each(piece.data, piece.line, piece.offset))
            for document in documents:
                self._tell(name, document)
                self._note_templates(name, document)
                is_bad = is_bad or bool(document.errors)
                has_changed = has_changed or document.changed
            for output in self.outputs:
                output.documents(documents, piece.offset)
            self.progress.at(piece.offset + len(piece.data))
        for output in self.outputs:
            output.end(is_bad=is_bad)
        if is_bad:
            self._worse(BAD)
        elif has_changed and self.options.check:
            self._worse(WOULD_CHANGE)
            if not self.options.diff:
                self.progress.say(f"{name}: would be rewritten")

    def _tell(self, name: str, document: Document) -> None:
        if document.left and self.options.check:
            self._worse(LEFT)
        kinds: Iterable[tuple[str, list[Problem]]] = (
            ("", document.errors),
            ("warning: ", document.left),
            ("warning: ", document.warnings),
            ("note: ", document.notes),
        )
        for kind, problems in kinds:
            for problem in problems:
                self.progress.say(f"{name}:{problem.line}: {kind}{problem}")

    def _note_templates(self, name: str, document: Document) -> None:
        self.claims |= document.claims
        self.has.update(document.has)
        for need in document.needs:
            self.needs.setdefault(need, name)
            if document.changed:
                self.is_new.add(need)

    def _worse(self, code: int) -> None:
        self.code = max(self.code, code, key=_WORSE.index)

    def finish(self) -> int:
        """Append templates, or say which are needed; returns the exit code."""
        missing = [need for need in self.needs if need not in self.has]
        added: dict[str, list[Json]] = {}
        options = self.options
        if options.with_templates:
            if missing and options.check:
                self._worse(WOULD_CHANGE)
            added = self._templates(missing)
        for output in self.outputs:
            output.finish(dict(added))
        self.out.flush()  # where that fails, it is all there is to tell
        if self.in_place and self.in_place.is_bad:
            self._worse(BAD)
        new = list(dict.fromkeys(need.name for need in missing if need in self.is_new))
        if new and not options.with_templates and not options.check:
            more = f" and {len(new) - MAX_NAMED} more" if len(new) > MAX_NAMED else ""
            self.progress.say(
                f"instaslice: the result needs templates: {', '.join(new[:MAX_NAMED])}{more} "
                "(append them with --with-templates, or have the webhook make them)"
            )
        self.progress.clear()
        return self.code

    def _templates(self, missing: Iterable[Need]) -> dict[str, list[Json]]:
        """The templates that are missing, and what they rely on, by file."""
        task = self.options.task
        there = set(self.has)
        added: dict[str, list[Json]] = {}
        for need in missing:
            claim = self.claims.get(need.name) or from_template(need.name, task.resources)
            if claim is None or (why := why_not(task.api, claim)):
                what = f"cannot be written: {why}" if claim else "is nowhere defined"
                self.progress.say(f"instaslice: the template {need.name} {what}")
                self._worse(BAD)
                continue
            for manifest in objects(task.api, claim, need.namespace):
                metadata = manifest["metadata"]
                here = Need(metadata.get("namespace"), metadata["name"], manifest["kind"])
                if here not in there:
                    there.add(here)
                    added.setdefault(self.needs[need], []).append(manifest)
        return added

    def close(self) -> None:
        """Leave nothing behind."""
        if self.in_place:
            self.in_place.close()


class _Unreadable(Exception):
    """A file cannot be read; `str()` of it says why."""


def _open(name: str, stack: ExitStack, *, in_place: bool) -> tuple[IO[bytes], int]:
    """A file, and its size, 0 where that is not known. Raises _Unreadable."""
    try:
        if name == STANDARD_INPUT:
            if sys.stdin is None:
                raise _Unreadable("is closed")
            return sys.stdin.buffer, 0
        source = stack.enter_context(Path(name).open("rb"))  # noqa: SIM115 -- it closes it
        status = os.fstat(source.fileno())
        if in_place and not stat.S_ISREG(status.st_mode):
            raise _Unreadable("is not a regular file, which --in-place needs")
        return source, status.st_size
    except OSError as error:
        raise _Unreadable(error.strerror or str(error)) from None


def _reader(source: IO[bytes]) -> Callable[[int], bytes]:
    """What reads a file. Raises _Unreadable."""
    # A pipe gives what it has.
    read = getattr(source, "read1", source.read)

    def chunk(size: int) -> bytes:
        try:
            data: bytes = read(size)
        except OSError as error:
            raise _Unreadable(error.strerror or str(error)) from None
        return data

    return chunk
