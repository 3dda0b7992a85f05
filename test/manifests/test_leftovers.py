"""No limit passes in silence: what is told of those that `rewrite` leaves."""

import json
from typing import Any

import pytest

from instaslice.manifests.documents import Task
from instaslice.manifests.workloads import read_kinds
from instaslice.resources import read_mapping
from test.support.streams import dedent, rewritten

LIMITS = "{limits: {nvidia.com/mig-1g.5gb: 1}}"


def left(text: str, task: Task | None = None) -> list[tuple[int, str]]:
    return [(p.line, str(p)) for d in rewritten(text, task) for p in d.problems["left"]]


def test_a_limit_is_named_by_line_path_and_container() -> None:
    text = dedent(f"""
        kind: ConfigMap
        ---
        apiVersion: jobset.x-k8s.io/v1alpha2
        kind: JobSet
        spec:
          replicatedJobs:
          - name: workers
            template:
              spec:
                template:
                  spec:
                    containers:
                    - {{name: w, resources: {LIMITS}}}
    """)
    path = "spec.replicatedJobs[0].template.spec.template.spec.containers[0].resources"
    kinds = "jobset.x-k8s.io/JobSet=spec.replicatedJobs[*].template.spec.template"
    assert left(text) == [
        (
            13,
            f"{path}.limits[nvidia.com/mig-1g.5gb]: container w: left as it is: JobSet is a custom "
            "resource, which may not keep claims; the webhook rewrites the pods that are made from "
            f"it (if it keeps them: --kinds {kinds})",
        )
    ]
    # What it tells one to say does it.
    assert left(text, Task(kinds=read_kinds([kinds]))) == []


