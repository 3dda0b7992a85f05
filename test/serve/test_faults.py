"""What could make InstaSlice the reason that a pod cannot start, done to a real server."""

import contextlib
import json
import os
import resource
import signal
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from instaslice.serve.app import MAX_BODY
from instaslice.serve.server import CONNECTIONS
from instaslice.serve.worker import ARRIVAL, FAREWELL, MAX_HEADERS, SWEEP
from test.fuzz import fuzz_socket
from test.support.apiserver import FAULTS, APIServer, reaching
from test.support.certs import Authority
from test.support.loop import BufferedTLS
from test.support.reviews import load
from test.support.serving import (
    HEADERS,
    HOST,
    NOT_CONNECTED,
    SAMPLE,
    STALLS,
    Load,
    Server,
    exchange,
    hung_up,
    memory,
    replace_pair,
    serve,
    stall_in_handshake,
    until,
)

MANY = json.dumps(load("create", "many")).encode()


@pytest.fixture
def server(cert_dir: Path, authority: Authority) -> Iterator[Server]:
    with serve(cert_dir, authority.trusting()) as running:
        yield running
        assert running.process.poll() is None
        # Files that are swapped one by one are seen half-swapped, and that is said.
        half = "the certificate on disk is not served"
        errors = [line for line in running.lines() if line["level"] not in ("info", "warning")]
        assert [line for line in errors if line["message"] != half] == []


# -- stalled clients -----------------------------------------------------------------------------

STALLED = 200


def test_stalled_clients_stop_nobody_and_are_dropped(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        start = time.monotonic()
        stalled = [stack.enter_context(stall(server)) for stall in STALLS for _ in range(STALLED)]
        for _ in range(20):
            before = time.monotonic()
            assert server.call("POST", "/mutate", SAMPLE, timeout=5)[0] == 200
            assert time.monotonic() - before < 1
        allowed = ARRIVAL + FAREWELL + 2 * SWEEP
        assert allowed <= 10, "what the README promises"
        stack.enter_context(contextlib.closing(server.connect()))
        until(lambda: all(map(hung_up, stalled)), seconds=30)
        # The last of them came some time after the first.
        opened = time.monotonic() - start
        assert opened < allowed + 10


def test_each_kind_of_stall_is_dropped_within_ten_seconds(server: Server) -> None:
    for stall in STALLS:
        with stall(server) as connection:
            start = time.monotonic()
            until(lambda c=connection: hung_up(c), seconds=12)
            assert ARRIVAL - 1 < time.monotonic() - start < 10


def test_a_client_that_drips_is_told_that_it_took_too_long(server: Server) -> None:
    with server.raw() as connection:
        connection.sendall(HEADERS)
        answered = b""
        connection.settimeout(0.2)
        for _ in range(100):
            with contextlib.suppress(OSError):
                connection.sendall(b"X")
            with contextlib.suppress(TimeoutError):
                answered = connection.recv(4096)
                break
        assert answered.startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_a_connection_between_requests_is_kept_longer_than_a_stalled_one(server: Server) -> None:
    connection = server.connect()
    assert exchange(connection, "POST", "/mutate", SAMPLE)[0] == 200
    kept = connection.sock
    time.sleep(ARRIVAL + 3 * SWEEP)  # the passing of time is what this is about
    assert exchange(connection, "POST", "/mutate", SAMPLE)[0] == 200
    assert connection.sock is kept
    connection.close()


# -- certificates --------------------------------------------------------------------------------


def served(server: Server) -> bytes:
    """The certificate that a new connection gets."""
    with server.raw() as connection:
        certificate = connection.getpeercert(binary_form=True)
        assert certificate
        return certificate


def leaf(folder: Path) -> bytes:
    text = (folder / "tls.crt").read_text()
    return ssl.PEM_cert_to_DER_cert(text[: text.index("-----END CERTIFICATE-----") + 26])


def test_fifty_rotations_under_load_lose_nothing(
    cert_dir: Path, authority: Authority, tmp_path: Path, server: Server
) -> None:
    pairs = [authority.mint(tmp_path / "new" / str(i)) for i in range(2)]
    with Load(server), Load(server, clients=2, reconnect=True) as fresh:
        for i in range(50):
            replace_pair(cert_dir, pairs[i % 2])
            time.sleep(0.05)  # the pace of the rotations
        start = time.monotonic()
        until(lambda: served(server) == leaf(cert_dir), seconds=10)
        assert time.monotonic() - start < 10
    assert fresh.failures == []
    assert fresh.answered


def test_a_bad_pair_is_logged_and_counted_and_the_old_one_served(
    cert_dir: Path, authority: Authority
) -> None:
    with serve(cert_dir, authority.trusting()) as server:
        before = served(server)
        (cert_dir / "tls.key").write_text("no key")
        failures = "instaslice_certificate_reload_failures_total"
        until(lambda: server.metric(failures) == 1)
        assert served(server) == before
        [line] = [line for line in server.lines() if line["level"] == "error"]
        assert line["message"] == "the certificate on disk is not served"
        assert "tls.key" in line["reason"]


# -- going away ----------------------------------------------------------------------------------


def test_sigterm_under_load_loses_no_reply(cert_dir: Path, authority: Authority) -> None:
    """Every request that was sent is answered; no connection is no lost reply."""
    with serve(cert_dir, authority.trusting()) as server, Load(server, clients=8) as load:
        until(lambda: load.answered > 200)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=15) == 0
    assert set(load.failures) <= {NOT_CONNECTED}


