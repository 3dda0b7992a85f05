"""The client behind `Caller`, against a server that answers as an API server does, or does not."""

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instaslice.cli.kube import Client, KubeconfigError, Refused
from instaslice.cluster.client import ClusterError
from instaslice.resource_api import VERSIONS
from test.support import apiserver
from test.support.apiserver import APIServer
from test.support.certs import Authority

Json = dict[str, Any]

GROUP = "/apis/resource.k8s.io"
#: Seconds for a server that will not answer.
SHORT = 0.3


@pytest.fixture(autouse=True)
def directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """To loopback, whatever the environment says of proxies."""
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)


def kubeconfig(path: Path, server: APIServer, authority: Authority, user: Json) -> Path:
    return apiserver.kubeconfig(path, server, authority.ca.cert_pem.bytes(), user)


@pytest.fixture
def config(api_server: APIServer, authority: Authority, tmp_path: Path) -> Path:
    return kubeconfig(tmp_path / "config", api_server, authority, {"token": "first"})


@pytest.fixture
def client(config: Path) -> Client:
    return Client(config)


def test_an_answer_of_any_status(client: Client, api_server: APIServer) -> None:
    assert client.namespace == "ml"
    assert client.version() == VERSIONS["v1"]
    answer = client.call("GET", "/apis/none")
    assert (answer.status, answer.reason) == (
        404,
        "404 the server could not find the requested resource",
    )
    made = client.call(
        "POST", f"{GROUP}/v1/namespaces/ml/resourceclaimtemplates", {"metadata": {"name": "x"}}
    )
    assert made.status == 201
    api_server.token = "second"
    assert client.call("GET", GROUP).status == 401


#: What the client says of faults without an answer.
SAID = {
    "hang": "no answer within 0.3 s",
    "drip": "no answer within 0.3 s",
    "hang_up": "closed",
    "half_a_body": "IncompleteRead|Connection broken",
    "not_http": "does not answer in HTTP",
}


@pytest.mark.parametrize("fault", apiserver.FAULTS)
def test_a_fault_is_asked_once_and_ends(config: Path, api_server: APIServer, fault: str) -> None:
    is_silent = fault in ("hang", "drip")
    client = Client(config, deadline=SHORT if is_silent else None)
    api_server.fault = apiserver.FAULTS[fault]
    if fault in SAID:
        with pytest.raises(ClusterError, match=SAID[fault]) as caught:
            client.call("GET", GROUP)
        assert "\n" not in str(caught.value)
    else:
        assert client.call("GET", GROUP).status == (int(fault) if fault.isdecimal() else 200)
    # On a busy machine the deadline may be over before the request has arrived.
    assert api_server.requests == [("GET", GROUP)] or (is_silent and not api_server.requests)


def test_a_server_that_says_nothing_is_named(config: Path, api_server: APIServer) -> None:
    api_server.fault = apiserver.drip
    with pytest.raises(ClusterError, match=f"127.0.0.1:{api_server.port}: no answer within 0.3 s"):
        Client(config, deadline=SHORT).call("GET", GROUP)


def test_nobody_is_there(client: Client, api_server: APIServer) -> None:
    api_server.close()
    with pytest.raises(ClusterError) as caught:
        client.call("GET", GROUP)
    assert str(caught.value) == f"connection to https://127.0.0.1:{api_server.port} refused"


def test_no_dra(client: Client, api_server: APIServer) -> None:
    api_server.versions = []
    with pytest.raises(Refused, match="the cluster does not serve resource"):
        client.version()


def template(name: str, **spec: Any) -> Json:
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": name, "namespace": "ml"},
        "spec": spec,
    }


def test_applying(client: Client, api_server: APIServer) -> None:
    lines = [client.apply(template("a", x=x)) for x in (1, 1, 2)]
    what = "ml: ResourceClaimTemplate a"
    assert lines == [f"{what} created", f"{what} unchanged", f"{what} configured"]
    patch = f"{GROUP}/v1/namespaces/ml/resourceclaimtemplates/a?fieldManager=instaslice&force=true"
    assert ("PATCH", patch) in api_server.requests
    of_the_cluster = {**template("c"), "kind": "DeviceClass", "metadata": {"name": "c"}}
    assert client.apply(of_the_cluster) == "cluster: DeviceClass c created"
    assert f"{GROUP}/v1/deviceclasses/c" in api_server.objects


def test_what_may_not_be_applied(client: Client, api_server: APIServer) -> None:
    api_server.fault = apiserver.FAULTS["403"]
    with pytest.raises(Refused, match=r"^ml: ResourceClaimTemplate a: 403 Forbidden$"):
        client.apply(template("a"))


def test_namespaces(client: Client, api_server: APIServer) -> None:
    api_server.terminating = {"ml"}
    assert client.namespaces() == ["default"]


@pytest.fixture
def logs_in(tmp_path: Path) -> Callable[[str], Json]:
    """Writes a program that a user logs in by."""

    def write(body: str) -> Json:
        program = tmp_path / "login.py"
        program.write_text(body)
        version = "client.authentication.k8s.io/v1"
        login = {"apiVersion": version, "command": sys.executable, "args": [str(program)]}
        return {"exec": {**login, "interactiveMode": "Never"}}

    return write


def test_a_user_who_logs_in_by_a_program(
    api_server: APIServer, authority: Authority, tmp_path: Path, logs_in: Callable[[str], Json]
) -> None:
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": "first"},
    }
    user = logs_in(f"print({json.dumps(credential)!r})")
    client = Client(kubeconfig(tmp_path / "config", api_server, authority, user))
    assert client.call("GET", GROUP).status == 200


def test_a_login_that_fails_is_one_line(
    api_server: APIServer,
    authority: Authority,
    tmp_path: Path,
    logs_in: Callable[[str], Json],
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = kubeconfig(
        tmp_path / "config", api_server, authority, logs_in("raise SystemExit('log in\\nfirst')")
    )
    with pytest.raises(KubeconfigError) as caught:
        Client(path)
    assert str(caught.value) == f"{path}: exec: process returned 1. log in first"
    assert capfd.readouterr().err == ""


def test_a_bad_certificate_is_one_line(
    api_server: APIServer, authority: Authority, tmp_path: Path
) -> None:
    nonsense = base64.b64encode(b"nonsense").decode()
    user = {"client-certificate-data": nonsense, "client-key-data": nonsense}
    path = kubeconfig(tmp_path / "config", api_server, authority, user)
    with pytest.raises((KubeconfigError, ClusterError)) as caught:
        Client(path).call("GET", GROUP)
    assert "\n" not in str(caught.value)
