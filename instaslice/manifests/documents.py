"""Rewrites the documents of a text, each by itself. This module reads no files.

A document without changes keeps every byte, and an invalid document stays as it is. Every limit
that is not rewritten is reported. A document that names nothing of interest is not parsed.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from instaslice import node_labels
from instaslice.invalid import InvalidPod, Notice, field_path
from instaslice.manifests import patches, workloads
from instaslice.manifests.edit import Edit, Layout, applied, edit, edited, json_layout
from instaslice.manifests.leftovers import (
    KUSTOMIZE,
    Leftover,
    in_list,
    leftovers,
    node_labels_in,
)
from instaslice.manifests.nodes import JSON, BadDocument, Node, Part, locate, read
from instaslice.manifests.reverse import reverse
from instaslice.manifests.workloads import Kinds, Manifest, Path, Template, at, claim_names
from instaslice.patch import Json, Operation, apply, pointer, replace
from instaslice.profiles import RESOURCE_PREFIX
from instaslice.resource_api import NEWEST, ResourceAPI, template_name
from instaslice.resources import MIG, Resources
from instaslice.rewrite import Rewrite, rewrite
from instaslice.templates import DeviceClaim, is_ours

#: A line that begins or ends a document. YAML allows neither in the first column anywhere else.
_MARKER: Final = re.compile(r"^(?:---|\.\.\.)(?=[ \t\r\n]|\Z)", re.MULTILINE)
#: The lines before a document's first value: its marker, directives, comments, empty lines.
_PREAMBLE: Final = re.compile(
    r"\ufeff?(?:(?:---|\.\.\.)(?=[ \t\r\n]|\Z))?(?:[ \t]*(?:#.*)?\r?\n|%.*\r?\n)*"
)
#: A place where one JSON object may end and the next begin.
_BETWEEN: Final = re.compile(r"\}[ \t\r\n]*\{")
_BLANK: Final = re.compile(r"[ \t\r\n]*")
_JSON_ITEMS: Final = re.compile(r'"items"[ \t\r\n]*:[ \t\r\n]*\[[ \t\r\n]*')
_ITEMS: Final = re.compile(r"^items:[ \t]*(?:#[^\n]*)?\r?\n(?P<indent> *)- ", re.MULTILINE)
#: An alias, which may refer from one item to another.
_ALIAS: Final = re.compile(
    r"(?:^[ \t]*|[:,\[{-][ \t]+)\*[A-Za-z0-9_-]+[ \t\r]*(?:[,\]}#]|$)", re.MULTILINE | re.ASCII
)
#: The next key at the root. Lines of a block scalar never begin in the first column.
_NEXT_KEY: Final = re.compile(r"^(?![ #\r\n]|- )", re.MULTILINE)
_KIND: Final = re.compile(r"""^kind:[ ]+["']?List\b""", re.MULTILINE)

#: Smaller documents are read whole, which costs little. One object cannot be larger, since the API
#: server accepts about half of this (etcd's limit is 1.5 MiB).
LARGE: Final = 2_000_000
#: The largest text that is read whole, in characters: reading takes up to 80 times its memory.
LARGEST: Final = 16_000_000

_NULL: Final = r"""\b(?:resources|limits|requests)["']?:[ \t]*%s(?=[ \t]*(?:[\r\n#,}]|\Z))"""
#: A key without a value on its line, and the indentation of the next line, if that is no template.
_OPEN: Final = tuple(
    re.compile(key + r":[ \t]*(?:#[^\n]*)?(?:\r?\n(?P<next> *(?:- )?)(?![ \r\n{])|\Z)")
    for key in ("limits", "resources")
)
#: Patterns of text that matters although it names no resource: base64, Kustomizations, patches and
#: node labels. Each has a word that every match contains: finding a word is ten times as fast.
_HINTS: Final = (
    ("mig-", r"\bmig-[1-9]"),
    ("MIG-", r"\bMIG-[1-9]"),
    ("mig.", re.escape(node_labels.MIG_CONFIG)),
    ("mig.", re.escape(node_labels.MIG_STRATEGY)),
    ("gke-gpu", re.escape(node_labels.GKE_PARTITION)),
    ("namePrefix", "namePrefix:"),
    ("nameSuffix", "nameSuffix:"),
    ("$patch", r"""\$patch["']?:"""),
    ("resourceClaims", r"""\bresourceClaims["']?:"""),
    ("null", _NULL % "null"),
    ("~", _NULL % "~"),
    ("binary", "[!:]binary"),
    ("ontainers/", patches.HELD + r"""["']?[ \t]*(?:[\r\n,}]|\Z)"""),
)

