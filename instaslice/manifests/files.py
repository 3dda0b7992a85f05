"""`instaslice rewrite`: reads files, and prints or writes the rewritten ones."""

import json
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from difflib import unified_diff
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Final, TextIO

import yaml

from instaslice.manifests.documents import RENAME, WEIGHTS, Document, Need, Rewriter, Task
from instaslice.manifests.edit import Edit, applied
from instaslice.patch import Json
from instaslice.templates import DeviceClaim, from_template, objects, why_not

#: The exit codes.
FINE: Final = 0
WOULD_CHANGE: Final = 1  #: with --check
LEFT: Final = 3  #: with --check: some limits cannot be rewritten
BAD: Final = 2  #: a file or document could not be handled
#: The codes from best to worst. The worst one that applies is the exit code.
_WORSE: Final = (FINE, WOULD_CHANGE, LEFT, BAD)

STANDARD_INPUT: Final = "-"
#: The suffixes of the files that are read in a folder.
SUFFIXES: Final = (".yaml", ".yml", ".json")
#: The name of a file that kustomize reads although it has no suffix.
_KUSTOMIZATION: Final = "Kustomization"
#: How many templates are named before "and N more".
MAX_NAMED: Final = 8
#: Lines of context in a diff, as in those of diff -u and git.
CONTEXT: Final = 3
#: Terminal colours (ECMA-48, SGR) by the beginning of a line.
_COLOURS: Final = {"---": "1", "+++": "1", "@@": "36", "-": "31", "+": "32"}


@dataclass(frozen=True, slots=True)
class Options:
    """The options of the command line."""

    task: Task = field(default_factory=Task)
    output: str = "yaml"  #: "yaml", "json" or "patch"
    diff: bool = False
    check: bool = False
    in_place: bool = False
    with_templates: bool = False
    templates_to: str = ""  #: a file for the templates; empty to append them where they are needed
    colour: bool = False


@dataclass(slots=True)
class File:
    """A file, its documents, and the templates that are appended to it."""

    name: str
    documents: list[Document]
    added: list[Json] = field(default_factory=list)

    @property
    def is_bad(self) -> bool:
        return any(document.errors for document in self.documents)

    @property
    def is_changed(self) -> bool:
        return any(document.changed for document in self.documents)

    def edits(self) -> tuple[str, list[Edit]]:
        """The file's text, and the edits to it."""
        edits, place = [], 0
        for each in self.documents:
            edits += [Edit(a + place, b + place, new) for a, b, new in each.edits]
            place += len(each.before)
        if self.added:
            edits.append(Edit(place, place, appended(self.documents[-1].after[-1:], self.added)))
        return "".join(document.before for document in self.documents), edits


def run(names: Sequence[str], options: Options, out: BinaryIO, err: TextIO) -> int:
    """Rewrite files, and return the exit code.

    names: paths, "-" for standard input. out: for results or diffs. err: for messages.
    """
    job = Job(options, out, err)
    read = [(name, data) for name in job.walk(names) if (data := job.read(name)) is not None]
    for name, data in read:
        job.rewriter.note_kustomization(name, data)
    files = [File(name, list(job.rewriter.each(data, name))) for name, data in read]
    del read
    job.rewriter.resolve(document for file in files for document in file.documents)
    for file in files:
        job.report(file)
    job.templates(files)
    job.show(files)
    return job.code


def in_folder(folder: Path, failed: Callable[[OSError], object]) -> Iterator[Path]:
    """Yield the YAML and JSON files of a folder, and a file Kustomization, in sorted order.

    Names that begin with a dot are skipped. failed: receives why a folder cannot be read.
    """
    for where, folders, names in os.walk(folder, onerror=failed):
        folders[:] = sorted(each for each in folders if not each.startswith("."))
        for name in sorted(names):
            is_read = name.endswith(SUFFIXES) or name == _KUSTOMIZATION
            if is_read and not name.startswith("."):
                yield Path(where, name)


