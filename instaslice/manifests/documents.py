"""Manifests, as files hold them: what `instaslice rewrite` makes of one. Needs the extra `cli`.

A file is a stream of YAML or JSON documents. Each is handled by itself, so that one that is wrong
takes nothing with it; the text between and around documents, and every document in which nothing
changes, is kept to the byte. No file is read or written here.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

from instaslice.invalid import InvalidPod
from instaslice.manifests import yaml_edit
from instaslice.patch import Json, Operation, pointer
from instaslice.resource_api import ResourceAPI, template_name
from instaslice.resources import MIG
from instaslice.rewrite import NewName, new_uuid, rewrite
from instaslice.templates import DeviceClaim, from_template

Path = tuple[str | int, ...]

#: Where a kind has its pod template; all others have it, if anywhere, at `ELSEWHERE`.
TEMPLATE_PATHS: Final[dict[str, Path]] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}
ELSEWHERE: Final[Path] = ("spec", "template")

#: A line that begins or ends a document. YAML allows neither in the first column anywhere else.
_MARKER: Final = re.compile(r"^(?:---|\.\.\.)(?=[ \t\r\n]|\Z)", re.MULTILINE)
#: What may stand before a document's first value: its marker, directives, comments, empty lines.
_PREAMBLE: Final = re.compile(
    r"\ufeff?(?:(?:---|\.\.\.)(?=[ \t\r\n]|\Z))?(?:[ \t]*(?:#.*)?\r?\n|%.*\r?\n)*"
)
#: Nothing, or a comment at the end of a file that has no newline there.
_REMARK: Final = re.compile(r"[ \t]*(?:#.*)?\Z")
#: A member or an index of a path such as `spec.containers[0].resources.limits[nvidia.com/mig-x]`.
_STEP: Final = re.compile(r"\.?([^.\[\]]+)|\[([^\]]*)\]")


class Problem(NamedTuple):
    """Something to tell about a document."""

    line: int  #: in the file, from 1
    path: str  #: "spec.template.spec.containers[0].resources"; empty for the document as a whole
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class Template(NamedTuple):
    """A ResourceClaimTemplate, by where it is."""

    namespace: str | None  #: None where the manifest names none
    asks: DeviceClaim


@dataclass(slots=True)
class Document:
    """One document of a file, before and after."""

    line: int  #: of its first value in the file, from 1
    before: str  #: its text, with the marker and the comments in front of it
    is_json: bool = False
    after: str = ""  #: its text rewritten; `before` where nothing changes
    value: Any = None  #: what it means, rewritten, as decoded JSON; None where it is empty
    operations: list[Operation] = field(default_factory=list)  #: RFC 6902, from `before`'s root
    errors: list[Problem] = field(default_factory=list)  #: why it is left as it is
    warnings: list[Problem] = field(default_factory=list)
    needs: list[Template] = field(default_factory=list)  #: that its pods, rewritten, refer to
    has: list[Template] = field(default_factory=list)  #: that it defines itself

    @property
    def changed(self) -> bool:
        return bool(self.operations)


def rewrite_stream(text: str, api: ResourceAPI, new_name: NewName = new_uuid) -> list[Document]:
    """Rewrite every pod and pod template in a stream of documents.

    text: YAML, or JSON; the `before` of the documents, joined, is the text again.
    new_name: names a claim. A pod template's claims are named
    once for all its pods, which is what templates are for.
    Raises nothing: what is wrong with a document is in its `errors`.
    """
    documents = []
    line = 1
    for piece in _split(text):
        preamble = _PREAMBLE.match(piece)
        assert preamble is not None  # it matches the empty string
        start = line + preamble.group().count("\n")
        line += piece.count("\n")
        document = Document(start, piece, after=piece)
        documents.append(document)
        body = piece[preamble.end() :]
        if not _REMARK.fullmatch(body):
            try:
                _rewrite_document(document, preamble.group(), body, api, new_name)
            except yaml_edit.BadDocument as bad:
                document.errors.append(Problem(start + bad.line, "", str(bad)))
    return documents


def missing(documents: list[Document]) -> list[Template]:
    """The templates that documents need and none of them defines, each once, in order."""
    there = {template for document in documents for template in document.has}
    needed = (template for document in documents for template in document.needs)
    return [template for template in dict.fromkeys(needed) if template not in there]


def _split(text: str) -> list[str]:
    """Cut a stream in front of each marker; the pieces, joined, are the text."""
    cuts = sorted({0, *(match.start() for match in _MARKER.finditer(text)), len(text)})
    return [text[start:end] for start, end in pairwise(cuts)]


def _rewrite_document(
    document: Document, preamble: str, body: str, api: ResourceAPI, new_name: NewName
) -> None:
    """Fill in what becomes of a document. Raises BadDocument."""
    as_json = _decoded_json(body)
    document.is_json = as_json is not None
    node = yaml_edit.load(body) if as_json is None else as_json
    manifest = yaml_edit.plain(node)
    if not isinstance(manifest, dict):
        raise yaml_edit.BadDocument("is not an object, as every manifest is")
    for above, item in items(manifest):
        found = pod_template(item)
        if found is None:
            continue
        path, template = (*above, *found[0]), found[1]
        where = field_path(*path)

        def problem(field: str, message: str, path: Path = path, where: str = where) -> Problem:
            line = document.line + yaml_edit.position(node, (*path, *_steps(field)))
            return Problem(line, ".".join(filter(None, (where, field))), message)

        try:
            result = rewrite(template, api, new_name=new_name)
        except InvalidPod as invalid:
            document.errors += [problem(error.field, error.message) for error in invalid.errors]
            continue
        document.warnings += [problem("", warning) for warning in result.warnings]
        document.operations += _below(path, result.operations)
    if document.errors:
        document.operations.clear()
        return
    yaml_edit.apply(manifest, document.operations)
    document.value = manifest
    document.needs = list(_needs(manifest))
    document.has = list(_has(manifest))
    if document.operations:
        if as_json is None:
            document.after = preamble + _edited(body, document.operations)
        else:
            document.after = preamble + _encoded_json(manifest, body)


def field_path(*tokens: str | int) -> str:
    """A path as apimachinery's `field.Path` prints it: spec.containers[0].resources."""
    return "".join(f"[{t}]" if isinstance(t, int) else f".{t}" for t in tokens).removeprefix(".")


