"""What `instaslice rewrite` makes of a text: documents, each by itself. No file is read here.

A document in which nothing changes is kept to the byte, one that is wrong is left as it is, and
every limit that is left in either is told of. One that names nothing of interest is not parsed.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from instaslice import node_labels
from instaslice.invalid import InvalidPod, Notice, field_path
from instaslice.manifests import patches, split, workloads
from instaslice.manifests.edit import Edit, Layout, applied, edit, json_layout
from instaslice.manifests.leftovers import (
    Leftover,
    in_patch,
    in_playbook,
    is_kustomization,
    is_patch,
    is_playbook,
    leftovers,
)
from instaslice.manifests.nodes import BadDocument, Node, Part, locate, read
from instaslice.manifests.reverse import reverse
from instaslice.manifests.workloads import LABEL, Kinds, Manifest, Path, Template, claim_names
from instaslice.patch import Json, Operation, apply, pointer, replace, unescape
from instaslice.profiles import RESOURCE_PREFIX
from instaslice.resource_api import NEWEST, ResourceAPI, template_name
from instaslice.resources import MIG, Resources
from instaslice.rewrite import Rewrite, rewrite
from instaslice.templates import DeviceClaim, is_ours

#: Documents smaller than this are read whole: then it does not matter, and 2 MB are twice what the
#: API server takes for one object (etcd's limit is 1.5 MiB).
LARGE: Final = 2_000_000
#: The largest text that is read as a whole, in characters: it takes up to 60 times its room.
LARGEST: Final = 16_000_000
TOO_LARGE: Final = (
    f"has more than {LARGEST // 1_000_000} MB and is no List: put its objects into documents of "
    "their own"
)

#: What may matter although it names no resource: in a Kustomization, or a patch.
_HINTS: Final = (
    r"name(?:Prefix|Suffix):",
    r"""\$patch["']?:""",
    r"""\bresourceClaims["']?:""",
    r"""\b(?:resources|limits|requests)["']?:[ \t]*(?:null|~)(?=[ \t]*(?:[\r\n#,}]|\Z))""",
)
#: Something of which whatever `_names` finds has.
_HINTS_IN_TEXT: Final = {
    *(
        "mig-",
        "MIG-",
        "binary",
        LABEL.rpartition("/")[2],
        "mig.",
        "gke-gpu-partition-size",
        "namePrefix",
        "nameSuffix",
    ),
    *("$patch", "resourceClaims", "null", "~"),
}
NO_BASE: Final = (
    "whose base is not among the files: name both, or rewrite what kustomize makes of them "
    "(kubectl kustomize ... | instaslice rewrite -)"
)
SEVERAL: Final = (
    "and more than one patch or base goes with it: rewrite what kustomize makes of them "
    "(kubectl kustomize ... | instaslice rewrite -)"
)
CANNOT: Final = (
    "of which no other makes the same of its rewritten base: rewrite what kustomize makes of them "
    "(kubectl kustomize ... | instaslice rewrite -)"
)
TWICE: Final = "the key {!r} comes again in the same object, and the last one wins, as for kubectl"
SELECTOR: Final = (
    "it asks for nodes with {}, a label of MIG manager or the device plugin, that nobody keeps "
    "right for NVIDIA's DRA driver: then the pod fits no node"
)
#: Labels of nodes whose pods are told of.
_NODES: Final = (node_labels.MIG_CONFIG, node_labels.MIG_STRATEGY, node_labels.GKE_PARTITION)
#: What Python decodes bytes to that are no UTF-8.
_NOT_UTF8: Final = re.compile("[\udc80-\udcff]")
#: Nothing, or a comment at the end of a file that has no newline there.
_REMARK: Final = re.compile(r"[ \t]*(?:#.*)?\Z")
#: Where one object of JSON may end and another begin.
_BETWEEN: Final = re.compile(r"\}[ \t\r\n]*\{")
_RENDER: Final = "looks like {}: render it first ({} | instaslice rewrite -)"
#: What becomes YAML only when another program has worked on it, in the order of what is certain.
_NOT_YET_YAML: Final = (
    (
        re.compile(
            r"\{\{-?\s*(?:[.$(\"]|/\*|(?:if|range|with|end|else|include|template|define|toYaml)\b)"
        ),
        _RENDER.format("a Helm template", "helm template ..."),
    ),
    (
        re.compile(r"\{[{%#].*?[}%#]\}"),
        _RENDER.format("a template of Jinja or Ansible", "..."),
    ),
    (
        re.compile(
            r"^\s*(?:resource|data|module|provider|variable|locals|terraform)\b[^:\n]*\{\s*$", re.M
        ),
        "looks like Terraform: rewrite the manifests that it applies",
    ),
    (
        re.compile(r"%\{|\$\{?[A-Za-z_]"),
        _RENDER.format("a template of a shell or of Terraform", "envsubst < ..."),
    ),
)
#: Between quotes, other ways to write the characters of a name.
_ESCAPE: Final = re.compile(
    r"\\(?:(?P<slash>/)|\r?\n[ \t]*|x(?P<x>[0-9a-fA-F]{2})|u(?P<u>[0-9a-fA-F]{4})"
    r"|U(?P<w>[0-9a-fA-F]{8}))"
)
#: A member or an index of a path such as `spec.containers[0].resources.limits[nvidia.com/mig-x]`.
_ODD: Final = "left as it is: it is not spelt like a MIG profile, as mig-1g.5gb is"


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
    edits: list[Edit] = field(default_factory=list)  #: what becomes of it
    is_json: bool = False
    is_empty: bool = False  #: it has no value
    changed: bool = False
    value: Any = None  #: what it means, rewritten, as decoded JSON; None where nobody asked
    operations: list[Operation] = field(default_factory=list)  #: RFC 6902, from `before`'s root
    errors: list[Problem] = field(default_factory=list)  #: why it is left as it is
    left: list[Problem] = field(default_factory=list)  #: limits that are left in it
    warnings: list[Problem] = field(default_factory=list)  #: anything else
    notes: list[Problem] = field(default_factory=list)  #: what is left alone on purpose
    needs: dict[Need, None] = field(default_factory=dict)  #: that its pods, rewritten, refer to
    has: dict[Need, None] = field(default_factory=dict)  #: that it defines itself
    claims: dict[str, DeviceClaim] = field(default_factory=dict)  #: new ones, by template
    patches: list["Patch"] = field(default_factory=list)  #: that wait for their bases
    renames: list[tuple[int, str]] = field(default_factory=list)  #: lines of a Kustomization's keys

    @property
    def after(self) -> str:
        """Its text rewritten; `before` where nothing changes."""
        return applied(self.before, self.edits)


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
        #: The folders of Kustomizations that name a patch's file, and the folders that one names.
        self.patch_files: dict[str, set[str]] = {}
        self.includes: dict[str, set[str]] = {}
        self.is_patch_file, self.name = False, ""
        self._names = _names(task.resources)
        mapped = task.resources.mapped.items()
        names = [text for name, found in mapped for text in (name, found.template)]
        self._hints = {*_HINTS_IN_TEXT, *(re.split(r"[/.]", name)[-1] for name in names)}

    def note_kustomization(self, name: str, data: bytes) -> None:
        """Learn which files are patches from a file that may be a Kustomization."""
        if os.path.basename(name) in ("kustomization.yaml", "kustomization.yml", "Kustomization"):
            with suppress(BadDocument, UnicodeDecodeError):
                root, _ = read(data.decode())
                if root and isinstance(root.value, dict):
                    folder = os.path.normpath(os.path.dirname(name))
                    for path in patches.files_of(root.value, folder):
                        self.patch_files.setdefault(path, set()).add(folder)
                    self.includes[folder] = set(patches.folders_of(root.value, folder))

    def each(self, data: bytes, name: str = "") -> Iterator[Document]:
        """The documents of a file."""
        self.name, self.is_patch_file = name, os.path.normpath(name) in self.patch_files
        text, done = data.decode(errors="surrogateescape"), 0
        line = 1
        for part in split.documents(text):
            if bad := _NOT_UTF8.search(part) if not part.isascii() else None:
                place = len(text[: done + bad.start()].encode(errors="surrogateescape"))
                document = Document(line, "")
                document.errors.append(Problem(line, "", f"is not UTF-8 at byte {place}"))
                yield document
            else:
                yield self.rewrite(part, line)
            line += part.count("\n")
            done += len(part)

    def resolve(self, documents: Iterable[Document]) -> None:
        """Rewrite the patches among documents, or tell why they are left as they are."""
        documents = list(documents)
        waiting = [patch for document in documents for patch in document.patches]
        whose: Counter[tuple[str, str, str]] = Counter(_id(patch.manifest) for patch in waiting)
        for patch in waiting:
            found = [
                pair
                for document in documents
                if patch.manifest.name in document.before and not document.errors
                for pair in self._bases(document, patch)
            ]
            why = NO_BASE if not found else SEVERAL if len(found) > 1 else ""
            if not why and whose[_id(patch.manifest)] > 1 and self._is_chain(patch, waiting):
                why = SEVERAL
            patch.work.settle(patch, None if why else found[0], why)
            self._judge(patch.work.document, patch.work.text)

    def _bases(self, document: Document, patch: Patch) -> Iterator[tuple[Manifest, Json]]:
        """The objects of a document that a patch is for, before and after."""
        if any(_id(each.manifest) == _id(patch.manifest) for each in document.patches):
            return
        with suppress(BadDocument):
            before, _ = read(document.before)
            after, _ = read(document.after) if document.changed else (before, False)
            if before and after and isinstance(before.value, dict):
                for manifest in workloads.manifests(before.value):
                    if _id(manifest) == _id(patch.manifest):
                        yield manifest, workloads.at(after.value, manifest.path)

    def _is_chain(self, patch: Patch, waiting: list[Patch]) -> bool:
        """Whether one build may have another patch of the same object, too."""

        def reached(each: Patch) -> set[str]:
            found = list(self._named(each))
            for folder in found:
                found += [more for more in self.includes.get(folder, ()) if more not in found]
            return set(found)

        others = (each for each in waiting if each is not patch)
        mine = reached(patch)
        same = (each for each in others if _id(each.manifest) == _id(patch.manifest))
        named = self._named(patch)
        return any(mine & reached(each) & (named | self._named(each)) for each in same)

    def _named(self, patch: Patch) -> set[str]:
        """The folders of the Kustomizations that name a patch."""
        name = os.path.normpath(patch.work.name)
        return self.patch_files.get(name, {os.path.dirname(name) or "."})

    def rewrite(self, text: str, line: int = 1) -> Document:
        """Rewrite every pod and pod template in a document; what is wrong is in its `errors`.

        text: YAML or JSON, with what stands before it. line: its first in the file, from 1.
        """
        preamble = split.PREAMBLE.match(text)
        assert preamble is not None  # it matches the empty string
        document = Document(line + preamble.group().count("\n"), text)
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
            _Work(self, document, body, start).run()
            return
        layout = json_layout(body[: items[0][1]]) if document.is_json else None
        line, done = 0, 0
        for index, (first, last) in enumerate(items):
            line += body.count("\n", done, first)
            done = first
            item = body[first:last]
            if self.needs_look(item):
                work = _Work(self, document, item, start + first, ("items", index), layout, line)
                try:
                    work.run()
                except BadDocument as bad:
                    raise BadDocument(str(bad), line + bad.line) from None

    def needs_look(self, text: str) -> bool:
        """Whether a document names anything that matters here."""
        # To look for a few words is ten times as fast as the whole expression.
        if any(hint in text for hint in self._hints) and self._names.search(text):
            return True
        return "\\" in text and bool(self._names.search(_ESCAPE.sub(_unescaped, text)))

    def _judge(self, document: Document, body: str) -> None:
        """Make of errors, and of limits that are left, what was asked for."""
        if self.task.is_strict:
            document.errors += document.left
            document.left = []
        if document.errors:
            document.edits, document.value, document.operations = [], None, []
            document.needs, document.has, document.claims = {}, {}, {}
            document.changed = False
            for pattern, what in _NOT_YET_YAML:
                if found := pattern.search(body):
                    line = document.line + body.count("\n", 0, found.start())
                    document.errors = [Problem(line, "", what)]
                    break


