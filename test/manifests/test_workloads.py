"""Where pods are in a manifest, and which of them are left alone."""

import uuid
from itertools import pairwise
from typing import Any

import pytest
import yaml

from instaslice.manifests import workloads
from instaslice.manifests.workloads import (
    Manifest,
    Template,
    claim_names,
    manifests,
    read_kinds,
    templates,
)
from instaslice.webhook_configuration import LABEL

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


RAY = yaml.safe_load("""
apiVersion: ray.io/v1
kind: RayCluster
spec:
  headGroupSpec: {template: {spec: {containers: []}}}
  workerGroupSpecs:
  - {template: {spec: {containers: []}}}
  - {}
  - {template: {spec: {containers: []}}}
""")
MPI = yaml.safe_load("""
apiVersion: kubeflow.org/v2beta1
kind: MPIJob
spec: {mpiReplicaSpecs: {Worker: {template: {spec: {containers: []}}}, Launcher: 1}}
""")
KSERVE = yaml.safe_load("""
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
spec: {predictor: {containers: []}}
""")
WRAPPER = yaml.safe_load("""
apiVersion: workload.codeflare.dev/v1beta2
kind: AppWrapper
spec:
  components:
  - template:
      apiVersion: batch/v1
      kind: Job
      spec: {template: {spec: {containers: []}}}
""")


GROUPS = "ray.io/RayCluster=spec.workerGroupSpecs"
REPLICAS = "MPIJob=spec.mpiReplicaSpecs"
COMPONENTS = "workload.codeflare.dev/AppWrapper=spec.components[]"
FIRST, LAST = (f"spec.workerGroupSpecs.{n}.template" for n in (0, 2))
HEAD = "spec.headGroupSpec.template"
WORKER = "spec.mpiReplicaSpecs.Worker.template"


@pytest.mark.parametrize(
    ("value", "kinds", "found"),
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
        ("default", {"labels": {LABEL: "disabled"}}, "has the label"),
        ("default", {"labels": {LABEL: "enabled"}}, ""),
        ("default", {"annotations": {"kubernetes.io/config.mirror": "x"}}, "is the mirror"),
    ],
)
def test_what_the_webhook_leaves_alone(namespace: str, metadata: Json, why: str) -> None:
    pod = {"kind": "Pod", "metadata": {"namespace": namespace, **metadata}, "spec": SPEC}
    (manifest,) = manifests(pod)
    (template,) = templates(manifest, {})
    found = workloads.why_skipped(manifest, template, {"ours"})
    assert found.startswith(why) if why else found == ""


# -- names of claims: the same for the same, and different for everything else ---------------------

TEMPLATE = ("spec", "template")


def manifest(**fields: Any) -> Manifest:
    usual = {"value": {}, "path": (), "group": "apps", "kind": "Deployment"}
    return Manifest(**{**usual, "namespace": "ml", "name": "web", **fields})


def name(made: Manifest, path: tuple[str, ...] = TEMPLATE, *uses: tuple[str, str]) -> str:
    """The last of the names for some containers and templates."""
    new_name = claim_names(made, Template(path, path, {}))
    return [new_name(*use) for use in uses or (("c", "mig-1g.5gb"),)][-1]


def test_a_name_is_a_uuid_of_version_5_and_stays_the_same() -> None:
    assert uuid.UUID(name(manifest())).version == 5
    assert name(manifest()) == name(manifest())
    assert name(manifest()) == name(manifest(value={"edited": True}))


def test_a_later_version_gives_the_same_names() -> None:
    """Else every file that was rewritten would change with an upgrade."""
    ours = uuid.uuid5(uuid.NAMESPACE_DNS, "instaslice.io")
    parts = "apps\nDeployment\nml\nweb\nspec/template\nc\nmig-1g.5gb\n1"
    assert (
        name(manifest()) == str(uuid.uuid5(ours, parts)) == "311f06e1-91d9-5d79-9c69-680d6aae47ad"
    )


def test_where_a_manifest_lies_in_a_list_does_not_matter() -> None:
    assert name(manifest(path=("items", 3))) == name(manifest())


@pytest.mark.parametrize(
    "other",
    [
        name(manifest(group="batch")),
        name(manifest(kind="StatefulSet")),
        name(manifest(namespace=None)),
        name(manifest(name="api")),
        name(manifest(), ("spec", "jobTemplate")),
        name(manifest(), TEMPLATE, ("d", "mig-1g.5gb")),
        name(manifest(), TEMPLATE, ("c", "mig-2g.10gb")),
        name(manifest(), TEMPLATE, ("c", "mig-1g.5gb"), ("c", "mig-1g.5gb")),
    ],
)
def test_whatever_tells_claims_apart_tells_their_names_apart(other: str) -> None:
    assert other != name(manifest())


def test_claims_of_other_kinds_in_between_change_nothing() -> None:
    one, two = ("c", "mig-1g.5gb"), ("c", "mig-3g.20gb")
    assert name(manifest(), TEMPLATE, two, two, one) == name(manifest(), TEMPLATE, one)


def test_parts_do_not_run_into_each_other() -> None:
    several = [name(manifest(namespace="a", name="bc")), name(manifest(namespace="ab", name="c"))]
    assert all(a != b for a, b in pairwise(several))