NO_BASE: Final = f"and its base is not among the files: name both, or {KUSTOMIZE}"
SEVERAL: Final = f"and it has several bases, or its base several patches: {KUSTOMIZE}"
CUSTOM: Final = f"left as it is: it is a patch of a custom resource: {KUSTOMIZE}"
BACK: Final = "left as it is: it is a patch, whose claims need its base: reverse kustomize's output"
ELSEWHERE: Final = f"and a program in the cluster applies it: {KUSTOMIZE}"
CANNOT: Final = f"and no change of it gives the same result with its rewritten base: {KUSTOMIZE}"
TWICE: Final = "the key {!r} occurs twice in the same object; the last one counts, as in kubectl"
SELECTOR: Final = (
    "it names {}, a label of MIG manager or the device plugin; nodes with NVIDIA's DRA driver may "
    "lack it"
)
NO_NODE: Final = ", and then the pod fits no node"
SINGLE: Final = "; {0} is a slice on such nodes: --resource {0}=mig-{1}"
_OWN: Final = "instaslice.io/"  #: labels and annotations
_GPU: Final = "nvidia.com/gpu"
_ODD: Final = "left as it is: it is not a MIG profile such as mig-1g.5gb"
UNNEEDED: Final = "no manifest needs it any more, if all that name it have been reversed"
RENAMES: Final = (
    "kustomize renames templates and classes, but not the references to them: put them into a "
    "file that no Kustomization with a prefix or suffix names (--templates-to FILE)"
)
#: The weights of problems in the order of output, with their prefixes. RENAME is not among them:
#: those problems are printed only if templates were appended.
WEIGHTS: Final = {"error": "", "left": "warning: ", "warning": "warning: ", "note": "note: "}
RENAME: Final = "rename"

#: The characters to which Python decodes bytes that are not UTF-8.
_NOT_UTF8: Final = re.compile("[\udc80-\udcff]")
#: An empty rest of a text, or a comment in the last line without a line end.
_REMARK: Final = re.compile(r"[ \t]*(?:#.*)?\Z")
_RENDER: Final = "looks like {}: render it first ({} | instaslice rewrite -)"
_HELM: Final = (
    r"\{\{-?\s*(?:[.$(\"]|/\*|\w+\s+[\"$.]|"
    r"(?:if|range|with|end|else|include|template|define|toYaml)\b)"
)
_HCL: Final = r"^\s*(?:resource|data|module|provider|variable|locals|terraform)\b[^:\n]*\{\s*$"
_SHELL: Final = r"%\{|\$\{?[A-Za-z_]"
#: Templates from which another program makes YAML, the most certain pattern first.
_NOT_YET_YAML: Final = {
    re.compile(pattern, re.MULTILINE): what
    for pattern, what in (
        (_HELM, _RENDER.format("a Helm template", "helm template ...")),
        (r"\{[{%#].*?[}%#]\}", _RENDER.format("a template of Jinja or Ansible", "...")),
        (_HCL, "looks like Terraform: rewrite the manifests that it applies"),
        (_SHELL, _RENDER.format("a template of a shell or of Terraform", "envsubst < ...")),
    )
}
#: Escape sequences that may spell the characters of a name between quotes.
_ESCAPE: Final = re.compile(
    r"\\(?:(/)|\r?\n[ \t]*|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))"
)


