"""Login and calls with a kubeconfig, and one-line errors."""

import base64
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from instaslice.cli import kube
from instaslice.cli.kube import Client
from instaslice.cli.usage import Refused, UsageError
from instaslice.cluster.client import ClusterError
from instaslice.resource_api import VERSIONS
from test.support import apiserver
from test.support.apiserver import APIServer
from test.support.certs import Authority

Json = dict[str, Any]

GROUP = "/apis/resource.k8s.io"
#: A deadline, in seconds, for a server that does not answer.
SHORT = 0.3


@pytest.fixture(autouse=True)
def directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect to loopback without the environment's proxies."""
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


def test_a_call_returns_any_status(client: Client, api_server: APIServer) -> None:
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


#: The message for each fault without an answer.
SAID = {
    "hang": "no answer within 0.3 s",
    "drip": "no answer within 0.3 s",
    "hang_up": "closed",
    "half_a_body": "IncompleteRead|Connection broken",
    "not_http": "does not answer in HTTP",
    "garbage": "it did not answer with a JSON object",
    "endless": "it did not answer with a JSON object",
}


@pytest.mark.parametrize("fault", apiserver.FAULTS)
def test_a_failed_call_is_not_repeated(config: Path, api_server: APIServer, fault: str) -> None:
    is_silent = fault in ("hang", "drip")
    client = Client(config, deadline=SHORT if is_silent else 0)
    api_server.fault = apiserver.FAULTS[fault]
    if fault in SAID:
        with pytest.raises(ClusterError, match=SAID[fault]) as caught:
            client.call("GET", GROUP)
        assert str(caught.value).startswith(f"https://127.0.0.1:{api_server.port}")
        assert "\n" not in str(caught.value)
    else:
        assert client.call("GET", GROUP).status == (int(fault) if fault.isdecimal() else 200)
    # On a busy machine the deadline may be over before the request has arrived.
    assert api_server.requests == [("GET", GROUP)] or (is_silent and not api_server.requests)


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


@pytest.fixture
def logs_in(tmp_path: Path) -> Callable[[str], Json]:
    """Write a program for logging in (exec)."""

    def write(body: str) -> Json:
        program = tmp_path / "login.py"
        program.write_text(body)
        version = "client.authentication.k8s.io/v1"
        login = {"apiVersion": version, "command": sys.executable, "args": [str(program)]}
        return {"exec": {**login, "interactiveMode": "Never"}}

    return write


def test_login_by_a_program(
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


def test_a_failed_login_gives_a_one_line_error(
    api_server: APIServer,
    authority: Authority,
    tmp_path: Path,
    logs_in: Callable[[str], Json],
    capfd: pytest.CaptureFixture[str],
) -> None:
    path = kubeconfig(
        tmp_path / "config", api_server, authority, logs_in("raise SystemExit('log in\\nfirst')")
    )
    with pytest.raises(UsageError) as caught:
        Client(path)
    assert str(caught.value) == f"kubeconfig: {path}: exec: process returned 1. log in first"
    assert capfd.readouterr().err == ""


def test_a_bad_certificate_gives_a_one_line_error(
    api_server: APIServer, authority: Authority, tmp_path: Path
) -> None:
    nonsense = base64.b64encode(b"nonsense").decode()
    user = {"client-certificate-data": nonsense, "client-key-data": nonsense}
    path = kubeconfig(tmp_path / "config", api_server, authority, user)
    with pytest.raises((UsageError, ClusterError)) as caught:
        Client(path).call("GET", GROUP)
    assert "\n" not in str(caught.value)


# -- the choice of context and file, as in kubectl -------------------------------------------------


def contents(name: str = "here", namespace: str = "", **parts: Any) -> Json:
    """A kubeconfig with one context. parts: top-level fields, or `cluster` and `user`."""
    context = {"cluster": "c", "user": "u", **({"namespace": namespace} if namespace else {})}
    cluster = {"server": "https://127.0.0.1:6443", **parts.pop("cluster", {})}
    return {
        "current-context": name,
        "contexts": [{"name": name, "context": context}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": parts.pop("user", {"token": "t"})}],
        **parts,
    }


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home directory, without KUBECONFIG or a service account."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def write(folder: Path, name: str, content: Json) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def test_the_choice_of_context_and_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = contents()
    both["contexts"].append({"name": "b", "context": {"cluster": "c", "namespace": "x"}})
    usual = write(home, ".kube/config", both)
    assert Client().namespace == "default"
    assert Client(context="b").namespace == "x"
    first = write(home, "a", {**contents("a"), "clusters": [], "users": []})
    second = write(home, "b", contents("b", namespace="second"))
    monkeypatch.setenv("KUBECONFIG", f"{first}:{home / 'none'}:{second}:{usual}")
    assert Client().namespace == "default", "the first current-context"
    assert Client(context="b").namespace == "second", "the first definition wins"
    assert Client(second).namespace == "second", "--kubeconfig beats $KUBECONFIG"


def test_a_pod_uses_its_service_account(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"~/[.]kube/config does not exist; give a file with"):
        Client()
    (home / "namespace").write_text("gpu")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr(kube, "SERVICE_ACCOUNT", home)
    with pytest.raises(UsageError, match="--context x: a pod's service account has no"):
        Client(context="x")


#: The contents of a file, and the message after its name.
BAD: dict[str, tuple[str | bytes, str]] = {
    "a list": ("[]", "not a kubeconfig"),
    "a word": ("hello", "not a kubeconfig"),
    "not YAML": ("a: b\nc: [", "not YAML: line 2: "),
    "bytes": (b"\xff\xfe\x00", "not a kubeconfig|not YAML"),
    "nothing": ("", "is empty"),
    "no current context": (json.dumps({**contents(), "current-context": None}), "--context NAME"),
    "a context that is gone": (json.dumps({**contents(), "current-context": "gone"}), "name gone"),
    "no cluster": (json.dumps({**contents(), "clusters": []}), "name c in"),
    "clusters that are none": (json.dumps({**contents(), "clusters": "c"}), "clusters list"),
    "no scheme": (
        json.dumps(contents(cluster={"server": "10.0.0.1:6443"})),
        "is not a URL, such as",
    ),
    "no CA": (json.dumps(contents(cluster={"certificate-authority": "x"})), "x"),
    "no login program": (json.dumps(contents(user={"exec": {"command": "no-such-login"}})), "exec"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_malformed_kubeconfig_gives_a_one_line_error_with_its_name(case: str, home: Path) -> None:
    content, message = BAD[case]
    path = home / "config"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UsageError, match=message) as caught:
        Client(path)
    assert str(home) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_kubeconfigs(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, message in ((home / "none", "No such file or directory"), (home, "Is a directory")):
        with pytest.raises(UsageError, match=f"^kubeconfig: {path}: {message}"):
            Client(path)
        monkeypatch.setenv("KUBECONFIG", str(path))
        with pytest.raises(UsageError, match=f"^kubeconfig: {path}: {message}"):
            Client()
