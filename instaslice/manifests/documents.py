"""What `instaslice rewrite` makes of a text: documents, each by itself. No file is read here.

A document in which nothing changes is kept to the byte, one that is wrong is left as it is, and
every limit that is left in either is told of. One that names nothing of interest is not parsed.
"""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from instaslice import node_labels
from instaslice.invalid import InvalidPod, Notice, field_path
from instaslice.manifests import patches, split, workloads
from instaslice.manifests.edit import Edit, Layout, applied, edit, json_layout
from instaslice.manifests.leftovers import Leftover, in_list, is_kustomization, leftovers
from instaslice.manifests.nodes import BadDocument, Node, Part, locate, read
from instaslice.manifests.reverse import reverse
from instaslice.manifests.workloads import Kinds, Manifest, Path, Template, claim_names
from instaslice.patch import Json, Operation, apply, pointer, replace, unescape
from instaslice.profiles import RESOURCE_PREFIX
from instaslice.resource_api import NEWEST, ResourceAPI, template_name
from instaslice.resources import MIG, Resources
from instaslice.rewrite import Rewrite, rewrite
from instaslice.templates import DeviceClaim, is_ours
from instaslice.webhook_configuration import LABEL

#: Documents smaller than this are read whole: then it does not matter, and 2 MB are twice what the
#: API server takes for one object (etcd's limit is 1.5 MiB).
LARGE: Final = 2_000_000
#: The largest text that is read as a whole, in characters: it takes up to 80 times its room.
LARGEST: Final = 16_000_000
TOO_LARGE: Final = (
    f"has more than {LARGEST // 1_000_000} MB and is no List: put its objects into documents of "
    "their own"
)

#: Labels of nodes whose pods are told of.
_NODES: Final = (node_labels.MIG_CONFIG, node_labels.MIG_STRATEGY, node_labels.GKE_PARTITION)
#: What may matter although it names no resource: text in base64, or in a Kustomization, or a patch.
_HINTS: Final = (
    r"\b(?:mig|MIG)-[1-9]",
    *map(re.escape, _NODES),
    r"name(?:Prefix|Suffix):",
    r"""\$patch["']?:""",
    r"""\bresourceClaims["']?:""",
    r"""\b(?:resources|limits|requests)["']?:[ \t]*(?:null|~)(?=[ \t]*(?:[\r\n#,}]|\Z))""",
    "[!:]binary",
)
#: Something of which whatever `_names` finds has. To look for a few words is ten times as fast.
_WORDS: Final = (
    "mig- MIG- mig. binary gke-gpu-partition-size namePrefix nameSuffix $patch resourceClaims null "
    f"~ {LABEL.rpartition('/')[2]}"
).split()

_BUILD: Final = (
    "rewrite what kustomize makes of them (kubectl kustomize ... | instaslice rewrite -)"
)
NO_BASE: Final = f"whose base is not among the files: name both, or {_BUILD}"
SEVERAL: Final = f"and more than one patch or base goes with it: {_BUILD}"
CANNOT: Final = f"of which no other makes the same of its rewritten base: {_BUILD}"
TWICE: Final = "the key {!r} comes again in the same object, and the last one wins, as for kubectl"
SELECTOR: Final = (
    "it asks for nodes with {}, a label of MIG manager or the device plugin, that nobody keeps "
    "right for NVIDIA's DRA driver: then the pod fits no node"
)
SINGLE: Final = "; {0} means a slice there: --resource {0}=mig-{1}"
_ODD: Final = "left as it is: it is not spelt like a MIG profile, as mig-1g.5gb is"
UNNEEDED: Final = "it is needed no more, where every manifest that names it has gone back"
RENAMES: Final = (
    "kustomize renames templates and classes, and not what refers to them: have them in a file "
    "that no Kustomization with a prefix or suffix names (--templates-to FILE)"
)
#: What is told of a document, in this order, and how it is called. Of what renames templates only
#: if there are some.
WEIGHTS: Final = {"error": "", "left": "warning: ", "warning": "warning: ", "note": "note: "}
RENAME: Final = "rename"

