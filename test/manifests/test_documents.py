"""Streams of manifests, and how they are rewritten."""

import json
import re
from random import Random
from typing import Any

import jsonpatch
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from instaslice.manifests import documents
from instaslice.manifests.documents import Need, Rewriter, Task
from instaslice.manifests.workloads import BUILT_IN, read_kinds
from instaslice.resource_api import NEWEST
from instaslice.rewrite import rewrite
from test.support import pods, yaml_styles
from test.support.counting import lines_of_python
from test.support.streams import after, dedent, nameless, numbered, places, rewritten

Json = dict[str, Any]

RESOURCES: Json = {"limits": {"nvidia.com/mig-1g.5gb": 1}}
SPEC: Json = {"containers": [{"name": "c", "image": "x", "resources": RESOURCES}]}
#: A pod with limits to fill in.
LIMITED = "kind: Pod\nspec: {containers: [{resources: {limits: {%s}}}]}\n"


def wrapped(group: str, kind: str, pod: Json) -> Json:
    """A manifest with the pod as its template."""
    inner: Json = {"spec": pod["spec"]}
    steps = BUILT_IN[group, kind]
    for step in reversed(steps):
        inner = {str(step): inner}
    if group == "apps":
        inner["spec"] = {"selector": {"matchLabels": {"a": "b"}}, **inner["spec"]}
    version = f"{group}/v1" if group else "v1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": "x"}, **inner}


def reported(text: str, task: Task | None = None) -> list[tuple[int, str]]:
    """The errors in a stream, and the limits that are left in it."""
    documents = rewritten(text, task)
    return [(p.line, str(p)) for d in documents for p in [*d.errors, *d.problems["left"]]]


@pytest.mark.property
@pods.FEWER
@given(pod=pods.pods(), of=st.sampled_from([*BUILT_IN]))
def test_template_is_rewritten_like_its_pod(pod: Json, of: tuple[str, str]) -> None:
    spec = pod["spec"]
    for container in [*spec.get("containers", []), *(spec.get("initContainers") or [])]:
        container["image"] = "registry.example.com/x"  # without one it is a patch
    manifest = wrapped(*of, pod)
    operations = rewrite(pod, NEWEST, new_name=numbered()).operations
    template = wrapped(*of, jsonpatch.apply_patch(pod, operations))

    def without_names(value: Any) -> Any:
        text = nameless(json.dumps(value))
        return json.loads(re.sub(r"claim-[0-9]+", "UUID", text))

    for text in (json.dumps(manifest), yaml_styles.written(manifest, Random(0))):
        (document,) = rewritten(text, Task(needs_values=True))
        assert document.errors == []
        value = document.value
        if document.changed:
            assert without_names(value) == without_names(template)
            assert yaml.safe_load(document.after) == value
            assert jsonpatch.apply_patch(manifest, document.operations) == value
        else:
            assert not operations
        (again,) = rewritten(document.after)
        assert again.after == again.before


def test_items_of_lists_are_rewritten() -> None:
    # kubectl writes lists of one kind whose items do not name it.
    pods = {"apiVersion": "v1", "kind": "PodList", "items": [{"spec": SPEC}]}
    template = {"spec": {"template": {"spec": SPEC}}}
    deployments = {"apiVersion": "apps/v1", "kind": "DeploymentList", "items": [template]}
    items = [None, {"kind": "Pod", "spec": SPEC}, pods, deployments]
    text = yaml.safe_dump({"apiVersion": "v1", "kind": "List", "items": items})
    (document,) = rewritten(text, Task(needs_values=True))
    assert nameless(json.dumps(document.value)).count('"claims": [{"name": "UUID"}]') == 3
    assert 'mig-1g.5gb": 1' not in json.dumps(document.value)
    assert yaml.safe_load(after(text)) == document.value


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "# nothing\n",
        "---\n---\n...\n",
        "kind: ConfigMap\ndata: {a: 'nvidia.com/mig-1g.5gb is a resource'}\n",
        "kind: ConfigMap\ndata:\n  a: |\n    ---\n    kind: Pod\n",
        "%YAML 1.1\n---   # first\na:   ~\n---\n\nb: [ 1 ]",
        '{"kind": "List",\n"items":   []}',
        "kind: Deployment\nspec: {template: 1}\n",
        "- {op: remove, path: /a} # nvidia.com/mig-1g.5gb\n- {op: remove, path: /x}\n",
        "kind: Pod\r\nspec: {}\r\n",
        "\ufeffa: 1\n",
        "kind: Pod\nspec: {containers: [{resources: {limits: {nvidia.com/mig-1g.5gb: 0}}}]}\n",
        "kind: Pod\nspec: {containers: [{resources: {limits: {nvidia.com/mig-1g.5gb: null}}}]}\n",
        "this: {is no: {{ yaml }}, at: all\n",  # not parsed, since it names nothing of interest
    ],
)
def test_unchanged_documents_keep_every_byte(text: str) -> None:
    for task in (Task(), Task(needs_values=True)):
        documents = rewritten(text, task)
        assert "".join(d.before for d in documents) == text
        assert "".join(d.after for d in documents) == text
    assert [d.errors for d in rewritten(text) if d.errors] == []


