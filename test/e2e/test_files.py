"""Files from `instaslice rewrite`, applied to a real API server with kubectl."""

import json
from pathlib import Path

import pytest
import yaml

from instaslice.manifests import nodes
from test.e2e.cluster import Cluster
from test.e2e.pods import container, job, pod, workload
from test.support.command import instaslice
from test.support.deployments import BASE, PATCH, slices


def test_rewritten_files_stay_unchanged(namespace: Cluster) -> None:
    """InstaSlice changes nothing in rewritten files, so they are fit for GitOps."""
    manifests = (
        pod("alone", container(limits={"mig-1g.5gb": 2})),
        workload("Deployment", "web"),
        job("batch"),
    )
    text = yaml.safe_dump_all(manifests)
    applied, names = [], []
    for _ in range(2):
        done = instaslice("rewrite", "--resource-api", namespace.plane.resource_api, stdin=text)
        assert done.code == 0, done.err
        items = {"kind": "List", "apiVersion": "v1", "items": [*yaml.safe_load_all(done.out)]}
        said = namespace.kubectl("apply", "-f-", stdin=items)
        assert said.returncode == 0, said.stderr
        applied.append([line.rpartition(" ")[2] for line in said.stdout.splitlines()])
        names.append(namespace.get("Pod", "alone")["spec"]["resourceClaims"])
    assert applied == [["created"] * 3, ["unchanged"] * 3]
    assert names[0] == names[1]
    assert namespace.get("Deployment", "web")["metadata"]["generation"] == 1


@pytest.mark.parametrize(
    "container",
    [
        "{name: model, resources: {limits: {nvidia.com/mig-1g.5gb: 2}}}",
        "{name: more, image: a, resources: {limits: {nvidia.com/mig-3g.20gb: 1}}}",
    ],
)
def test_kubectl_patch_gives_the_same_with_rewritten_files(
    namespace: Cluster, container: str, tmp_path: Path
) -> None:
    found = []
    for name in ("limits", "claims"):
        folder = tmp_path / name
        folder.mkdir()
        base, patch = folder / "base.yaml", folder / "patch.yaml"
        base.write_text(BASE.replace("name: server", f"name: {name}"))
        patch.write_text(f"{PATCH}      - {container}\n".replace("name: server", f"name: {name}"))
        if name == "claims":
            options = ("--resource-api", namespace.plane.resource_api, "--in-place")
            done = instaslice("rewrite", *options, str(folder))
            assert (done.code, done.err.count(": rewritten")) == (0, 2), done.err
        for arguments in (
            ("create", f"--filename={base}"),
            ("patch", "deployment", name, f"--patch-file={patch}"),
        ):
            made = namespace.kubectl(*arguments)
            assert made.returncode == 0, made.stderr
        found.append(namespace.get("Deployment", name))
    limits, claims = map(slices, found)
    assert limits == claims
    assert "nvidia.com/mig" not in str(found[1]["spec"])


YAML = """\
a: [y, n, Yes, off, 0644, 0o644, 0x1F, 0b11, 1e3, 1_000, .5, 1., 1:30, 2024-01-02, ~, 0689, +1]
b: {1: a, y: b, 1.5: c}
c: !!binary aGVsbG8=
d: [!thing x, !!str 1, !!int "3", !!float 3, ! 1, 1e400, 0x, =, 0o8, 09.5, tRue, -0.0, 1e-7]
e: 1\t# behind a tab
f: &x {a: 1, b: 2}
g: {<<: *x, b: 3}
h: {b: 3, <<: *x}
i: {<<: [*x, {c: 1}], d: 1}
j: |+
  text

k: 9007199254740993
"""


def test_yaml_values_equal_kubectls(cluster: Cluster) -> None:
    head = "apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: x}\n"
    path = cluster.plane.kubeconfig.parent / "thing.yaml"
    path.write_text(head + YAML)
    options = ("--local", "--dry-run=client", "--output=json", f"--filename={path}")
    done = cluster.kubectl("label", *options, "a=b")
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout)
    theirs["metadata"].pop("labels")
    ours, _ = nodes.read(head + YAML)
    assert ours is not None
    assert ours.value == theirs
