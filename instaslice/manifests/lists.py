"""Large lists, cut into their items, so that a dump of a cluster takes little room.

`kubectl get -o yaml` writes one document, a List. Its items are cut apart by their dashes, which no
other line of a block begins with in that column. In JSON they are where Python's decoder ends.
"""

import re
from typing import Final, NamedTuple

from instaslice.manifests import json_nodes

#: Documents smaller than this are read whole: then it does not matter, and 2 MB are twice what the
#: API server takes for one object (etcd's limit is 1.5 MiB).
LARGE: Final = 2_000_000

_ITEMS: Final = re.compile(r"^items:[ \t]*(?:#[^\n]*)?\r?\n(?P<indent> *)- ", re.MULTILINE)
#: An alias, which may lead from one item to another.
_ALIAS: Final = re.compile(
    r"(?:^[ \t]*|[:,\[{-][ \t]+)\*[A-Za-z0-9_-]+[ \t\r]*(?:[,\]}#]|$)", re.MULTILINE | re.ASCII
)
#: A block scalar may hold anything, but not in the first column.
_NEXT_KEY: Final = re.compile(r"^(?![ #\r\n]|- )", re.MULTILINE)
_KIND: Final = re.compile(r"""^kind:[ ]+["']?List\b""", re.MULTILINE)


class Item(NamedTuple):
    """Where an item is; in YAML with its dash, as a list of one."""

    start: int
    stop: int


def cut(text: str) -> list[Item] | None:
    """The items of a List in YAML, one behind the other; None if it is not such a list."""
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
    stops = [*starts[1:], end]
    return [Item(*places) for places in zip(starts, stops, strict=True)]


def cut_json(text: str) -> list[Item] | None:
    """The items of a List in JSON; None if the text is not such a list."""
    found = json_nodes.items(text) if text.lstrip().startswith("{") else None
    return [Item(*places) for places in found] if found else None
