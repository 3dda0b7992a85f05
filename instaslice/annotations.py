"""Annotations by which a pod asks for more than its limits can say (R13).

    instaslice.io/alternatives: "3g.20gb or 4g.20gb; 1g.5gb or 1g.10gb or 2g.10gb"
    instaslice.io/placement: same-gpu

A limit of the first profile of a chain may be served by the next ones, in that order; "1g.5gb or
bigger" goes by size and so holds for every GPU (`resources.bigger`). An administrator may set
chains for the pods that have none of their own; "none" declines these. A placement puts all MIG
slices of the pod on one GPU, or each of them on another.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from instaslice import profiles
from instaslice.invalid import InvalidPod, Path, invalid, shorten
from instaslice.patch import Json
from instaslice.profiles import Profile
from instaslice.resources import Resource, Resources, bigger, of_profile
from instaslice.templates import CONSTRAINTS, MAX_CHOICES

ALTERNATIVES: Final = "instaslice.io/alternatives"
PLACEMENT: Final = "instaslice.io/placement"

#: The longest chains, in characters: of 8 names of 20 for each of the 100 profiles that there are.
MAX_LENGTH: Final = 16_000

#: The value by which a pod declines the administrator's alternatives.
NONE: Final = "none"
_BIGGER: Final = "bigger"
_LIKE_THIS: Final = 'write it like "3g.20gb or 4g.20gb; 1g.5gb or 1g.10gb"'
_PLACEMENTS: Final = f"must be {' or '.join(CONSTRAINTS)}"


class Wishes(NamedTuple):
    """Alternatives and a placement that a pod asks for."""

    #: By the resource that a limit names, the others that may serve it, in order.
    alternatives: Mapping[Resource, tuple[Resource, ...]]
    placement: str = ""  #: a key of `templates.CONSTRAINTS`, or empty
    is_default: bool = False  #: whether the alternatives are the administrator's


NO_WISHES: Final = Wishes(MappingProxyType({}))


def path(key: str) -> Path:
    """An annotation's path, for an error."""
    return ("metadata", "annotations", key)


def of(pod: Json) -> Json:
    """A pod's annotations; empty where it has none that are an object."""
    metadata = pod.get("metadata")
    found = metadata.get("annotations") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def read(found: Json, resources: Resources) -> Wishes:
    """The wishes in a pod's annotations. Raises InvalidPod, with the annotation's key and value."""
    if ALTERNATIVES not in found and PLACEMENT not in found:
        return Wishes(resources.alternatives, "", True) if resources.alternatives else NO_WISHES
    placement = _placement(found.get(PLACEMENT))
    value = found.get(ALTERNATIVES)
    if value is None:
        return Wishes(resources.alternatives, placement, True)
    if isinstance(value, str) and value.strip() == NONE:
        return Wishes(NO_WISHES.alternatives, placement)
    try:
        return Wishes(read_alternatives(value), placement)
    except ValueError as error:
        raise InvalidPod(invalid(path(ALTERNATIVES), value, str(error))) from None


def _placement(value: object) -> str:
    if value is None:
        return ""
    text = value.strip() if isinstance(value, str) else ""
    if text not in CONSTRAINTS:
        raise InvalidPod(invalid(path(PLACEMENT), value, _PLACEMENTS))
    return text


def read_alternatives(value: object) -> dict[Resource, tuple[Resource, ...]]:
    """Chains of profiles, by what they begin with. Raises ValueError, which says what is wrong."""
    if not isinstance(value, str):
        raise ValueError(_LIKE_THIS)
    if len(value) > MAX_LENGTH:
        raise ValueError(f"is longer than {MAX_LENGTH} characters")
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
        if _BIGGER in names and (names[0] == _BIGGER or len(names) > 2):
            raise ValueError(
                f'"{_BIGGER}" stands alone behind one profile, as in "1g.5gb or bigger"'
            )
        first = _profile(names[0])
        if names[1] == _BIGGER:
            others = bigger(first)
        else:
            others = tuple(of_profile(_profile(name)) for name in names[1:])
        resource = of_profile(first)
        if len({resource, *others}) < 1 + len(others):
            raise ValueError("a chain names each profile once")
        if resource in chains:
            raise ValueError(f"two chains begin with {names[0]}")
        chains[resource] = others
    if not chains:
        raise ValueError(_LIKE_THIS)
    return chains


def _profile(name: str) -> Profile:
    """A profile in either of its spellings. Raises ValueError."""
    bare = name.removeprefix("nvidia.com/").removeprefix("mig-")
    profile = profiles.from_attribute(bare) or profiles.from_template("mig-" + bare)
    if profile is None:
        raise ValueError(f"{shorten(name)} is not a MIG profile such as 1g.5gb or 1g.10gb+me")
    return profile