class _Work:
    """A text that is a document, or one item of a List, and what is found in it."""

    def __init__(
        self,
        rewriter: Rewriter,
        document: Document,
        text: str,
        start: int,
        prefix: Path = (),
        layout: Layout | None = None,
        line: int = 0,
    ) -> None:
        """start, line: where the text begins in the document. prefix: the item's path.

        layout: that of the List, where it is JSON.
        """
        self.task, self.disabled = rewriter.task, rewriter.disabled
        self.name, self.is_patch_file = rewriter.name, rewriter.is_patch_file
        self.document, self.text, self.start, self.prefix = document, text, start, prefix
        self.layout, self.line = layout, document.line + line
        #: An item of YAML comes with its dash, as a list of one.
        self.inner: Path = (0,) if prefix and not layout else ()
        self.root = Node(0, 0, None)
        self.counted = (0, 0)  #: a place, and the lines before it: problems come in order, mostly

    def run(self) -> None:
        """Raises BadDocument."""
        document, task = self.document, self.task
        if len(self.text) > LARGEST:
            raise BadDocument(TOO_LARGE)
        dead: list[Part] = []
        root, is_json = read(self.text, dead)
        if root is None:
            document.is_empty = True
            return
        self.root = root
        document.is_json = document.is_json or is_json
        if is_json and not self.layout:
            self.layout = json_layout(self.text)
        for part in dead:
            line = self.line + self._lines_before(part.start)
            document.warnings.append(Problem(line, "", TWICE.format(part.key)))
        value = root.value[0] if self.inner else root.value
        if is_patch(value) or is_playbook(value):
            tell = in_patch if is_patch(value) else in_playbook
            self._tell_left(tell(value, task.resources))
            document.value = value if task.needs_values else None
            return
        if not isinstance(value, dict):
            raise BadDocument("is not an object, as every manifest is")
        operations = [o for each in workloads.manifests(value) for o in self._manifest(each)]
        if operations and not document.errors:
            value = self._change(value, operations)
        for manifest in workloads.manifests(value):
            self._refers(manifest)
            for key in ("namePrefix", "nameSuffix") if is_kustomization(manifest) else ():
                if value.get(key):
                    document.renames.append((self._problem((key,), "").line, key))
        document.value = value if task.needs_values else None

    def _change(self, value: Any, operations: list[Operation]) -> Any:
        """What operations make of the value; its text is edited. Raises BadDocument."""
        document, task = self.document, self.task
        document.changed, value = True, apply(value, operations)
        if task.needs_operations:
            document.operations += _below(pointer(*self.prefix), operations)
        try:
            edits = edit(self.text, self.root, [value] if self.inner else value, self.layout)
            document.edits += [Edit(a + self.start, b + self.start, new) for a, b, new in edits]
        except BadDocument:
            if not task.needs_values:
                raise
        return value

    def _manifest(self, manifest: Manifest) -> list[Operation]:
        """What rewrites the pod templates of a manifest; tells of what is left in it."""
        document, task = self.document, self.task
        handled: set[Path] = set()
        operations: list[Operation] = []
        if workloads.is_disabled_namespace(manifest):
            self.disabled.add(manifest.name)
        place = workloads.BUILT_IN.get((manifest.group or "", manifest.kind))
        is_patch = not self.prefix and (
            place is not None
            and manifest.group is not None
            and (self.is_patch_file or patches.looks_like_one(manifest))
        )
        if is_patch and not task.is_reverse:
            spec = workloads.at(manifest.value, (*(place or ()), "spec"))
            if patches.concerns(spec, task.resources):
                document.patches.append(Patch(self, manifest))
            return []
        if is_kustomization(manifest) and not task.is_reverse:
            handled.update(self._inline(manifest))
        for template in workloads.templates(manifest, task.kinds):
            handled.update((*path, "resources") for path, _ in workloads.containers(template))
            why = workloads.why_skipped(manifest, template, self.disabled)
            try:
                result = self._result(manifest, template)
            except InvalidPod as invalid:
                if not why:
                    errors = (self._at(template, e.path, e.message) for e in invalid.errors)
                    document.errors += errors
                continue
            if why:
                if result.operations:
                    document.notes.append(self._at(template, (), f"left as it is: it {why}"))
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
        """Note the patches that stand in a Kustomization; yields where those are."""
        for path, text in patches.inline(manifest.value):
            with suppress(BadDocument):
                root, _ = read(text)
                if not (root and isinstance(root.value, dict)):
                    continue
                for each in workloads.manifests(root.value):
                    place = workloads.BUILT_IN.get((each.group or "", each.kind))
                    spec = workloads.at(each.value, (*(place or ()), "spec"))
                    if place is not None and patches.concerns(spec, self.task.resources):
                        self.document.patches.append(Patch(self, each, path, text))
                        yield path

    def settle(self, patch: Patch, base: tuple[Manifest, Json] | None, why: str) -> None:
        """Rewrite a patch for its base, or tell why it is left."""
        manifest, document = patch.manifest, self.document
        place = workloads.BUILT_IN[manifest.group or "", manifest.kind]
        try:
            if base is None:
                raise BadDocument(why)
            new = self._rewritten(base, manifest, place)
            if new == manifest.value:
                return
            if patch.path:
                self._inner(patch, new)
            else:
                self.put_value(new)
            document.changed = True
        except (BadDocument, InvalidPod) as bad:
            why = str(bad) if isinstance(bad, BadDocument) else CANNOT
            found = leftovers(manifest, set(), self.task.kinds, self.task.resources)
            paths = [each.path for each in found] or [(*place, "spec")]
            if patch.path:
                paths = [patch.path]
            document.left.append(self._problem(paths[0], f"left as it is: it is a patch, {why}"))

    def _rewritten(self, base: tuple[Manifest, Json], manifest: Manifest, place: Path) -> Json:
        """What becomes of a patch. Raises BadDocument, InvalidPod."""
        before, after = base

        def whole(value: Json) -> Json:
            of = before._replace(value=value)
            for template in workloads.templates(of, self.task.kinds):
                result = self._result(of, template)
                self.document.claims |= {claim.template: claim for claim in result.claims}
                value = workloads.put(
                    value, template.path[len(before.path) :], apply(template.pod, result.operations)
                )
            return value

        new = patches.rewritten(before.value, after, manifest.value, place, whole)
        if new is None:
            raise BadDocument(CANNOT)
        self._refers(manifest._replace(value=new))
        return new

    def _inner(self, patch: Patch, new: Json) -> None:
        """Have a patch that stands in a block of text mean something else. Raises BadDocument."""
        inner, is_json = read(patch.text)
        node = self.root
        for step in patch.path:
            key = step if isinstance(step, int) else None
            part = node.parts[key] if key is not None else node.own().get(str(step))
            if part is None:
                raise BadDocument(CANNOT)
            node = part.node
        start = self.text.find("\n", node.start) + 1
        old = self.text[start : node.end]
        margin = re.match(r"[ ]*", old).group()  # type: ignore[union-attr]
        body = re.sub(rf"^{margin}", "", old, flags=re.MULTILINE)
        if self.prefix or is_json or inner is None or body.rstrip() != patch.text.rstrip():
            raise BadDocument(CANNOT)
        text = applied(body, edit(body, inner, new))
        text = re.sub(r"^(?=[^\n])", margin, text, flags=re.MULTILINE)
        made = Edit(start + self.start, node.end + self.start, text)
        if read(applied(self.text, [Edit(start, node.end, text)]))[0] is None:
            raise BadDocument(CANNOT)
        self.document.edits = sorted([*self.document.edits, made])

    def put_value(self, value: Any) -> None:
        """Have the document mean something else. Raises BadDocument."""
        if self.prefix:
            raise BadDocument(CANNOT)
        edits = edit(self.text, self.root, value, self.layout)
        self.document.edits = [Edit(a + self.start, b + self.start, new) for a, b, new in edits]
        if self.task.needs_operations:
            self.document.operations = [replace("", value)]
        self.document.value = value if self.task.needs_values else None

    def _result(self, manifest: Manifest, template: Template) -> Rewrite:
        task = self.task
        if task.is_reverse:
            return reverse(template.pod, task.resources)
        names = claim_names(manifest, template.path)
        return rewrite(template.pod, task.api, task.resources, names)

    def _refers(self, manifest: Manifest) -> None:
        """Note the templates that a manifest's pods refer to, and the one that it is."""
        namespace, resources = manifest.namespace, self.task.resources
        for template in workloads.templates(manifest, self.task.kinds):
            claims = template.pod["spec"].get("resourceClaims")
            for claim in claims if isinstance(claims, list) else ():
                name = template_name(claim)
                if isinstance(name, str) and is_ours(name, resources):
                    self.document.needs[Need(namespace, name)] = None
        if manifest.kind == "ResourceClaimTemplate" and is_ours(manifest.name, resources):
            self.document.has[Need(namespace, manifest.name)] = None
            if self.task.is_reverse:
                note = "it is needed no more, where every manifest that names it has gone back"
                self.document.notes.append(self._problem(manifest.path, note))
        elif manifest.kind == "DeviceClass":
            self.document.has[Need(None, manifest.name, manifest.kind)] = None

    def _warn(self, template: Template, notices: Iterable[Notice]) -> None:
        """Tell of notices where they belong: at each amount of the resource they are about."""
        amounts = list(_amounts(template))
        for path, resource, container in amounts:
            # The core tells of a few of them, by name only.
            if resource.startswith(RESOURCE_PREFIX) and not self.task.resources.find(resource):
                self.document.left.append(self._problem(path, _ODD, container))
        for notice in notices:
            places = [each for each in amounts if each[1] == notice.about]
            for path, _, container in places:
                self.document.warnings.append(self._problem(path, notice.text, container))
            if not places:
                self.document.warnings.append(self._at(template, (), str(notice)))

    def _warn_of_nodes(self, template: Template, is_rewritten: bool) -> None:
        """Tell of what keeps a pod from the nodes that it is for."""
        spec = template.pod["spec"]
        told: list[tuple[Path, str]] = []
        if spec.get("nodeName") and (is_rewritten or spec.get("resourceClaims")):
            advice = f"{node_labels.PAST_SCHEDULER}; {node_labels.NODE_SELECTOR}"
            told.append((("nodeName",), advice))
        for each in node_labels.selected(spec):
            name = "nvidia.com/gpu"
            single = each.single and name not in self.task.resources.mapped
            more = f"; {name} means a slice there: --resource {name}=mig-{each.single}"
            path: Path = (*each.path.split("."), each.label)
            told.append((path, SELECTOR.format(each) + (more if single else "")))
        for path, text in told:
            place = template.place(("spec", *path))
            self.document.warnings.append(self._problem(place, text))

    def _tell_left(self, found: Iterable[Leftover]) -> None:
        for each in found:
            problem = self._problem(each.path, each.reason, each.container)
            if each.line is not None:
                problem = problem._replace(line=problem.line + self._text_line(each))
            told = {"error": self.document.errors, "note": self.document.notes}
            told.get(each.weight, self.document.left).append(problem)

    def _text_line(self, found: Leftover) -> int:
        """How many lines below its key a line of text is."""
        start = locate(self.root, (*self.inner, *found.path))
        head = self.text[start : self.text.find("\n", start)]
        # The text of a block begins below its header; how other text is laid out does not show.
        is_block = re.search(r"[|>][-+0-9]*[ \t\r]*(?:#.*)?$", head)
        return (found.line or 0) + 1 if is_block else 0

    def _at(self, template: Template, field: Path, message: str) -> Problem:
        """A problem at a field of a pod, ("spec", "containers", 0)."""
        return self._problem(template.place(field), message)

    def _problem(self, path: Path, message: str, container: str = "") -> Problem:
        place = locate(self.root, (*self.inner, *path))
        line = self.line + self._lines_before(place)
        who = f"container {container}: " if container else ""
        where = field_path(*self.prefix, *path)
        return Problem(line, where, who + message)

    def _lines_before(self, place: int) -> int:
        start, lines = self.counted if place >= self.counted[0] else (0, 0)
        self.counted = place, lines + self.text.count("\n", start, place)
        return self.counted[1]