@pytest.mark.property
@given(text=st.text(alphabet="-.#{}[]:&*!|> \n\r\ta%\"'\ufeff\x00\u2028é"))
def test_any_text_is_handled(text: str) -> None:
    documents = rewritten(text, Task(needs_values=True))
    assert "".join(d.before for d in documents) == text
    for document in documents:
        assert 1 <= document.line <= text.count("\n") + 1
        for error in document.errors:
            assert "\n" not in str(error)


def test_error_has_line_and_path() -> None:
    text = dedent("""
        kind: ConfigMap
        ---
        kind: CronJob
        spec: {jobTemplate: {spec: {template: {spec: {containers: [{name: a}, {
          resources: {limits: {
            cpu: 1,
            nvidia.com/mig-1g.5gb: 500m
          }}}]}}}}}
        ---
        kind: List
        items:
        - kind: Pod
          spec:
            containers:
            - resources: {requests: {nvidia.com/mig-1g.5gb: 1}}
        ---
        kind: Pod
        spec: {containers: 1}  # mig-1
        ---
        - kind: Pod  # mig-1
        ---
        a: 1
        b: [2  # mig-1
    """)
    template = "spec.jobTemplate.spec.template"
    assert reported(text) == [
        (
            7,
            f"{template}.spec.containers[1].resources.limits[nvidia.com/mig-1g.5gb]: "
            'Invalid value: "500m": must be an integer',
        ),
        (
            15,
            "items[0].spec.containers[0].resources.limits: "
            "Required value: Limit must be set for non overcommitable resources",
        ),
        (18, "spec.containers: must be an array"),
        (20, "is not an object, as every manifest is"),
        (24, "did not find expected ',' or ']'"),
    ]
    assert all(d.after == d.before for d in rewritten(text))


@pytest.mark.parametrize("value", ["{a: 1}", "[]", "true", "~x", "{? {a: 1} : null}"])
def test_errors_show_values_as_yaml(value: str) -> None:
    ((_, message),) = reported(LIMITED % f"nvidia.com/mig-1g.5gb: {value}")
    for word in ("None", "True", "dict", "<", "object at"):
        assert word not in message


def test_warnings_have_line_path_and_container() -> None:
    limits = "{\n nvidia.com/mig-1g.5GB: 1,\n nvidia.com/mig-9g.999gb: 1}"
    container = f"{{name: b, resources: {{limits: {limits}}}}}"
    (document,) = rewritten(f"kind: Pod\nspec: {{containers: [{container}]}}\n")
    path = "spec.containers[0].resources.limits"
    odd = "left as it is: it is not a MIG profile such as mig-1g.5gb"
    unknown = "InstaSlice knows no GPU with the MIG profile 9g.999gb"
    for weight, row in (
        ("left", (3, f"{path}[nvidia.com/mig-1g.5GB]", f"container b: {odd}")),
        ("warning", (4, f"{path}[nvidia.com/mig-9g.999gb]", f"container b: {unknown}")),
    ):
        assert document.problems[weight] == [row]


