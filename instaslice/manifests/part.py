"""The manifests of a document, or of an item that was cut out of a large one, rewritten."""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from instaslice.invalid import InvalidPod, shorten
from instaslice.manifests import workloads
from instaslice.manifests.change import changed, tree
from instaslice.manifests.edit import edit
from instaslice.manifests.layout import Layout, json_layout
from instaslice.manifests.leftovers import Leftover, in_patch, is_patch, leftovers
from instaslice.manifests.model import Document, Need, Problem, Task
from instaslice.manifests.names import names
from instaslice.manifests.nodes import BadDocument, Node, locate
from instaslice.manifests.reverse import reverse
from instaslice.manifests.workloads import Manifest, Path, Template
from instaslice.patch import Json, Operation, pointer
from instaslice.profiles import RESOURCE_PREFIX
from instaslice.resource_api import template_name
from instaslice.rewrite import Rewrite, rewrite
from instaslice.templates import is_ours

#: A member or an index of a path such as `spec.containers[0].resources.limits[nvidia.com/mig-x]`.
_STEP: Final = re.compile(r"\.?([^.\[\]]+)|\[([^\]]*)\]")

_ODD: Final = "left as it is: it is not spelt like a MIG profile, as mig-1g.5gb is"


class _Amount(NamedTuple):
    """An amount in a container's limits or requests."""

    path: Path
    resource: str
    container: str  #: its name, or empty


class Part:
    """A text and its nodes; what becomes of it is added to its document."""

    def __init__(
        self,
        document: Document,
        task: Task,
        disabled: set[str],
        line: int,
        offset: int,
        prefix: Path = (),
        *,
        names: re.Pattern[str] | None = None,
    ) -> None:
        """Of a whole document, or of an item that was cut out of it, a list of one.

        disabled: namespaces that are labelled so; more join them.
        line: the text's first in the file. offset: where it begins in the document.
        prefix: the path of the item. names: that it was read with.
        """
        self.names = names
        self.document = document
        self.task = task
        self.disabled = disabled
        self.line = line
        self.offset = offset
        self.prefix = prefix
        self.text = ""
        self.is_listed = False
        self.root: Node = Node(0, 0, None)
        self.counted = (0, 0)  #: a place, and the lines before it

    def rewrite(self, text: str, root: Node, layout: Layout | None = None) -> str:
        """Rewrite what is in a text, and return it.

        layout: where it is not that of the text, as for an item of JSON.
        Raises BadDocument.
        """
        self.text, self.root = text, root
        # An item of YAML comes with its dash, as a list of one.
        self.is_listed = bool(self.prefix) and not self.document.is_json
        value = root.value[0] if self.is_listed else root.value
        if is_patch(value, is_whole=self.root.omitted is None):
            self._tell_left(in_patch(value, self.task.resources))
            return text
        if not isinstance(value, dict):
            raise BadDocument("is not an object, as every manifest is")
        operations: list[Operation] = []
        for manifest in workloads.manifests(value):
            operations += self._manifest(manifest)
        meaning = root.value
        if operations and not self.document.errors:
            change = tree(root.value, _below("/0" if self.is_listed else "", operations))
            if self.document.is_json:
                layout = layout or json_layout(text)
            self.document.changed = True
            try:
                text, meaning, edits = edit(text, root, change, layout or Layout(), self.names)
            except BadDocument:
                if not self.task.needs_values:
                    raise
                # Then nobody asks for the text.
                meaning, edits = changed(root.value, change), []
            if self.task.needs_edits:
                offset = self.offset
                self.document.edits += [(a + offset, b + offset, new) for a, b, new in edits]
            if self.task.needs_operations:
                self.document.operations += _below(pointer(*self.prefix), operations)
        for manifest in workloads.manifests(meaning[0] if self.is_listed else meaning):
            self._refers(manifest)
        if self.task.needs_values:
            self.document.value = meaning
        return text

    def _manifest(self, manifest: Manifest) -> list[Operation]:
        """What rewrites the pod templates of a manifest; tells of what is left in it."""
        document, task = self.document, self.task
        handled: set[Path] = set()
        operations: list[Operation] = []
        if workloads.is_disabled_namespace(manifest):
            self.disabled.add(manifest.name)
        for template in workloads.templates(manifest, task.kinds):
            handled.update((*path, "resources") for path, _ in _containers(template))
            why = workloads.why_skipped(manifest, template, self.disabled)
            try:
                result = self._result(manifest, template)
            except InvalidPod as invalid:
                if not why:
                    document.errors += [
                        self._at(template, e.field, e.message) for e in invalid.errors
                    ]
                continue
            if why:
                if result.operations:
                    document.notes.append(self._at(template, "", f"left as it is: it {why}"))
                continue
            self._warn(template, result.warnings)
            document.claims |= {claim.template: claim for claim in result.claims}
            operations += _of_template(template, result.operations)
        if not task.is_reverse:
            self._tell_left(leftovers(manifest, handled, task.kinds, task.resources))
        return operations

    def _result(self, manifest: Manifest, template: Template) -> Rewrite:
        task = self.task
        if task.is_reverse:
            return reverse(template.pod, task.resources)
        new_name = names(manifest, template.path)
        return rewrite(template.pod, task.api, task.resources, new_name)

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

    def _warn(self, template: Template, warnings: Iterable[str]) -> None:
        """Tell of warnings where they belong: at each amount of the resource they begin with."""
        resources = self.task.resources
        amounts = list(_amounts(template))
        odd = [each for each in amounts if resources.find(each.resource) is None]
        for path, resource, container in odd:
            # The core tells of a few of them, by name only.
            if resource.startswith(RESOURCE_PREFIX):
                self.document.left.append(self._problem(path, _ODD, container))
        shown = {ascii(shorten(each.resource))[1:-1]: each for each in odd}
        for warning in warnings:
            if warning.partition(" ")[0] in shown:
                continue
            places = [each for each in amounts if warning.startswith(f"{each.resource}: ")]
            for path, resource, container in places:
                text = warning.removeprefix(f"{resource}: ")
                self.document.warnings.append(self._problem(path, text, container))
            if not places:
                self.document.warnings.append(self._at(template, "", warning))

    def _tell_left(self, found: Iterable[Leftover]) -> None:
        for each in found:
            problem = self._problem(each.path, each.reason, each.container)
            if each.line is not None:
                problem = problem._replace(line=problem.line + self._text_line(each))
            told = {"error": self.document.errors, "note": self.document.notes}
            told.get(each.weight, self.document.left).append(problem)

    def _text_line(self, found: Leftover) -> int:
        """How many lines below its key a line of text is."""
        start = locate(self.root, self._inner(found.path))
        head = self.text[start : self.text.find("\n", start)]
        # The text of a block begins below its header; how other text is laid out does not show.
        is_block = re.search(r"[|>][-+0-9]*[ \t\r]*(?:#.*)?$", head)
        return (found.line or 0) + 1 if is_block else 0

    def _at(self, template: Template, field: str, message: str) -> Problem:
        """A problem at a field of a pod, "spec.containers[0]"."""
        steps: list[str | int] = [
            name or (int(index) if index.isdecimal() else index)
            for name, index in _STEP.findall(field)
        ]
        return self._problem((*template.path, *(steps[1:] if template.is_bare else steps)), message)

    def _problem(self, path: Path, message: str, container: str = "") -> Problem:
        place = locate(self.root, self._inner(path))
        shown = field_path(*self.prefix, *path)
        who = f"container {container}: " if container else ""
        return Problem(self.line + self._lines_before(place), shown, who + message)

    def _lines_before(self, place: int) -> int:
        """The lines before a place; problems come in order, mostly, and may be one a line."""
        start, lines = self.counted if place >= self.counted[0] else (0, 0)
        lines += self.text.count("\n", start, place)
        self.counted = (place, lines)
        return lines

    def _inner(self, path: Path) -> Path:
        return (0, *path) if self.is_listed else path