#: What Python decodes bytes to that are no UTF-8.
_NOT_UTF8: Final = re.compile("[\udc80-\udcff]")
#: Nothing, or a comment at the end of a file that has no newline there.
_REMARK: Final = re.compile(r"[ \t]*(?:#.*)?\Z")
_RENDER: Final = "looks like {}: render it first ({} | instaslice rewrite -)"
_HELM: Final = (
    r"\{\{-?\s*(?:[.$(\"]|/\*|(?:if|range|with|end|else|include|template|define|toYaml)\b)"
)
_HCL: Final = r"^\s*(?:resource|data|module|provider|variable|locals|terraform)\b[^:\n]*\{\s*$"
#: What becomes YAML only when another program has worked on it, in the order of what is certain.
_NOT_YET_YAML: Final = {
    re.compile(pattern, re.MULTILINE): what
    for pattern, what in (
        (_HELM, _RENDER.format("a Helm template", "helm template ...")),
        (r"\{[{%#].*?[}%#]\}", _RENDER.format("a template of Jinja or Ansible", "...")),
        (_HCL, "looks like Terraform: rewrite the manifests that it applies"),
        (
            r"%\{|\$\{?[A-Za-z_]",
            _RENDER.format("a template of a shell or of Terraform", "envsubst < ..."),
        ),
    )
}
#: Between quotes, other ways to write the characters of a name.
_ESCAPE: Final = re.compile(
    r"\\(?:(?P<slash>/)|\r?\n[ \t]*|x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})"
    r"|U(?P<w>[0-9a-fA-F]{8}))"
)


@dataclass(frozen=True, slots=True)
class Task:
    """What to do to documents."""

    api: ResourceAPI = NEWEST
    resources: Resources = MIG
    kinds: Kinds = field(default_factory=lambda: MappingProxyType({}))
    is_reverse: bool = False
    is_strict: bool = False  #: a limit that is left is an error
    needs_values: bool = False  #: of every document, and not their texts
    needs_operations: bool = True  #: they take more room than a document


class Problem(NamedTuple):
    """Something to tell about a document."""

    line: int  #: in the file, from 1
    path: str  #: "spec.template.spec.containers[0].resources"; empty for the document as a whole
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class Need(NamedTuple):
    """An object that rewritten pods rely on: a ResourceClaimTemplate, or its DeviceClass."""

    namespace: str | None  #: None where the manifest names none
    name: str
    kind: str = "ResourceClaimTemplate"


@dataclass(slots=True)
class Document:
    """One document of a file, before and after."""

    line: int  #: of its first value in the file, from 1
    before: str  #: its text, with the marker and the comments in front of it
    file: str = ""  #: the name of its file
    edits: list[Edit] = field(default_factory=list)  #: what becomes of it
    is_json: bool = False
    is_empty: bool = False  #: it has no value
    changed: bool = False
    value: Any = None  #: what it means, rewritten, as decoded JSON; None where nobody asked
    operations: list[Operation] = field(default_factory=list)  #: RFC 6902, from `before`'s root
    problems: dict[str, list[Problem]] = field(  #: by weight; with an error it is left as it is
        default_factory=lambda: {weight: [] for weight in (*WEIGHTS, RENAME)}
    )
    needs: dict[Need, None] = field(default_factory=dict)  #: that its pods, rewritten, refer to
    has: dict[Need, None] = field(default_factory=dict)  #: that it defines itself
    claims: dict[str, DeviceClaim] = field(default_factory=dict)  #: new ones, by template
    patches: list["Patch"] = field(default_factory=list)  #: that wait for their bases

    @property
    def after(self) -> str:
        """Its text rewritten; `before` where nothing changes."""
        return applied(self.before, self.edits)

    @property
    def errors(self) -> list[Problem]:
        """Why it is left as it is."""
        return self.problems["error"]


class Patch(NamedTuple):
    """A strategic-merge patch that is, or stands in, a document."""

    work: "_Work"
    manifest: Manifest
    path: Path = ()  #: of the text that it is in, in a Kustomization
    text: str = ""