def test_warns_of_node_selectors_that_match_no_node() -> None:
    text = dedent("""
        kind: Pod
        spec:
          nodeName: node-1
          nodeSelector:
            nvidia.com/gpu.product: NVIDIA-A100-SXM4-40GB-MIG-1g.5gb
            nvidia.com/mig.config: all-1g.5gb
          containers: [{resources: {limits: {nvidia.com/mig-1g.5gb: 1}}}]
    """)
    (document,) = rewritten(text)
    found = document.problems["warning"]
    assert [(line, path) for line, path, _ in found] == [
        (3, "spec.nodeName"),
        (5, "spec.nodeSelector[nvidia.com/gpu.product]"),
        (6, "spec.nodeSelector[nvidia.com/mig.config]"),
    ]
    single = "nvidia.com/gpu is a slice on such nodes: --resource nvidia.com/gpu=mig-1g.5gb"
    assert found[1].message.endswith(single)
    (again,) = rewritten(document.after)
    assert len(again.problems["warning"]) == 3
    # A pod that requests whole GPUs on such nodes gets the warnings, too.
    (other,) = rewritten(text.replace("mig-1g.5gb: 1", "gpu: 1"))
    assert [each.line for each in other.problems["warning"]] == [5, 6]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n"
            "spec: {template: {spec: {nodeSelector: {nvidia.com/mig.config: a}}}}",
            "spec.template.spec.nodeSelector[nvidia.com/mig.config]",
        ),
        (
            "apiVersion: kueue.x-k8s.io/v1\nkind: ResourceFlavor\n"
            "spec: {nodeLabels: {nvidia.com/mig.config: a}}",
            "spec.nodeLabels[nvidia.com/mig.config]",
        ),
        (
            "apiVersion: kueue.x-k8s.io/v1\nkind: Topology\n"
            "spec: {levels: [{nodeLabel: nvidia.com/mig.strategy}]}",
            "spec.levels[0].nodeLabel",
        ),
        (
            "apiVersion: karpenter.sh/v1\nkind: NodePool\nspec: {template: {spec: {requirements: "
            "[{key: nvidia.com/gpu.product, operator: In, values: [A30-MIG-1g.6gb]}]}}}",
            "spec.template.spec.requirements[0]",
        ),
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a, labels: {nvidia.com/mig.config: a}}\n"
            "spec: {containers: [], tolerations: [{key: nvidia.com/mig.config}], "
            "topologySpreadConstraints: [{topologyKey: nvidia.com/mig.config}]}",
            "spec.topologySpreadConstraints[0].topologyKey",
        ),
        ("a: {nodeSelector: {nvidia.com/mig.config: a}}", "a.nodeSelector[nvidia.com/mig.config]"),
    ],
)
def test_warns_of_node_labels_without_a_limit(text: str, where: str) -> None:
    (document,) = rewritten(text)
    assert [problem.path for problem in document.problems["warning"]] == [where]
    assert not document.problems["left"]


@pytest.mark.parametrize("operator", ["NotIn", "DoesNotExist", "[]"])
def test_no_warning_of_a_label_that_nodes_need_not_have(operator: str) -> None:
    text = f"a: {{matchExpressions: [{{key: nvidia.com/mig.config, operator: {operator}}}]}}"
    (document,) = rewritten(text)
    assert not any(document.problems.values())


def test_warns_of_duplicate_keys() -> None:
    (document,) = rewritten(LIMITED % "nvidia.com/mig-1g.5gb: 2, nvidia.com/mig-1g.5gb: 1")
    ((line, _, message),) = document.problems["warning"]
    assert (line, message.partition(" in the")[0]) == (
        2,
        "the key 'nvidia.com/mig-1g.5gb' occurs twice",
    )
    assert [*document.needs] == [Need(None, "mig-1g.5gb")]


WORKFLOW = "argoproj.io/Workflow"


@pytest.mark.parametrize(
    ("kind", "template"),
    [
        (WORKFLOW, '{"container": %s}'),
        (WORKFLOW, '{"script": %s, "initContainers": []}'),
        (WORKFLOW, '{"container": {}, "sidecars": [{}, %s]}'),
        (WORKFLOW, '{"containerSet": {"containers": [%s]}}'),
        ("serving.kserve.io/InferenceService", '{"model": %s, "containers": []}'),
    ],
)
def test_containers_outside_container_lists_are_rewritten(kind: str, template: str) -> None:
    group, _, name = kind.partition("/")
    container = '{"name": "c", "resources": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}'
    head = f'{{"apiVersion": "{group}/v1", "kind": "{name}", "spec": {{"templates": '
    text = f"{head}[{template % container}]}}}}"
    (document,) = rewritten(text)
    says = f"{kind}=spec.templates[*]"
    assert document.problems["left"][0].message.endswith(f"(if it keeps them: --kinds {says})")
    (document,) = rewritten(text, Task(kinds=read_kinds([says])))
    (made,) = json.loads(document.after)["spec"]["templates"]
    expected = json.loads(template % '{"name": "c", "resources": {"claims": [{"name": "UUID"}]}}')
    expected["resourceClaims"] = [{"name": "UUID", "resourceClaimTemplateName": "mig-1g.5gb"}]
    assert json.loads(nameless(json.dumps(made))) == expected
    (back,) = rewritten(document.after, Task(kinds=read_kinds([says]), is_reverse=True))
    assert back.after == text