@dataclass(frozen=True, slots=True)
class Task:
    """How to rewrite documents."""

    api: ResourceAPI = NEWEST
    resources: Resources = MIG
    kinds: Kinds = field(default_factory=lambda: MappingProxyType({}))
    is_reverse: bool = False
    is_strict: bool = False  #: a limit that is not rewritten is an error
    needs_values: bool = False  #: whether to fill `Document.value`, even where no edit is possible
    needs_operations: bool = True  #: whether to fill `Document.operations`, which are large


class Problem(NamedTuple):
    """An error, a warning or a note about a document."""

    line: int  #: in the file, from 1
    path: str  #: "spec.template.spec.containers[0].resources"; empty for the document as a whole
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class Need(NamedTuple):
    """An object that rewritten pods need: a ResourceClaimTemplate, or its DeviceClass."""

    namespace: str | None  #: None if the manifest names none
    name: str
    kind: str = "ResourceClaimTemplate"


@dataclass(slots=True)
class Document:
    """One document of a file, before and after it is rewritten."""

    line: int  #: of its first value in the file, from 1
    before: str  #: its text, with the marker and the comments in front of it
    file: str = ""  #: the normalized name of its file
    edits: list[Edit] = field(default_factory=list)  #: of `before`, in order
    is_json: bool = False
    is_empty: bool = False  #: it has no value
    changed: bool = False
    value: Any = None  #: the rewritten value as decoded JSON; None unless `Task.needs_values`
    operations: list[Operation] = field(default_factory=list)  #: RFC 6902, from `before`'s root
    problems: dict[str, list[Problem]] = field(  #: by weight; an error prevents all changes
        default_factory=lambda: {weight: [] for weight in (*WEIGHTS, RENAME)}
    )
    needs: dict[Need, None] = field(default_factory=dict)  #: objects that its rewritten pods need
    has: dict[Need, None] = field(default_factory=dict)  #: objects that it defines
    claims: dict[str, DeviceClaim] = field(default_factory=dict)  #: new claims, by template
    #: Those that need a base first.
    patches: list["Patch"] = field(default_factory=list, compare=False)

    @property
    def after(self) -> str:
        """The rewritten text; `before` if nothing changes."""
        return applied(self.before, self.edits)

    @property
    def errors(self) -> list[Problem]:
        """The problems that prevent all changes."""
        return self.problems["error"]

    def close(self, body: str) -> None:
        """Undo all changes if there is an error. body: the text of the value."""
        if not self.errors:
            return
        self.edits, self.value, self.operations, self.changed = [], None, [], False
        self.needs, self.has, self.claims = {}, {}, {}
        if found := _not_yet_yaml(body):
            line = self.line + body.count("\n", 0, found[0])
            self.problems["error"] = [Problem(line, "", found[1])]


class Patch(NamedTuple):
    """A patch: a whole document, an item of a List, or text in a Kustomization."""

    work: "_Work"
    manifest: Manifest  #: or a JSON patch, from `patches.of_operations`
    path: Path = ()  #: of the patch's text in a Kustomization; empty if it is no text
    target: Json | None = None  #: from the Kustomization that names it

    def fits(self, base: Manifest) -> bool:
        """Whether it may be for a base."""
        wanted = patches.wanted(self.manifest, self.target)
        return bool(patches.spec_of(base)) and all(getattr(base, k) == v for k, v in wanted.items())