class Rewriter:
    """Rewrites texts one after the other, and remembers what they say of namespaces."""

    def __init__(self, task: Task, large: int = LARGE) -> None:
        """large: documents of so many characters are read item by item."""
        self.task, self.large = task, large
        self.disabled: set[str] = set()  #: namespaces that are labelled so
        self.builds = patches.Builds()
        mapped = task.resources.mapped.items()
        names = [text for name, found in mapped for text in (name, found.template)]
        self._names = _names(names)
        self._words = {*_WORDS, *(re.split(r"[/.]", name)[-1] for name in names)}

    def note_kustomization(self, name: str, data: bytes) -> None:
        """Learn which files are patches from a file that may be a Kustomization."""
        if os.path.basename(name) in ("kustomization.yaml", "kustomization.yml", "Kustomization"):
            for manifest in _manifests(data.decode(errors="replace")):
                self.builds.note(name, manifest.value)

    def each(self, data: bytes, name: str = "") -> Iterator[Document]:
        """The documents of a file."""
        text, done, line = data.decode(errors="surrogateescape"), 0, 1
        for part in split.documents(text):
            if bad := _NOT_UTF8.search(part) if not part.isascii() else None:
                place = len(text[: done + bad.start()].encode(errors="surrogateescape"))
                document = Document(line, "")
                document.errors.append(Problem(line, "", f"is not UTF-8 at byte {place}"))
                yield document
            else:
                yield self.rewrite(part, line, name)
            line += part.count("\n")
            done += len(part)

    def resolve(self, documents: Iterable[Document]) -> None:
        """Rewrite the patches among documents, or tell why they are left as they are."""
        documents = list(documents)
        waiting = [patch for document in documents for patch in document.patches]
        for patch in waiting:
            whose = patch.manifest.identity
            same = [each for each in waiting if each.manifest.identity == whose]
            bases = [
                manifest
                for document in documents
                if not document.errors and patch.manifest.name in document.before
                if not any(each.work.document is document for each in same)
                for manifest in _manifests(document.before)
                if manifest.identity == whose
            ]
            file = patch.work.document.file
            others = [each.work.document.file for each in same if each is not patch]
            is_one = len(bases) == 1 and not self.builds.has_another(file, others)
            why = "" if is_one else SEVERAL if bases else NO_BASE
            patch.work.settle(patch, bases, why)
            self._judge(patch.work.document, patch.work.text)

    def rewrite(self, text: str, line: int = 1, file: str = "") -> Document:
        """Rewrite every pod and pod template in a document; what is wrong is in its `errors`.

        text: YAML or JSON, with what stands before it. line: its first in the file, from 1.
        """
        preamble = split.PREAMBLE.match(text)
        assert preamble is not None  # it matches the empty string
        document = Document(line + preamble.group().count("\n"), text, file)
        body = text[preamble.end() :]
        if _REMARK.fullmatch(body):
            document.is_empty = True
        elif self.task.needs_values or self.needs_look(body):
            try:
                self._read(document, body, preamble.end())
            except BadDocument as bad:
                document.errors.append(Problem(document.line + bad.line, "", str(bad)))
            self._judge(document, body)
        return document

    def _read(self, document: Document, body: str, start: int) -> None:
        """Rewrite a document's text, as a whole or item by item. Raises BadDocument."""
        items: list[tuple[int, int]] | None = None
        if len(body) > self.large and not self.task.needs_values:
            items = split.items_of_json(body) if body.lstrip().startswith("{") else None
            document.is_json = items is not None
            items = items or split.items(body)
        if items is None:
            _Work(self, document, body, start, document.line).run()
            return
        layout = json_layout(body[: items[0][1]]) if document.is_json else None
        line, done = document.line, 0
        for index, (first, last) in enumerate(items):
            line += body.count("\n", done, first)
            done = first
            item = body[first:last]
            if self.needs_look(item):
                work = _Work(self, document, item, start + first, line, ("items", index), layout)
                try:
                    work.run()
                except BadDocument as bad:
                    raise BadDocument(str(bad), line - document.line + bad.line) from None

    def needs_look(self, text: str) -> bool:
        """Whether a document names anything that matters here."""
        if any(word in text for word in self._words) and self._names.search(text):
            return True
        return "\\" in text and bool(self._names.search(_ESCAPE.sub(_unescaped, text)))

    def _judge(self, document: Document, body: str) -> None:
        """Make of errors, and of limits that are left, what was asked for."""
        if self.task.is_strict:
            document.errors.extend(document.problems["left"])
            document.problems["left"] = []
        if document.errors:
            document.edits, document.value, document.operations = [], None, []
            document.needs, document.has, document.claims = {}, {}, {}
            document.changed = False
            for pattern, what in _NOT_YET_YAML.items():
                if found := pattern.search(body):
                    line = document.line + body.count("\n", 0, found.start())
                    document.problems["error"] = [Problem(line, "", what)]
                    break


