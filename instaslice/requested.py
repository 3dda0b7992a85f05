"""The annotation that says what a rewritten pod asked for (R12), which `kubectl describe` shows.

instaslice.io/requested: "main: nvidia.com/mig-1g.5gb=2, nvidia.com/mig-3g.20gb=1; side: ..."
"""

from collections.abc import Iterable
from typing import Final

from instaslice import annotations
from instaslice.containers import Settled, member
from instaslice.invalid import printable, shorten
from instaslice.own_claims import own_claims
from instaslice.patch import Json, Operation, add, escape
from instaslice.resources import Resources

REQUESTED: Final = "instaslice.io/requested"
#: Its longest value, in characters: what a terminal shows at once, of some 20 containers.
MAX_LENGTH: Final = 1_000
_POINTER: Final = f"/metadata/annotations/{escape(REQUESTED)}"
_MORE: Final = "; ..."


def describe(containers: Iterable[Settled], before: str = "") -> str:
    """What containers ask for by new claims.

    before: what an earlier pass said of the pod.
    """
    text = before and printable(before)[:MAX_LENGTH].removesuffix(_MORE)
    for container, claimed, _ in containers:
        if not claimed:
            continue
        amounts = ", ".join([f"{name}={count}" for name, count in claimed.items()])
        text += f"{'; ' if text else ''}{printable(shorten(container.name))}: {amounts}"
        if len(text) > MAX_LENGTH:
            text = text[: MAX_LENGTH - len(_MORE)]
            return text[: max(text.rfind(";"), text.rfind(","))] + _MORE
    return text


def annotate(pod: Json, text: str) -> list[Operation]:
    """Set the annotation, whatever a user typed there. Raises InvalidPod where it has no place."""
    metadata = member(pod, "metadata", dict)
    found = member(metadata, "annotations", dict, ("metadata",))
    if found.get(REQUESTED) == text:
        return []
    if metadata.get("annotations") is not None:
        return [add(_POINTER, text)]
    if pod.get("metadata") is not None:
        return [add("/metadata/annotations", {REQUESTED: text})]
    return [add("/metadata", {"annotations": {REQUESTED: text}})]


def keep(pod: Json, old: Json, resources: Resources) -> list[Operation]:
    """Give a rewritten pod the annotation again that an update took away or changed.

    Raises InvalidPod.
    """
    was = annotations.of(old).get(REQUESTED)
    if (
        was is None
        or annotations.of(pod).get(REQUESTED) == was
        or not (isinstance(old.get("spec"), dict) and own_claims(old, resources))
    ):
        return []
    return annotate(pod, was)
