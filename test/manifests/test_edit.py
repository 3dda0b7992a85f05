"""Documents keep their layout: text that is not edited stays as it was typed."""

import copy
import json
import re
from collections import Counter
from random import Random
from typing import Any

import jsonpatch
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from instaslice.manifests.edit import applied, edit, json_layout
from instaslice.manifests.nodes import read
from instaslice.patch import Operation, add, apply, remove, replace
from instaslice.resource_api import NEWEST
from instaslice.rewrite import rewrite
from test.support import pods, yaml_styles
from test.support.streams import dedent, numbered

RESOURCES = "/spec/containers/0/resources"
NEW = [{"name": "x"}]


def edited(text: str, operations: list[Operation]) -> str:
    root, is_json = read(text)
    assert root is not None
    meaning = apply(root.value, operations)
    # Aliases share their values, and a patch of one value would change the other.
    assert meaning == jsonpatch.apply_patch(json.loads(json.dumps(root.value)), operations)
    edits = edit(text, root, meaning, json_layout(text) if is_json else None)
    return applied(text, edits)


#: Lines that may change contain a resource, a key above it, a claim, or an alias.
CHANGES = re.compile(r"mig-|limits|requests|resources|laims|[*&]|<<|theirs|ours")


def kept(text: str) -> list[str]:
    """Lines that stay, except for commas and brackets that their neighbours need."""
    lines = (re.sub(r"[],} ]*( +# *[0-9]+)?\r?$", "", line) for line in text.split("\n"))
    return [line for line in lines if not CHANGES.search(line) and line.strip(" {}[],")]


@pytest.mark.property
@given(pod=pods.pods(), random=yaml_styles.STYLES)
def test_any_pod_in_any_yaml_style(pod: dict[str, Any], random: Random) -> None:
    text = yaml_styles.written(pod, random)
    operations = rewrite(pod, NEWEST, new_name=numbered()).operations
    result = edited(text, operations) if operations else text
    assert yaml.safe_load(result) == jsonpatch.apply_patch(copy.deepcopy(pod), operations)
    new = iter(kept(result))
    assert all(line in new for line in kept(text)), "a line is lost, or has moved"
    assert not Counter(re.findall(r"^ *# [0-9]+", text, re.M)) - Counter(
        re.findall("^ *# [0-9]+", result, re.M)
    )


@pytest.mark.property
@given(pod=pods.pods(), indent=st.sampled_from([None, 2, 4, "\t"]), ascii_=st.booleans())
def test_any_pod_in_json(pod: dict[str, Any], indent: int | str | None, ascii_: bool) -> None:
    pod["metadata"]["annotations"] = {"a": "<é>"}
    text = json.dumps(pod, indent=indent, ensure_ascii=ascii_)
    operations = rewrite(pod, NEWEST, new_name=numbered()).operations
    result = edited(text, operations)
    assert json.loads(result) == jsonpatch.apply_patch(copy.deepcopy(pod), operations)
    if indent is not None:
        # The layout is that of json.dumps in any order.
        again = json.dumps(json.loads(result), indent=indent, ensure_ascii=ascii_)
        assert result.splitlines() == again.splitlines()


def test_only_edited_lines_change() -> None:
    before = dedent("""
        kind: Pod   # a kind
        metadata: {name:   a, annotations: }
        spec:
          tolerations: [ a,  'b', "c" ]
          containers:
          - name: ~
            text: folded over
              two lines
            script: |
              # no comment

            # in front
            resources:
              requests: {cpu: 1}   # one
              # in front of limits
              limits:
                nvidia.com/mig-1g.5gb: 1  # goes
                # a remark that stays
          # about the next container
          - name: >-
              folded
        # at the end
    """)
    limits = "      limits:\n        nvidia.com/mig-1g.5gb: 1  # goes\n"
    claim = "resourceClaims:\n  - name: x\n"
    after = before.replace(limits, "      claims:\n      - name: x\n")
    after = after.replace("# at the end", f"  {claim}# at the end")
    operations = [
        add(f"{RESOURCES}/claims", NEW),
        remove(f"{RESOURCES}/limits"),
        add("/spec/resourceClaims", NEW),
    ]
    assert edited(before, operations) == after


