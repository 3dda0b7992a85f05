"""`instaslice plan`, as a user types it; `test/e2e` has real API servers."""

import json
from pathlib import Path

import pytest

from instaslice.cli.main import main
from instaslice.doctor import survey
from test.support.apiserver import APIServer
from test.support.command import instaslice, without
from test.support.snapshots import pod


def test_no_cluster_is_one_line(tmp_path: Path) -> None:
    done = instaslice("plan", "--kubeconfig", str(tmp_path / "missing"))
    assert (done.code, done.out) == (2, "")
    assert done.err == f"instaslice: kubeconfig: {tmp_path}/missing: No such file or directory\n"


def test_a_bad_mapping_is_one_line() -> None:
    done = instaslice("plan", "--resource", "x")
    assert (done.code, done.out) == (2, "")
    assert done.err == "instaslice: --resource: 'x' is not NAME=DEVICECLASS\n"


def test_the_extra_is_named_where_it_is_missing() -> None:
    done = without("kubernetes", "plan")
    line = "instaslice: plan needs the kubernetes client: pip install 'instaslice[cli]'\n"
    assert done == (2, "", line)


@pytest.mark.parametrize("output", ["text", "markdown", "json"])
def test_a_plan(
    output: str, api_server: APIServer, reached: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in survey.LISTS.values():
        api_server.lists[path] = []
    api_server.lists[survey.LISTS["pods"]] = [pod("p", limit="mig-1g.5gb")]
    assert main(["plan", reached, "-o", output]) == 0
    printed = capsys.readouterr().out
    assert "Change namespace ml over" in printed
    if output == "json":
        (found,) = json.loads(printed)["workloads"]
        assert found["owner"] == "Pod/p"
    assert {method for method, _ in api_server.requests} == {"GET", "POST"}
    posts = [path for method, path in api_server.requests if method == "POST"]
    assert all(path.endswith("?dryRun=All") for path in posts)