def test_a_template_may_have_no_spec_around_its_containers() -> None:
    head = "apiVersion: a.b/v1\nkind: X\n"
    text = f"{head}spec: {{worker: {{containers: [{{resources: {LIMITS}}}]}}}}\n"
    ((_, told),) = left(text)
    assert told.endswith("--kinds a.b/X=spec.worker)")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"resources: {LIMITS}", "Helm values file"),
        ("singleuser: {extra_resource_limits: {nvidia.com/mig-1g.5gb: 1}}", "Helm values file"),
        ("a: {extra_resource_guarantees: {nvidia.com/mig-1g.5gb: 1}}", "Helm values file"),
        (
            "apiVersion: argoproj.io/v1\nkind: Workflow\n"
            f"spec: {{templates: [{{name: m, container: {{resources: {LIMITS}}}}}]}}",
            "container m: left as it is: Workflow is a custom resource",
        ),
        (
            f"apiVersion: serving.kserve.io/v1\nkind: X\nspec: {{model: {{resources: {LIMITS}}}}}",
            "X is a custom resource",
        ),
        (
            "apiVersion: v1\nkind: LimitRange\n"
            "spec: {limits: [{type: Container, min: {nvidia.com/mig-1g.5gb: 1}}]}",
            "refuses every rewritten pod",
        ),
        (
            "apiVersion: v1\nkind: LimitRange\n"
            "spec: {limits: [{type: Pod, max: {nvidia.com/mig-1g.5gb: 1}}]}",
            "refuses every rewritten pod",
        ),
        (
            "apiVersion: v1\nkind: LimitRange\n"
            "spec: {limits: [{type: Container, max: {nvidia.com/mig-1g.5gb: 1}}]}",
            "bounds no rewritten pod",
        ),
        (
            "apiVersion: v1\nkind: ResourceQuota\n"
            "spec: {hard: {requests.nvidia.com/mig-1g.5gb: 4}}",
            "from Kubernetes 1.36 on",
        ),
        (
            "apiVersion: v1\nkind: ResourceQuota\nspec: {hard: {limits.nvidia.com/mig-1g.5gb: 4}}",
            "it counts nothing",
        ),
        (
            "apiVersion: v1\nkind: ResourceQuota\nspec: {hard: {nvidia.com/mig-1g.5gb: 4}}",
            "nothing",
        ),
        (
            "apiVersion: kubeflow.org/v1\nkind: Profile\n"
            "spec: {resourceQuotaSpec: {hard: {requests.nvidia.com/mig-1g.5gb: 4}}}",
            "a quota counts the claims",
        ),
        (
            "apiVersion: scheduling.volcano.sh/v1beta1\nkind: Queue\n"
            "spec: {capability: {nvidia.com/mig-1g.5gb: 4}}",
            "a queue of Volcano goes by limits",
        ),
        (
            "apiVersion: karpenter.sh/v1\nkind: X\nspec: {limits: {nvidia.com/mig-1g.5gb: 4}}",
            "Karpenter goes by limits",
        ),
        (
            "apiVersion: karpenter.sh/v1alpha1\nkind: NodeOverlay\n"
            "spec: {capacity: {nvidia.com/mig-1g.5gb: 4}}",
            "Karpenter goes by limits",
        ),
        (
            "apiVersion: kyverno.io/v1\nkind: X\nspec: {a: {=(limits): {=(nvidia.com/mig-x): 1}}}",
            "Kyverno goes by limits",
        ),
        (
            "apiVersion: kueue.x-k8s.io/v1beta1\nkind: ClusterQueue\n"
            "spec: {resourceGroups: [{coveredResources: [nvidia.com/mig-1g.5gb]}]}",
            "Kueue counts the claims",
        ),
        (
            "apiVersion: argoproj.io/v1alpha1\nkind: Application\n"
            "spec: {parameters: [{name: 'limits.nvidia\\.com/mig-1g\\.5gb'}]}",
            "Helm makes a limit of it",
        ),
        (
            "jobs:\n  a:\n    run: helm upgrade x --set 'a.limits.nvidia\\.com/mig-1g\\.5gb=1'",
            "Helm makes a limit of it",
        ),
        ("modelSpec: [{requestGPUType: nvidia.com/mig-4g.71gb}]", "Helm values file"),
        (
            "apiVersion: infrastructure.opendatahub.io/v1\nkind: HardwareProfile\n"
            "spec: {identifiers: [{identifier: nvidia.com/mig-1g.5gb}]}",
            "HardwareProfile is a custom resource",
        ),
        (
            "apiVersion: sparkoperator.k8s.io/v1beta2\nkind: SparkApplication\n"
            "spec: {driver: {gpu: {name: nvidia.com/mig-1g.5gb}}}",
            "SparkApplication is a custom resource",
        ),
        (
            "- hosts: all\n  tasks:\n  - k8s: {definition: {limits: {nvidia.com/mig-1g.5gb: 1}}}",
            "looks like Ansible",
        ),
        (
            '{"resource": {"kubernetes_pod": {"a": {"limits": {"nvidia.com/mig-1g.5gb": 1}}}}}',
            "looks like Terraform",
        ),
        (
            "apiVersion: v1\nkind: Pod\n"
            f"spec: {{containers: [], ephemeralContainers: [{{name: e, resources: {LIMITS}}}]}}",
            "container e: left as it is: the API server refuses",
        ),
        (
            "apiVersion: v1\nkind: Pod\n"
            "spec: {containers: [], overhead: {nvidia.com/mig-1g.5gb: 1}}",
            "Pod has no limits of a container there",
        ),
        ("kind: Kustomization\npatches: [{patch: 'a: {nvidia.com/mig-1g.5gb: 1}'}]", "kustomize"),
        ("patches: [{patch: 'a: {nvidia.com/mig-1g.5gb: 1}'}]", "kubectl kustomize"),
        (
            "apiVersion: v1\nkind: ConfigMap\n"
            "data:\n  a: 'limits = {\"nvidia.com/mig-1g.5gb\": 1}'",
            "left as it is in text",
        ),
        (
            "- {op: add, path: /spec/a, value: {nvidia.com/mig-1g.5gb: 1}}",
            "in a JSON patch: rewrite what kustomize makes of it",
        ),
        ("- {op: add, path: /limits/nvidia.com~1mig-1g.5gb, value: 1}", "in a JSON patch"),
        ('[{"op": "remove", "path": "/limits/nvidia.com~1mig-1g.5gb"}]', "in a JSON patch"),
        (
            "apiVersion: v1\nkind: Pod\n"
            "spec: {containers: [{resources: {limits: {nvidia.com/mig-x: 1}}}]}",
            "not spelt like a MIG profile",
        ),
        (
            "apiVersion: a.b/v1\nkind: X\nspec: {resources: {requests: {nvidia.com/mig-x: 1}}}",
            "X is a custom resource",
        ),
    ],
)
def test_what_becomes_of_it_is_said(text: str, reason: str) -> None:
    ((_, message),) = left(text)
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
    ],
)
def test_what_is_not_a_limit_is_not_mentioned(text: str) -> None:
    assert left(text) == []


def test_a_limit_of_the_pod_itself_is_an_error() -> None:
    text = f"apiVersion: v1\nkind: Pod\nspec:\n  resources: {LIMITS}\n  containers: [{{name: a}}]\n"
    (document,) = rewritten(text)
    path = "spec.resources.limits[nvidia.com/mig-1g.5gb]"
    reason = "the API server refuses an extended resource at the level of the pod"
    assert document.errors == [(4, path, reason)]


def test_the_line_of_a_limit_in_text() -> None:
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


def test_what_an_alias_is_for_is_a_note() -> None:
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


def test_what_is_mapped_is_told_of() -> None:
    text = "resources: {limits: {nvidia.com/gpu: 1}}"
    assert left(text) == []
    assert len(left(text, Task(resources=read_mapping(["nvidia.com/gpu=gpu.nvidia.com"])))) == 1


@pytest.mark.parametrize("text", ["a" * 200_000, "1." * 100_000, "a/" * 100_000, "a.b/" * 50_000])
def test_long_text_is_searched_in_linear_time(text: str) -> None:
    value: dict[str, Any] = {"kind": "ConfigMap", "data": {"a": text, "b": "nvidia.com/mig-"}}
    assert left(json.dumps(value)) == []