@dataclass(slots=True)
class _Work:
    """A text that is a document, or one item of a List, and what is found in it."""

    rewriter: Rewriter
    document: Document
    text: str
    start: int  #: where it begins in the document,
    line: int  #: and on which line of the file
    prefix: Path = ()  #: the path of an item
    layout: Layout | None = None  #: of the List that it is an item of, where that is JSON
    inner: Path = ()  #: an item of YAML comes with its dash, as a list of one
    root: Node = field(default_factory=lambda: Node(0, 0, None))
    counted: tuple[int, int] = (0, 0)  #: a place, and the lines before it: places come in order

    def run(self) -> None:
        """Raises BadDocument."""
        document, task = self.document, self.rewriter.task
        if len(self.text) > LARGEST:
            raise BadDocument(TOO_LARGE)
        dead: list[Part] = []
        root, is_json = read(self.text, dead)
        if root is None:
            document.is_empty = True
            return
        self.root = root
        document.is_json = document.is_json or is_json
        if self.prefix and not self.layout:
            self.inner = (0,)
        elif is_json and not self.layout:
            self.layout = json_layout(self.text)
        for part in dead:
            self._add("warning", self._line_of(part.start), "", TWICE.format(part.key))
        value = root.value[0] if self.inner else root.value
        listed = in_list(value, task.resources)
        if listed is not None:
            self._tell_left(listed)
        elif not isinstance(value, dict):
            raise BadDocument("is not an object, as every manifest is")
        else:
            value = self._object(value)
        document.value = value if task.needs_values else None

    def _object(self, value: Json) -> Json:
        """What becomes of an object; its text is edited. Raises BadDocument."""
        document, task = self.document, self.rewriter.task
        operations = [o for each in workloads.manifests(value) for o in self._manifest(each)]
        if operations and not document.errors:
            document.changed, value = True, apply(value, operations)
            if task.needs_operations:
                head = pointer(*self.prefix)
                document.operations += [{**o, "path": head + o["path"]} for o in operations]
            try:
                self._edit([value] if self.inner else value)
            except BadDocument:
                if not task.needs_values:
                    raise
        for manifest in workloads.manifests(value):
            self._refers(manifest)
            for key in ("namePrefix", "nameSuffix") if is_kustomization(manifest) else ():
                if value.get(key):
                    self.tell((key,), RENAMES, RENAME)
        return value

    def _edit(self, meaning: Any) -> None:
        edits = edit(self.text, self.root, meaning, self.layout)
        self.document.edits += [Edit(a + self.start, b + self.start, new) for a, b, new in edits]

    def _manifest(self, manifest: Manifest) -> list[Operation]:
        """What rewrites the pod templates of a manifest; tells of what is left in it."""
        document, task = self.document, self.rewriter.task
        disabled = self.rewriter.disabled
        handled: set[Path] = set()
        operations: list[Operation] = []
        if workloads.is_disabled_namespace(manifest):
            disabled.add(manifest.name)
        if not task.is_reverse and not self.prefix:
            if patches.is_patch(manifest, self.rewriter.builds.is_patch(document.file)):
                self._wait(Patch(self, manifest))
                return []
            if is_kustomization(manifest):
                handled.update(self._inline(manifest))
        for template in workloads.templates(manifest, task.kinds):
            handled.update((*path, "resources") for path, _ in workloads.containers(template))
            why = workloads.why_skipped(manifest, template, disabled)
            try:
                result = self._result(manifest, template)
            except InvalidPod as invalid:
                for error in invalid.errors if not why else ():
                    self.tell(template.place(error.path), error.message, "error")
                continue
            if why:
                if result.operations:
                    self.tell(template.place(()), f"left as it is: it {why}", "note")
                continue
            self._warn(template, result.notices)
            if not task.is_reverse:
                self._warn_of_nodes(template, bool(result.operations))
            document.claims |= {claim.template: claim for claim in result.claims}
            operations += _of_template(template, result.operations)
        if not task.is_reverse:
            self._tell_left(leftovers(manifest, handled, task.kinds, task.resources))
        return operations

    def _inline(self, manifest: Manifest) -> Iterator[Path]:
        """Have the patches in a Kustomization wait, too; yields where those are that matter."""
        for path, text in patches.inline(manifest.value):
            for each in _manifests(text):
                if self._wait(Patch(self, each, path, text)):
                    yield path

    def _wait(self, patch: Patch) -> bool:
        """Have a patch wait for its base; whether it matters."""
        matters = patches.concerns(patch.manifest, self.rewriter.task.resources)
        if matters:
            self.document.patches.append(patch)
        return matters

    def settle(self, patch: Patch, bases: list[Manifest], why: str) -> None:
        """Rewrite a patch for its base, or tell why it is left."""
        manifest, task = patch.manifest, self.rewriter.task
        try:
            if why:
                raise BadDocument(why)
            new = patches.rewritten(bases[0], manifest, self._whole)
            if new is None or self.prefix or manifest.path:
                raise BadDocument(CANNOT)
            self._refers(manifest._replace(value=new))
            if new == manifest.value:
                return
            if patch.path:
                self._edit_inner(patch, new)
            else:
                self._edit(new)
                self.document.operations = [replace("", new)] if task.needs_operations else []
                self.document.value = new if task.needs_values else None
            self.document.changed = True
        except (BadDocument, InvalidPod) as bad:
            why = str(bad) if isinstance(bad, BadDocument) else CANNOT
            found = leftovers(manifest, set(), task.kinds, task.resources)
            path = patch.path or next((each.path for each in found), patches.spec_of(manifest))
            self.tell(path, f"left as it is: it is a patch, {why}", "left")

    def _whole(self, manifest: Manifest) -> Json:
        """What becomes of an object. Raises InvalidPod."""
        value = manifest.value
        for template in workloads.templates(manifest, self.rewriter.task.kinds):
            if not workloads.why_skipped(manifest, template, self.rewriter.disabled):
                result = self._result(manifest, template)
                self.document.claims |= {claim.template: claim for claim in result.claims}
                place = template.path[len(manifest.path) :]
                value = workloads.put(value, place, apply(template.pod, result.operations))
        return value

    def _edit_inner(self, patch: Patch, new: Json) -> None:
        """Have a patch that stands in a block of text mean something else. Raises BadDocument."""
        inner, is_json = read(patch.text)
        _, node = locate(self.root, patch.path)
        start = self.text.find("\n", node.start) + 1
        old = self.text[start : node.end]
        margin = re.match(r"[ ]*", old).group()  # type: ignore[union-attr]
        body = re.sub(rf"^{margin}", "", old, flags=re.MULTILINE)
        if is_json or inner is None or body.rstrip() != patch.text.rstrip():
            raise BadDocument(CANNOT)
        text = applied(body, edit(body, inner, new))
        text = re.sub(r"^(?=[^\n])", margin, text, flags=re.MULTILINE)
        if read(applied(self.text, [Edit(start, node.end, text)]))[0] is None:
            raise BadDocument(CANNOT)
        made = Edit(start + self.start, node.end + self.start, text)
        self.document.edits = sorted([*self.document.edits, made])

    def _result(self, manifest: Manifest, template: Template) -> Rewrite:
        task = self.rewriter.task
        if task.is_reverse:
            return reverse(template.pod, task.resources)
        names = claim_names(manifest, template.path)
        return rewrite(template.pod, task.api, task.resources, names)

    def _refers(self, manifest: Manifest) -> None:
        """Note the templates that a manifest's pods refer to, and the one that it is."""
        namespace, task = manifest.namespace, self.rewriter.task
        for template in workloads.templates(manifest, task.kinds):
            claims = template.pod["spec"].get("resourceClaims")
            for claim in claims if isinstance(claims, list) else ():
                name = template_name(claim)
                if isinstance(name, str) and is_ours(name, task.resources):
                    self.document.needs[Need(namespace, name)] = None
        if manifest.kind == "ResourceClaimTemplate" and is_ours(manifest.name, task.resources):
            self.document.has[Need(namespace, manifest.name)] = None
            if task.is_reverse:
                self.tell(manifest.path, UNNEEDED, "note")
        elif manifest.kind == "DeviceClass":
            self.document.has[Need(None, manifest.name, manifest.kind)] = None

    def _warn(self, template: Template, notices: Iterable[Notice]) -> None:
        """Tell of notices where they belong: at each amount of the resource they are about."""
        amounts, resources = list(_amounts(template)), self.rewriter.task.resources
        for path, resource, container in amounts:
            # The core tells of a few of them, by name only.
            if resource.startswith(RESOURCE_PREFIX) and not resources.find(resource):
                self.tell(path, _ODD, "left", container)
        for notice in notices:
            places = [each for each in amounts if each[1] == notice.about]
            for path, _, container in places:
                self.tell(path, notice.text, "warning", container)
            if not places:
                self.tell(template.place(()), str(notice), "warning")

    def _warn_of_nodes(self, template: Template, is_rewritten: bool) -> None:
        """Tell of what keeps a pod from the nodes that it is for."""
        spec = template.pod["spec"]
        if spec.get("nodeName") and (is_rewritten or spec.get("resourceClaims")):
            text = f"{node_labels.PAST_SCHEDULER}; {node_labels.NODE_SELECTOR}"
            self.tell(template.place(("spec", "nodeName")), text, "warning")
        name = "nvidia.com/gpu"
        for each in node_labels.selected(spec):
            is_single = each.single and name not in self.rewriter.task.resources.mapped
            text = SELECTOR.format(each) + (SINGLE.format(name, each.single) if is_single else "")
            place = template.place(("spec", *each.path.split("."), each.label))
            self.tell(place, text, "warning")

    def _tell_left(self, found: Iterable[Leftover]) -> None:
        for each in found:
            self.tell(each.path, each.reason, each.weight, each.container, each.line)

    def tell(
        self,
        path: Path,
        message: str,
        weight: str,
        container: str = "",
        text_line: int | None = None,
    ) -> None:
        """Have something told of a path. text_line: of the text there, from 0."""
        start, _ = locate(self.root, (*self.inner, *path))
        line = self._line_of(start)
        if text_line is not None:
            head = self.text[start : self.text.find("\n", start)]
            # A block of text begins below its header; how other text is laid out does not show.
            if re.search(r"[|>][-+0-9]*[ \t\r]*(?:#.*)?$", head):
                line += text_line + 1
        who = f"container {container}: " if container else ""
        self._add(weight, line, field_path(*self.prefix, *path), who + message)

    def _add(self, weight: str, line: int, path: str, message: str) -> None:
        self.document.problems[weight].append(Problem(line, path, message))

    def _line_of(self, place: int) -> int:
        start, lines = self.counted if place >= self.counted[0] else (0, 0)
        self.counted = place, lines + self.text.count("\n", start, place)
        return self.line + self.counted[1]


