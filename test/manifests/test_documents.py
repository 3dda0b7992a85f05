"""What becomes of streams of manifests."""

import json
import re
import textwrap
from itertools import count
from pathlib import Path
from typing import Any

import jsonpatch
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from instaslice.manifests.documents import missing, rewrite_stream
from instaslice.resource_api import NEWEST
from instaslice.rewrite import NewName, rewrite
from test.support import pods

Json = dict[str, Any]

SPEC: Json = {
    "containers": [{"name": "c", "resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}],
}
SAMPLE = Path(__file__).parents[2] / "samples" / "sample.yaml"

#: Where a pod template is, by kind.
KINDS: dict[str, tuple[str, ...]] = {
    "Pod": (),
    "PodTemplate": ("template",),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "Rollout": ("spec", "template"),  # unknown to Kubernetes
}


def dedent(text: str) -> str:
    return textwrap.dedent(text.removeprefix("\n"))


def names() -> NewName:
    numbers = count(1)
    return lambda container, template: f"claim-{next(numbers)}"


def wrapped(kind: str, pod: Json) -> Json:
    """A manifest of a kind with the pod as its template."""
    inner: Json = {"spec": pod["spec"]}
    for step in reversed(KINDS[kind]):
        inner = {step: inner}
    return {"kind": kind, "metadata": {"name": "x"}, **inner}


def rewritten(text: str) -> list[Any]:
    documents = rewrite_stream(text, NEWEST, names())
    assert not any(document.errors for document in documents)
    return [d.value for d in documents if d.value is not None]


def plain_zeros(pod: Json) -> Json:
    """The pod with each 0 that stays in it as a number: PyYAML leaves "0e0" without quotes."""
    text = re.sub(r'"[+0.]*0(?:[eE][-+]?\d+|[a-z]?)"', "0", json.dumps(pod))
    plain: Json = json.loads(text)
    return plain


@pytest.mark.property
@pods.FEWER
@given(pod=pods.pods().map(plain_zeros), kind=st.sampled_from([*KINDS]))
def test_a_template_is_rewritten_as_the_pod_is(pod: Json, kind: str) -> None:
    manifest = wrapped(kind, pod)
    operations = rewrite(pod, NEWEST, new_name=names()).operations
    template = wrapped(kind, jsonpatch.apply_patch(pod, operations))
    for text in (json.dumps(manifest), yaml.safe_dump(manifest, sort_keys=False)):
        (document,) = rewrite_stream(text, NEWEST, names())
        assert document.errors == []
        assert document.value == template
        assert yaml.safe_load(document.after) == template
        assert jsonpatch.apply_patch(manifest, document.operations) == template
        again = rewrite_stream(document.after, NEWEST)
        assert all(document.after == document.before for document in again)


def test_lists_are_looked_into() -> None:
    pod = {"kind": "Pod", "spec": SPEC}
    inner = {"kind": "PodList", "items": [pod]}
    (value,) = rewritten(yaml.safe_dump({"kind": "List", "items": [None, pod, inner]}))
    claims = [{"name": "claim-1"}], [{"name": "claim-2"}]
    assert value["items"][1]["spec"]["containers"][0]["resources"]["claims"] == claims[0]
    assert (
        value["items"][2]["items"][0]["spec"]["containers"][0]["resources"]["claims"] == (claims[1])
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "# nothing\n",
        "---\n---\n...\n",
        "kind: ConfigMap\ndata: {a: 'nvidia.com/mig-1g.5gb: 1'}\n",
        "kind: ConfigMap\ndata:\n  a: |\n    ---\n    kind: Pod\n",
        "%YAML 1.1\n---   # first\na:   ~\n---\n\nb: [ 1 ]",
        '{"kind": "List",\n"items":   []}',
        "kind: Deployment\nspec: {template: 1}\n",
        "kind: Pod\r\nspec: {}\r\n",
        "\ufeffa: 1\n",
    ],
)
def test_what_does_not_change_stays_to_the_byte(text: str) -> None:
    documents = rewrite_stream(text, NEWEST)
    assert [d.errors for d in documents if d.errors] == []
    assert "".join(d.before for d in documents) == text
    assert "".join(d.after for d in documents) == text


@pytest.mark.property
@given(text=st.text(alphabet="-.#{}[]:&*!|> \n\r\ta%\"'\ufeff\x00\u2028é"))
def test_any_text_is_handled(text: str) -> None:
    documents = rewrite_stream(text, NEWEST)
    assert "".join(d.before for d in documents) == text
    for document in documents:
        assert 1 <= document.line <= text.count("\n") + 1
        for error in document.errors:
            assert "\n" not in str(error)


def test_each_document_keeps_its_surroundings() -> None:
    text = dedent("""
        # head
        kind: ConfigMap
        ---   # second
        # about the pod
        kind: Pod
        spec:
          containers:
          - name: a
            resources: {limits: {nvidia.com/mig-1g.5gb: 1}}

        # between
        ---
        other:   true
        ...
        # the end
    """)
    after = "".join(d.after for d in rewrite_stream(text, NEWEST, names()))
    assert after == dedent("""
        # head
        kind: ConfigMap
        ---   # second
        # about the pod
        kind: Pod
        spec:
          containers:
          - name: a
            resources: {claims: [{name: claim-1}]}
          resourceClaims:
          - name: claim-1
            resourceClaimTemplateName: mig-1g.5gb

        # between
        ---
        other:   true
        ...
        # the end
    """)


def test_lines_keep_their_ends() -> None:
    text = yaml.safe_dump({"kind": "Pod", "spec": SPEC}).replace("\n", "\r\n")
    (document,) = rewrite_stream(text, NEWEST)
    assert document.changed
    assert document.after.count("\n") == document.after.count("\r\n")


@pytest.mark.parametrize("indent", [None, 2, 4, "\t"])
def test_json_keeps_its_layout(indent: int | str | None) -> None:
    pod = {"kind": "Pod", "metadata": {"name": "ü"}, "spec": SPEC}
    text = json.dumps(pod, indent=indent, ensure_ascii=False) + "\n"
    (document,) = rewrite_stream(text, NEWEST, names())
    assert document.after == (json.dumps(document.value, indent=indent, ensure_ascii=False) + "\n")
    compact = json.dumps(pod, separators=(",", ":"), ensure_ascii=False)
    (document,) = rewrite_stream(compact, NEWEST, names())
    assert document.after == json.dumps(document.value, separators=(",", ":"), ensure_ascii=False)


def test_an_error_is_named_by_line_and_path() -> None:
    text = dedent("""
        kind: ConfigMap
        ---
        kind: CronJob
        spec:
          jobTemplate:
            spec:
              template:
                spec:
                  containers:
                  - name: a
                  - name: b
                    resources:
                      limits:
                        cpu: 1
                        nvidia.com/mig-1g.5gb: 500m
        ---
        kind: List
        items:
        - kind: Pod
          spec:
            containers:
            - resources: {requests: {nvidia.com/mig-1g.5gb: 1}}
        ---
        kind: Pod
        spec: {containers: 1}
        ---
        - kind: Pod
        ---
        a: 1
        a: 2
    """)
    documents = rewrite_stream(text, NEWEST)
    template = "spec.jobTemplate.spec.template"
    assert [(e.line, str(e)) for d in documents for e in d.errors] == [
        (
            15,
            f"{template}.spec.containers[1].resources.limits[nvidia.com/mig-1g.5gb]: "
            'Invalid value: "500m": must be an integer',
        ),
        (
            22,
            "items[0].spec.containers[0].resources.limits: "
            "Required value: Limit must be set for non overcommitable resources",
        ),
        (25, "spec.containers: must be an array"),
        (27, "is not an object, as every manifest is"),
        (30, 'found duplicate key "a" with value "2" (original value: "1")'),
    ]
    assert all(d.after == d.before for d in documents)


def test_warnings_are_those_of_the_webhook() -> None:
    limits = {"nvidia.com/mig-9g.999gb": 1, "nvidia.com/mig-1g.5gb.shared": 1}
    pod = {"kind": "Pod", "spec": {"containers": [{"resources": {"limits": limits}}]}}
    (document,) = rewrite_stream(yaml.safe_dump(pod), NEWEST)
    assert [str(w) for w in document.warnings] == rewrite(pod, NEWEST).warnings


def test_the_templates_that_are_missing() -> None:
    text = dedent("""
        kind: Pod
        metadata: {namespace: a}
        spec:
          containers:
          - resources: {limits: {nvidia.com/mig-1g.5gb: 2, nvidia.com/mig-3g.20gb: 1}}
        ---
        kind: Pod
        spec:
          containers: []
          resourceClaims:
          - {name: x, resourceClaimTemplateName: mig-1g.5gb.me}
          - {name: y, source: {resourceClaimTemplateName: mig-2g.10gb}}
          - {name: z, resourceClaimTemplateName: theirs}
        ---
        kind: ResourceClaimTemplate
        metadata: {name: mig-3g.20gb, namespace: a}
    """)
    documents = rewrite_stream(text, NEWEST)
    assert [(t.namespace, t.asks.template) for t in missing(documents)] == [
        ("a", "mig-1g.5gb.x2"),
        (None, "mig-1g.5gb.me"),
        (None, "mig-2g.10gb"),
    ]
