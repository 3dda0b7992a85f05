"""`instaslice plan` on the command line; `test/e2e` has real API servers."""

import json
from pathlib import Path

import pytest

from instaslice.cli.main import main
from test.support.apiserver import APIServer
from test.support.snapshots import pod


@pytest.mark.parametrize("output", ["text", "markdown", "json"])
def test_a_plan(
    output: str, api_server: APIServer, reached: str, capsys: pytest.CaptureFixture[str]
) -> None:
    api_server.lists["/api/v1/pods"] = [pod("p", limit="mig-1g.5gb")]
    assert main(["plan", reached, "-o", output]) == 0
    printed = capsys.readouterr().out
    assert "A namespace" in printed
    if output == "json":
        (found,) = json.loads(printed)["workloads"]
        assert found["owner"] == "Pod/p"
    assert {method for method, _ in api_server.requests} == {"GET", "POST"}
    posts = [path for method, path in api_server.requests if method == "POST"]
    assert all(path.endswith("?dryRun=All") for path in posts)


def test_the_files_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = "{limits: {nvidia.com/mig-1g.5gb: 1}}"
    spec = f"spec: {{nodeName: n, containers: [{{name: c, resources: {limits}}}]}}"
    pod_ = f"{{kind: Pod, metadata: {{name: p}}, {spec}}}"
    (tmp_path / "a").mkdir()
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "x.yaml").write_text(pod_)
    (tmp_path / "notes.txt").write_text(pod_)
    (tmp_path / "argo.yml").write_text(
        f"kind: Workflow\nspec: {{templates: [{{name: t, container: {{resources: {limits}}}}}]}}\n"
        "---\nkind: Pod\n"
        "spec: {containers: [{resources: {limits: {nvidia.com/mig-1g.5gb: null}}}]}\n"
        "---\nkind: ClusterQueue\n"
        "spec: {resourceGroups: [{coveredResources: [nvidia.com/mig-1g.5gb]}]}\n"
    )
    (tmp_path / "a" / "pods.yaml").write_text(f"kind: List\nitems: [{pod_}, null, 1, {pod_}]")
    (tmp_path / "a" / "chart.yaml").write_text("a: {{ .Values.x }}\n{{ if }}")
    (tmp_path / "a" / "odd.yaml").write_text(
        f"kind: Pod\nspec: {{resourceClaims: 1, containers: [{{resources: {limits}}}]}}"
    )
    layers = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    (tmp_path / "a" / "bomb.yaml").write_text("\n".join(["kind: Pod", "a0: &a0 [x]", *layers]))
    (tmp_path / "b.json").write_text(
        json.dumps(
            {
                "kind": "ResourceQuota",
                "metadata": {"name": "q", "namespace": "ml"},
                "spec": {
                    "hard": {"requests.nvidia.com/mig-1g.5gb": 1},
                    "scopes": ["NotBestEffort"],
                },
            }
        )
    )
    assert main(["plan", "--files", str(tmp_path), "-o", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    workload, of_argo = found["workloads"]
    assert (of_argo["file"], of_argo["owner"]) == ("argo.yml", "Workflow/?")
    assert (workload["file"], workload["owner"], workload["pods"]) == ("a/pods.yaml", "Pod/p", 2)
    assert workload["node_name"] == "n"
    assert [each["section"] for each in found["decisions"]] == [4, 10]
    assert found["unknown"].keys() == {"a/chart.yaml", "a/odd.yaml", "a/bomb.yaml"}
    assert found["unknown"]["a/odd.yaml"] == "it has an invalid Pod"
    assert main(["plan", "--files", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert "a/pods.yaml Pod/p: 2 pod specs, nvidia.com/mig-1g.5gb: 1" in text
    assert "Cluster" not in text