def items(manifest: Json, path: Path = ()) -> Iterator[tuple[Path, Json]]:
    """A manifest, or all that a list of manifests holds, each with where it is."""
    listed = manifest.get("items")
    if not str(manifest.get("kind")).endswith("List") or not isinstance(listed, list):
        yield path, manifest
        return
    for index, item in enumerate(listed):
        if isinstance(item, dict):
            yield from items(item, (*path, "items", index))


def pod_template(manifest: Json) -> tuple[Path, Json] | None:
    """The pod, or pod template, that a manifest is or has, and where."""
    path = TEMPLATE_PATHS.get(str(manifest.get("kind")), ELSEWHERE)
    template: Any = manifest
    for step in path:
        template = template.get(step) if isinstance(template, dict) else None
    spec = template.get("spec") if isinstance(template, dict) else None
    return (path, template) if isinstance(spec, dict) and "containers" in spec else None


def _namespace(manifest: Json) -> str | None:
    metadata = manifest.get("metadata")
    namespace = metadata.get("namespace") if isinstance(metadata, dict) else None
    return namespace if isinstance(namespace, str) else None


def _needs(manifest: Json) -> Iterator[Template]:
    for _, item in items(manifest):
        found = pod_template(item)
        for claim in (found[1]["spec"].get("resourceClaims") or []) if found else []:
            name = template_name(claim)
            asks = from_template(name, MIG) if isinstance(name, str) else None
            if asks:
                yield Template(_namespace(item), asks)


def _has(manifest: Json) -> Iterator[Template]:
    for _, item in items(manifest):
        metadata = item.get("metadata")
        if item.get("kind") == "ResourceClaimTemplate" and isinstance(metadata, dict):
            asks = from_template(str(metadata.get("name")), MIG)
            if asks:
                yield Template(_namespace(item), asks)


def _steps(path: str) -> list[str | int]:
    """The steps of a field's path, as `field_path` joins them."""
    return [
        name or (int(index) if index.isdecimal() else index) for name, index in _STEP.findall(path)
    ]


def _below(path: Path, operations: list[Operation]) -> list[Operation]:
    prefix = pointer(*path)
    return [{**operation, "path": prefix + operation["path"]} for operation in operations]


def _edited(body: str, operations: list[Operation]) -> str:
    newline = "\r\n" if "\r\n" in body else "\n"
    text = body.replace("\r\n", "\n")
    text += "" if text.endswith("\n") else "\n"
    return yaml_edit.edit(text, operations).replace("\n", newline)


def _decoded_json(body: str) -> Any:
    """The document as JSON, or None where it is not written so."""
    if not body.lstrip().startswith("{"):
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _encoded_json(value: Any, like: str) -> str:
    """JSON in the layout of another text of JSON."""
    indent = re.search(r'\{\r?\n([ \t]+)"', like)
    compact = indent is None and '": ' not in like
    text = json.dumps(
        value,
        indent=indent and indent[1],
        separators=(",", ":") if compact else None,
        ensure_ascii=False,
    )
    return text + like[len(like.rstrip()) :]