class Rewriter:
    """Rewrites texts one after the other, and remembers which namespaces opt out."""

    def __init__(self, task: Task, large: int = LARGE) -> None:
        """large: a List of more characters is read item by item."""
        self.task, self.large = task, large
        self.disabled: set[str] = set()  #: namespaces with the label that disables InstaSlice
        self.builds = patches.Builds()
        mapped = task.resources.mapped.items()
        names = [text for name, found in mapped for text in (name, found.template)]
        hints = [*map(_spelt, (RESOURCE_PREFIX, _OWN, *names)), *_HINTS]
        hints += [("claims", r"""\bclaims["']?:""")] if task.is_reverse else []
        self._hints = [(word, re.compile(pattern)) for word, pattern in hints]

    def note_kustomization(self, name: str, data: bytes) -> None:
        """Note the patches that a file names, if the file is a Kustomization."""
        if os.path.basename(name) in ("kustomization.yaml", "kustomization.yml", "Kustomization"):
            for manifest in _manifests(data.decode(errors="replace")):
                self.builds.note(name, manifest.value)

    def each(self, data: bytes, name: str = "") -> Iterator[Document]:
        """Rewrite the documents of a file."""
        text, done, line = data.decode(errors="surrogateescape"), 0, 1
        file = os.path.normpath(name)
        for part in split(text):
            if bad := _NOT_UTF8.search(part) if not part.isascii() else None:
                place = len(text[: done + bad.start()].encode(errors="surrogateescape"))
                document = Document(line, "")
                document.errors.append(Problem(line, "", f"is not UTF-8 at byte {place}"))
                yield document
            else:
                yield self.rewrite(part, line, file)
            line += part.count("\n")
            done += len(part)

    def rewrite(self, text: str, line: int = 1, file: str = "") -> Document:
        """Rewrite all pods and pod templates in a document. line: of `text` in its file, from 1."""
        start = _PREAMBLE.match(text).end()  # type: ignore[union-attr]
        document = Document(line + text.count("\n", 0, start), text, file)
        body = text[start:]
        if _REMARK.fullmatch(body):
            document.is_empty = True
        elif self.task.needs_values or self.needs_look(body):
            try:
                self._read(document, body, start)
            except BadDocument as bad:
                # A key without a value is no reason to complain of a text that may be a template.
                if self.task.needs_values or self.is_hinted(body):
                    document.errors.append(Problem(bad.line, "", str(bad)))
            document.close(body)
        return document

    def _read(self, document: Document, body: str, start: int) -> None:
        """Rewrite a document's text, whole or item by item. Raises BadDocument."""
        items, layout = None, None
        if len(body) > self.large and not self.task.needs_values:
            is_json = body.lstrip().startswith("{")
            items = items_of_json(body) if is_json else items_of_yaml(body)
            if items and is_json:
                document.is_json, layout = True, json_layout(body[: items[0][1]])
        line, done = document.line, 0
        for index, (first, last) in enumerate(items or [(0, len(body))]):
            line += body.count("\n", done, first)
            done, text = first, body[first:last]
            if items and not self.needs_look(text):
                continue
            if items and not layout:
                text = text.replace("-", " ", 1)  # the item alone, without its dash
            path: Path = ("items", index) if items else ()
            try:
                _Work(self, document, text, start + first, line, path, layout).run()
            except BadDocument as bad:
                raise BadDocument(str(bad), line + bad.line) from None

    def needs_look(self, text: str) -> bool:
        """Whether a text may hold anything to rewrite or report."""
        return self.is_hinted(text) or any(_has_null(key, text) for key in _OPEN)

    def is_hinted(self, text: str) -> bool:
        """Whether a text matches a hint."""
        texts = (text, _ESCAPE.sub(_unescaped, text)) if "\\" in text else (text,)
        return any(word in t and hint.search(t) for t in texts for word, hint in self._hints)

    def resolve(self, documents: Iterable[Document]) -> None:
        """Rewrite the patches among documents, or report why they are not rewritten."""
        documents = list(documents)
        waiting = [patch for document in documents for patch in document.patches]
        names = {patches.wanted(patch.manifest, patch.target).get("name", "") for patch in waiting}
        every = [
            each
            for document in documents
            if not document.errors and any(name in document.before for name in names)
            for each in _manifests(document.before)
            if not patches.is_patch(each, self.builds.role(document.file))
        ]
        for patch in waiting:
            work, bases = patch.work, [each for each in every if patch.fits(each)]
            others = (
                other.work.document.file
                for other in waiting
                if other is not patch and any(map(other.fits, bases))
            )
            is_one = len(bases) == 1 and patch.target != {}
            is_one = is_one and not self.builds.has_another(work.document.file, others)
            why = "" if is_one else SEVERAL if bases else NO_BASE
            work.settle(patch, bases, ELSEWHERE if "spec" in patch.path else why)
            work.document.close(work.text)


