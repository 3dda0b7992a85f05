import contextlib
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from instaslice.cluster.client import Answer, Cluster, ClusterError, in_cluster
from test.support.apiserver import FAULTS, GROUP, LATE, APIServer
from test.support.certs import Authority
from test.support.process import PATIENCE, free_port, until


def test_a_call_returns_the_status_and_the_object(cluster: Cluster) -> None:
    assert cluster.call("GET", GROUP).body["versions"][0]["version"] == "v1"
    answer = cluster.call("GET", "/apis/none")
    assert (answer.status, answer.reason) == (
        404,
        "404 the server could not find the requested resource",
    )
    assert Answer(502, {}).reason == "502"


def test_a_rotated_token_is_read_again(
    cluster: Cluster, api_server: APIServer, account: Path
) -> None:
    assert cluster.call("GET", GROUP).status == 200
    api_server.token = "second"
    assert cluster.call("GET", GROUP).status == 401
    (account / "token").write_text("second")
    assert cluster.call("GET", GROUP).status == 200


def test_another_authority_is_not_trusted(cluster: Cluster, account: Path) -> None:
    Authority().ca.cert_pem.write_to_path(str(account / "ca.crt"))
    with pytest.raises(ClusterError, match="its certificate is not trusted: unable to get local"):
        cluster.call("GET", GROUP)


def test_text_around_a_ca_certificate_is_ignored(cluster: Cluster, account: Path) -> None:
    certificate = (account / "ca.crt").read_bytes()
    (account / "ca.crt").write_bytes(b"Issuer: CN=M\xfcller\n" + certificate + b"\xff\n")
    assert cluster.call("GET", GROUP).status == 200


@pytest.mark.parametrize("file", ["ca.crt", "token"])
def test_an_error_names_the_missing_file(file: str, cluster: Cluster, account: Path) -> None:
    (account / file).unlink()
    with pytest.raises(ClusterError, match=f"{file}: No such file or directory"):
        cluster.call("GET", GROUP)


def no_call_goes_on() -> bool:
    return not any("Cluster.call" in thread.name for thread in threading.enumerate())


@pytest.mark.parametrize("fault", FAULTS)
def test_a_call_ends_in_time_after_any_fault(
    fault: str, cluster: Cluster, api_server: APIServer
) -> None:
    is_silent = fault in ("hang", "drip")
    cluster = replace(cluster, deadline=0.3 if is_silent else PATIENCE)
    api_server.fault = FAULTS[fault]
    start = time.monotonic()
    with pytest.raises(ClusterError) if is_silent else contextlib.suppress(ClusterError):
        assert isinstance(cluster.call("GET", GROUP).body, dict)
    assert time.monotonic() - start < LATE / 2
    until(no_call_goes_on, "the thread ends long before the API server does", seconds=LATE / 2)


def silent(listener: socket.socket) -> None:
    """Accept a connection, and never answer."""
    with listener.accept()[0] as connection:
        while connection.recv(65536):
            pass


def dripping(listener: socket.socket) -> None:
    """Accept a connection, and send a byte of a TLS handshake now and then, for a minute."""
    with listener.accept()[0] as connection, contextlib.suppress(OSError):
        connection.sendall(b"\x16\x03\x03\x40\x00")  # a record of 16 KiB will follow
        for _ in range(16_000):
            connection.sendall(b"\x02")
            time.sleep(0.002)


GIVEN_UP = "no answer within 0.3 s"


# The socket's timeout, for the whole handshake, may end before the call's deadline.
@pytest.mark.parametrize("peer", [silent, dripping])
def test_an_endless_handshake_is_abandoned_in_time(
    peer: Callable[[socket.socket], None], cluster: Cluster
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=peer, args=[listener])
        thread.start()
        port = listener.getsockname()[1]
        reason = f"(no answer in time|{GIVEN_UP})"
        with pytest.raises(ClusterError, match=rf"^https://127\.0\.0\.1:{port}: {reason}$"):
            replace(cluster, port=port, deadline=0.3).call("GET", GROUP)
        thread.join()
    until(no_call_goes_on)


def test_a_connection_that_is_not_accepted_is_abandoned_in_time(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is for all addresses of a name together."""
    with contextlib.ExitStack() as stack:
        full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = full.getsockname()
        for _ in range(4):  # fill the backlog, so that the next SYN is dropped
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        entry = (socket.AF_INET, socket.SOCK_STREAM, 0, "", address)
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: [entry] * 20)
        with pytest.raises(ClusterError, match=GIVEN_UP):
            replace(cluster, port=address[1], deadline=0.3).call("GET", GROUP)
    until(no_call_goes_on)


def test_a_slow_dns_lookup_is_abandoned_in_time(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = threading.Event(), threading.Event()

    def look_up(*args: object, **kwargs: object) -> list[object]:
        asked.set()
        answered.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with pytest.raises(ClusterError, match=rf"cluster\.test:\d+: {GIVEN_UP}"):
        replace(cluster, host="cluster.test", deadline=0.3).call("GET", GROUP)
    assert asked.wait(PATIENCE), "on a busy machine, perhaps after the deadline"
    answered.set()
    until(no_call_goes_on)


def test_a_body_does_not_wait_for_the_acknowledgement_of_its_headers(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent after them, and Nagle's algorithm would delay it."""
    connect, seen = socket.create_connection, []

    def connecting(*args: Any, **kwargs: Any) -> socket.socket:
        made = connect(*args, **kwargs)
        seen.append(made.dup())  # the call closes its own
        return made

    monkeypatch.setattr(socket, "create_connection", connecting)
    assert cluster.call("POST", f"{GROUP}/v1/deviceclasses", {"metadata": {"name": "x"}}).status
    [sock] = seen
    with sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_connection_refused(cluster: Cluster) -> None:
    port = free_port()
    with pytest.raises(ClusterError, match=f"^connection to https://127.0.0.1:{port} refused$"):
        replace(cluster, port=port).call("GET", GROUP)


def test_a_pod_knows_its_namespace(account: Path) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    for content, namespace in ((None, "default"), (b"mine\n", "mine"), (b"\xff", "default")):
        if content is not None:
            (account / "namespace").write_bytes(content)
        found = in_cluster(environment, account)
        assert found
        assert found.namespace == namespace


def test_outside_a_cluster(account: Path) -> None:
    assert in_cluster({}, account) is None
    assert in_cluster({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, account / "none") is None
