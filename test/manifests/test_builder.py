"""What does not matter in a document is left out of its tree, and so takes no room."""

import json
import re
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

import pytest
import yaml

from instaslice.manifests import json_nodes, yaml_nodes
from instaslice.manifests.builder import MAX_FIELDS
from instaslice.manifests.change import tree
from instaslice.manifests.documents import Rewriter
from instaslice.manifests.edit import UNWRITABLE, edit
from instaslice.manifests.layout import Layout
from instaslice.manifests.model import Task
from instaslice.manifests.nodes import BadDocument, Listing, Mapping
from instaslice.patch import add
from test.support.streams import dedent

Json = dict[str, Any]

NAMES: Final = re.compile("mig-[1-9]")
LIMITS: Final = {"nvidia.com/mig-1g.5gb": 1}


def value(text: str) -> Any:
    root = yaml_nodes.read(text, NAMES)
    assert root is not None
    return root.value


def test_what_names_nothing_is_empty() -> None:
    text = dedent("""
        kind: Pod
        metadata: {name: p, labels: {a: b}, annotations: {a: b}}
        spec:
          volumes:
          - {name: a}
          containers:
          - {name: a, env: [b], resources: {limits: {cpu: 1}}}
          - name: b
            env: [{name: b}]
            resources: {limits: {cpu: 1, mig-1g: 1}, requests: {cpu: 1}}
          - {name: c, resources: {claims: [{name: c}]}}
    """)
    assert value(text) == {
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {}, "annotations": {"a": "b"}},
        "spec": {
            "volumes": [],
            "containers": [
                {},
                {
                    "name": "b",
                    "env": [],
                    "resources": {"limits": {"cpu": 1, "mig-1g": 1}, "requests": {"cpu": 1}},
                },
                {"name": "c", "resources": {"claims": [{"name": "c"}]}},
            ],
        },
    }


@pytest.mark.parametrize("name", ["mig-1g", '"mig\\u002d1g"', '"mig\\x2d1g"', '"mi\\\n  g-1g"'])
def test_a_name_is_found_however_it_is_spelt(name: str) -> None:
    text = f"a: # mig-1\n  b: 1\nc: [{{d: 1, e: {name}}}, {{f: 1}}]\n"
    assert value(text) == {"a": {}, "c": [{"d": 1, "e": "mig-1g"}, {}]}


def test_what_an_alias_stands_for_is_there() -> None:
    assert value("a: &a {b: 1}\nc: {mig-1g: 1, d: *a}\n") == {
        "a": {"b": 1},
        "c": {"mig-1g": 1, "d": {"b": 1}},
    }
    assert value("a: {<<: {b: 1}}\nc: mig-1g\n") == {"a": {"b": 1}, "c": "mig-1g"}


def test_members_of_a_large_collection_leave_no_trace() -> None:
    many = range(2 * MAX_FIELDS)
    text = json.dumps(
        {
            "map": {**{f"k{i}": i for i in many}, "mig-1g": 1},
            "list": [*({"a": i} for i in many), "mig-1g"],
            "limits": {f"k{i}": i for i in many},
        }
    )
    for root in (json_nodes.read(text, NAMES), yaml_nodes.read(text, NAMES)):
        assert isinstance(root, Mapping)
        own = root.own()
        large = own["map"].node
        assert isinstance(large, Mapping)
        assert [*large.value] == [member.key for member in large.members]
        assert [*large.value] == [*(f"k{i}" for i in range(MAX_FIELDS)), "mig-1g"]
        listed = own["list"].node
        assert isinstance(listed, Listing)
        assert listed.value == [*({} for _ in many), "mig-1g"]
        assert len(listed.items) == len(listed.value)
        # What may be edited is all there.
        assert root.value["limits"] == {f"k{i}": i for i in many}
        assert large.is_cut
        assert listed.is_cut
        assert not root.is_cut


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a: {b: 1}\nc: mig-1g", "a: {b: 2}\nc: mig-1g"),
        ("a: {b: 1}\nc: mig-1g", "a: {c: 1}\nc: mig-1g"),
        ("a: {b: [1, 2]}\nc: mig-1g", "a: {b: [2, 1]}\nc: mig-1g"),
        ("a: [x]\nc: mig-1g", "a: []\nc: mig-1g"),
    ],
)
def test_what_is_left_out_counts(one: str, other: str) -> None:
    first, second = yaml_nodes.read(one, NAMES), yaml_nodes.read(other, NAMES)
    again = yaml_nodes.read(one, NAMES)
    assert first
    assert second
    assert first.value == second.value
    assert first.omitted != second.omitted
    assert first == again


