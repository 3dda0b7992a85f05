"""YAML and JSON are read as kubectl reads them, with the place of every value."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice.manifests import nodes, scalars
from instaslice.manifests.nodes import BadDocument, Node


def read(text: str) -> Any:
    node, _ = nodes.read(text)
    return node and node.value


def places(node: Node, path: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, Node]]:
    """Yield every node with its path."""
    yield path, node
    for index, part in enumerate(node.parts):
        yield from places(part.node, (*path, index if part.key is None else part.key))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("# nothing\n", None),
        ('{"a": 1e3, "b": 1.5}', {"a": 1000, "b": 1.5}),
        ("a: 1\t# behind a tab\n", {"a": 1}),
        ("a:\t# behind a tab\n  b: 1\n", {"a": {"b": 1}}),
        ("{a:\t1,\n b: [1, 2,]}", {"a": 1, "b": [1, 2]}),
        ("y: 1\n1.5: 2\n3: 4\n", {"true": 1, "1.5": 2, "3": 4}),
        ("? k\n: l\n", {"k": "l"}),
        ("a: ! 1\n", {"a": "1"}),
        ("a: 'yes'\n", {"a": "yes"}),
        ("a: !!binary aGVsbG8=\n", {"a": "hello"}),
        ("a: |\n  x  \n\n\nb: 1\n", {"a": "x  \n", "b": 1}),
        ("[a: 1]", [{"a": 1}]),
        ("a: &x 1\nb: *x\n", {"a": 1, "b": 1}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, b: 3}\n", {"a": {"b": 1, "c": 2}, "d": {"b": 3, "c": 2}}),
        ("a: {b: 1, <<: {b: 2, c: 3}}\n", {"a": {"b": 2, "c": 3}}),  # as in kubectl
        ("a: {<<: [{b: 1}, {b: 2, c: 3}]}\n", {"a": {"b": 1, "c": 3}}),
        ('a: {"<<": {b: 1}}\n', {"a": {"<<": {"b": 1}}}),
    ],
)
def test_values_equal_kubectls(text: str, value: object) -> None:
    assert json.dumps(read(text)) == json.dumps(value)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: [1\n", 2, "did not find expected ',' or ']'"),
        ("a:\n\t- b\n", 1, "cannot start any token"),
        ("a: *b\n", 0, "the anchor 'b' is not defined"),
        ("a: \u2028 b\nc: d: e\n", 1, "mapping values are not allowed"),
        ("a: 1\n\u2028\nb: 1\nb: [\n", 4, "did not find expected node content"),
        ("a: é\n\nb: \x01\n", 2, "control characters are not allowed"),
        ("a: .inf\n", 0, "not a number in JSON"),
        ("a:\n  ~: 1\n", 1, "has a key that is not text"),
        ("a:\n  {{ b }}: 1\n", 1, "has a key that is not text"),
        ("{[1]: 1}\n", 0, "has a key that is not text"),
        ("a: {<<: 1}\n", 0, "a merge key (<<) needs a mapping"),
        ("- " * 20_000 + "1", 0, "nested too deeply"),
        ("a:\n  &a [*a]\n", 1, "the anchor 'a' holds itself"),
        ('{"a":' * 50_000, 0, "nested too deeply"),
    ],
)
def test_errors_have_reason_and_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(BadDocument) as caught:
        nodes.read(text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.line == line


@pytest.mark.parametrize(
    "text", ["a: {b: 1}\nc: 2\na: {d: 3}\n", '{"a": 1, "c": 2, "a": {"d": 3}}']
)
def test_last_duplicate_key_wins(text: str) -> None:
    dead: list[nodes.Part] = []
    root, _ = nodes.read(text, dead)
    assert root is not None
    assert root.value == {"a": {"d": 3}, "c": 2}
    assert [(part.key, part.is_dead) for part in dead] == [("a", True)]


def test_exploding_aliases_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(BadDocument, match="more than 1,000,000 values"):
        nodes.read("\n".join(lines))


def test_places() -> None:
    text = "é: |\n  x\n\n# c\nb:\n- x # d\n-   &n name: 'z'\n    v: &a\n      k: 1\n- *a\n\n"
    text += "c: {d: [1, ~]}\n"
    root, _ = nodes.read(text)
    assert root is not None
    found = {path: text[node.start : node.end] for path, node in places(root)}
    assert found["é",] == "|\n  x"
    assert found["b", 0] == "x"
    assert found["b", 1, "name"] == "'z'"
    assert found["b", 1, "v"] == "&a\n      k: 1"
    assert found["b", 2] == "*a"
    assert found["c", "d"] == "[1, ~]"
    assert found["c", "d", 1] == "~"
    assert [text[part.start :].partition(":")[0] for part in root.parts] == ["é", "b", "c"]


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
def test_node_places_contain_their_values(value: Any, indent: int | str | None) -> None:
    text = "\n " + json.dumps(value, indent=indent) + "\r\n"
    root, is_json = nodes.read(text)
    assert root is not None
    assert is_json
    assert root.value == value
    for path, node in places(root):
        here = value
        for step in path:
            here = here[step]
        assert json.loads(text[node.start : node.end]) == here == node.value


@pytest.mark.parametrize("text", ["", "a: 1", "{a: 1}", "[1,]", '{"a": 1,}'])
def test_other_text_is_read_as_yaml(text: str) -> None:
    assert not nodes.read(text)[1]


# -- scalars have kubectl's values: every row was tried with kubectl 1.36 ---

TAG = "tag:yaml.org,2002:"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("y", True), ("n", False), ("Yes", True), ("off", False), ("FALSE", False)],
        *[("tRue", "tRue"), ("~", None), ("", None), ("Null", None), ("=", "="), ("x", "x")],
        *[("0644", 420), ("0o644", 420), ("+0644", 420), ("0_7", 7), ("00", 0), ("0689", 689)],
        *[("0x1F", 31), ("-0x1f", -31), ("0x_1", 1), ("0b11", 3), ("-0b11", -3), ("0o8", "0o8")],
        *[("0x", "0x"), ("0b", "0b"), ("+1", 1), ("-0", 0), ("1_000", 1000), ("1__0", 10)],
        *[("1e3", 1000), ("1.e3", 1000), ("1e+3", 1000), ("1.", 1), (".5", 0.5), ("+.5", 0.5)],
        *[("0.10", 0.1), ("1_0.5", 10.5), ("09.5", 9.5), ("1e-7", 1e-7), ("1e21", 1e21)],
        *[
            ("1e400", "1e400"),
            ("1:30", "1:30"),
            ("2024-01-02", "2024-01-02"),
            ("1" * 5000, "1" * 5000),
        ],
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
        ("9007199254740993", 9007199254740993),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", int(18446744073709551616.0)),
        ("0xFFFFFFFFFFFFFFFFFF", "0xFFFFFFFFFFFFFFFFFF"),
        ("123456789012345678901234567890", 1.2345678901234568e29),
    ],
)
def test_plain_scalars(text: str, value: object) -> None:
    found = scalars.plain(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("tag", "text", "value"),
    [
        *[("str", "1", "1"), ("int", "3", 3), ("float", "3", 3), ("float", "1e3", 1000)],
        *[("bool", "yes", True), ("null", "~", None), ("timestamp", "2020-01-01", "2020-01-01")],
        *[("binary", "aGVsbG8=", "hello"), ("binary", "aGVs\nbG8=", "hello")],
        *[("binary", "/w==", "\ufffd"), ("thing", "1", "1")],
    ],
)
def test_tags(tag: str, text: str, value: object) -> None:
    assert scalars.meaning(text, TAG + tag, True) == value


@pytest.mark.parametrize(
    ("tag", "text", "why"),
    [
        *[("int", "yes", "int"), ("null", "x", "null"), ("binary", "x", "binary")],
        *[("bool", "1", "bool"), ("int", "0.5", "int")],
        *[(None, text, "not a number in JSON") for text in (".inf", "-.inf", ".NaN", "+.Inf")],
    ],
)
def test_values_that_kubectl_refuses(tag: str | None, text: str, why: str) -> None:
    with pytest.raises(scalars.BadScalar, match=f"!!{why}" if tag else why):
        scalars.meaning(text, tag and TAG + tag, True)
