"""`instaslice rewrite`: reads files, shows or writes what becomes of them. Needs the extra `cli`.

What to make of a document is decided in `manifests`; here are only files, streams and exit codes.
"""

import difflib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, TextIO

from instaslice.manifests import documents
from instaslice.manifests.documents import Document
from instaslice.resource_api import ResourceAPI
from instaslice.templates import objects

#: The exit codes, worst last; the worst that happened counts.
FINE: Final = 0
WOULD_CHANGE: Final = 1  #: with --check
BAD: Final = 2  #: a file or a document that could not be handled

STANDARD_INPUT: Final = "-"

#: Colours of a terminal (ECMA-48, SGR), by how a line of a diff begins.
_COLOURS: Final = {"---": "1", "+++": "1", "@@": "36", "-": "31", "+": "32"}


class Options(NamedTuple):
    """What was asked for on the command line."""

    api: ResourceAPI
    output: str = "yaml"  #: a key of OUTPUTS
    diff: bool = False
    check: bool = False
    in_place: bool = False
    with_templates: bool = False
    colour: bool = False


@dataclass(slots=True)
class File:
    """A file and what becomes of it."""

    name: str  #: as it was typed
    documents: list[Document]
    added: list[dict[str, Any]]  #: templates to append

    @property
    def is_bad(self) -> bool:
        return any(document.errors for document in self.documents)

    @property
    def before(self) -> str:
        return "".join(document.before for document in self.documents)

    @property
    def after(self) -> str:
        """The whole file rewritten, documents that are wrong left as they are."""
        return _stream([document.after for document in self.documents], self.added)


def run(names: Sequence[str], options: Options, out: TextIO, err: TextIO) -> int:
    """Rewrite files, and return the exit code.

    names: paths, "-" for standard input.
    out: what becomes of them, or of where they differ. err: what is to be told, a line each.
    """
    files = []
    code = FINE
    for name in names or [STANDARD_INPUT]:
        try:
            text = _read(name)
        except (OSError, UnicodeDecodeError) as error:
            print(f"instaslice: {name}: {_reason(error)}", file=err)
            code = BAD
            continue
        files.append(File(name, documents.rewrite_stream(text, options.api), []))
    if options.with_templates:
        _add_templates(files, options.api)

    for file in files:
        for document in file.documents:
            for problem in document.errors:
                print(f"{file.name}:{problem.line}: {problem}", file=err)
            for problem in document.warnings:
                print(f"{file.name}:{problem.line}: warning: {problem}", file=err)
        if file.is_bad:
            code = BAD
        elif options.check and file.before != file.after:
            code = max(code, WOULD_CHANGE)
    return max(code, _show(files, options, out, err))


def _show(files: list[File], options: Options, out: TextIO, err: TextIO) -> int:
    if options.diff:
        for file in files:
            out.writelines(_diff(file, colour=options.colour))
    if options.in_place:
        return max((_write(file, err) for file in files if not file.is_bad), default=FINE)
    if options.check and not options.diff:
        for file in files:
            if file.before != file.after:
                print(f"{file.name}: would be rewritten", file=err)
    if not options.check and not options.diff:
        out.write(OUTPUTS[options.output](files))
    return FINE


def _as_yaml(files: list[File]) -> str:
    texts = [d.after for file in files for d in file.documents if not d.errors]
    return _stream(texts, [template for file in files for template in file.added])


def _as_json(files: list[File]) -> str:
    """One object; where there are more, a List of them, as kubectl writes and reads them."""
    values = [d.value for file in files for d in file.documents if d.value is not None]
    values += [template for file in files for template in file.added]
    whole = {"apiVersion": "v1", "kind": "List", "items": values}
    return json.dumps(values[0] if len(values) == 1 else whole, indent=4, ensure_ascii=False) + "\n"


def _as_patch(files: list[File]) -> str:
    """A patch on a line for each document, `[]` where nothing changes."""
    found = (d for file in files for d in file.documents if d.value is not None)
    return "".join(json.dumps(document.operations) + "\n" for document in found)


OUTPUTS: Final[dict[str, Callable[[list[File]], str]]] = {
    "yaml": _as_yaml,
    "json": _as_json,
    "patch": _as_patch,
}


def _stream(texts: list[str], added: list[dict[str, Any]]) -> str:
    """Documents as one stream: each but the first begins with its marker."""
    stream = ""
    for text in (*texts, *(_dump(template) for template in added)):
        if stream and text:
            stream += "" if stream.endswith("\n") else "\n"
            stream += "" if text.startswith(("---", "...")) else "---\n"
        stream += text
    return stream


def _dump(value: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False))


def _add_templates(files: list[File], api: ResourceAPI) -> None:
    """Append the templates that no file defines to the first file that needs them."""
    wanted = set(documents.missing([d for file in files for d in file.documents]))
    for file in files:
        for template in documents.missing(file.documents):
            if template in wanted:
                wanted.remove(template)
                file.added += objects(api, template.asks, template.namespace)


def _diff(file: File, *, colour: bool) -> Iterator[str]:
    lines = difflib.unified_diff(
        file.before.splitlines(keepends=True),
        file.after.splitlines(keepends=True),
        fromfile=f"a/{file.name.lstrip('/')}",
        tofile=f"b/{file.name.lstrip('/')}",
    )
    for line in lines:
        text = line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        code = next((c for start, c in _COLOURS.items() if text.startswith(start)), None)
        yield f"\x1b[{code}m{text[:-1]}\x1b[0m\n" if colour and code else text


def _read(name: str) -> str:
    """A file's text with its line ends as they are. Raises OSError, UnicodeDecodeError."""
    data = sys.stdin.buffer.read() if name == STANDARD_INPUT else Path(name).read_bytes()
    return data.decode()


def _write(file: File, err: TextIO) -> int:
    """Replace a file by its rewritten text, whole or not at all, and return the exit code."""
    if file.before == file.after:
        return FINE
    if file.added and any(document.is_json for document in file.documents):
        print(f"instaslice: {file.name}: templates cannot be appended to JSON", file=err)
        return BAD
    target = Path(file.name).resolve()  # a symbolic link stays one
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                os.fchmod(handle, target.stat().st_mode & 0o7777)
                stream.write(file.after.encode())
                stream.flush()
                os.fsync(handle)
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        print(f"instaslice: {file.name}: {_reason(error)}", file=err)
        return BAD
    print(f"{file.name}: rewritten", file=err)
    return FINE


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 at byte {error.start}"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
