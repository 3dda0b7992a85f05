"""kustomize builds a pod with the same devices from a rewritten base and patch."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from instaslice.cli.main import main
from instaslice.manifests.documents import Rewriter, Task
from instaslice.manifests.workloads import read_kinds
from test.support.deployments import BASE, PATCH, slices
from test.support.manifests import documents, kustomize
from test.support.streams import places, resolved

Json = dict[str, Any]


def built(*folders: Path) -> list[Json]:
    """The slices of the Deployment that kustomize builds from each folder, in one run."""
    root = folders[0].parents[1] / "built"
    for number, folder in enumerate(folders):
        (root / str(number)).mkdir(parents=True, exist_ok=True)
        text = f"namePrefix: {number}-\nresources: [../../{folder.parent.name}/{folder.name}]\n"
        (root / str(number) / "kustomization.yaml").write_text(text)
    (root / "kustomization.yaml").write_text(f"resources: {[*map(str, range(len(folders)))]}\n")
    found = {each["metadata"]["name"]: slices(each) for each in documents(kustomize(root))}
    return [found[f"{number}-server"] for number in range(len(folders))]


def written(parent: Path, name: str) -> Path:
    """A folder with a base, and an overlay whose patch is not written yet."""
    for each in ("base", "overlay"):
        (parent / name / each).mkdir(parents=True)
    (parent / name / "base" / "server.yaml").write_text(BASE)
    (parent / name / "base" / "kustomization.yaml").write_text("resources: [server.yaml]\n")
    overlay = "resources: [../base]\npatches:\n- path: patch.yaml\n"
    (parent / name / "overlay" / "kustomization.yaml").write_text(overlay)
    return parent / name


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(written(tmp_path, "case"))
    return tmp_path / "case"


NONE = "resources: {limits: null}"
CONTAINERS = [
    "- {name: model, resources: {limits: {nvidia.com/mig-1g.5gb: 2}}}",
    "- {name: model, resources: {limits: {nvidia.com/mig-1g.5gb: null}}}",
    "- name: model\n        resources:\n          limits:\n            nvidia.com/mig-1g.5gb: null"
    "\n            nvidia.com/mig-2g.10gb: 1\n            cpu: 4",
    "- {name: model, resources: {limits: null}}",
    "- {name: model, resources: null}",
    "- {name: model, $patch: delete}",
    "- {name: model, resources: {$patch: replace, limits: {cpu: 1}}}",
    "- {name: more, image: a, resources: {limits: {nvidia.com/mig-3g.20gb: 1}}}",
    f"- {{name: model, {NONE}}}\n      - {{name: embed, {NONE}}}",
    "- {name: model, env: [{name: a, value: b}]}",
]


def indented(text: str, margin: str = "  ") -> str:
    return "".join(margin + line for line in text.splitlines(keepends=True))


#: How a patch is written: the overlay's entry in `patches`, and the patch's file.
FORMS: dict[str, Callable[[str], tuple[str, str]]] = {
    "file": lambda text: ("path: patch.yaml", text),
    "block": lambda text: (f"patch: |-\n{indented(text, '    ')}", ""),
    "block with empty lines": lambda text: (f"patch: |+ # x\n{indented(text, '    ')}\n\n", ""),
    "line": lambda text: (f"patch: '{json.dumps(yaml.safe_load(text))}'", ""),
    "item of a List": lambda text: (
        "path: patch.yaml",
        f"apiVersion: v1\nkind: List\nitems:\n- {indented(text)[2:]}",
    ),
    "target": lambda text: (
        "path: patch.yaml\n  target: {kind: Deployment, name: server}",
        text.replace("name: server", "name: any"),
    ),
    "target without name": lambda text: (
        f"target: {{kind: Deployment}}\n  patch: |-\n{indented(text, '    ')}",
        "",
    ),
}


CASES = [
    (each, form)
    for form in FORMS
    for each in (CONTAINERS if form in ("file", "block") else CONTAINERS[:4])
]


def test_builds_keep_their_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [written(tmp_path, f"case{number}") for number in range(len(CASES))]
    for folder, (containers, form) in zip(folders, CASES, strict=True):
        entry, text = FORMS[form](f"{PATCH}      {containers}\n")
        kustomization = f"resources: [../base]  # kept\npatches:\n- {entry}\n"
        (folder / "overlay" / "kustomization.yaml").write_text(kustomization)
        if text:
            (folder / "overlay" / "patch.yaml").write_text(text)
    every = [folder / name for name in ("overlay", "base") for folder in folders]
    before = built(*every)
    for folder, case in zip(folders, CASES, strict=True):
        monkeypatch.chdir(folder)
        assert main(["rewrite", "-o", "json", "."]) == 0, case
        values = json.loads(capsys.readouterr().out)["items"]
        assert main(["rewrite", "--in-place", "."]) == 0, case
        assert "warning" not in capsys.readouterr().err, case
        paths = sorted(folder.rglob("*.yaml"))
        assert [yaml.safe_load(path.read_text()) for path in paths] == values, case
        assert "claims" in (folder / "base" / "server.yaml").read_text(), case
        # A second run changes nothing.
        assert main(["rewrite", "--check", "."]) == 0, (case, capsys.readouterr().err)
    after = built(*every)
    for path, one, other in zip(every, before, after, strict=True):
        assert one == other, (path, *CASES[int(path.parent.name.removeprefix("case"))])
    assert after[len(CASES) :] == [{"model": {"1g.5gb": 1}, "embed": {"1g.5gb": 1}}] * len(CASES)


@pytest.mark.parametrize("containers", [CONTAINERS[0], CONTAINERS[1], CONTAINERS[5], CONTAINERS[7]])
def test_a_patch_without_its_base_is_left_with_a_warning(
    folder: Path, containers: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "overlay" / "patch.yaml"
    path.write_text(f"{PATCH}      {containers}\n")
    shutil.rmtree(folder / "base")
    assert main(["rewrite", "--check", "overlay/patch.yaml"]) == 3
    assert "and its base is not among the files: name both, or" in capsys.readouterr().err
    assert main(["rewrite", "--strict", "-i", "overlay"]) == 2
    assert path.read_text() == f"{PATCH}      {containers}\n"


def test_two_patches_of_one_build_are_left_with_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlay = "resources: [../base]\npatches:\n- path: patch.yaml\n- path: other.yaml\n"
    (folder / "overlay" / "kustomization.yaml").write_text(overlay)
    for name, text in (("patch", CONTAINERS[0]), ("other", CONTAINERS[7])):
        (folder / "overlay" / f"{name}.yaml").write_text(f"{PATCH}      {text}\n")
    assert main(["rewrite", "--check", "."]) == 3
    assert capsys.readouterr().err.count("it has several bases, or its base several patches") == 2


def test_patch_with_two_targets_is_left_with_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = "".join(
        f"- {{path: patch.yaml, target: {{name: {name}}}}}\n" for name in ("server", "other")
    )
    overlay = f"resources: [../base]\npatches:\n{entries}"
    (folder / "overlay" / "kustomization.yaml").write_text(overlay)
    (folder / "overlay" / "patch.yaml").write_text(f"{PATCH}      {CONTAINERS[0]}\n")
    assert main(["rewrite", "--check", "."]) == 3
    assert "it has several bases" in capsys.readouterr().err


def test_overlays_of_one_base_are_rewritten(folder: Path) -> None:
    shutil.copytree(folder / "overlay", folder / "other")
    for name, text in (("overlay", CONTAINERS[0]), ("other", CONTAINERS[7])):
        (folder / name / "patch.yaml").write_text(f"{PATCH}      {text}\n")
    before = built(folder / "overlay", folder / "other")
    assert main(["rewrite", "-i", "."]) == 0
    assert built(folder / "overlay", folder / "other") == before


@pytest.mark.parametrize(
    ("metadata", "result"),
    [
        ("annotations: {instaslice.io/placement: same-gpu}", "same-gpu-"),
        ("labels: {instaslice.io/rewrite: disabled}", "no change of it gives the same result"),
    ],
)
def test_patch_that_changes_how_pods_are_rewritten(metadata: str, result: str) -> None:
    patch = f"{PATCH}      - {{name: more, image: x}}\n    metadata: {{{metadata}}}\n"
    document = resolved(BASE, patch)[1]
    assert result in document.after + str(document.problems["left"])


def test_kustomize_adds_the_selector_of_a_resource(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = folder / "base" / "server.yaml"
    path.write_text(BASE.replace("  selector: {matchLabels: {app: server}}\n", ""))
    (folder / "overlay" / "patch.yaml").write_text(f"{PATCH}      {CONTAINERS[0]}\n")
    assert main(["rewrite", "--in-place", "./overlay", "base"]) == 0
    assert "warning" not in capsys.readouterr().err
    assert "claims" in path.read_text()


def test_patch_of_a_custom_resource_is_left_with_a_warning() -> None:
    patch = f"{PATCH}      - {{name: model, $patch: replace, resources: {{limits: {{cpu: 1}}}}}}\n"
    patch = patch.replace("apps/v1", "argoproj.io/v1").replace("Deployment", "Rollout")
    task = Task(kinds=read_kinds(["argoproj.io/Rollout=spec.template"]))
    (document,) = resolved(patch.replace("cpu", "nvidia.com/mig-1g.5gb"), task=task)
    assert [each.path for each in document.problems["left"]] == ["spec.template"]
    assert not document.changed


@pytest.mark.parametrize(
    ("group", "spec"),
    [
        ("kustomize.toolkit.fluxcd.io", "{namePrefix: a-}"),
        ("argoproj.io", "{source: {kustomize: {namePrefix: a-}}}"),
    ],
)
def test_prefixes_of_flux_and_argo_cd_are_reported(group: str, spec: str) -> None:
    (document,) = resolved(f"apiVersion: {group}/v1\nkind: X\nspec: {spec}\n")
    assert [each.line for each in document.problems["rename"]] == [3]


@pytest.mark.parametrize("wrong", [5, "x", [1], [[]], {"a": 1}, None], ids=repr)
def test_wrong_types_in_a_patch_raise_nothing(wrong: Any) -> None:
    claims = [{"name": "a", "resourceClaimTemplateName": "mig-1g.5gb"}]
    patch = yaml.safe_load(f"{PATCH}      {CONTAINERS[0]}\n      {CONTAINERS[5]}\n")
    spec = patch["spec"]["template"]["spec"]
    spec |= {"initContainers": [{"name": "i", "image": "x"}], "resourceClaims": claims}
    spec["containers"][1]["resources"] = {"claims": [{"name": "a"}]}
    for path in places(patch)[1:]:
        value = copy.deepcopy(patch)
        holder = value
        for step in path[:-1]:
            holder = holder[step]
        holder[path[-1]] = wrong
        rewriter = Rewriter(Task())
        documents = list(rewriter.each(f"{BASE}---\n{yaml.safe_dump(value)}".encode()))
        rewriter.resolve(documents)
        assert documents[0].changed
