"""The annotations that InstaSlice reads from a pod, and the one that it writes.

    instaslice.io/alternatives: "3g.20gb or 4g.20gb; 1g.5gb or 1g.10gb or 2g.10gb"
    instaslice.io/placement: same-gpu
    instaslice.io/requested: "main: nvidia.com/mig-1g.5gb=2, nvidia.com/mig-3g.20gb=1; side: ..."

A chain lists the profiles that may serve a limit of its first profile, in order of preference;
"1g.5gb or bigger" chooses by size and so works on every GPU (`resources.bigger`). An administrator
may set default chains for pods that have none; "none" declines these. A placement puts all MIG
slices of the pod on one GPU, or each on a different GPU (R13). InstaSlice writes `requested` (R12),
so that `kubectl describe` shows what the pod asked for.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from instaslice import profiles
from instaslice.containers import Decision, member
from instaslice.invalid import InvalidPod, Path, invalid, printable, shorten
from instaslice.patch import Json, Operation, add, pointer
from instaslice.profiles import Resource
from instaslice.resource_api import CONSTRAINTS
from instaslice.resources import Resources, bigger
from instaslice.templates import MAX_CHOICES

ALTERNATIVES: Final = "instaslice.io/alternatives"
PLACEMENT: Final = "instaslice.io/placement"
REQUESTED: Final = "instaslice.io/requested"
#: Set by the kubelet on a mirror pod, the API server's copy of a static pod (R9).
MIRROR: Final = "kubernetes.io/config.mirror"

#: The longest value of ALTERNATIVES, in characters: 8 names of 20 for each of some 100 profiles.
_LONGEST_CHAINS: Final = 16_000
#: The longest value of REQUESTED, in characters: one terminal screen, some 20 containers.
MAX_REQUESTED: Final = 1_000
_MORE: Final = "; ..."
_POINTER: Final = pointer("metadata", "annotations", REQUESTED)

#: With this value of ALTERNATIVES, a pod declines the administrator's default.
NONE: Final = "none"
_LIKE_THIS: Final = 'write it like "3g.20gb or 4g.20gb; 1g.5gb or 1g.10gb"'


class Wishes(NamedTuple):
    """The alternatives and the placement that a pod asks for."""

    #: For the resource that a limit names, the others that may serve it, in order.
    alternatives: Mapping[Resource, tuple[Resource, ...]]
    placement: str = ""  #: a key of `templates.CONSTRAINTS`, or empty
    is_default: bool = False  #: whether the alternatives are the administrator's


def path(key: str) -> Path:
    """The path of an annotation, for an error."""
    return ("metadata", "annotations", key)


def of(pod: Json) -> Json:
    """A pod's annotations; empty if they are missing or not an object."""
    metadata = pod.get("metadata")
    found = metadata.get("annotations") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def is_mirror(pod: Json) -> bool:
    """Whether the pod is a mirror pod (R9)."""
    return MIRROR in of(pod)


def read(found: Json, resources: Resources) -> Wishes:
    """Read the wishes in a pod's annotations. Raises InvalidPod with the key and the value."""
    value, placed = found.get(ALTERNATIVES), found.get(PLACEMENT)
    placement = placed.strip() if isinstance(placed, str) else ""
    if placed is not None and placement not in CONSTRAINTS:
        raise InvalidPod(invalid(path(PLACEMENT), placed, f"must be {' or '.join(CONSTRAINTS)}"))
    if value is None:
        return Wishes(resources.alternatives, placement, True)
    if isinstance(value, str) and value.strip() == NONE:
        return Wishes({}, placement)
    try:
        return Wishes(read_alternatives(value), placement)
    except ValueError as error:
        raise InvalidPod(invalid(path(ALTERNATIVES), value, str(error))) from None


def read_alternatives(value: object) -> dict[Resource, tuple[Resource, ...]]:
    """Read chains of profiles, keyed by their first. Raises ValueError with the reason."""
    if not isinstance(value, str):
        raise ValueError(_LIKE_THIS)
    if len(value) > _LONGEST_CHAINS:
        raise ValueError(f"is longer than {_LONGEST_CHAINS} characters")
    chains: dict[Resource, tuple[Resource, ...]] = {}
    for chain in value.split(";"):
        words = chain.split()
        if not words:
            continue  # nothing after the last ";"
        names, joints = words[::2], words[1::2]
        if len(names) == len(joints) or any(joint != "or" for joint in joints):
            raise ValueError(f'profiles are joined by "or" and chains by ";": {_LIKE_THIS}')
        if not 2 <= len(names) <= MAX_CHOICES:
            raise ValueError(f"a chain names 2 to {MAX_CHOICES} profiles: {_LIKE_THIS}")
        if "bigger" in names and (names[0] == "bigger" or len(names) > 2):
            raise ValueError('"bigger" stands alone behind one profile, as in "1g.5gb or bigger"')
        first, *rest = [_profile(name) for name in names if name != "bigger"]
        others = tuple(rest) or bigger(first)
        if len({first, *others}) < 1 + len(others):
            raise ValueError("a chain names each profile once")
        if first in chains:
            raise ValueError(f"two chains begin with {names[0]}")
        chains[first] = others
    if not chains:
        raise ValueError(_LIKE_THIS)
    return chains


def _profile(name: str) -> Resource:
    """Read a profile in any spelling. Raises ValueError."""
    profile = profiles.from_name(name)
    if profile is None:
        raise ValueError(f"{shorten(name)} is not a MIG profile such as 1g.5gb or 1g.10gb+me")
    return profile


def describe(containers: Iterable[Decision], before: object = None) -> str:
    """The value of REQUESTED: what the containers ask for by new claims.

    before: the value after an earlier pass; ignored unless it is text.
    """
    text = ""
    if isinstance(before, str):  # a user may have typed megabytes
        text = printable(before[:MAX_REQUESTED])[:MAX_REQUESTED].removesuffix(_MORE)
    for container, claimed, _ in containers:
        if claimed:
            amounts = ", ".join([f"{name}={count}" for name, count in claimed.items()])
            text += f"{'; ' if text else ''}{shorten(container.name)}: {amounts}"
            if len(text) > MAX_REQUESTED:
                break
    text = printable(text)
    if len(text) > MAX_REQUESTED:
        text = text[: MAX_REQUESTED - len(_MORE)]
        text = text[: max(text.rfind(";"), text.rfind(","))] + _MORE
    return text


def annotate(pod: Json, text: object) -> list[Operation]:
    """Set REQUESTED over any user value. Raises InvalidPod if metadata is malformed."""
    metadata = member(pod, "metadata", dict)
    found = member(metadata, "annotations", dict, ("metadata",))
    if found.get(REQUESTED) == text:
        return []
    if metadata.get("annotations") is not None:
        return [add(_POINTER, text)]
    if pod.get("metadata") is not None:
        return [add("/metadata/annotations", {REQUESTED: text})]
    return [add("/metadata", {"annotations": {REQUESTED: text}})]
