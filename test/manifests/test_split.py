"""Texts are cut into documents; a large List is rewritten item by item, as a small one whole."""

import json
from typing import Any

import pytest
import yaml

from instaslice.manifests import documents as cut
from instaslice.manifests.documents import Task
from test.support.streams import rewritten

Json = dict[str, Any]

POD: Json = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "annotations": {"script": "a\n- b\n\nc\n"}},
    "spec": {"containers": [{"name": "c", "resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}]},
}
OTHER: Json = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"items": "- a\n"}}


ODD = {**POD, "spec": {"containers": [{"resources": {"limits": {"nvidia.com/mig-x": 1}}}]}}


def listed(*items: Json) -> str:
    copies = json.loads(json.dumps(items))  # else the second of two would be an alias
    return str(
        yaml.safe_dump({"apiVersion": "v1", "items": copies, "kind": "List", "m": {"a": ""}})
    )


@pytest.mark.parametrize("indent", ["", "  "])
def test_item_by_item_is_as_the_whole(indent: str) -> None:
    text = listed(OTHER, POD, ODD, OTHER, POD)
    head, _, rest = text.partition("items:\n")
    items, _, tail = rest.partition("kind: List")
    items = "".join(indent + line for line in items.splitlines(keepends=True))
    text = f"# head\n{head}items:  # all\n{items}# between\nkind: List{tail}"
    (whole,) = rewritten(text)
    assert whole.changed
    (apart,) = rewritten(text, large=10)
    assert apart == whole
    (apart,) = rewritten(text, Task(needs_values=True))
    assert apart.value == yaml.safe_load(apart.after)


@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_so_it_is_in_json(indent: int | str | None) -> None:
    value = {"kind": "List", "items": [OTHER, POD, ODD, OTHER, POD], "metadata": {"items": []}}
    text = f"\n{json.dumps(value, indent=indent)}\n"
    (whole,) = rewritten(text)
    assert whole.changed
    (asked,) = rewritten(text, Task(needs_values=True))
    assert whole.after == f"\n{json.dumps(asked.value, indent=indent)}\n"
    (apart,) = rewritten(text, large=10)
    assert apart == whole


def test_what_is_wrong_with_an_item_is_wrong_with_the_list() -> None:
    text = listed(OTHER, POD, POD).replace("mig-1g.5gb: 1", "mig-1g.5gb: -1", 1)
    line = text.count("\n", 0, text.index("mig-1g.5gb: -1")) + 1
    (document,) = rewritten(text, large=10)
    assert [(e.line, e.path) for e in document.errors] == [
        (line, "items[1].spec.containers[0].resources.limits[nvidia.com/mig-1g.5gb]")
    ]
    assert document.after == document.before
    (document,) = rewritten(listed(POD).replace("kind: Pod", "kind: [Pod"), large=10)
    assert document.errors


@pytest.mark.parametrize(
    "text",
    [
        '{"items": [1]}',
        '{"kind": "List", "items": []}',
        '{"kind": "List", "items": "[1]"}',
        '{"kind": "Pod", "items": [1]}',
        '{"kind": "List", "items": [1,]}',
        '{"kind": "List", "items": [1]} x',
        '{"kind": "List", "items": [1]',
        '{"kind": "List", "items" [1]}',
        '{kind: "List", items: [1]}',
        "items:\n- a: &x 1\n- b: *x\nkind: List\n",  # one item refers to another
        "items:\n- a: 1\nkind: Pod\n",
        "items: [1, 2]\nkind: List\n",
        "kind: List\n",
        "",
    ],
)
def test_what_is_no_list_is_not_cut_apart(text: str) -> None:
    assert cut.items_of_json(text) is None
    assert cut.items_of_yaml(text) is None


@pytest.mark.parametrize(
    "documents",
    [
        [""],
        ["a: 1"],
        ["a: 1\n", "---\nb: 2\n"],
        ["---\na: 1\n", "--- # second\nb: 2\n", "---"],
        ["a: 1\n", "...\n", "---\nb: 2"],
        ["a: |\n  ---\n  ...\n", "---\r\nb: 2\r\n"],
        ["----\n--- a\n"[:5], "--- a\n"],
        ['{"a": 1}\n', '{"b": 2}\n'],
        ['{\n"a": [\n{}\n, {}\n]}\n\n', '{"b": 2}'],
        ['\ufeff{"a": 1}\n', '{"b": 2}'],
        ['---\n{"a": 1}\n', '{"b": 2}\n'],
        ["{a: 1}\n{b: 2}\n"],  # not JSON: one document, with something wrong in it
        ['{"a": 1} ', '{"b": "}{"}', "{}\n"],
        ['{"a": "}{"}'],
        ['{"a": 1}\n[]'],
        ['{"a": 1}\nb: 2 {}{}'],
    ],
)
def test_documents(documents: list[str]) -> None:
    assert [*cut.split("".join(documents))] == [piece for piece in documents if piece]
