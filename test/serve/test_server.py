import contextlib
import errno
import http.client
import json
import os
import re
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gunicorn
import pytest

from instaslice.serve import settings
from instaslice.serve.server import listen
from test.support.apiserver import FAULTS, APIServer
from test.support.certs import Authority
from test.support.command import Done, instaslice
from test.support.process import HOST, PATIENCE, until
from test.support.reviews import load, patch_of
from test.support.serving import SAMPLE, Server, Serving, answers, exchange, serve


def said(server: Server, message: str) -> list[dict[str, Any]]:
    """The lines of the log with a message."""
    return [line for line in server.lines() if line["message"] == message]


def test_the_sample_over_tls(serving: Serving) -> None:
    with serving("--resource-api", "v1alpha2") as server:
        status, body = server.call("POST", "/mutate?timeout=5s", SAMPLE)
        assert status == 200
        answer = json.loads(body)
        assert answer["response"]["uid"] == json.loads(SAMPLE)["request"]["uid"]
        (claims,) = [e["value"] for e in patch_of(answer) if e["path"] == "/spec/resourceClaims"]
        assert claims[0]["source"] == {"resourceClaimTemplateName": "mig-1g.5gb"}

        assert server.call("GET", "/readyz") == (200, b"ok, resource.k8s.io/v1alpha2\n")
        assert server.metric("instaslice_certificate_expiry_timestamp_seconds") > time.time()

        [line] = until(lambda: said(server, "rewritten"))
        assert line["level"] == "info"
        assert line.pop("milliseconds") > 0
        assert set(line) == {
            *("time", "level", "message", "operation"),
            *("namespace", "name", "uid", "templates", "claims"),
        }
        assert (line["namespace"], line["name"]) == ("default", "sample")
        assert (line["templates"], line["claims"]) == (["mig-1g.5gb"], 1)


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Server]:
    """A server at the default host with options and environment variables, some of gunicorn's."""
    [bind] = [option for option in settings.SERVE if option.flag == "--bind"]
    host, port = bind.parse(str(bind.default))
    assert (host, port) == ("::", 8443)
    options = ["--resource", "nvidia.com/gpu=gpu.nvidia.com", "--resource", "a.com/b=c"]
    environment = dict.fromkeys(settings.GUNICORN_VARIABLES, "nonsense")
    environment |= {"INSTASLICE_RESOURCE_API": "v1beta1", "INSTASLICE_LOG_FORMAT": "text"}
    certificates, context = authority.mint(tmp_path_factory.mktemp("certs")), authority.trusting()
    with serve(certificates, context, *options, environment=environment, bind=f"[{host}]") as made:
        yield made


def test_settings_may_come_from_the_environment_but_not_gunicorns(configured: Server) -> None:
    assert configured.call("GET", "/readyz")[1] == b"ok, resource.k8s.io/v1beta1\n"
    status, body = configured.call("POST", "/mutate", SAMPLE)
    assert (status, json.loads(body)["response"]["allowed"]) == (200, True)
    text = until(lambda: "rewritten" in configured.printed() and configured.printed())
    assert 'INFO rewritten operation="CREATE" namespace="default" name="sample"' in text
    assert len(configured.workers()) == 1


def test_a_mapped_resource_is_rewritten_and_counted(configured: Server) -> None:
    recorded = load("create", "sample")
    [container] = recorded["request"]["object"]["spec"]["containers"]
    container["resources"] = {"limits": {"nvidia.com/gpu": "2"}}
    body = json.dumps(recorded).encode()
    patch = patch_of(json.loads(configured.call("POST", "/mutate", body)[1]))
    (claims,) = [each["value"] for each in patch if each["path"] == "/spec/resourceClaims"]
    assert claims[0]["resourceClaimTemplateName"] == "gpu.nvidia.com.x2"
    assert configured.metric('instaslice_claims_total{resource="nvidia.com/gpu"}') == 1
    assert configured.metric('instaslice_claims_total{resource="a.com/b"}') == 0


