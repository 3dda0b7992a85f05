"""`rewrite` reports every limit that it leaves."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from instaslice.manifests.documents import Task
from instaslice.manifests.workloads import read_kinds
from instaslice.resources import read_mapping
from test.support.streams import dedent, resolved, rewritten

ROWS = yaml.safe_load((Path(__file__).parents[1] / "data" / "leftovers.yaml").read_text())
LIMITS = "{limits: {nvidia.com/mig-1g.5gb: 1}}"


def left(text: str, task: Task | None = None) -> list[tuple[int, str]]:
    return [(p.line, str(p)) for d in rewritten(text, task) for p in d.problems["left"]]


def test_limit_has_line_path_and_container() -> None:
    text = dedent(f"""
        kind: ConfigMap
        ---
        apiVersion: jobset.x-k8s.io/v1alpha2
        kind: JobSet
        spec:
          replicatedJobs:
          - name: workers
            template: {{spec: {{template: {{spec: {{containers: [
              {{name: w, resources: {LIMITS}}}]}}}}}}}}
    """)
    path = "spec.replicatedJobs[0].template.spec.template.spec.containers[0].resources"
    kinds = "jobset.x-k8s.io/JobSet=spec.replicatedJobs[*].template.spec.template"
    assert left(text) == [
        (
            9,
            f"{path}.limits[nvidia.com/mig-1g.5gb]: container w: left as it is: JobSet is a custom "
            "resource, which may drop claims; the webhook rewrites the pods that are made from "
            f"it (if it keeps them: --kinds {kinds})",
        )
    ]
    # The suggested option works.
    assert left(text, Task(kinds=read_kinds([kinds]))) == []


def test_suggested_path_of_containers_without_spec() -> None:
    head = "apiVersion: a.b/v1\nkind: X\n"
    text = f"{head}spec: {{worker: {{containers: [{{resources: {LIMITS}}}]}}}}\n"
    ((_, told),) = left(text)
    assert told.endswith("--kinds a.b/X=spec.worker)")


@pytest.mark.parametrize(
    ("text", "reason"), [(text, row["says"]) for row in ROWS for text in row["of"]]
)
def test_message_says_what_the_limit_does(text: str, reason: str) -> None:
    (document,) = resolved(text)
    ((_, _, message),) = document.problems["left"]
    assert reason in message


@pytest.mark.parametrize(
    "text",
    [
        "kind: Node\n"
        "metadata: {labels: {nvidia.com/mig-1g.5gb: 1, nvidia.com/mig-1g.5gb.count: 4}}",
        "kind: Node\nstatus: {capacity: {nvidia.com/mig-1g.5gb: 7}}",
        "kind: Pod\nspec: {nodeSelector: {nvidia.com/mig-1g.5gb: x}}",
        "kind: ConfigMap\ndata: {a: 'resources:\n  - name: nvidia.com/mig-1g.5gb\n'}",
        "kind: ConfigMap\ndata:\n  a: |\n    # nvidia.com/mig-1g.5gb: 1\n",
        "kind: DeviceClass\nspec: {extendedResourceName: nvidia.com/mig-1g.5gb}",
        "kind: Pod\nspec: {containers: [{resources: {limits: {nvidia.com/mig-1g.5gb: 0}}}]}",
        "kind: ConfigMap\ndata: {a: 'GPU | nvidia.com/mig-1g.5gb: 1 or nvidia.com/mig-1g.5gb: 1'}",
        "a: [{description: 'nvidia.com/mig-1g.5gb: 1', display_name: nvidia.com/mig-1g.5gb}]",
        "a: {extraTolerations: [{key: nvidia.com/mig-1g.5gb}]}",
        "kind: Configuration\ndeviceClassMappings: [{name: nvidia.com/mig-1g.5gb}]",
        "kind: Pod\nmetadata: {annotations: {a: 'nvidia.com/mig-1g.5gb: 1'}}\nspec: {}",
        "kind: Pod\nmetadata: {annotations: "
        "{kubectl.kubernetes.io/last-applied-configuration: '{\"nvidia.com/mig-1g.5gb\": 1}'}}",
        "kind: ConfigMap\ndata: {NOTES.txt: 'nvidia.com/mig-1g.5gb: 1'}",
        "a: {notes: ['nvidia.com/mig-1g.5gb: 1']}",
        "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingAdmissionPolicy\n"
        "spec: {validations: [{messageExpression: \"'nvidia.com/mig-1g.5gb'\"}]}",
        # No template without such a resource is read, since it may be no YAML.
        "{{ x }}\n  resources:\n{{ toYaml .Values.resources | indent 4 }}\n",
        "{{ x }}\n  resources:\n  {{- toYaml .Values.resources | nindent 4 }}\n",
        "{{ x }}\nsubresources:\n  status: {}\npath: /a/resources\n",
        "{{ x }}\n- resources:\n  - pods\n",
        "{{ x }}\n- limits:\n",
    ],
)
def test_names_that_are_no_limits_are_not_reported(text: str) -> None:
    (document,) = resolved(text)
    assert (document.problems["left"], document.errors) == ([], [])


def test_pod_level_limit_is_an_error() -> None:
    text = f"apiVersion: v1\nkind: Pod\nspec:\n  resources: {LIMITS}\n  containers: [{{name: a}}]\n"
    (document,) = rewritten(text)
    path = "spec.resources.limits[nvidia.com/mig-1g.5gb]"
    reason = "the API server refuses an extended resource at the level of the pod"
    assert document.errors == [(4, path, reason)]


def test_line_of_a_limit_in_text() -> None:
    text = dedent("""
        apiVersion: kustomize.config.k8s.io/v1beta1
        kind: Kustomization
        patches:
        - patch: |-  # inline
            kind: Deployment
            spec: {limits: {nvidia.com/mig-1g.5gb: 1}}
    """)
    ((line, message),) = left(text)
    assert (line, message.partition(":")[0]) == (6, "patches[0].patch")


def test_limits_defined_for_aliases_are_a_note() -> None:
    text = dedent("""
        x-defaults: &defaults
          resources: {limits: {nvidia.com/mig-1g.5gb: 1}}
        apiVersion: v1
        kind: Pod
        spec:
          containers:
          - <<: *defaults
            name: a
    """)
    (document,) = rewritten(text)
    assert (document.changed, document.problems["left"]) == (True, [])
    assert [note.path for note in document.problems["note"]] == [
        "x-defaults.resources.limits[nvidia.com/mig-1g.5gb]"
    ]


def test_mapped_resources_are_reported() -> None:
    text = "resources: {limits: {nvidia.com/gpu: 1}}"
    assert left(text) == []
    assert len(left(text, Task(resources=read_mapping(["nvidia.com/gpu=gpu.nvidia.com"])))) == 1


@pytest.mark.parametrize("text", ["a" * 200_000, "1." * 100_000, "a/" * 100_000, "a.b/" * 50_000])
def test_long_text_is_searched_in_linear_time(text: str) -> None:
    value: dict[str, Any] = {"kind": "ConfigMap", "data": {"a": text, "b": "nvidia.com/mig-"}}
    assert left(json.dumps(value)) == []