def _names(resources: Resources) -> re.Pattern[str]:
    """What a document that matters has in it: a resource, a template, or the label.

    Or what may hide one: text in base64.
    """
    mapped: Iterable[str] = (
        text for name, resource in resources.mapped.items() for text in (name, resource.template)
    )
    # In a JSON Pointer a slash is "~1".
    texts = sorted({RESOURCE_PREFIX, LABEL, *mapped})
    # Helm's --set has backslashes before its dots.
    spelt = [re.escape(text).replace("/", "(?:/|~1)").replace(r"\.", r"\\*\.") for text in texts]
    return re.compile(
        "|".join(
            [
                *spelt,
                r"\b(?:mig|MIG)-[1-9]",
                *map(re.escape, _NODES),
                *_HINTS,
                "[!:]binary",
            ]
        )
    )


def _unescaped(match: re.Match[str]) -> str:
    if match["slash"]:
        return "/"
    digits = match["x"] or match["u"] or match["w"]
    # No name has a character beyond Unicode's.
    return chr(min(int(digits, 16), 0x10FFFF)) if digits else ""


def _id(manifest: Manifest) -> tuple[str, str, str]:
    return manifest.group or "", manifest.kind, manifest.name


def _below(prefix: str, operations: Iterable[Operation]) -> list[Operation]:
    return [{**each, "path": prefix + each["path"]} for each in operations]


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
