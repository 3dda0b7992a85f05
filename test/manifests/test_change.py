"""Operations as a tree of changes make of a value what RFC 6902 says."""

import copy
from typing import Any

import jsonpatch
import pytest

from instaslice.manifests.change import Change, changed, tokens, tree
from instaslice.patch import Operation, add, remove, replace

VALUE: dict[str, Any] = {"a": {"b": 1, "c/d": 2}, "l": [{"x": 1}, {"y": 2}, 3], "n": None}


@pytest.mark.parametrize(
    "operations",
    [
        [],
        [add("/e", 1)],
        [add("/n", [1]), add("/n/-", 2), replace("/n/0", 3), remove("/n/1")],
        [add("/a/e", {"f": {}}), add("/a/e/f/g", 1), remove("/a/b")],
        [remove("/a/c~1d"), add("/a/c~1d", 3)],
        [add("/a/b", 3), remove("/a/b")],
        [add("/a/new", 3), remove("/a/new")],
        [remove("/l/2"), remove("/l/0"), add("/l/-", 4)],
        [replace("/l/0/x", "0"), add("/l/1/z", 1), add("/l/-", {})],
        [replace("/l/0", {"z": 1}), add("/l/0/w", [])],
        [add("/a/b", 3), add("/a", {})],
    ],
)
def test_a_value_changes_as_the_patch_says(operations: list[Operation]) -> None:
    value = copy.deepcopy(VALUE)
    result = changed(value, tree(value, operations))
    assert result == jsonpatch.apply_patch(VALUE, operations)
    assert value == VALUE


def test_what_does_not_change_is_shared() -> None:
    result = changed(VALUE, tree(VALUE, [add("/a/e", 1)]))
    assert result["l"] is VALUE["l"]
    assert changed(VALUE, Change()) is VALUE
    assert not Change()
    assert tree(VALUE, [remove("/n")])


def test_tokens() -> None:
    assert tokens("/a~1b/~01/-") == ["a/b", "~1", "-"]