HELM = "a Helm template: render it first (helm template ... | instaslice rewrite -)"
SLICES = LIMITED % "nvidia.com/mig-1g.5gb: %s"


@pytest.mark.parametrize(
    ("text", "mark", "what"),
    [
        (SLICES % "\n {{ .Values.slices }}", "{{", HELM),
        (SLICES % '"{{ .n }}"', "{{", HELM),
        ("kind: Pod\nspec:\n{{- if .x }}\n  a: nvidia.com/mig-1g.5gb\n{{- end }}\n", "{{", HELM),
        (SLICES % '"{{ slices }}"', "{{", "a template of Jinja or "),
        ("{% if x %}\n" + SLICES % 1, "{%", "a template of Jinja"),
        (SLICES % "${SLICES}", "${", "a template of a shell or"),
        (
            'resource "pod" "a" {\n  limits = { "nvidia.com/mig-1g.5gb" = 1 }\n}\n',
            "res",
            "Terraform",
        ),
    ],
)
def test_templates_of_other_programs_are_recognized(text: str, mark: str, what: str) -> None:
    ((line, message),) = reported(text)
    assert line == text.count("\n", 0, text.index(mark)) + 1
    assert message.startswith(f"looks like {what}")


def test_pods_that_the_webhook_skips_get_a_note() -> None:
    pod = "metadata: {%s}\n" + LIMITED % "nvidia.com/mig-1g.5gb: 1"
    label = "labels: {instaslice.io/rewrite: disabled}"
    said, has = "left as it is: it {}".format, "has the label instaslice.io/rewrite: disabled"
    rows = [
        (pod % label, [said(has)]),
        (pod % "namespace: kube-system", [said("is in the namespace kube-system")]),
        (pod % "namespace: instaslice-system", [said("is in the namespace instaslice-system")]),
        (pod % 'annotations: {kubernetes.io/config.mirror: ""}', []),
        (f"kind: Namespace\nmetadata: {{name: ours, {label}}}\n", []),
        (pod % "namespace: ours", [said(f"is in the namespace ours, which {has}")]),
        (pod % "namespace: theirs, labels: {instaslice.io/rewrite: enabled}", []),
    ]
    documents = rewritten("---\n".join(text for text, _ in rows))
    assert [d.changed for d in documents] == [False] * 6 + [True]
    assert [[*map(str, d.problems["note"])] for d in documents] == [notes for _, notes in rows]
    assert not any(d.problems["left"] or d.errors for d in documents)


@pytest.mark.parametrize(
    "name",
    [
        '"nvidia.com\\/mig-1g.5gb"',
        '"nvidia.com\\u002fmig-1g.5gb"',
        '"nvidia.com\\x2fmig-1g.5gb"',
        '"\\U0000006evidia.com/mig-1g.5gb"',
        '"nvidia.com/\\\n   mig-1g.5gb"',
        "!!binary bnZpZGlhLmNvbS9taWctMWcuNWdi",
        "!<tag:yaml.org,2002:binary> bnZpZGlhLmNvbS9taWctMWcuNWdi",
    ],
)
def test_escaped_names_are_found(name: str) -> None:
    text = f"kind: Pod\nspec: {{containers: [{{resources: {{limits: {{ ? {name} : 1}}}}}}]}}\n"
    (document,) = rewritten(text)
    assert document.changed or document.errors
    assert not Rewriter(Task()).needs_look("kind: Pod\nspec: {command: ['a\\nb\\t\\/\\x41']}\n")


