"""`instaslice doctor` on the command line."""

import json
from typing import Any

import pytest

from instaslice.cli import kube
from instaslice.cli.main import main
from instaslice.doctor import reading
from test.support import apiserver
from test.support.apiserver import GROUP, APIServer
from test.support.snapshots import (
    claim,
    device_class,
    named,
    own_classes,
    pod,
    slice_,
    template,
    webhook,
)

Json = dict[str, Any]


@pytest.fixture
def filled(api_server: APIServer) -> APIServer:
    """A cluster with a registered webhook, a slice, and a pod that has the slice."""
    user = pod("p", template="mig-1g.5gb", node="node-1", phase="Running")
    user["metadata"]["uid"] = "u-1"
    user["status"]["resourceClaimStatuses"] = [{"name": "0123456789", "resourceClaimName": "made"}]
    lists = {"webhooks": [webhook()], "nodes": [], "pods": [user], "quotas": [], "limits": []}
    dra = {
        "claims": [named("made") | claim("mig-0")],
        "templates": [template("mig-1g.5gb")],
        "slices": [slice_("1g.5gb")],
        "classes": [device_class("mig.nvidia.com"), *own_classes("mig-1g.5gb")],
    }
    bases = {"core": "/api/v1", "admission": "/apis/admissionregistration.k8s.io/v1"}
    bases["dra"] = f"{GROUP}/v1"
    for name, found in (lists | dra).items():
        base, _, rest = reading.LISTS[name].partition("/")
        api_server.lists[f"{bases[base]}/{rest}"] = found
    api_server.objects["/version"] = {"gitVersion": "v1.36.3"}
    api_server.objects["/apis"] = {"groups": []}
    api_server.objects["/api/v1/namespaces/ml/pods/p"] = user
    api_server.lists["/api/v1/namespaces/ml/events"] = []
    api_server.lists["/api/v1/namespaces/ml/resourcequotas"] = []
    return api_server


def test_a_cluster(filled: APIServer, reached: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", reached, "-o", "json"]) == 1
    found = {each["check"]: each for each in json.loads(capsys.readouterr().out)}
    assert found["webhook"]["state"] == "good"
    assert found["slices"]["text"] == "1g.5gb: 0 free, 1 published"
    # This API server calls no webhook, so pods stay unchanged.
    assert found["dry run"]["text"].endswith("with nvidia.com/mig-1g.5gb in ml keeps its limits")
    assert [path for method, path in filled.requests if method == "PATCH"] == []


def test_a_namespace_and_a_mapping(
    filled: APIServer, reached: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mapped = ["--resource", "nvidia.com/gpu=gpu.nvidia.com"]
    main(["doctor", reached, "-n", "default", *mapped])
    printed = capsys.readouterr().out
    assert "a pod with nvidia.com/gpu in default keeps its limits" in printed
    assert "nvidia.com/gpu is mapped to gpu.nvidia.com, which does not exist" in printed


def test_a_pod_in_the_contexts_namespace(
    filled: APIServer, reached: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "p", reached]) == 0
    assert "asks for 1g.5gb, has mig-0 on node-1" in capsys.readouterr().out


def test_a_partial_report_is_printed_when_the_api_server_stops_answering(
    filled: APIServer, reached: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled.fault, filled.fault_after = apiserver.hang_up, 5
    assert main(["doctor", reached]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "resource.k8s.io/v1" in captured.out
    assert "closed the connection without an answer" in captured.out
    assert "the API server has stopped answering" in captured.out
    assert len(filled.requests) == 5 + 2


@pytest.mark.parametrize("command", ["doctor", "doctor p", "plan", "templates --apply 1g.5gb"])
@pytest.mark.parametrize("fault", ["hang", "refuse", "401"])
def test_an_unreachable_cluster_is_one_line(
    command: str,
    fault: str,
    filled: APIServer,
    reached: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = f"https://127.0.0.1:{filled.port}"
    messages = {"hang": f"{url}: no answer within 0.3 s", "refuse": f"connection to {url} refused"}
    if fault == "hang":
        monkeypatch.setattr(kube, "DEADLINE", 0.3)
    if fault == "refuse":
        filled.close()
    else:
        filled.fault = apiserver.FAULTS[fault]
    assert main([*command.split(), reached]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert messages.get(fault, "401 Unauthorized") in captured.err