@dataclass(slots=True)
class _Work:
    """The work on one text: a whole document, or one item of a List."""

    rewriter: Rewriter
    document: Document
    text: str
    start: int  #: of the text in the document
    line: int  #: of the text in the file
    prefix: Path = ()  #: the path of an item
    layout: Layout | None = None  #: of the List that holds the item, if it is JSON
    root: Node = field(default_factory=lambda: Node(0, 0, None))
    value: Any = None  #: of the text, rewritten
    here: Path = ()  #: the path of the current manifest
    counted: tuple[int, int] = (0, 0)  #: the last place, and the number of lines before it

    def run(self) -> None:
        """Rewrite the text. Raises BadDocument."""
        document, task = self.document, self.rewriter.task
        if len(self.text) > LARGEST:
            size = f"has more than {LARGEST // 1_000_000} MB and is no List"
            raise BadDocument(f"{size}: put its objects into separate documents")
        dead: list[Part] = []
        root, is_json = read(self.text, dead)
        if root is None:
            document.is_empty = True
            return
        self.root, self.value = root, root.value
        if is_json and not self.prefix:
            document.is_json, self.layout = True, json_layout(self.text)
        for part in dead:
            problem = Problem(self._line_of(part.start), "", TWICE.format(part.key))
            document.problems["warning"].append(problem)
        if (found := in_list(self.value, task.resources)) is not None:
            self._tell_left(found)
            patch = patches.of_operations(self.value)
            if patches.concerns(patch, task.resources) and not task.is_reverse:
                target = self.rewriter.builds.patches.get(self.document.file)
                document.patches.append(Patch(self, patch, (), target))
        elif not isinstance(self.value, dict):
            raise BadDocument("is not an object, as every manifest is")
        else:
            every = workloads.manifests(self.value)
            operations = [o for each in every for o in _below(each.path, self._manifest(each))]
            if operations and not document.errors:
                self._change(operations)
            for manifest in workloads.manifests(self.value):
                self._refers(manifest)
        document.value = self.value if task.needs_values else None

    def _change(self, operations: list[Operation]) -> None:
        """Apply operations to the value, and edit the text. Raises BadDocument."""
        document, task = self.document, self.rewriter.task
        value = apply(self.value, operations)
        try:
            edits = edit(self.text, self.root, value, self.layout)
            if not self.prefix:
                document.edits = []
            document.edits += [Edit(a + self.start, b + self.start, new) for a, b, new in edits]
        except BadDocument:
            if not task.needs_values:
                raise
        self.value, document.changed = value, True
        document.value = value if task.needs_values else None
        if task.needs_operations:
            document.operations += _below(self.prefix, operations)

    def _manifest(self, manifest: Manifest) -> list[Operation]:
        """Return the operations that rewrite a manifest's pod templates; report limits left."""
        task, disabled = self.rewriter.task, self.rewriter.disabled
        self.here = manifest.path
        handled: set[Path] = set()
        operations: list[Operation] = []
        builds, file = self.rewriter.builds, self.document.file
        role = builds.role(file)
        is_patch = patches.is_patch(manifest, role)
        if manifest.kind == "Namespace" and workloads.is_disabled(manifest.value):
            disabled.add(manifest.name)
        whole = [Patch(self, manifest, (), builds.patches.get(file))]
        for patch in whole if is_patch else self._inline(manifest):
            if not patches.concerns(patch.manifest, task.resources):
                continue
            if not task.is_reverse:
                self.document.patches.append(patch)
                handled |= {patch.path} - {()}
            elif patches.has_claims(patch.manifest):
                self.tell(patch.path or patches.spec_of(manifest), BACK, "left")
        is_own = task.is_reverse or manifest.place is not None
        every, skipped = workloads.templates(manifest, task.kinds), set[Path]({("metadata",)})
        for template in [patches.template(manifest)] if is_patch else every:
            handled.update((*path, "resources") for path, _ in workloads.containers(template))
            why = workloads.why_skipped(manifest, template, disabled)
            skipped.add(template.place(() if why else ("metadata",)))
            if is_patch:
                self._warn(template, [], is_rewritten=True)
            elif not is_own and (role or patches.has_directive(template.pod)):
                self.tell(template.place(()), CUSTOM, "left")
            else:
                operations += self._template(manifest, template, why)
        if not task.is_reverse:
            self._tell_left(leftovers(manifest, handled, task.kinds, task.resources))
            for path, each in node_labels_in(manifest.value, skipped):
                is_single = each.single and _GPU not in task.resources.mapped
                text = SELECTOR.format(each) + (NO_NODE if each.is_required else "")
                text += SINGLE.format(_GPU, each.single) if is_single else ""
                self.tell(path, text, "warning")
        return operations

    def _inline(self, manifest: Manifest) -> Iterator[Patch]:
        """Yield the patches in a Kustomization's text, or in that of Flux or Argo CD."""
        for path, text, target in patches.inline(manifest):
            for part in split(text):
                yield from (Patch(self, each, path, target) for each in _manifests(part))

    def _template(self, manifest: Manifest, template: Template, why: str) -> list[Operation]:
        """Return the operations that rewrite a pod template; report what is wrong with it.

        why: it is left as it is; empty if it is rewritten.
        """
        try:
            result = self._result(manifest, template)
        except InvalidPod as invalid:
            for error in invalid.errors if not why else ():
                self.tell(template.place(error.path), error.message, "error")
            return []
        if why and result.operations:
            self.tell(template.place(()), f"left as it is: it {why}", "note")
        if why:
            return []
        self._warn(template, result.notices, bool(result.operations))
        return result.operations

    def _result(self, manifest: Manifest, template: Template) -> Rewrite:
        """Rewrite a pod. The operations apply to the manifest. Raises InvalidPod."""
        task = self.rewriter.task
        if task.is_reverse:
            result = reverse(template.pod, task.resources)
        else:
            names = claim_names(manifest, template)
            result = rewrite(template.pod, task.api, task.resources, names)
        self.document.claims |= {claim.template: claim for claim in result.claims}
        return result._replace(operations=template.placed(result.operations))

    def settle(self, patch: Patch, bases: list[Manifest], why: str) -> None:
        """Rewrite a patch for its base, or report why it is not rewritten."""
        manifest, task = patch.manifest, self.rewriter.task
        self.here = () if patch.path else manifest.path
        try:
            found = list(leftovers(manifest, set(), task.kinds, task.resources))
            if bases and not found and all(self._whole(base) == base.value for base in bases):
                return
            if why:
                raise BadDocument(why)
            new = patches.rewritten(bases[0], manifest, self._whole)
            if new is None or self.prefix:
                raise BadDocument(CANNOT)
            if new != manifest.value:
                place = patch.path or manifest.path
                what = edited(at(self.value, place), new) if patch.path else new
                self._change([replace(pointer(*place), what)])
            self._refers(bases[0]._replace(path=self.here, value=new))
        except (BadDocument, InvalidPod) as bad:
            why = str(bad) if isinstance(bad, BadDocument) else CANNOT
            why = why if why.startswith("and ") else f"and it {why}"
            path = patch.path or next((each.path for each in found), patches.spec_of(manifest))
            self.tell(path, f"left as it is: it is a patch, {why}", "left")

    def _whole(self, manifest: Manifest) -> Json:
        """Return the rewritten object. Raises InvalidPod."""
        value = manifest.value
        for template in workloads.templates(manifest, self.rewriter.task.kinds):
            if not workloads.why_skipped(manifest, template, self.rewriter.disabled):
                value = apply(value, self._result(manifest, template).operations)
        return value

    def _refers(self, manifest: Manifest) -> None:
        """Note the templates that a manifest's pods need, and the one that it defines."""
        namespace, task = manifest.namespace, self.rewriter.task
        self.here = manifest.path
        for template in workloads.templates(manifest, task.kinds):
            for claim in workloads.listed(template.pod["spec"].get("resourceClaims")):
                name = template_name(claim)
                if isinstance(name, str) and is_ours(name, task.resources):
                    self.document.needs[Need(namespace, name)] = None
        if manifest.kind == "ResourceClaimTemplate" and is_ours(manifest.name, task.resources):
            self.document.has[Need(namespace, manifest.name)] = None
            if task.is_reverse:
                self.tell((), UNNEEDED, "note")
        elif manifest.kind == "DeviceClass":
            self.document.has[Need(None, manifest.name, manifest.kind)] = None
        for path, found in patches.kustomizations(manifest):
            for key in ("namePrefix", "nameSuffix"):
                if found.get(key):
                    self.tell((*path, key), RENAMES, RENAME)

    def _warn(self, template: Template, notices: Iterable[Notice], is_rewritten: bool) -> None:
        """Report each notice at every amount of the resource that it is about, and `nodeName`."""
        amounts, resources = list(_amounts(template)), self.rewriter.task.resources
        spec = template.pod["spec"]
        has_claims = not self.rewriter.task.is_reverse and (
            is_rewritten or spec.get("resourceClaims")
        )
        if spec.get("nodeName") and has_claims:
            text = f"{node_labels.PAST_SCHEDULER}; {node_labels.NODE_SELECTOR}"
            self.tell(template.place(("spec", "nodeName")), text, "warning")
        for path, resource, container in amounts:
            # The core names only some of them, and no places.
            if resource.startswith(RESOURCE_PREFIX) and not resources.find(resource):
                what = _not_yet_yaml(resource)
                text = f"left as it is: it {what[1]}" if what else _ODD
                self.tell(path, text, "left", container)
        for notice in notices:
            places = [(path, who) for path, about, who in amounts if about == notice.about]
            text = notice.text if places else str(notice)
            for path, who in places or [(template.place(()), "")]:
                self.tell(path, text, "warning", who)

    def _tell_left(self, found: Iterable[Leftover]) -> None:
        for each in found:
            self.tell(each.path, each.reason, each.weight, each.container, each.line)

    def tell(
        self, path: Path, message: str, weight: str, who: str = "", line: int | None = None
    ) -> None:
        """Report a problem at a path. who: a container. line: in the text at the path, from 0."""
        path = (*self.here, *path)
        start, node = locate(self.root, path)
        # A block scalar begins below its header. Lines of other scalars have no known place.
        below = line + 1 if node.is_block and line is not None else 0
        found = self._line_of(node.start if below else start) + below
        message = f"container {who}: {message}" if who else message
        problem = Problem(found, field_path(*self.prefix, *path), message)
        is_error = weight == "left" and self.rewriter.task.is_strict
        self.document.problems["error" if is_error else weight].append(problem)

    def _line_of(self, place: int) -> int:
        # Places come in order, so only the lines since the last one are counted.
        start, lines = self.counted if place >= self.counted[0] else (0, 0)
        self.counted = place, lines + self.text.count("\n", start, place)
        return self.line + self.counted[1]