def field_path(*tokens: str | int) -> str:
    """A path as apimachinery's `field.Path` prints it: spec.containers[0].resources.

    A key with a dot, or a slash, is in brackets: limits[nvidia.com/mig-1g.5gb].
    """
    steps = [
        f"[{token}]"
        if isinstance(token, int) or not re.fullmatch(r"[^./\[\]]+", token)
        else f".{token}"
        for token in tokens
    ]
    return "".join(steps).removeprefix(".")


def _below(prefix: str, operations: Iterable[Operation]) -> list[Operation]:
    return [{**operation, "path": prefix + operation["path"]} for operation in operations]


def _of_template(template: Template, operations: Iterable[Operation]) -> list[Operation]:
    """Operations on a pod, as they are on the document that has it as a template."""
    below = _below("", operations)
    if template.is_bare:
        below = [{**each, "path": each["path"].removeprefix("/spec")} for each in below]
    return _below(pointer(*template.path), below)


def _containers(template: Template) -> Iterator[tuple[Path, Json]]:
    """The containers that can have limits of extended resources, each with its path."""
    spec = template.path if template.is_bare else (*template.path, "spec")
    for kind in ("containers", "initContainers"):
        listed = template.pod["spec"].get(kind)
        for index, container in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(container, dict):
                yield (*spec, kind, index), container


def _amounts(template: Template) -> Iterator[_Amount]:
    """The resources in limits, and those in requests alone."""
    for path, container in _containers(template):
        name = container.get("name")
        resources = container.get("resources")
        seen: set[str] = set()
        for key in ("limits", "requests"):
            amounts = resources.get(key) if isinstance(resources, dict) else None
            for resource in amounts if isinstance(amounts, dict) else ():
                if resource not in seen:
                    seen.add(resource)
                    whose = name if isinstance(name, str) else ""
                    yield _Amount((*path, "resources", key, resource), resource, whose)