def test_a_mapped_resource_that_cannot_be_served_is_refused_and_logged(
    serving: Serving, api_server: APIServer, reached: list[str]
) -> None:
    """The driver of v1alpha2 has no parameters for it, and the version was unknown at the start."""
    api_server.versions = ["v1alpha2"]
    options = ["--resource-api", "auto", *reached]
    options += ["--resource", "amd.com/gpu=gpu.amd.com"]
    recorded = load("create", "sample")
    [container] = recorded["request"]["object"]["spec"]["containers"]
    container["resources"] = {"limits": {"amd.com/gpu": "1"}}
    body = json.dumps(recorded).encode()
    with serving(*options) as server:
        until(lambda: server.call("GET", "/readyz")[1] == b"ok, resource.k8s.io/v1alpha2\n")
        response = json.loads(server.call("POST", "/mutate", body)[1])["response"]
        assert "cannot ask for gpu.amd.com" in response["status"]["message"]
        told = until(lambda: said(server, "a mapped resource is refused"))
        assert [line["resource"] for line in told] == ["amd.com/gpu"]


def test_gunicorn_reads_no_other_variable() -> None:
    """The test searches the modules of gunicorn that this server runs."""
    #: Variables of the control socket and the second arbiter, which are off; those that gunicorn
    #: sets; and systemd's, to which it only writes.
    others = {"GUNICORN_DIRTY_SOCKET", "NOTIFY_SOCKET", "PWD", "SERVER_SOFTWARE", "XDG_RUNTIME_DIR"}
    folder = Path(gunicorn.__file__).parent
    text = "".join(
        path.read_text()
        for name in ("*.py", "http/*.py", "app/base.py", "workers/base.py")
        for path in folder.glob(name)
    )
    read = set(re.findall(r"os\.environ(?:\.get\(|\.pop\(|\[)[\"']([A-Z_]+)[\"']", text))
    read |= set(re.findall(r"[\"']([A-Z_]+)[\"'] (?:not )?in os\.environ", text))
    assert read - others == set(settings.GUNICORN_VARIABLES)


def test_a_user_behind_a_service_reads_why_pods_are_refused(
    serving: Serving, api_server: APIServer, reached: list[str]
) -> None:
    """Before the reason is known, it is not ready, so that a Service calls another replica."""
    api_server.versions = []
    api_server.fault = FAULTS["hang_up"]
    options = ["--resource-api", "auto", *reached]
    impatient = {"discovery": (300.0, 0.1, 0.1)}
    with serving(*options, limits=impatient) as server:

        def is_ready() -> bool:
            return server.call("GET", "/readyz")[0] == 200

        until(lambda: b"was not reached" in server.call("GET", "/readyz")[1])
        assert not is_ready()
        api_server.fault = None
        until(is_ready)
        status, body = server.call("POST", "/mutate", SAMPLE)
        response = json.loads(body)["response"]
        assert (status, response["allowed"]) == (200, False)
        assert "does not serve resource.k8s.io" in response["status"]["message"]
        api_server.fault = FAULTS["hang_up"]
        asked = len(api_server.requests)
        until(lambda: len(api_server.requests) > asked + 1)
        assert is_ready(), "a known version stays known"
        api_server.fault, api_server.versions = None, ["v1"]
        until(lambda: b'"allowed":true' in server.call("POST", "/mutate", SAMPLE)[1])


# -- addresses -----------------------------------------------------------------------------------


def test_by_default_it_listens_on_ipv6_and_ipv4(configured: Server) -> None:
    assert configured.call("POST", "/mutate", SAMPLE)[0] == 200, "by IPv4"
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with (
        socket.create_connection(("::1", configured.port), PATIENCE) as plain,
        configured.context.wrap_socket(plain, server_hostname=HOST) as connection,
    ):
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


class WithoutIPv6(socket.socket):
    """A kernel without IPv6: built without it, or with it disabled by sysctl."""

    built = True

    def __init__(self, family: int = -1, *args: int) -> None:
        if family == socket.AF_INET6 and not self.built:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        super().__init__(family, *args)

    def bind(self, address: object) -> None:
        if self.family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        super().bind(address)  # type: ignore[arg-type]


