"""The places of pods in a manifest, and the names of their claims."""

import uuid
from typing import Any

import pytest
import yaml

from instaslice.manifests.workloads import (
    Manifest,
    Template,
    claim_names,
    manifests,
    read_kinds,
    templates,
)

Json = dict[str, Any]
SPEC = "spec: {containers: []}"
TEMPLATE = f"template: {{{SPEC}}}"


def paths(text: str, *kinds: str) -> list[str]:
    value = yaml.safe_load(text)
    found = (t for m in manifests(value) for t in templates(m, read_kinds(kinds)))
    return [".".join(map(str, template.path)) for template in found]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{{apiVersion: v1, kind: Pod, {SPEC}}}", [""]),
        (f"{{apiVersion: apps/v1, kind: Deployment, spec: {{{TEMPLATE}}}}}", ["spec.template"]),
        (
            f"{{apiVersion: extensions/v1, kind: DaemonSet, spec: {{{TEMPLATE}}}}}",
            ["spec.template"],
        ),
        (f"{{apiVersion: v1, kind: PodTemplate, {TEMPLATE}}}", ["template"]),
        # A patch may be incomplete.
        ("{kind: Job, spec: {template: {spec: {initContainers: []}}}}", ["spec.template"]),
        (f"{{apiVersion: kubeflow.org/v1, kind: Notebook, spec: {{{TEMPLATE}}}}}", []),
        (f"{{apiVersion: argoproj.io/v1, kind: Job, spec: {{{TEMPLATE}}}}}", []),
        (f"{{kind: Rollout, spec: {{{TEMPLATE}}}}}", []),
        ("{apiVersion: apps/v1, kind: Deployment, spec: {template: {spec: {}}}}", []),
        ("{apiVersion: apps/v1, kind: Deployment, spec: {template: 1}}", []),
        ("{apiVersion: 1, kind: [], metadata: 1, items: {}}", []),
        (f"{{{SPEC}}}", []),
    ],
)
def test_only_kubernetes_own_kinds_hold_pods(text: str, found: list[str]) -> None:
    assert paths(text) == found


RAY = f"""
apiVersion: ray.io/v1
kind: RayCluster
spec: {{headGroupSpec: {{{TEMPLATE}}}, workerGroupSpecs: [{{{TEMPLATE}}}, {{}}, {{{TEMPLATE}}}]}}
"""
MPI = f"""
apiVersion: kubeflow.org/v2beta1
kind: MPIJob
spec: {{mpiReplicaSpecs: {{Worker: {{{TEMPLATE}}}, Launcher: 1}}}}
"""
KSERVE = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
spec: {predictor: {containers: []}}
"""
WRAPPER = f"""
apiVersion: workload.codeflare.dev/v1beta2
kind: AppWrapper
spec: {{components: [{{template: {{apiVersion: batch/v1, kind: Job, spec: {{{TEMPLATE}}}}}}}]}}
"""
GROUPS = "ray.io/RayCluster=spec.workerGroupSpecs"
REPLICAS = "MPIJob=spec.mpiReplicaSpecs"
COMPONENTS = "workload.codeflare.dev/AppWrapper=spec.components[]"
FIRST, LAST = (f"spec.workerGroupSpecs.{n}.template" for n in (0, 2))
HEAD = "spec.headGroupSpec.template"
WORKER = "spec.mpiReplicaSpecs.Worker.template"


@pytest.mark.parametrize(
    ("text", "kinds", "found"),
    [
        (RAY, [f"{GROUPS}[*].template"], [FIRST, LAST]),
        (RAY, [f"{GROUPS}[2].template", f"ray.io/RayCluster=.{HEAD}"], [LAST, HEAD]),
        (MPI, [f"kubeflow.org/{REPLICAS}[*].template"], [WORKER]),
        (MPI, [f"kubeflow.org/{REPLICAS}.*.template"], [WORKER]),
        (MPI, [f"ray.io/{REPLICAS}[*].template"], []),
        (KSERVE, ["serving.kserve.io/InferenceService=spec.predictor"], ["spec.predictor"]),
        (WRAPPER, [f"{COMPONENTS}.template"], ["spec.components.0.template.spec.template"]),
    ],
)
def test_kinds_option_adds_paths_of_pods(text: str, kinds: list[str], found: list[str]) -> None:
    assert paths(text) == []
    assert paths(text, *kinds) == found


@pytest.mark.parametrize(
    "text", ["", "a", "a/b", "a/b=", "b=c", "/b=c", "a/=c", "a/b/c=d", "a/b=[x"]
)
def test_invalid_kinds_option_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not GROUP/KIND=PATH"):
        read_kinds([text])


# -- names of claims: the same for the same claim, and different for all others --------------------


def name(*uses: tuple[str, str], path: str = "spec/template", **fields: Any) -> str:
    """Name the claims of some containers and templates, and return the last name."""
    usual = {"value": {}, "path": (), "group": "apps", "kind": "Deployment"}
    made = Manifest(**{**usual, "namespace": "ml", "name": "web", **fields})
    steps = tuple(path.split("/"))
    new_name = claim_names(made, Template(steps, steps, {}))
    return [new_name(*use) for use in uses or (("c", "mig-1g.5gb"),)][-1]


def test_names_never_change_between_versions() -> None:
    """Otherwise, an upgrade would change every rewritten file."""
    ours = uuid.uuid5(uuid.NAMESPACE_DNS, "instaslice.io")
    parts = "apps\nDeployment\nml\nweb\nspec/template\nc\nmig-1g.5gb\n1"
    assert name() == str(uuid.uuid5(ours, parts)) == "311f06e1-91d9-5d79-9c69-680d6aae47ad"


@pytest.mark.parametrize(
    "other",
    [
        *[name(group="batch"), name(kind="StatefulSet"), name(namespace=None), name(name="api")],
        *[name(namespace="m", name="lweb"), name(path="spec/jobTemplate")],
        *[name(("d", "mig-1g.5gb")), name(("c", "mig-2g.10gb"))],
        name(("c", "mig-1g.5gb"), ("c", "mig-1g.5gb")),
    ],
)
def test_different_claims_have_different_names(other: str) -> None:
    assert other != name() == name(value={"edited": True})
    # Earlier claims of other templates do not matter.
    assert name(("c", "mig-3g.20gb"), ("c", "mig-3g.20gb"), ("c", "mig-1g.5gb")) == name()