class Job:
    """One run of the command over all files."""

    def __init__(self, options: Options, out: BinaryIO, err: TextIO) -> None:
        self.options, self.out, self.err = options, out, err
        self.rewriter = Rewriter(options.task)
        self.code = FINE
        self.last = ""  #: the message at the end

    def walk(self, names: Sequence[str]) -> Iterator[str]:
        """Yield the named files, and those of named folders. `read` reports missing files."""
        for name in names or [STANDARD_INPUT]:
            if name == STANDARD_INPUT or not Path(name).is_dir():
                yield name
                continue
            unread = list[OSError]()
            found = list(in_folder(Path(name), unread.append))
            yield from map(os.path.normpath, found)
            for error in unread:
                self.bad(f"{error.filename}: {error.strerror or error}")
            if not found and not unread:
                self.say(f"instaslice: {name}: has no file that ends in {' or '.join(SUFFIXES)}")

    def read(self, name: str) -> bytes | None:
        """Read a file; None if that fails."""
        path = Path(name)
        try:
            if name == STANDARD_INPUT:
                if sys.stdin is None:
                    raise OSError("is closed")
                return sys.stdin.buffer.read()
            if self.options.in_place and not stat.S_ISREG(path.stat().st_mode):
                raise OSError("is not a regular file, which --in-place needs")
            return path.read_bytes()
        except OSError as error:
            self.bad(f"{name}: {error.strerror or error}")
            return None

    def report(self, file: File) -> None:
        """Print the problems of a file's documents."""
        is_check = self.options.check
        for document in file.documents:
            for weight, kind in WEIGHTS.items():
                for problem in document.problems[weight]:
                    self.say(f"{file.name}:{problem.line}: {kind}{problem}")
            if document.problems["left"] and is_check:
                self.worse(LEFT)
        if file.is_bad:
            self.worse(BAD)
        elif is_check and file.is_changed:
            self.worse(WOULD_CHANGE)
            if not self.options.diff:
                self.say(f"{file.name}: would be rewritten")

    def templates(self, files: list[File]) -> None:
        """Append the templates that are missing, or print which are needed."""
        options, separate = self.options, Path(self.options.templates_to)
        documents = [(file, document) for file in files for document in file.documents]
        has = {need for _, document in documents for need in document.has}
        if separate.is_file():
            has |= {need for d in self.rewriter.each(separate.read_bytes()) for need in d.has}
        added = list[Json]()  #: to the separate file
        missing: dict[Need, list[Json]] = {}
        for file, document in documents:
            for need in document.needs:
                if need not in has:
                    missing.setdefault(need, added if options.templates_to else file.added)
        if options.with_templates or options.templates_to:
            if missing and options.check:
                self.worse(WOULD_CHANGE)
            self.add(missing, {name: c for _, d in documents for name, c in d.claims.items()}, has)
            for file, document in documents if any(missing.values()) else ():
                for problem in document.problems[RENAME]:
                    self.say(f"{file.name}:{problem.line}: warning: {problem}")
            if added and not (options.check or options.diff):
                with self.writing(str(separate), "written"):
                    old = separate.read_text() if separate.exists() else ""
                    separate.write_text(old + appended(old[-1:], added))
        elif not options.check:
            new = {need for _, document in documents if document.changed for need in document.needs}
            named = list(dict.fromkeys(need.name for need in missing if need in new))
            if named:
                more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
                self.last = (
                    f"instaslice: the result needs templates: {', '.join(named[:MAX_NAMED])}{more} "
                    "(append them with --with-templates, or have the webhook make them)"
                )

    def add(
        self, missing: dict[Need, list[Json]], claims: dict[str, DeviceClaim], there: set[Need]
    ) -> None:
        """Append each missing template to its list. there: objects that exist."""
        task = self.options.task
        for need, added in missing.items():
            claim = claims.get(need.name) or from_template(need.name, task.resources)
            if claim is None or (why := why_not(task.api, claim)):
                what = f"cannot be written: {why}" if claim else "is nowhere defined"
                self.bad(f"the template {need.name} {what}")
                continue
            for manifest in objects(task.api, claim, need.namespace):
                metadata = manifest["metadata"]
                here = Need(metadata.get("namespace"), metadata["name"], manifest["kind"])
                if here not in there:
                    there.add(here)
                    added.append(manifest)

    def show(self, files: list[File]) -> None:
        options = self.options
        if options.diff:
            for file in files:
                for line in diff(file.name, *file.edits()):
                    self.write(coloured(line) if options.colour else line)
        if options.in_place:
            for file in files:
                self.replace(file)
        if not (options.diff or options.in_place or options.check):
            shown = {"yaml": self.as_yaml, "json": self.as_json, "patch": self.as_patches}
            shown[options.output](files)
        self.out.flush()  # if that fails, the last message must not follow
        if self.last:
            self.say(self.last)

    def as_yaml(self, files: list[File]) -> None:
        """Print one stream of documents, without those that have errors."""
        last = ""
        for file in files:
            is_apart = True
            for text in (each.after for each in file.documents if not each.errors):
                # Other documents of a file have their own markers.
                self.write(join(last, text) if is_apart else text)
                last, is_apart = text[-1:] or last, is_apart and not text
        if added := [manifest for file in files for manifest in file.added]:
            self.write(appended(last, added))

    def as_json(self, files: list[File]) -> None:
        """Print the only object, or else a List of all objects, as kubectl does."""
        values = [d.value for file in files for d in file.documents if d.value is not None]
        values += [manifest for file in files for manifest in file.added]
        whole = (
            values[0] if len(values) == 1 else {"apiVersion": "v1", "kind": "List", "items": values}
        )
        self.write(json.dumps(whole, indent=4, ensure_ascii=False) + "\n")

    def as_patches(self, files: list[File]) -> None:
        """Print a JSON patch for each document, one a line; `[]` if nothing changes."""
        for file in files:
            for document in file.documents:
                if not document.errors and not document.is_empty:
                    self.write(json.dumps(document.operations) + "\n")

    def replace(self, file: File) -> None:
        if file.is_bad or not (file.added or file.is_changed):
            return
        if file.added and any(document.is_json for document in file.documents):
            self.bad(f"{file.name}: templates cannot be appended to JSON")
            return
        with self.writing(file.name, "rewritten"):
            replace(Path(file.name).resolve(), applied(*file.edits()).encode())

    @contextmanager
    def writing(self, name: str, done: str) -> Iterator[None]:
        """Report whether a file is written."""
        try:
            yield
        except OSError as error:
            self.bad(f"{name}: {error.strerror or error}")
        else:
            self.say(f"{name}: {done}")

    def write(self, text: str) -> None:
        # A lone surrogate ("\ud800"), which JSON allows, cannot be encoded in UTF-8.
        self.out.write(text.encode(errors="replace"))

    def say(self, line: str) -> None:
        print(" ".join(line.splitlines()), file=self.err)

    def bad(self, line: str) -> None:
        self.say(f"instaslice: {line}")
        self.worse(BAD)

    def worse(self, code: int) -> None:
        self.code = max(self.code, code, key=_WORSE.index)