def test_a_killed_worker_is_replaced_within_two_seconds(
    cert_dir: Path, authority: Authority
) -> None:
    with serve(cert_dir, authority.trusting()) as server:
        for _ in range(3):
            [worker] = server.workers()
            os.kill(worker, signal.SIGKILL)
            start = time.monotonic()
            assert server.call("POST", "/mutate", SAMPLE, timeout=10)[0] == 200
            assert time.monotonic() - start < 2
            until(lambda: len(server.workers()) == 1)


def test_a_worker_whose_loop_hangs_is_replaced_and_one_that_idles_is_not(
    cert_dir: Path, authority: Authority
) -> None:
    seconds = 2
    quick = {"instaslice.serve.server": {"HEARTBEAT": seconds}}
    with serve(cert_dir, authority.trusting(), constants=quick) as server:
        [worker] = server.workers()
        time.sleep(seconds + 1.5)  # the arbiter looks once a second
        assert server.workers() == [worker]
        os.kill(worker, signal.SIGSTOP)
        until(lambda: worker not in server.workers(), seconds=20)
        assert server.call("POST", "/mutate", SAMPLE)[0] == 200
        assert any("WORKER TIMEOUT" in line["message"] for line in server.lines())


def test_a_server_without_a_file_to_spare_makes_room(cert_dir: Path, authority: Authority) -> None:
    """Those that stall are closed for it at once, long before their time is up."""
    patient = {"instaslice.serve.worker": {"ARRIVAL": 600.0, "PROMPT": 0.0}}
    with serve(cert_dir, authority.trusting(), constants=patient) as server:
        [worker] = server.workers()
        limit = len(os.listdir(f"/proc/{worker}/fd")) + 10
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (limit, limit))
        with contextlib.ExitStack() as stack:
            for _ in range(30):
                stack.enter_context(stall_in_handshake(server))
            for _ in range(5):
                assert server.call("POST", "/mutate", SAMPLE)[0] == 200
        assert server.workers() == [worker]


# -- bad bytes -----------------------------------------------------------------------------------


def send(server: Server, data: bytes, close: bool = False) -> bytes:
    """The whole of what the server says to some bytes."""
    with server.raw(timeout=15) as connection:
        with contextlib.suppress(OSError):  # it may have heard enough
            connection.sendall(data)
            if close:
                connection.unwrap()
        answer = b""
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                answer += data
        return answer