def split(text: str) -> Iterator[str]:
    """Cut a text before each marker and between JSON objects. The pieces joined are the text."""
    markers = (marker.start() for marker in _MARKER.finditer(text, 1))
    for start, end in pairwise([0, *markers, len(text)]):
        yield from _objects(text[start:end])


def _objects(text: str) -> list[str]:
    """Cut a text between JSON objects that follow one another, as kubectl does."""
    place = _skip(text, _PREAMBLE.match(text).end())  # type: ignore[union-attr]
    whole, cuts = [text] if text else [], [0]
    # Searching is cheaper than decoding.
    if not text.startswith("{", place) or not _BETWEEN.search(text):
        return whole
    try:
        while place < len(text):
            if text[place] != "{":
                return whole
            place = _skip(text, JSON.raw_decode(text, place)[1])
            cuts.append(place)
    except (ValueError, RecursionError):
        return whole
    return [text[a:b] for a, b in pairwise(cuts)]


def items_of_yaml(text: str) -> list[tuple[int, int]] | None:
    """Find the items of a List in YAML, each with its dash; None if the text is not such a List."""
    head = _ITEMS.search(text)
    if head is None or _ALIAS.search(text):
        return None
    first = head.start("indent")
    after = _NEXT_KEY.search(text, first)
    end = after.start() if after else len(text)
    if not (_KIND.search(text, 0, head.start()) or _KIND.search(text, end)):
        return None
    dash = re.compile(rf"^{head['indent']}- ", re.MULTILINE)
    starts = [match.start() for match in dash.finditer(text, first, end)]
    return [*pairwise([*starts, end])]


