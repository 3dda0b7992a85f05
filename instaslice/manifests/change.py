"""RFC 6902 operations as a tree of what changes where, and what they make of a value."""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from instaslice.patch import Operation

#: A key of an object or an index of an array.
Token = str | int


@dataclass(slots=True)
class Change:
    """What changes in an object or an array, and below it.

    An array's indices are those before the change; `InstaSlice` only removes elements from the last
    to the first, and adds them at the end.
    """

    put: dict[Token, Any] = field(default_factory=dict)  #: added, or in another's place
    gone: set[Token] = field(default_factory=set)
    more: list[Any] = field(default_factory=list)  #: at an array's end
    below: dict[Token, "Change"] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.put or self.gone or self.more or self.below)


def tree(root: Any, operations: Iterable[Operation]) -> Change:
    """The change that `add`, `remove` and `replace` operations make of a decoded document."""
    change = Change()
    for operation in operations:
        _enter(change, root, operation)
    return change


def _enter(change: Change, value: Any, operation: Operation) -> None:
    *parents, last = tokens(operation["path"])
    for depth, token in enumerate(parents):
        step = _step(value, token)
        if step in change.put:
            # What an operation before this one has put there.
            _apply(change.put[step], [*parents[depth + 1 :], last], operation)
            return
        change = change.below.setdefault(step, Change())
        value = value[step]
    if last == "-":
        change.more.append(deepcopy(operation["value"]))
        return
    step = _step(value, last)
    change.below.pop(step, None)
    if operation["op"] == "remove":
        change.put.pop(step, None)
        if isinstance(value, list) or step in value:
            change.gone.add(step)
    else:
        change.gone.discard(step)
        change.put[step] = deepcopy(operation["value"])


def _apply(value: Any, path: list[str], operation: Operation) -> None:
    """Apply an operation to a value of the change's own, in place."""
    for token in path[:-1]:
        value = value[_step(value, token)]
    last = path[-1]
    if operation["op"] == "remove":
        del value[_step(value, last)]
    elif last == "-":
        value.append(deepcopy(operation["value"]))
    else:
        value[_step(value, last)] = deepcopy(operation["value"])


def tokens(pointer: str) -> list[str]:
    """The tokens of a JSON Pointer (RFC 6901)."""
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def _step(holder: Any, token: str) -> Token:
    return int(token) if isinstance(holder, list) else token


def changed(value: Any, change: Change) -> Any:
    """What a decoded value becomes; parts that do not change are shared with it."""
    if isinstance(value, list):
        items = [
            change.put.get(index, changed(item, change.below.get(index, _NOTHING)))
            for index, item in enumerate(value)
            if index not in change.gone
        ]
        return items + change.more if change else value
    if not isinstance(value, dict) or not change:
        return value
    members = {
        key: changed(item, change.below.get(key, _NOTHING))
        for key, item in value.items()
        if key not in change.gone
    }
    return members | change.put


_NOTHING = Change()