@pytest.mark.parametrize("built", [True, False])
def test_without_ipv6_it_listens_on_ipv4(built: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WithoutIPv6, "built", built)
    monkeypatch.setattr(socket, "socket", WithoutIPv6)
    with listen("::", 0) as listener:
        assert listener.family == socket.AF_INET
        assert listener.getsockname()[0] == "0.0.0.0"


@pytest.mark.parametrize("address", ["0.0.0.0", "::1"])
def test_a_port_in_use_on_one_family_is_not_shared(address: str, cert_dir: Path) -> None:
    if address == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    family = socket.AF_INET6 if address == "::1" else socket.AF_INET
    with socket.create_server((address, 0), family=family) as taken:
        bind = f"[::]:{taken.getsockname()[1]}"
        result = run("--cert-dir", str(cert_dir), "--bind", bind)
    assert one_line(result) == f"{bind}: Address already in use"


def test_an_ipv6_address_is_ipv6_only() -> None:
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    with listen("::1", 0) as listener:
        assert listener.getsockname()[0] == "::1"


def test_many_connections_may_wait_to_be_accepted() -> None:
    if int(Path("/proc/sys/net/core/somaxconn").read_text()) < 256:
        pytest.skip("this kernel lets fewer wait")
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(listen("127.0.0.1", 0)).getsockname()
        for _ in range(200):
            stack.enter_context(socket.create_connection(address, 0.9)).send(b"x")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [("GET", "/metrics", b""), ("GET", "/healthz", b""), ("POST", "/mutate", b"{}")],
)
def test_an_answer_that_is_not_to_a_review_ends_the_connection(
    method: str, path: str, body: bytes, shared: Server
) -> None:
    with contextlib.closing(shared.connect()) as connection:
        exchange(connection, method, path, body)
        assert connection.sock is None


def test_tls_is_at_least_1_2(shared: Server, authority: Authority) -> None:
    old = authority.trusting()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    connection = http.client.HTTPSConnection(HOST, shared.port, context=old, timeout=PATIENCE)
    with contextlib.closing(connection), pytest.raises(ssl.SSLError):
        connection.connect()


def test_ctrl_c_ends_the_server_with_exit_code_0(serving: Serving) -> None:
    """test_faults.py sends SIGTERM."""
    with serving() as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(timeout=PATIENCE) == 0


def test_an_unread_log_stops_nothing(serving: Serving, tmp_path: Path) -> None:
    """Standard error is a full pipe: reviews are answered, and SIGTERM ends the server in time."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    # A refusal that quotes the user's input is a long line: some dozens fill pipe and queue.
    recorded = load("create", "sample")
    recorded["request"]["name"] = "\u2028" * 253
    [container] = recorded["request"]["object"]["spec"]["containers"]
    container["resources"]["limits"] = {"nvidia.com/mig-1g.5gb": "\u2028" * 1000}
    body = json.dumps(recorded).encode()
    try:
        with serving(stderr=str(pipe), limits={"log": 64 * 1024, "log_flush": 0.2}) as server:
            connection = server.connect()

            def has_dropped() -> bool:
                for _ in range(20):
                    status, answer = exchange(connection, "POST", "/mutate", body)
                    assert (status, json.loads(answer)["response"]["allowed"]) == (200, False)
                return server.metric("instaslice_log_lines_dropped_total") > 0

            until(has_dropped)
            connection.close()
            [worker] = server.workers()
            os.kill(worker, signal.SIGKILL)  # gunicorn logs this
            until(lambda: server.workers() not in ([], [worker]))
            until(lambda: answers(server))
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(timeout=PATIENCE) == 0
    finally:
        os.close(reader)


def run(*arguments: str) -> Done:
    return instaslice("serve", "--resource-api", "v1", *arguments)


def one_line(done: Done) -> str:
    assert (done.code, done.out) == (2, "")
    [line] = done.err.splitlines()
    return line.removeprefix("instaslice: ")


def test_an_address_of_another_machine_is_one_line(cert_dir: Path) -> None:
    result = run("--cert-dir", str(cert_dir), "--bind", "192.0.2.1:8443")
    assert one_line(result) == "192.0.2.1:8443: Cannot assign requested address"