def items_of_json(text: str) -> list[tuple[int, int]] | None:
    """Find the items of a List in JSON; None if the text is not such a List."""
    head = _JSON_ITEMS.search(text)
    if head is None:
        return None
    found, place = list[tuple[int, int]](), head.end()
    try:
        while not found or text[place] == ",":
            start = _skip(text, place + bool(found))
            stop = JSON.raw_decode(text, start)[1]
            found.append((start, stop))
            place = _skip(text, stop)
        rest = JSON.decode(text[: head.end()] + text[place:])
    except (ValueError, IndexError, RecursionError):
        return None
    return found if rest.get("kind") == "List" and rest.get("items") == [] else None


def _not_yet_yaml(text: str) -> tuple[int, str] | None:
    """The place in a template that shows what it is, with what to do about it; None for others."""
    found = ((pattern.search(text), what) for pattern, what in _NOT_YET_YAML.items())
    return next(((match.start(), what) for match, what in found if match), None)


def _has_null(key: re.Pattern[str], text: str) -> bool:
    """Whether a key has no value, which is null: the next line is not indented more."""
    return any(
        match.start() - text.rfind("\n", 0, match.start()) > len(match["next"] or "")
        and not text[match.start() - 1 : match.start()].isalnum()
        for match in key.finditer(text)
    )