def _names(mapped: Iterable[str]) -> re.Pattern[str]:
    """What a document that matters has in it: a resource, a template, or the label; or a hint.

    mapped: names of resources, and of their templates.
    """
    texts = sorted({RESOURCE_PREFIX, LABEL, *mapped})
    # In a JSON Pointer a slash is "~1", and Helm's --set has backslashes before its dots.
    spelt = [re.escape(text).replace("/", "(?:/|~1)").replace(r"\.", r"\\*\.") for text in texts]
    return re.compile("|".join([*spelt, *_HINTS]))


def _unescaped(match: re.Match[str]) -> str:
    if match["slash"]:
        return "/"
    digits = match["x"] or match["u"] or match["w"]
    # No name has a character beyond Unicode's.
    return chr(min(int(digits, 16), 0x10FFFF)) if digits else ""


def _manifests(text: str) -> list[Manifest]:
    """The objects in a document's text; none where it cannot be read."""
    with suppress(BadDocument):
        root, _ = read(text)
        if root and isinstance(root.value, dict):
            return list(workloads.manifests(root.value))
    return []


def _of_template(template: Template, operations: Iterable[Operation]) -> list[Operation]:
    """Operations on a pod, as they are on the document that has it as a template."""
    found = []
    for each in operations:
        steps = tuple(int(s) if s.isdecimal() else unescape(s) for s in each["path"].split("/")[1:])
        found.append({**each, "path": pointer(*template.place(steps))})
    return found


def _amounts(template: Template) -> Iterator[tuple[Path, str, str]]:
    """The resources in limits, and those in requests alone: path, resource, container's name."""
    for path, container in workloads.containers(template):
        name, resources = container.get("name"), container.get("resources")
        seen: set[str] = set()
        for key in ("limits", "requests"):
            amounts = resources.get(key) if isinstance(resources, dict) else None
            for resource in amounts if isinstance(amounts, dict) else ():
                if resource not in seen:
                    seen.add(resource)
                    whose = name if isinstance(name, str) else ""
                    yield (*path, "resources", key, resource), resource, whose
