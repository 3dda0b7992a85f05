"""Where pods are in a manifest, and which of them are left alone."""

from typing import Any

import pytest

from instaslice.manifests import workloads
from instaslice.manifests.workloads import manifests, read_kinds, templates

Json = dict[str, Any]
SPEC: Json = {"containers": []}


def paths(value: Json, *kinds: str) -> list[str]:
    found = (t for m in manifests(value) for t in templates(m, read_kinds(kinds)))
    return [".".join(map(str, template.path)) for template in found]


@pytest.mark.parametrize(
    ("version", "kind", "value", "path"),
    [
        ("v1", "Pod", {"spec": SPEC}, ""),
        ("apps/v1", "Deployment", {"spec": {"template": {"spec": SPEC}}}, "spec.template"),
        (
            "extensions/v1beta1",
            "DaemonSet",
            {"spec": {"template": {"spec": SPEC}}},
            "spec.template",
        ),
        ("v1", "PodTemplate", {"template": {"spec": SPEC}}, "template"),
        # A patch may say less.
        (None, "Job", {"spec": {"template": {"spec": {"initContainers": []}}}}, "spec.template"),
    ],
)
def test_kubernetes_own_kinds(version: str | None, kind: str, value: Json, path: str) -> None:
    head = {"apiVersion": version} if version else {}
    assert paths({**head, "kind": kind, **value}) == [path]


@pytest.mark.parametrize(
    "value",
    [
        {"apiVersion": "kubeflow.org/v1", "kind": "Notebook", "spec": {"template": {"spec": SPEC}}},
        {"apiVersion": "argoproj.io/v1", "kind": "Job", "spec": {"template": {"spec": SPEC}}},
        {"kind": "Rollout", "spec": {"template": {"spec": SPEC}}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": {"spec": {}}}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"template": 1}},
        {"apiVersion": 1, "kind": [], "metadata": 1, "items": {}},
        {"spec": SPEC},
    ],
)
def test_all_others_are_left_alone(value: Json) -> None:
    assert paths(value) == []


RAY = {
    "apiVersion": "ray.io/v1",
    "kind": "RayCluster",
    "spec": {
        "headGroupSpec": {"template": {"spec": SPEC}},
        "workerGroupSpecs": [{"template": {"spec": SPEC}}, {}, {"template": {"spec": SPEC}}],
    },
}
MPI = {
    "apiVersion": "kubeflow.org/v2beta1",
    "kind": "MPIJob",
    "spec": {"mpiReplicaSpecs": {"Worker": {"template": {"spec": SPEC}}, "Launcher": 1}},
}
KSERVE = {
    "apiVersion": "serving.kserve.io/v1beta1",
    "kind": "InferenceService",
    "spec": {"predictor": SPEC},
}
WRAPPER = {
    "apiVersion": "workload.codeflare.dev/v1beta2",
    "kind": "AppWrapper",
    "spec": {
        "components": [
            {
                "template": {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "spec": {"template": {"spec": SPEC}},
                }
            }
        ]
    },
}


@pytest.mark.parametrize(
    ("value", "kinds", "found"),
    [
        (
            RAY,
            ["ray.io/RayCluster=spec.workerGroupSpecs[*].template"],
            ["spec.workerGroupSpecs.0.template", "spec.workerGroupSpecs.2.template"],
        ),
        (
            RAY,
            [
                "ray.io/RayCluster=.spec.workerGroupSpecs[2].template",
                "ray.io/RayCluster=spec.headGroupSpec.template",
            ],
            ["spec.workerGroupSpecs.2.template", "spec.headGroupSpec.template"],
        ),
        (
            MPI,
            ["kubeflow.org/MPIJob=spec.mpiReplicaSpecs[*].template"],
            ["spec.mpiReplicaSpecs.Worker.template"],
        ),
        (
            MPI,
            ["kubeflow.org/MPIJob=spec.mpiReplicaSpecs.*.template"],
            ["spec.mpiReplicaSpecs.Worker.template"],
        ),
        (KSERVE, ["serving.kserve.io/InferenceService=spec.predictor"], ["spec.predictor"]),
        (
            WRAPPER,
            ["workload.codeflare.dev/AppWrapper=spec.components[].template"],
            ["spec.components.0.template.spec.template"],
        ),
        (MPI, ["ray.io/MPIJob=spec.mpiReplicaSpecs[*].template"], []),
    ],
)
def test_kinds_whose_user_says_that_they_keep_claims(
    value: Json, kinds: list[str], found: list[str]
) -> None:
    assert paths(value) == []
    assert paths(value, *kinds) == found


@pytest.mark.parametrize(
    "text", ["", "a", "a/b", "a/b=", "b=c", "/b=c", "a/=c", "a/b/c=d", "a/b=[x"]
)
def test_what_names_no_kind_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not GROUP/KIND=PATH"):
        read_kinds([text])


def test_items_of_a_list_have_its_kind() -> None:
    value = {"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "a"}}, None]}
    (found,) = manifests(value)
    assert (found.path, found.group, found.kind, found.name) == (("items", 0), "", "Pod", "a")
    value = {"apiVersion": "v1", "kind": "List", "items": [{"spec": {}}]}
    (found,) = manifests(value)
    assert (found.group, found.kind) == (None, "")


@pytest.mark.parametrize(
    ("namespace", "metadata", "why"),
    [
        ("default", {}, ""),
        ("kube-system", {}, "is in the namespace kube-system"),
        ("instaslice-system", {}, "is in the namespace instaslice-system"),
        ("ours", {}, "is in the namespace ours, which has the label"),
        ("default", {"labels": {workloads.LABEL: "disabled"}}, "has the label"),
        ("default", {"labels": {workloads.LABEL: "enabled"}}, ""),
        ("default", {"annotations": {"kubernetes.io/config.mirror": "x"}}, "is the mirror"),
    ],
)
def test_what_the_webhook_leaves_alone(namespace: str, metadata: Json, why: str) -> None:
    pod = {"kind": "Pod", "metadata": {"namespace": namespace, **metadata}, "spec": SPEC}
    (manifest,) = manifests(pod)
    (template,) = templates(manifest, {})
    found = workloads.why_skipped(manifest, template, {"ours"})
    assert found.startswith(why) if why else found == ""


def test_it_is_what_the_webhook_is_registered_for() -> None:
    from instaslice.webhook_configuration import LABEL

    assert workloads.LABEL == LABEL