def _skip(text: str, place: int) -> int:
    return _BLANK.match(text, place).end()  # type: ignore[union-attr]


def _spelt(name: str) -> tuple[str, str]:
    """A hint for a name: a slash is "~1" in a JSON Pointer, and Helm's --set escapes dots."""
    pattern = re.escape(name).replace("/", "(?:/|~1)").replace(r"\.", r"\\*\.")
    return re.split(r"[/.]", name)[-1], pattern


def _unescaped(match: re.Match[str]) -> str:
    spelt = match[match.lastindex] if match.lastindex else ""
    # `chr` refuses code points beyond Unicode, which no name has.
    return chr(min(int(spelt, 16), 0x10FFFF)) if len(spelt) > 1 else spelt


def _below(path: Path, operations: list[Operation]) -> list[Operation]:
    """Operations for the object that has theirs at a path."""
    return [{**each, "path": pointer(*path) + each["path"]} for each in operations]


def _manifests(text: str) -> list[Manifest]:
    """The objects in a document's text, or the JSON patch in it; none if it cannot be read."""
    with suppress(BadDocument):
        root, _ = read(text)
        value = root.value if root else None
        if isinstance(value, dict):
            return list(workloads.manifests(value))
        return [patches.of_operations(value)] if isinstance(value, list) else []
    return []


def _amounts(template: Template) -> Iterator[tuple[Path, str, str]]:
    """Yield each resource of each container once: path, resource, container's name."""
    for path, container in workloads.containers(template):
        name, seen = container.get("name"), set[str]()
        for key in ("limits", "requests"):
            amounts = at(container, ("resources", key))
            for resource in amounts if isinstance(amounts, dict) else ():
                if resource not in seen:
                    seen.add(resource)
                    whose = name if isinstance(name, str) else ""
                    yield (*path, "resources", key, resource), resource, whose
