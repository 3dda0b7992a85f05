"""`instaslice rewrite`, as a user types it."""

import io
import json
import sys
from pathlib import Path

import pytest
import yaml

from instaslice.cli.main import main


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    code = main(["rewrite", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_diff_on_a_terminal_has_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", Terminal(raw))
    pod = tmp_path / "pod.yaml"
    pod.write_text(
        "kind: Pod\nspec: {containers: [{resources: {limits: {nvidia.com/mig-1g.5gb: 1}}}]}\n"
    )
    assert main(["rewrite", "--diff", str(pod)]) == 0
    assert b"\x1b[36m@@ " in raw.getvalue()
    shown = raw.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    assert main(["rewrite", "--diff", str(pod)]) == 0
    assert b"\x1b" not in raw.getvalue().removeprefix(shown)


def test_the_default_alternatives_of_the_webhook(capsys: pytest.CaptureFixture[str]) -> None:
    chain = ["--alternatives", "1g.5gb or bigger"]
    code, out, _ = run(*chain, "--with-templates", "samples/sample.yaml", capsys=capsys)
    pod, _, template = yaml.safe_load_all(out)
    (claim,) = pod["spec"]["resourceClaims"]
    assert code == 0
    assert claim["resourceClaimTemplateName"] == template["metadata"]["name"]
    assert template["metadata"]["name"] == "mig-1g.5gb-or-bigger"
    code, out, err = run("--alternatives", "1g.5gb or", "samples/sample.yaml", capsys=capsys)
    assert (code, out, err.startswith("instaslice: --alternatives: ")) == (2, "", True), err


def test_options_reach_the_rewriter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    containers = [{"name": "c", "resources": {"limits": {"nvidia.com/gpu": 2}}}]
    rollout = {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "r"},
        "spec": {"template": {"spec": {"containers": containers}}},
    }
    path = tmp_path / "rollout.json"
    path.write_text(json.dumps(rollout))
    gpu = ["--resource", "nvidia.com/gpu=gpu.nvidia.com"]
    kind = ["--kinds", "argoproj.io/Rollout=spec.template"]
    assert run("--check", str(path), capsys=capsys) == (0, "", "")
    code, _, err = run("--check", *gpu, str(path), capsys=capsys)
    assert (code, err.count("Rollout is a custom resource, which may drop claims")) == (3, 1)
    code, _, err = run("--check", "--strict", *gpu, str(path), capsys=capsys)
    assert (code, err.count("warning")) == (2, 0)
    code, out, _ = run(*gpu, *kind, str(path), capsys=capsys)
    (claim,) = yaml.safe_load(out)["spec"]["template"]["spec"]["resourceClaims"]
    assert (code, claim["resourceClaimTemplateName"]) == (0, "gpu.nvidia.com.x2")
    path.write_text(out)
    assert run("--check", *gpu, *kind, str(path), capsys=capsys) == (0, "", "")
    code, out, _ = run("--reverse", *gpu, *kind, str(path), capsys=capsys)
    assert json.loads(out) == rollout