def join(last: str, text: str) -> str:
    """The text of a document to print after others: on a new line, and with a marker.

    last: the last character before it; empty if there is none.
    """
    if not last or not text:
        return text
    marker = "" if text.startswith(("---", "...")) else "---\n"
    return ("" if last.endswith("\n") else "\n") + marker + text


def appended(last: str, manifests: Iterable[Json]) -> str:
    """The text of manifests to append to a text whose last character is `last`."""
    return join(last, yaml.safe_dump_all(manifests, sort_keys=False))


def replace(target: Path, data: bytes) -> None:
    """Replace a file's contents, whole or not at all. Raises OSError."""
    status = target.stat()
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    except PermissionError:
        overwrite(target, data)
        return
    try:
        with os.fdopen(handle, "wb") as copy:
            copy.write(data)
            copy.flush()
            os.fsync(copy.fileno())
        is_alike = False  # a new file would lose the hard links, or have another owner
        with suppress(OSError):
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(name, status.st_uid, status.st_gid)
            shutil.copystat(target, name)
            os.utime(name)
            os.chmod(name, status.st_mode & 0o7777)
            is_alike = status.st_nlink == 1
        if is_alike:
            os.replace(name, target)
        else:
            overwrite(target, data)
    finally:
        Path(name).unlink(missing_ok=True)


def overwrite(target: Path, data: bytes) -> None:
    """Write into the file itself. A full disk raises OSError before anything is lost."""
    with target.open("r+b") as file:
        old = file.seek(0, os.SEEK_END)
        file.seek(0)
        try:
            if len(data) > old:
                os.posix_fallocate(file.fileno(), old, len(data) - old)
        except OSError:
            file.truncate(old)
            raise
        file.write(data)
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


def diff(name: str, before: str, edits: Iterable[Edit]) -> Iterator[str]:
    """Yield the lines of a file's unified diff. edits: in order."""
    signed, changed, place = list[str](), list[int](), 0  #: all lines, and where they change
    for start, end, new in [*_by_lines(before, edits), Edit(len(before), len(before), "")]:
        signed += [" " + line for line in _lines(before[place:start])]
        gone = _lines(before[start:end])
        fresh = [*unified_diff(gone, _lines(new), n=len(gone))][3:]  # all behind its header
        changed += [i for i, line in enumerate(fresh, len(signed)) if line[0] != " "]
        signed += fresh or [" " + line for line in gone]
        place = end
    if changed:
        yield f"--- a/{name.lstrip('/')}\n"
        yield f"+++ b/{name.lstrip('/')}\n"
    shown = {near for i in changed for near in range(i - CONTEXT, i + CONTEXT + 1)}
    old = new_ = 0
    for is_shown, group in groupby(range(len(signed)), shown.__contains__):
        lines = [signed[i] for i in group]
        ours, theirs = (sum(line[0] != sign for line in lines) for sign in "+-")
        if is_shown:
            yield f"@@ -{_range(old, ours)} +{_range(new_, theirs)} @@\n"
            for line in lines:
                yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        old, new_ = old + ours, new_ + theirs


def _by_lines(text: str, edits: Iterable[Edit]) -> Iterator[Edit]:
    """Widen edits to whole lines, and join those that share a line."""
    groups = list[list[Edit]]()
    for each in edits:
        if groups and text.find("\n", groups[-1][-1].end, each.start) < 0:
            groups[-1].append(each)
        else:
            groups.append([each])
    for group in groups:
        first = text.rfind("\n", 0, group[0].start) + 1
        last = text.find("\n", group[-1].end) + 1 or len(text)
        yield Edit(first, last, applied(text, group, first, last))


def _lines(text: str) -> list[str]:
    """Split a text into lines with their ends. Only line feeds end lines, as in diff and patch."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _range(start: int, length: int) -> str:
    # An empty range is named by the line before it.
    return str(start + 1) if length == 1 else f"{start + (length > 0)},{length}"


def coloured(line: str) -> str:
    """A line of a diff with terminal colours."""
    code = next((c for start, c in _COLOURS.items() if line.startswith(start)), None)
    return f"\x1b[{code}m{line[:-1]}\x1b[0m\n" if code else line
