"""What a pod may ask for beyond its limits, by annotation (R13).

    instaslice.io/alternatives: "3g.20gb or 4g.20gb; 1g.5gb or 1g.10gb or 2g.10gb"
    instaslice.io/placement: same-gpu

A limit of the first profile of a chain may be served by the next ones, in that order. A placement
puts all MIG slices of the pod on one GPU, or each of them on another.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from instaslice import profiles
from instaslice.invalid import InvalidPod, invalid, shorten
from instaslice.patch import Json
from instaslice.profiles import Profile
from instaslice.resources import Resource, of_profile
from instaslice.templates import CONSTRAINTS, MAX_CHOICES

ALTERNATIVES: Final = "instaslice.io/alternatives"
PLACEMENT: Final = "instaslice.io/placement"

#: The longest chains, in characters: of 8 names of 20 for each of the 100 profiles that there are.
MAX_LENGTH: Final = 16_000

_LIKE_THIS: Final = 'write it like "3g.20gb or 4g.20gb; 1g.5gb or 1g.10gb"'
_PLACEMENTS: Final = f"must be {' or '.join(CONSTRAINTS)}"


class Wishes(NamedTuple):
    """What a pod's annotations ask for."""

    #: By the resource that a limit names, the others that may serve it, in order.
    alternatives: dict[Resource, tuple[Resource, ...]]
    placement: str  #: a key of `templates.CONSTRAINTS`, or empty


NO_WISHES: Final = Wishes({}, "")


def path(key: str) -> str:
    """An annotation's path, for an error."""
    return f"metadata.annotations[{key}]"


def of(pod: Json) -> Json:
    """A pod's annotations; empty where it has none that are an object."""
    metadata = pod.get("metadata")
    found = metadata.get("annotations") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def read(pod: Json) -> Wishes:
    """The wishes of a pod. Raises InvalidPod, with the annotation's key and value."""
    annotations = of(pod)
    if ALTERNATIVES not in annotations and PLACEMENT not in annotations:
        return NO_WISHES
    return Wishes(
        _alternatives(annotations.get(ALTERNATIVES)), _placement(annotations.get(PLACEMENT))
    )


def _placement(value: object) -> str:
    if value is None:
        return ""
    text = value.strip() if isinstance(value, str) else ""
    if text not in CONSTRAINTS:
        raise InvalidPod(invalid(path(PLACEMENT), value, _PLACEMENTS))
    return text


def _alternatives(value: object) -> dict[Resource, tuple[Resource, ...]]:
    if value is None:
        return {}

    def wrong(detail: str) -> InvalidPod:
        return InvalidPod(invalid(path(ALTERNATIVES), value, detail))

    if not isinstance(value, str):
        raise wrong(_LIKE_THIS)
    if len(value) > MAX_LENGTH:
        raise wrong(f"is longer than {MAX_LENGTH} characters")
    chains: dict[Resource, tuple[Resource, ...]] = {}
    for chain in value.split(";"):
        words = chain.split()
        if not words:
            continue  # nothing after the last ";"
        names, joints = words[::2], words[1::2]
        if len(names) == len(joints) or any(joint != "or" for joint in joints):
            raise wrong(f'profiles are joined by "or" and chains by ";": {_LIKE_THIS}')
        if not 2 <= len(names) <= MAX_CHOICES:
            raise wrong(f"a chain names 2 to {MAX_CHOICES} profiles: {_LIKE_THIS}")
        first, *others = (of_profile(_profile(name, wrong)) for name in names)
        if len({first, *others}) < len(names):
            raise wrong("a chain names each profile once")
        if first in chains:
            raise wrong(f"two chains begin with {names[0]}")
        chains[first] = tuple(others)
    if not chains:
        raise wrong(_LIKE_THIS)
    return chains


def _profile(name: str, wrong: Callable[[str], InvalidPod]) -> Profile:
    """A profile in either of its spellings. Raises what `wrong` makes."""
    bare = name.removeprefix("nvidia.com/").removeprefix("mig-")
    profile = profiles.from_attribute(bare) or profiles.from_template("mig-" + bare)
    if profile is None:
        raise wrong(f"{shorten(name)} is not a MIG profile such as 1g.5gb or 1g.10gb+me")
    return profile
