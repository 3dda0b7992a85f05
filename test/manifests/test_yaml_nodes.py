"""YAML is read as kubectl reads it, and every value knows its place."""

from typing import Any

import pytest

from instaslice.manifests import yaml_nodes
from instaslice.manifests.nodes import BadDocument, Mapping, walk


def read(text: str) -> Any:
    node = yaml_nodes.read(text)
    return node and node.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# nothing\n", None),
        ("a: 1\t# behind a tab\n", {"a": 1}),
        ("a:\t# behind a tab\n  b: 1\n", {"a": {"b": 1}}),
        ("{a:\t1,\n b: [1, 2,]}", {"a": 1, "b": [1, 2]}),
        ("y: 1\n", {"true": 1}),
        ("? k\n: l\n", {"k": "l"}),
        ("a: ! 1\n", {"a": "1"}),
        ("a: 'yes'\n", {"a": "yes"}),
        ("a: !!binary aGVsbG8=\n", {"a": "hello"}),
        ("a: |\n  x  \n\n\nb: 1\n", {"a": "x  \n", "b": 1}),
        ("[a: 1]", [{"a": 1}]),
        ("a: &x 1\nb: *x\n", {"a": 1, "b": 1}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}\n", {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}}),
        ("a: {b: 1, <<: {b: 2, c: 3}}\n", {"a": {"b": 2, "c": 3}}),  # as kubectl has it
        ("a: {<<: [{b: 1}, {b: 2, c: 3}]}\n", {"a": {"b": 1, "c": 3}}),
        ('a: {"<<": {b: 1}}\n', {"a": {"<<": {"b": 1}}}),
    ],
)
def test_values_are_those_that_kubectl_reads(text: str, value: object) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: [1\n", 2, "did not find expected ',' or ']'"),
        ("a: 1\na: 2\n", 1, "found duplicate key 'a'"),
        ("a:\n\t- b\n", 1, "cannot start any token"),
        ("a: *b\n", 0, "found undefined alias 'b'"),
        ("a: \u2028 b\nc: d: e\n", 1, "mapping values are not allowed"),
        ("a: 1\n\u2028\nb: 1\nb: 2\n", 3, "found duplicate key 'b'"),
        ("a: é\n\nb: \x01\n", 2, "control characters are not allowed"),
        ("a: .inf\n", 0, "not a number in JSON"),
        ("a:\n  ~: 1\n", 1, "has a key that is not text"),
        ("a:\n  {{ b }}: 1\n", 1, "has a key that is not text"),
        ("a: {<<: 1}\n", 0, "a merge key (<<) needs a mapping"),
        ("- " * 20_000 + "1", 0, "nested too deeply"),
        ("a:\n  &a [*a]\n", 1, "the anchor 'a' holds itself"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(BadDocument) as caught:
        yaml_nodes.read(text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.line == line


def test_aliases_that_stand_for_billions_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(BadDocument, match="more than 1,000,000 values"):
        yaml_nodes.read("\n".join(lines))


def test_places() -> None:
    text = "é: |\n  x\n\n# c\nb:\n- x # d\n-   &n name: 'z'\n    v: &a\n      k: 1\n- *a\n\n"
    text += "c: {d: [1, ~]}\n"
    root = yaml_nodes.read(text)
    assert root is not None
    places = {path: text[node.start : node.end] for path, node in walk(root)}
    assert places["é",] == "|\n  x"
    assert places["b", 0] == "x"
    assert places["b", 1, "name"] == "'z'"
    assert places["b", 1, "v"] == "&a\n      k: 1"
    assert places["b", 2] == "*a"
    assert places["c", "d"] == "[1, ~]"
    assert places["c", "d", 1] == "~"
    assert isinstance(root, Mapping)
    assert [text[m.start :].partition(":")[0] for m in root.members] == ["é", "b", "c"]
