import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice.manifests import json_nodes
from instaslice.manifests.nodes import BadDocument, walk


@pytest.mark.property
@given(
    value=st.dictionaries(
        st.text(max_size=3),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=5),
            lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3), below),
            max_leaves=12,
        ),
        max_size=3,
    ),
    indent=st.sampled_from([None, 2, "\t"]),
)
def test_every_value_is_where_its_node_says(value: Any, indent: int | str | None) -> None:
    text = "\n " + json.dumps(value, indent=indent) + "\r\n"
    root = json_nodes.read(text)
    assert root is not None
    assert root.value == value
    for path, node in walk(root):
        here = value
        for step in path:
            here = here[step]
        assert json.loads(text[node.start : node.end]) == here == node.value


@pytest.mark.parametrize("text", ["", "a: 1", "{a: 1}", '{"a": NaN}', '{"a": 1} {"b": 2}', "[1,]"])
def test_what_is_not_json_has_no_node(text: str) -> None:
    assert json_nodes.read(text) is None


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"kind": "List", "items": [{"a": 1}, 2 ]}', ['{"a": 1}', "2"]),
        ('{"items": [{}], "kind": "List", "metadata": {"items": [3]}}\n', ["{}"]),
        ('{"kind": "List", "items": []}', []),
        ('{"kind": "List", "others": [1]}', []),
        ('{"kind": "List", "items": "[1]"}', []),
        ('{"kind": "Pod", "items": [1]}', None),
        ('{"other": "List", "items": [1]}', None),
        ('["kind", "List"]', None),
        ("kind: List", None),
        ('{"kind": "List", "items": [1]} 2', None),
    ],
)
def test_the_items_of_a_list_are_found(text: str, parts: list[str] | None) -> None:
    found = json_nodes.items(text)
    assert (None if found is None else [text[start:end] for start, end in found]) == parts


def test_whole_numbers_are_whole() -> None:
    root = json_nodes.read('{"a": 1e3, "b": 1.5}')
    assert root is not None
    assert json.dumps(root.value) == '{"a": 1000, "b": 1.5}'


def test_what_is_nested_too_deeply_is_refused() -> None:
    with pytest.raises(BadDocument, match="nested too deeply"):
        json_nodes.read('{"a":' * 50_000)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('{"a": 1}', None),
        ('{"a": "}{"}', ['{"a": "}{"}']),
        ('{"a": 1}\n{"b": "}{"} {}\n', ['{"a": 1}\n', '{"b": "}{"} ', "{}\n"]),
        ('{"a": 1}{"b": 2}', ['{"a": 1}', '{"b": 2}']),
        ('{"a": 1}\n[]', None),
        ('{"a": 1}\nb: 2', None),
        ("{a: 1}", None),
        ("a: 1", None),
    ],
)
def test_objects_that_follow_one_another(text: str, parts: list[str] | None) -> None:
    assert json_nodes.split(text) == parts
