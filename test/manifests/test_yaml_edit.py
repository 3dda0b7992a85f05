"""Documents keep their form: what is not edited stays as it was typed."""

import copy
import json
import textwrap
from typing import Any

import jsonpatch
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from instaslice.manifests import yaml_edit
from instaslice.patch import add, remove
from instaslice.resource_api import NEWEST
from instaslice.rewrite import rewrite
from test.support import pods

RESOURCES = "/spec/containers/0/resources"
SLICE = "nvidia.com~1mig-1g.5gb"


def dedent(text: str) -> str:
    return textwrap.dedent(text.removeprefix("\n"))


def test_everything_but_the_edited_lines_stays() -> None:
    before = dedent("""
        kind: Pod   # a kind
        metadata: {name:   a, annotations: }
        # about the spec

        spec:
          tolerations: [ a,  'b', "c" ]
          containers:
          - name: ~
            mode: 0644
            text: folded over
              two lines
            script: |
              # no comment
              echo

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
    after = dedent("""
        kind: Pod   # a kind
        metadata: {name:   a, annotations: }
        # about the spec

        spec:
          tolerations: [ a,  'b', "c" ]
          containers:
          - name: ~
            mode: 0644
            text: folded over
              two lines
            script: |
              # no comment
              echo

            # in front
            resources:
              requests: {cpu: 1}   # one
              claims:
              - name: x
              # in front of limits
                # a remark that stays
          # about the next container
          - name: >-
              folded
          resourceClaims:
          - name: x
        # at the end
    """)
    operations = [
        add(f"{RESOURCES}/claims", [{"name": "x"}]),
        remove(f"{RESOURCES}/limits"),
        add("/spec/resourceClaims", [{"name": "x"}]),
    ]
    assert yaml_edit.edit(before, operations) == after


def test_lists_are_extended_in_front_of_the_comment_that_follows_them() -> None:
    before = "claims:\n  - name: a\n  # others\nmore: 1\n"
    after = "claims:\n  - name: a\n  - name: b\n  # others\nmore: 1\n"
    assert yaml_edit.edit(before, [add("/claims/-", {"name": "b"})]) == after


@pytest.mark.parametrize("step", [2, 4])
@pytest.mark.parametrize("dash", [0, 2])
def test_new_lines_are_indented_as_the_document_is(step: int, dash: int) -> None:
    i, d = " " * step, " " * dash
    before = f"spec:\n{i}a:\n{i}{d}- b:\n{i}{d}  {i}c: 1\n"
    after = before + f"{i}new:\n{i}{d}- name: x\n"
    assert yaml_edit.edit(before, [add("/spec/new", [{"name": "x"}])]) == after


def test_a_flow_document_stays_one() -> None:
    before = "{spec: {limits: {a: 1, b: 2}}}\n"
    operations = [remove("/spec/limits/a"), add("/spec/claims", [{"name": "x"}])]
    assert yaml_edit.edit(before, operations) == "{spec: {limits: {b: 2}, claims: [{name: x}]}}\n"


def test_an_edit_of_one_alias_leaves_the_others_alone() -> None:
    text = dedent("""
        shared: &r
          limits: {a: 1}
        one: *r
        two: {<<: *r, more: 1}
        three: *r
    """)
    for key in ("shared", "one", "two"):
        operations = [add(f"/{key}/limits/b", 2)]
        result = yaml.safe_load(yaml_edit.edit(text, operations))
        unshared = json.loads(json.dumps(yaml.safe_load(text)))
        assert result == jsonpatch.apply_patch(unshared, operations)


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("a: 1\nb: [1\n", 2, "expected ',' or ']'"),
        ("a: 1\na: 2\n", 1, 'found duplicate key "a"'),
        ("a:\n\t- b\n", 1, "cannot start any token"),
        ("a: *b\n", 0, "undefined alias"),
        ("a: \x00\n", 0, "special characters are not allowed"),
        ("- " * 20_000 + "1", 0, "nested too deeply"),
    ],
)
def test_what_is_no_yaml_is_named(text: str, line: int, reason: str) -> None:
    with pytest.raises(yaml_edit.BadDocument) as caught:
        yaml_edit.load(text)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.line == line


def test_aliases_that_stand_for_billions_are_refused() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    with pytest.raises(yaml_edit.BadDocument, match="more than 1,000,000 values"):
        yaml_edit.plain(yaml_edit.load("\n".join(lines)))


def test_a_node_in_itself_is_refused() -> None:
    with pytest.raises(yaml_edit.BadDocument, match="in itself"):
        yaml_edit.plain(yaml_edit.load("&a [*a]\n"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0644", 420),  # YAML 1.1, as kubectl reads it
        ("0689", 689),
        ("0x1F", 31),
        ("1e3", 1000.0),
        ("yes", True),
        ("Off", False),
        ("'yes'", "yes"),
        ("2024-01-02", "2024-01-02"),
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
        ("~", None),
        ("&a true", True),
        ("!thing x", "x"),
        ("1.5", 1.5),
        ("|\n  a\n", "a\n"),
    ],
)
def test_scalars_mean_what_kubectl_reads(text: str, value: object) -> None:
    meaning = yaml_edit.plain(yaml_edit.load(f"a: {text}\n"))
    assert meaning == {"a": value}
    assert type(meaning["a"]) is type(value)


def written(value: Any, draw: st.DrawFn) -> str:
    """YAML of some style, with comments strewn in; each has its number."""
    flow = draw(st.sampled_from([False, None]))
    lines = yaml.safe_dump(value, sort_keys=False, default_flow_style=flow).splitlines()
    strewn = []
    for number, line in enumerate(lines):
        if draw(st.booleans()):
            indent = line[: len(line) - len(line.lstrip())]
            strewn.append(f"{indent}# {number}")
        strewn.append(line)
    return "\n".join(strewn) + "\n"


@pytest.mark.property
@pods.FEWER
@given(data=st.data())
def test_any_pod_in_any_style(data: st.DataObject) -> None:
    pod = data.draw(pods.pods())
    text = data.draw(st.composite(lambda draw: written(pod, draw))())
    operations = rewrite(pod, NEWEST).operations
    result = yaml_edit.edit(text, operations)
    assert yaml.safe_load(result) == jsonpatch.apply_patch(copy.deepcopy(pod), operations)
    remarks = [line.strip() for line in text.splitlines() if line.lstrip().startswith("#")]
    assert [line.strip() for line in result.splitlines() if line.lstrip().startswith("#")] == (
        remarks
    )