def post(body: bytes, *headers: str, length: int | None = None) -> bytes:
    head = [HEADERS.decode(), f"Content-Length: {len(body) if length is None else length}\r\n"]
    head += [f"{header}\r\n" for header in headers]
    return "".join(head).encode() + b"Connection: close\r\n\r\n" + body


BAD_HTTP: dict[str, tuple[bytes, bytes]] = {
    "no http": (b"\x00\x01\x02\x03\r\n\r\n", b"400"),
    "no version": (b"POST /mutate\r\n\r\n", b"400"),
    "odd version": (b"POST /mutate HTTP/9.9\r\n\r\n", b"400"),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"4"),
    "odd method": (b"p\xf6st /mutate HTTP/1.1\r\n\r\n", b"400"),
    "line feeds": (b"POST /mutate HTTP/1.1\nContent-Length: 2\n\n{}\r\n\r\n", b"400"),
    "no colon": (b"POST /mutate HTTP/1.1\r\nContent-Length 2\r\n\r\n", b"400"),
    "two lengths": (post(b"{}", "Content-Length: 2"), b"400"),
    "two other lengths": (post(b"{}", "Content-Length: 3"), b"400"),
    "a length of -1": (HEADERS + b"Content-Length: -1\r\n\r\n", b"400"),
    "a length of 1e3": (HEADERS + b"Content-Length: 1e3\r\n\r\n", b"400"),
    "a length of 5000 digits": (HEADERS + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n", b"400"),
    "chunked": (HEADERS + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", b"411"),
    "chunked wrongly": (HEADERS + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", b"411"),
    "chunked and a length": (post(b"{}", "Transfer-Encoding: chunked"), b"411"),
    "an unknown coding": (HEADERS + b"Transfer-Encoding: br\r\n\r\n", b"411"),
    "an odd expectation": (post(b"{}", "Expect: a miracle"), b"417"),
    "a script name": (post(SAMPLE, "SCRIPT_NAME: /x"), b"200"),
    "a megabyte of header": (b"GET / HTTP/1.1\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n", b"431"),
    "a hundred thousand headers": (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 100_000, b"431"),
    "five hundred headers": (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n", b"431"),
    "a long line": (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\n\r\n", b"414"),
    "a line break in a header": (post(b"{}", "X: a\rb"), b"400"),
    "a zero byte in a header": (post(b"{}", "X: a\0b"), b"400"),
}


@pytest.mark.parametrize("name", BAD_HTTP)
def test_bad_http_is_refused(name: str, server: Server) -> None:
    data, status = BAD_HTTP[name]
    answer = send(server, data)
    assert answer.startswith(b"HTTP/1.1 " + status), answer[:200]
    assert server.call("POST", "/mutate", SAMPLE)[0] == 200


def test_a_body_longer_than_declared_is_the_next_request_and_a_bad_one(server: Server) -> None:
    answer = send(server, post(SAMPLE).replace(b"Connection: close\r\n", b"") + b"}}\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 400 " in answer


def test_pipelined_requests_are_answered_in_order(server: Server) -> None:
    kept = post(SAMPLE).replace(b"Connection: close\r\n", b"")
    answer = send(server, kept * 3 + post(b"{}"))
    assert [answer.count(b"HTTP/1.1 200 "), answer.count(b"HTTP/1.1 400 ")] == [3, 1]
    assert answer.rindex(b"HTTP/1.1 200 ") < answer.index(b"HTTP/1.1 400 ")


def test_each_request_is_read_by_its_own_headers(server: Server) -> None:
    """What is made of headers is remembered for those that differ by the length alone."""
    sample = ("POST", "/mutate", "application/json", SAMPLE, 200)
    requests = [
        sample,
        ("POST", "/mutate", "application/json", SAMPLE + b" " * 10_000, 200),
        ("POST", "/mutate", "text/plain", SAMPLE, 415),
        sample,
        ("PUT", "/mutate", "application/json", SAMPLE, 405),
        ("POST", "/mutates", "application/json", SAMPLE, 404),
        ("POST", "/mutate", "application/json", SAMPLE[:-1], 400),
        ("GET", "/healthz", "application/json", None, 200),
        sample,
    ]
    connection = server.connect()
    connection.connect()
    socket = connection.sock
    for method, path, media_type, body, status in requests:
        connection.request(method, path, body, {"Content-Type": media_type})
        response = connection.getresponse()
        response.read()
        assert response.status == status
        assert connection.sock is socket
    connection.close()


@pytest.mark.parametrize("length", ["", "Content-Length: 0\r\n"])
def test_long_headers_are_not_remembered(length: str, server: Server) -> None:
    long = f"GET /healthz HTTP/1.1\r\nHost: x\r\n{length}".encode()
    long += b"".join(b"X-%d: %b\r\n" % (i, b"x" * 1000) for i in range(30)) + b"\r\n"
    with contextlib.ExitStack() as stack:
        before = 0
        for number in range(250):
            connection = stack.enter_context(server.raw())
            connection.sendall(long)
            assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
            if number == 50:
                before = server.resident()
        assert server.resident() - before < 200 * 30  # KiB: no more than was sent


def test_many_of_the_largest_bodies_at_once(server: Server) -> None:
    """More than may be pending in all: those that have come whole are not kept waiting."""
    full = SAMPLE + b" " * (MAX_BODY - len(SAMPLE))
    with Load(server, clients=16, body=full) as clients:
        until(lambda: clients.answered >= 64)
    assert clients.failures == []
    assert memory(server.workers()[0])["VmHWM"] < 160 * 1024


def test_bodies_at_and_over_the_limit(server: Server) -> None:
    full = SAMPLE + b" " * (MAX_BODY - len(SAMPLE))
    assert send(server, post(full)).startswith(b"HTTP/1.1 200 ")
    answer = send(server, post(full + b" "))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"the body is over 7340032 bytes\n")


def test_a_client_that_waits_to_be_told_to_continue_is_told(server: Server) -> None:
    with server.raw(timeout=5) as connection:
        head, _, body = post(SAMPLE, "Expect: 100-continue").partition(b"\r\n\r\n")
        connection.sendall(head + b"\r\n\r\n")
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


BAD_JSON: dict[str, bytes] = {
    "deep": b"[" * 100_000,
    "deep objects": b'{"a":' * 100_000,
    "a number of 10,000 digits": b'{"kind":' + b"1" * 10_000 + b"}",
    "not a number": b'{"kind": NaN}',
    "a lone surrogate": b'{"kind":"\\ud800"}',
    "duplicate keys": b'{"kind":"A","kind":"B"}',
    "a byte order mark": b"\xef\xbb\xbf" + SAMPLE,
    "utf-16": SAMPLE.decode().encode("utf-16"),
    "latin-1": '{"kind":"é"}'.encode("latin-1"),
    "two documents": SAMPLE + SAMPLE,
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_bad_json_is_a_400(name: str, server: Server) -> None:
    status, body = server.call("POST", "/mutate", BAD_JSON[name])
    assert status == 400
    assert body.count(b"\n") == 1
    assert server.call("POST", "/mutate", SAMPLE)[0] == 200


def test_no_tls_at_all_stops_nobody(server: Server) -> None:
    for data in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\xff\xff" + b"\0" * 70_000,
        os.urandom(99),
    ):
        with socket.create_connection((HOST, server.port), 10) as plain:
            with contextlib.suppress(OSError):
                plain.sendall(data)
            until(lambda p=plain: hung_up(p))
    assert server.call("POST", "/mutate", SAMPLE)[0] == 200


def test_what_a_user_typed_stays_data_in_the_log(server: Server) -> None:
    review = load("create", "sample")
    review["request"]["name"] = name = 'x\n{"level":"error"}\x1b[31m\u2028'
    review["request"]["uid"] = "u" * 10_000
    server.call("POST", "/mutate", json.dumps(review).encode())
    [line] = [line for line in server.lines() if line["message"] == "rewritten"]
    assert line["name"] == name
    assert len(line["uid"]) == 63
    assert server.printed().isascii()


def test_a_log_that_cannot_be_written_refuses_nobody(cert_dir: Path, authority: Authority) -> None:
    with serve(cert_dir, authority.trusting(), stderr="/dev/full") as server:
        [worker] = server.workers()
        for _ in range(100):  # more than a buffer holds
            status, body = server.call("POST", "/mutate", SAMPLE)
            assert status == 200
            assert json.loads(body)["response"]["allowed"]
        assert server.workers() == [worker]


# -- who may call --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "caller", "status"),
    [
        ("", "kube-apiserver", 200),
        ("kube-apiserver,other", "kube-apiserver", 200),
        ("front-proxy", "kube-apiserver", 403),
        ("", None, 403),
    ],
)
def test_only_the_api_server_may_call(
    names: str,
    caller: str | None,
    status: int,
    cert_dir: Path,
    authority: Authority,
    tmp_path: Path,
) -> None:
    ours = Authority()
    ours.ca.cert_pem.write_to_path(str(tmp_path / "client-ca.crt"))
    context = authority.trusting()
    if caller:
        ours.ca.issue_cert(common_name=caller).configure_cert(context)
    options = ["--client-ca", str(tmp_path / "client-ca.crt"), "--client-names", names]
    with serve(cert_dir, context, *options) as server:
        assert server.call("POST", "/mutate", SAMPLE)[0] == status
        assert server.call("GET", "/readyz")[0] == 200, "the kubelet has no certificate"


def test_a_certificate_of_another_authority_is_not_let_in(
    cert_dir: Path, authority: Authority, tmp_path: Path
) -> None:
    Authority().ca.cert_pem.write_to_path(str(tmp_path / "client-ca.crt"))
    with serve(
        cert_dir, authority.trusting(), "--client-ca", str(tmp_path / "client-ca.crt")
    ) as server:
        authority.ca.issue_cert(common_name="kube-apiserver").configure_cert(server.context)
        with pytest.raises(OSError):  # noqa: PT011 - refused in the handshake or just after
            server.call("POST", "/mutate", SAMPLE)


def test_headers_may_be_as_long_as_promised(server: Server) -> None:
    filler = "".join(f"X-{i}: {'y' * 1000}\r\n" for i in range(MAX_HEADERS // 1024 - 2))
    head = b"GET /healthz HTTP/1.1\r\nConnection: close\r\n" + filler.encode() + b"\r\n"
    assert send(server, head).startswith(b"HTTP/1.1 200 ")


def test_more_connections_than_there_is_room_for(server: Server) -> None:
    """Those that have stalled longest make room for those that have something to say."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(CONNECTIONS + 200):
                stack.enter_context(stall_in_handshake(server))
            for _ in range(20):
                before = time.monotonic()
                assert server.call("POST", "/mutate", SAMPLE, timeout=5)[0] == 200
                assert time.monotonic() - before < 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_random_bytes_stop_nobody(server: Server) -> None:
    connections, _ = fuzz_socket.run(server, seconds=3, seed=6)
    assert connections > 20


def test_memory_stays_flat(server: Server) -> None:
    """`make soak` does the same with 200,000 requests."""
    with Load(server) as clients:
        until(lambda: clients.answered >= 500)
        before = server.resident()
        until(lambda: clients.answered >= 5_000)
        assert server.resident() - before < 5 * 1024
    assert clients.failures == []


def test_long_names_are_not_remembered(server: Server) -> None:
    def ask(number: int) -> None:
        review = load("create", "sample")
        name = f"nvidia.com/mig-{number}{'g' * 1_000_000}"
        review["request"]["object"]["spec"]["containers"][0]["resources"] = {"limits": {name: "1"}}
        assert server.call("POST", "/mutate", json.dumps(review).encode())[0] == 200

    for number in range(5):
        ask(number)
    before = server.resident()
    for number in range(5, 35):
        ask(number)
    assert server.resident() - before < 10 * 1024


def test_a_body_in_records_of_one_byte_stops_nobody(server: Server) -> None:
    """It keeps the loop busy for seconds, and is as quick to send as any other."""
    with socket.create_connection((HOST, server.port), 30) as plain:
        client = BufferedTLS(plain, server.context)
        client.tls.write(HEADERS + b"Content-Length: 7000000\r\n\r\n")
        for _ in range(400_000):
            client.tls.write(b"x")
        sender = threading.Thread(target=_send_all, args=(plain, client.outgoing.read()))
        sender.start()
        slowest = 0.0
        while sender.is_alive():
            before = time.monotonic()
            assert server.call("POST", "/mutate", SAMPLE)[0] == 200
            slowest = max(slowest, time.monotonic() - before)
        assert slowest < 1


def _send_all(plain: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the server has heard enough
        plain.sendall(data)


def test_idle_connections_make_room_for_requests(server: Server) -> None:
    """Whoever holds every connection, and is idle on it, stops nobody."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(CONNECTIONS):
                connection = stack.enter_context(server.raw())
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
            with Load(server, clients=8, reconnect=True) as load:
                until(lambda: load.answered + len(load.failures) >= 200)
            assert load.failures == []
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# -- the API server ------------------------------------------------------------------------------


def sample_in(namespace: str) -> bytes:
    review = load("create", "sample")
    review["request"]["namespace"] = namespace
    return json.dumps(review).encode()


def test_requests_that_wait_and_those_behind_them_are_all_answered(
    cert_dir: Path, authority: Authority, api_server: APIServer, account: Path
) -> None:
    api_server.namespaces |= {f"n{i}" for i in range(20)}
    options = ["--provision-templates", *reaching(api_server, account)]
    kept = [
        post(body).replace(b"Connection: close\r\n", b"")
        for i in range(20)
        for body in (SAMPLE, SAMPLE, sample_in(f"n{i}"))
    ]
    with serve(cert_dir, authority.trusting(), *options) as server:
        [worker] = server.workers()
        answer = send(server, b"".join(kept) + post(b"{}"))
        assert answer.count(b"HTTP/1.1 200 ") == len(kept)
        assert answer.count(b"HTTP/1.1 400 ") == 1
        assert server.workers() == [worker]


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_an_api_server_that_hangs_costs_many_pods_no_more_than_one(
    fault: str, cert_dir: Path, authority: Authority, api_server: APIServer, account: Path
) -> None:
    """Pods of many namespaces at once, none of whose templates can be made."""
    options = ["--provision-templates", *reaching(api_server, account)]
    slowest = []

    def admit(server: Server, number: int) -> None:
        before = time.monotonic()
        assert server.call("POST", "/mutate", sample_in(f"n{number}"))[0] == 200
        slowest.append(time.monotonic() - before)

    with serve(cert_dir, authority.trusting(), *options) as server:
        api_server.fault = FAULTS[fault]
        threads = [threading.Thread(target=admit, args=(server, i)) for i in range(60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(slowest) == 60
    assert max(slowest) < 3


def test_large_pods_that_wait_take_little_memory(
    cert_dir: Path, authority: Authority, api_server: APIServer, account: Path
) -> None:
    head, _, tail = SAMPLE.partition(b'"metadata":')
    body = head + b'"x":[' + b'{"a":[]},' * 250_000 + b'{}],"metadata":' + tail
    options = ["--provision-templates", *reaching(api_server, account)]
    with serve(cert_dir, authority.trusting(), *options) as server:
        api_server.fault = FAULTS["hang"]
        with Load(server, clients=6, body=body) as clients:
            until(lambda: clients.answered >= 6)
        assert memory(server.workers()[0])["VmHWM"] < 250 * 1024