@pytest.mark.parametrize(
    ("before", "operation", "after"),
    [
        # New items come before the comment that follows a list.
        (
            "c:\n  - k: a\n  # others\nmore: 1\n",
            add("/c/-", {"k": "b"}),
            "c:\n  - k: a\n  - k: b\n  # others\nmore: 1\n",
        ),
        ("c: []   # none\nd: 1\n", add("/c/-", "b"), "c: [b]   # none\nd: 1\n"),
        ("c: ~   # none\nd: 1\n", add("/c", NEW), "c:   # none\n- name: x\nd: 1\n"),
        ("c:\nd: 1", add("/c", NEW), "c:\n- name: x\nd: 1"),
        ("c: 1", add("/d", NEW), "c: 1\nd:\n- name: x"),
        ("c: 1\r\n", add("/d", NEW), "c: 1\r\nd:\r\n- name: x\r\n"),
        ("c: |\n  x", add("/d", 1), "c: |-\n  x\nd: 1"),
        ("c: &a >+  # c\n  x", add("/d", 1), "c: &a >-  # c\n  x\nd: 1"),
        ("c: {e: 1}\nc:\n  e: 1\nb: 1\n", add("/c/d", 1), "c: {e: 1}\nc:\n  e: 1\n  d: 1\nb: 1\n"),
        ("c: {e: 1}\nb: 1\nc: 2\n", remove("/c"), "b: 1\n"),
        ("a:\n-   b\nc: 1\n", add("/d", NEW), "a:\n-   b\nc: 1\nd:\n-   name: x\n"),
        ("c: |\n  x\n\n\n", add("/d", 1), "c: |\n  x\nd: 1\n\n\n"),
        ("c: |+\n  x\n\n", add("/d", 1), "c: |+\n  x\n\nd: 1\n"),
        ("c: 1\nd: {e: 1}\n", replace("/d/e", "0"), 'c: 1\nd: {e: "0"}\n'),
        ("d:\n  e: 1  # one\n", replace("/d/e", "0"), 'd:\n  e: "0"  # one\n'),
        (
            "-   k: a\n    m: 1\n",
            add("/-", {"k": "b", "m": 2}),
            "-   k: a\n    m: 1\n-   k: b\n    m: 2\n",
        ),
        ("a:\n- b: 1\n  c: 2\n", remove("/a/0/b"), "a:\n- c: 2\n"),
        ("a:\n- 1\n# two\n- 2  # 2\n- 3\n", remove("/a/1"), "a:\n- 1\n# two\n- 3\n"),
        ("a: [1, 2,\n  3]\n", remove("/a/1"), "a: [1,\n  3]\n"),
        ("{a: {b: 1}, c: 2}\n", remove("/a/b"), "{a: {}, c: 2}\n"),
        ("{a: 1, b: 2}\n", remove("/a"), "{b: 2}\n"),
        ("{a: 1, b: 2}\n", remove("/b"), "{a: 1}\n"),
        ("{\n  a: 1,  # one\n  b: 2   # two\n}\n", remove("/b"), "{\n  a: 1  # one\n}\n"),
        ("{\n  a: 1,  # one\n  b: 2   # two\n}\n", remove("/a"), "{\n  b: 2   # two\n}\n"),
        ("{\n  a: 1   # one\n}\n", add("/b", NEW), "{\n  a: 1,   # one\n  b: [{name: x}]\n}\n"),
        ("{a: 1,\n b: 2}\n", add("/c", 3), "{a: 1,\n b: 2,\n c: 3}\n"),
        (
            "a: &x\n  b: 1\nc: *x  # c\n",
            add("/c/d", 2),
            "a: &x\n  b: 1\nc:  # c\n  b: 1\n  d: 2\n",
        ),
        (
            "a: &x\n  b: 1\nc: *x  # c\n",
            add("/a/d", 2),
            "a: &x\n  b: 1\n  d: 2\nc:  # c\n  b: 1\n",
        ),
        (
            "a: &x {b: 1}\nc: {<<: *x, d: 2}\n",
            add("/a/e", 3),
            "a: &x {b: 1, e: 3}\nc: {b: 1, d: 2}\n",
        ),
        (
            "a: &x {b: 1}\nc:\n  <<: *x\n  d: 2  # d\n",
            remove("/c/b"),
            "a: &x {b: 1}\nc:\n  d: 2  # d\n",
        ),
        ("a: !!map\n  b: 1\n", add("/a/c", 2), "a: !!map\n  b: 1\n  c: 2\n"),
        (
            "a:\n  - &x\n    b: 1\n  - *x\n",
            add("/a/1/c", 2),
            "a:\n  - &x\n    b: 1\n  - b: 1\n    c: 2\n",
        ),
        ("a: 1\r\nb:\n  c: 1\r\n  d: 2\n", remove("/b/c"), "a: 1\r\nb:\n  d: 2\n"),
        ("b:\n  c: 1\r\n  d: 2\ne: 3\n", add("/b/x", 1), "b:\n  c: 1\r\n  d: 2\n  x: 1\ne: 3\n"),
        ('{"a":1}', add("/b", NEW), '{"a":1,"b":[{"name":"x"}]}'),
        ('{"a": 1}', add("/b", NEW), '{"a": 1, "b": [{"name": "x"}]}'),
        ('{"a": {}}', add("/a/b", 1), '{"a": {"b": 1}}'),
        ('{\n "a": {}\n}\n', add("/a/b", 1), '{\n "a": {\n  "b": 1\n }\n}\n'),
    ],
)
def test_each_layout(before: str, operation: Operation, after: str) -> None:
    assert edited(before, [operation]) == after


@pytest.mark.parametrize("step", [2, 4])
@pytest.mark.parametrize("dash", [0, 2])
def test_new_lines_are_indented_like_the_document(step: int, dash: int) -> None:
    i, d = " " * step, " " * dash
    before = f"spec:\n{i}a:\n{i}{d}- b:\n{i}{d}  {i}c: 1\n"
    after = before + f"{i}new:\n{i}{d}- name: x\n"
    assert edited(before, [add("/spec/new", [{"name": "x"}])]) == after


def test_text_is_quoted_where_needed() -> None:
    for text in ("yes", "1", "a: b", "- a", "é\u0085", "", "null", "0x1", "#", "😀"):
        result = edited("a: 1\n", [add("/b", [{"k": text}])])
        assert yaml.safe_load(result)["b"] == [{"k": text}]