def test_annotations_apply_in_files() -> None:
    text = "metadata:\n  annotations: {instaslice.io/alternatives: 3g.20gb or 4g.20gb}\n"
    text += LIMITED % "nvidia.com/mig-3g.20gb: 1"
    (document,) = rewritten(text)
    assert [*document.needs] == [Need(None, "mig-3g.20gb-or-4g.20gb")]
    ((line, message),) = reported(text.replace(" or ", " oder "))
    assert line == 2
    assert message.startswith("metadata.annotations[instaslice.io/alternatives]: ")


def test_documents_know_needed_and_defined_objects() -> None:
    template = "resourceClaimTemplateName"
    texts = [
        "metadata: {namespace: a}\n"
        + LIMITED % "nvidia.com/mig-1g.5gb: 2, nvidia.com/mig-3g.20gb: 1",
        "kind: Pod\nspec:\n  containers: []\n  resourceClaims:\n"
        f"  - {{name: x, {template}: mig-1g.5gb.me}}\n  - {{name: z, {template}: theirs}}\n"
        f"  - {{name: y, source: {{{template}: mig-2g.10gb}}}}\n",
        "kind: ResourceClaimTemplate\nmetadata: {name: mig-3g.20gb, namespace: a}\n",
        "kind: DeviceClass\nmetadata: {name: mig-3g.20gb.nvidia.com}\n",
    ]
    assert [[*d.needs, *d.has] for d in rewritten("---\n".join(texts))] == [
        [Need("a", "mig-1g.5gb.x2"), Need("a", "mig-3g.20gb")],
        [Need(None, "mig-1g.5gb.me"), Need(None, "mig-2g.10gb")],
        [Need("a", "mig-3g.20gb")],
        [Need(None, "mig-3g.20gb.nvidia.com", "DeviceClass")],
    ]


def test_concatenated_json_objects_are_separate_documents() -> None:
    pod = json.dumps({"kind": "Pod", "spec": SPEC})
    text = f"{pod} {pod}\n{pod}{pod}\n"
    documents = rewritten(text)
    assert [d.changed for d in documents] == [True] * 4
    assert [d.line for d in documents] == [1, 1, 2, 2]


def test_invalid_utf8_is_an_error_of_its_document() -> None:
    first, bad, last = Rewriter(Task()).each("é: 1\n---\n".encode() + b"a: \xe9\n---\nb: 1\n")
    assert bad.errors == [(2, "", "is not UTF-8 at byte 13")]
    assert first.errors == last.errors == []


def test_uneditable_layout_is_an_error_unless_output_is_json() -> None:
    text = "kind: Pod\nspec:\n  containers:\n  - resources:\n"
    text += "      ? limits\n      : nvidia.com/mig-1g.5gb: 1\n"
    assert reported(text) == [(1, "cannot be rewritten in this layout; try -o json")]
    (document,) = rewritten(text, Task(needs_values=True))
    assert not document.errors
    assert [*document.value["spec"]["containers"][0]["resources"]] == ["claims"]


# -- values of the wrong type ---

ONE = {"nvidia.com/mig-1g.5gb": "1"}
POD: Json = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p", "annotations": {"a": "b"}},
    "spec": {
        "containers": [
            {"name": "a", "resources": {"limits": ONE, "requests": ONE, "claims": [{"name": "x"}]}},
            {"name": "b", "resources": {"limits": {"cpu": 1}, "claims": [{"name": "c"}]}},
        ],
        "initContainers": [{"name": "i", "image": "x", "restartPolicy": "Always"}],
        "resourceClaims": [{"name": "x", "resourceClaimTemplateName": "mig-1g.5gb"}],
    },
}


@pytest.mark.parametrize("wrong", [5, True, "x", [1], [[]], {"a": 1}, None], ids=repr)
def test_wrong_types_give_the_same_result_in_large_lists(wrong: Any) -> None:
    """A large List is read item by item, with the same result."""
    for path in places(POD)[1:]:
        manifest = json.loads(json.dumps(POD))
        holder = manifest
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = wrong
        text = yaml.safe_dump({"kind": "List", "items": [manifest]}, sort_keys=False)
        for task in (Task(), Task(is_reverse=True)):
            assert rewritten(text, task, large=10) == rewritten(text, task), path


def test_invalid_resources_are_an_error_beside_a_container_with_limits() -> None:
    text = LIMITED % "nvidia.com/mig-1g.5gb: 1"
    assert reported(text.replace("[{", '[{resources: ""}, {')) == [
        (2, "spec.containers[0].resources: must be an object")
    ]