def test_an_edit_of_what_is_not_there_is_refused() -> None:
    text = "".join(f"k{i}: {i}\n" for i in range(2 * MAX_FIELDS))
    root = yaml_nodes.read(text, NAMES)
    assert root is not None
    with pytest.raises(BadDocument, match=re.escape(UNWRITABLE)):
        edit(text, root, tree(root.value, [add("/k1", 2)]), Layout(), NAMES)


def deployment(**container: Any) -> Json:
    main = {"name": "main", "resources": {"limits": LIMITS}, **container}
    spec = {"containers": [main]}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": spec}}}


def many_containers(count: int) -> Json:
    manifest = deployment()
    manifest["spec"]["template"]["spec"]["containers"] += [
        {"name": f"c{i}", "image": "a/b:1", "resources": {"limits": {"cpu": 1}}}
        for i in range(count)
    ]
    return manifest


CUSTOM: Final = {"apiVersion": "example.com/v1", "kind": "Thing"}
#: Kinds of large document, of so many things.
KINDS: Final[dict[str, Callable[[int], Any]]] = {
    "variables": lambda n: deployment(env=[{"name": f"A{i}", "value": str(i)} for i in range(n)]),
    "arguments": lambda n: deployment(args=[f"argument-{i}" for i in range(n)]),
    "text": lambda n: deployment(env=[{"name": "A", "value": "".join(f"{i}\n" for i in range(n))}]),
    "containers": many_containers,
    "custom resource": lambda n: {
        **CUSTOM,
        "spec": {"limits": LIMITS, "things": [{"a": i, "b": [i, "x"]} for i in range(n)]},
    },
    "nothing in it": lambda n: {
        **CUSTOM,
        "spec": {"limits": LIMITS, "things": [{} for _ in range(n)]},
    },
    "data": lambda n: {
        "kind": "ConfigMap",
        "data": {"a": "nvidia.com/mig-1g.5gb: 1", **{f"key-{i}": f"value {i}" for i in range(n)}},
    },
    "values": lambda n: {
        "resources": {"limits": LIMITS},
        **{f"service-{i}": {"port": i, "hosts": ["a", "b"]} for i in range(n)},
    },
    "patch": lambda n: [
        *({"op": "replace", "path": f"/spec/a/{i}", "value": i} for i in range(n)),
        {"op": "add", "path": "/spec/limits/nvidia.com~1mig-1g.5gb", "value": 1},
    ],
}


def as_yaml(value: Any) -> str:
    """In libyaml, which is three times as fast."""
    return str(yaml.dump(value, Dumper=yaml.CSafeDumper))


@pytest.mark.parametrize("write", [json.dumps, as_yaml], ids=["json", "yaml"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_large_document_takes_little_room(kind: str, write: Callable[[Any], str]) -> None:
    count = 100_000 * 1_000 // len(write(KINDS[kind](1_000)))
    data = write(KINDS[kind](count)).encode()
    rewriter = Rewriter(Task(needs_operations=False, needs_edits=False))
    tracemalloc.start()
    try:
        (document,) = rewriter.each(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not document.errors
    assert document.changed or document.left
    # Of a collection, MAX_FIELDS members are kept, whatever they are: at most a KiB each.
    assert peak < 10 * len(data) + MAX_FIELDS * 1024
