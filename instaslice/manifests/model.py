"""What `instaslice rewrite` is to do, and what becomes of a document."""

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from instaslice.manifests.flow import Edit
from instaslice.manifests.workloads import Kinds
from instaslice.patch import Operation
from instaslice.resource_api import NEWEST, ResourceAPI
from instaslice.resources import MIG, Resources
from instaslice.templates import DeviceClaim

_NO_KINDS: Kinds = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Task:
    """What to do to documents."""

    api: ResourceAPI = NEWEST
    resources: Resources = MIG
    kinds: Kinds = field(default_factory=lambda: _NO_KINDS)
    is_reverse: bool = False
    is_strict: bool = False  #: a limit that is left is an error
    needs_values: bool = False  #: of every document, also of those that need no look
    needs_operations: bool = True  #: they, and edits, take more room than a document
    needs_edits: bool = True


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
    after: str  #: its text rewritten; `before` where nothing changes
    is_json: bool = False
    is_empty: bool = False  #: it has no value
    changed: bool = False
    value: Any = None  #: what it means, rewritten, as decoded JSON; None where nobody asked
    operations: list[Operation] = field(default_factory=list)  #: RFC 6902, from `before`'s root
    edits: list[Edit] = field(default_factory=list)  #: what leads from `before` to `after`
    errors: list[Problem] = field(default_factory=list)  #: why it is left as it is
    left: list[Problem] = field(default_factory=list)  #: limits that are left in it
    warnings: list[Problem] = field(default_factory=list)  #: anything else
    notes: list[Problem] = field(default_factory=list)  #: what is left alone on purpose
    needs: dict[Need, None] = field(default_factory=dict)  #: that its pods, rewritten, refer to
    has: dict[Need, None] = field(default_factory=dict)  #: that it defines itself
    claims: dict[str, DeviceClaim] = field(default_factory=dict)  #: new ones, by template

    def discard(self) -> None:
        """Leave it as it is, since it is wrong."""
        self.after, self.value, self.changed = self.before, None, False
        self.operations, self.edits, self.needs, self.has = [], [], {}, {}