def test_too_large_document_is_an_error() -> None:
    text = "kind: ConfigMap\ndata:\n  a: nvidia.com/mig-1g.5gb\n  b: " + "x" * 16_000_000
    why = "has more than 16 MB and is no List: put its objects into separate documents"
    assert reported(text) == [(1, why)]
    assert not reported(text.replace("nvidia.com/mig-1g.5gb", "c"))


def test_list_without_operations_is_not_a_json_patch() -> None:
    (document,) = rewritten("- {}\n- {op: remove, path: /x/nvidia.com~1mig-1g.5gb}\n")
    assert len(document.errors) == 1


def test_cost_of_warnings_is_linear() -> None:
    def many(count: int) -> bytes:
        lines = (f'  k{i}: "nvidia.com/mig-1g.5gb: 1"\n' for i in range(count))
        return f"kind: ConfigMap\ndata:\n{''.join(lines)}".encode()

    def cost(count: int) -> int:
        data = many(count)
        return lines_of_python(lambda: list(Rewriter(Task()).each(data)))

    assert cost(400) <= 2.3 * cost(200)


# -- texts are split into documents, and large Lists into items, with the same result ---

META: Json = {"name": "p", "annotations": {"script": "a\n- b\n\nc\n"}}
LISTED: Json = {"apiVersion": "v1", "kind": "Pod", "metadata": META, "spec": SPEC}
OTHER: Json = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"items": "- a\n"}}
MISSPELT = {"image": "x", "resources": {"limits": {"nvidia.com/mig-x": 1}}}
ODD = {**LISTED, "spec": {"containers": [MISSPELT]}}


def listed(*items: Json) -> str:
    whole = {"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"a": ""}}
    # The copy has no shared values, of which the second would become an alias.
    return str(yaml.safe_dump(json.loads(json.dumps(whole))))


def of_yaml(indent: str) -> str:
    head, _, rest = listed(OTHER, LISTED, ODD, OTHER, LISTED).partition("items:\n")
    items, _, tail = rest.partition("kind: List")
    items = "".join(indent + line for line in items.splitlines(keepends=True))
    return f"# head\n{head}items:  # all\n{items}# between\nkind: List{tail}"


def of_json(indent: int | str | None) -> str:
    items = [OTHER, LISTED, ODD, OTHER, LISTED]
    value = {"kind": "List", "items": items, "metadata": {"items": []}}
    return f"\n{json.dumps(value, indent=indent)}\n"


@pytest.mark.parametrize(
    "text", [*map(of_yaml, ["", "  "]), *map(of_json, [None, 2, "\t"])], ids=range(5)
)
def test_list_gives_the_same_result_item_by_item(text: str) -> None:
    (whole,) = rewritten(text)
    assert whole.changed
    (apart,) = rewritten(text, large=10)
    assert apart == whole
    (asked,) = rewritten(text, Task(needs_values=True))
    load = json.loads if whole.is_json else yaml.safe_load
    assert asked.value == load(whole.after)


def test_error_in_an_item_leaves_the_whole_list_unchanged() -> None:
    text = listed(OTHER, LISTED, LISTED).replace("mig-1g.5gb: 1", "mig-1g.5gb: -1", 1)
    line = text.count("\n", 0, text.index("mig-1g.5gb: -1")) + 1
    (document,) = rewritten(text, large=10)
    assert [(e.line, e.path) for e in document.errors] == [
        (line, "items[1].spec.containers[0].resources.limits[nvidia.com/mig-1g.5gb]")
    ]
    assert document.after == document.before
    (document,) = rewritten(listed(LISTED).replace("kind: Pod", "kind: [Pod"), large=10)
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
def test_only_lists_are_split_into_items(text: str) -> None:
    assert documents.items_of_json(text) is None
    assert documents.items_of_yaml(text) is None


@pytest.mark.parametrize(
    "pieces",
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
        ["{a: 1}\n{b: 2}\n"],  # not JSON: one document with an error
        ['{"a": 1} ', '{"b": "}{"}', "{}\n"],
        ['{"a": "}{"}'],
        ['{"a": 1}\n[]'],
        ['{"a": 1}\nb: 2 {}{}'],
    ],
)
def test_text_is_split_into_documents(pieces: list[str]) -> None:
    assert [*documents.split("".join(pieces))] == [piece for piece in pieces if piece]
