import contextlib
import time
from dataclasses import replace
from pathlib import Path

import pytest

from instaslice.cluster import client as cluster_module
from instaslice.cluster.client import Answer, Cluster, ClusterError, in_cluster
from test.support.apiserver import FAULTS, GROUP, APIServer
from test.support.certs import Authority
from test.support.process import free_port


def test_a_call_gives_the_status_and_the_object(cluster: Cluster) -> None:
    assert cluster.call("GET", GROUP).body["versions"][0]["version"] == "v1"
    answer = cluster.call("GET", "/apis/none")
    assert (answer.status, answer.reason) == (
        404,
        "404 the server could not find the requested resource",
    )
    assert Answer(502, {}).reason == "502"


def test_a_token_that_rotates_is_read_anew(
    cluster: Cluster, api_server: APIServer, account: Path
) -> None:
    assert cluster.call("GET", GROUP).status == 200
    api_server.token = "second"
    assert cluster.call("GET", GROUP).status == 401
    (account / "token").write_text("second")
    assert cluster.call("GET", GROUP).status == 200


def test_another_authority_is_not_trusted(cluster: Cluster, account: Path) -> None:
    Authority().ca.cert_pem.write_to_path(str(account / "ca.crt"))
    with pytest.raises(ClusterError, match="certificate verify failed"):
        cluster.call("GET", GROUP)


@pytest.mark.parametrize("file", ["ca.crt", "token"])
def test_a_missing_file_is_named(file: str, cluster: Cluster, account: Path) -> None:
    (account / file).unlink()
    with pytest.raises(ClusterError, match=f"{file}: No such file or directory"):
        cluster.call("GET", GROUP)


@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_the_api_server_does_a_call_ends_in_time(
    fault: str, cluster: Cluster, api_server: APIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_module, "DEADLINE", 0.5)
    api_server.fault = FAULTS[fault]
    start = time.monotonic()
    with contextlib.suppress(ClusterError):
        assert isinstance(cluster.call("GET", GROUP).body, dict)
    assert time.monotonic() - start < 5  # the deadline, and a busy machine's patience


def test_nobody_at_the_address(cluster: Cluster) -> None:
    port = free_port()
    with pytest.raises(ClusterError, match=f"127.0.0.1:{port}: .*refused"):
        replace(cluster, port=port).call("GET", GROUP)


def test_outside_a_cluster(account: Path) -> None:
    assert in_cluster({}, account) is None
    assert in_cluster({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, account / "none") is None
