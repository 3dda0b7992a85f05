"""Faults by which InstaSlice could keep pods from starting, caused on a real server."""

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

from instaslice.serve.limits import Limits
from test.fuzz import fuzz_socket
from test.support.apiserver import FAULTS, APIServer
from test.support.certs import Authority
from test.support.loop import BufferedTLS
from test.support.process import PATIENCE
from test.support.reviews import load
from test.support.serving import (
    HEADERS,
    HOST,
    NOT_CONNECTED,
    SAMPLE,
    STALLS,
    Load,
    Server,
    Serving,
    exchange,
    hung_up,
    memory,
    replace_pair,
    serve,
    stall_in_handshake,
    until,
)

LIMITS = Limits()


@pytest.fixture
def server(shared: Server) -> Iterator[Server]:
    workers, said = shared.workers(), len(shared.lines())
    yield shared
    assert shared.call("POST", "/mutate", SAMPLE)[0] == 200
    assert shared.workers() == workers
    assert [line for line in shared.lines()[said:] if line["level"] == "error"] == []


# -- stalled clients -----------------------------------------------------------------------------


def test_600_stalled_clients_are_closed_and_idle_ones_stay(serving: Serving) -> None:
    """The limit is a sixth of the real one. test_worker.py tests the replies."""
    assert LIMITS.arrival + LIMITS.farewell + 2 * LIMITS.sweep <= 10, "the README promises 10 s"
    quick = {"arrival": LIMITS.arrival / 6, "sweep": 0.1}
    with serving(limits=quick) as server, contextlib.ExitStack() as stack:
        used = stack.enter_context(contextlib.closing(server.connect()))
        assert exchange(used, "POST", "/mutate", SAMPLE)[0] == 200
        ahead = stack.enter_context(server.raw())  # as the API server does, for later use
        stalled = [stack.enter_context(stall(server)) for stall in STALLS for _ in range(200)]
        for _ in range(20):
            assert server.call("POST", "/mutate", SAMPLE)[0] == 200
        until(lambda: all(map(hung_up, stalled)))
        kept = used.sock
        assert exchange(used, "POST", "/mutate", SAMPLE)[0] == 200
        assert used.sock is kept
        ahead.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert ahead.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


# -- certificates --------------------------------------------------------------------------------

#: The certificate's files are checked for each connection.
EAGER = {"certificate_check": 0.0}


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
    serving: Serving, cert_dir: Path, authority: Authority, tmp_path: Path
) -> None:
    pairs = [authority.mint(tmp_path / "new" / str(i)) for i in range(2)]
    with (
        serving(limits=EAGER) as server,
        Load(server),
        Load(server, clients=2, reconnect=True) as fresh,
    ):
        for i in range(50):
            replace_pair(cert_dir, pairs[i % 2])
            assert served(server) == leaf(cert_dir)
    assert fresh.failures == []
    assert fresh.answered


def test_a_bad_pair_is_logged_and_the_old_one_served(serving: Serving, cert_dir: Path) -> None:
    with serving(limits=EAGER) as server:
        before = served(server)
        (cert_dir / "tls.key").write_text("no key")
        failures = "instaslice_certificate_reload_failures_total"
        until(lambda: server.metric(failures) == 1)
        assert served(server) == before
        [line] = until(lambda: [line for line in server.lines() if line["level"] == "error"])
        assert line["message"] == "the certificate on disk is not served"
        assert "tls.key" in line["reason"]


# -- the end of processes ------------------------------------------------------------------------


def test_sigterm_under_load_loses_no_reply(serving: Serving) -> None:
    """Every request that was sent is answered; a refused connection is not a lost reply."""
    with serving() as server, Load(server, clients=8) as load:
        until(lambda: load.answered > 100)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=PATIENCE) == 0
    assert set(load.failures) <= {NOT_CONNECTED}


def test_a_killed_worker_is_replaced_at_once(serving: Serving) -> None:
    with serving() as server:
        for _ in range(3):
            [worker] = server.workers()
            os.kill(worker, signal.SIGKILL)
            start = time.monotonic()
            assert server.call("POST", "/mutate", SAMPLE)[0] == 200
            assert time.monotonic() - start < LIMITS.heartbeat / 3, (
                "long before the heartbeat is due"
            )
            until(lambda: len(server.workers()) == 1)


def test_a_hung_worker_is_replaced_and_an_idle_one_is_not(serving: Serving) -> None:
    with serving(limits={"heartbeat": 2}) as server:
        [worker] = server.workers()
        for _ in range(3):
            last = heartbeat(worker)
            until(lambda last=last: heartbeat(worker) > last)
        assert server.workers() == [worker]
        os.kill(worker, signal.SIGSTOP)
        until(lambda: worker not in server.workers())
        assert server.call("POST", "/mutate", SAMPLE)[0] == 200
        assert any("WORKER TIMEOUT" in line["message"] for line in server.lines())


def heartbeat(worker: int) -> int:
    """The time of a worker's last heartbeat: the modification time of its file, in ns."""
    for link in Path(f"/proc/{worker}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            if Path(os.readlink(link)).name.startswith("wgunicorn-"):
                return link.stat().st_mtime_ns
    raise AssertionError("the worker has no file for its heartbeat")


def test_a_server_without_free_file_descriptors_makes_room(serving: Serving) -> None:
    """Stalled connections are closed at once, long before their time is up."""
    patient = {"arrival": 600.0, "prompt": 0.0}
    with serving(limits=patient) as server:
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


def send(server: Server, data: bytes) -> bytes:
    """Send bytes; returns all that the server sends."""
    with server.raw() as connection:
        with contextlib.suppress(OSError):  # the server may hang up first
            connection.sendall(data)
        answer = b""
        with contextlib.suppress(OSError):
            while data := connection.recv(65536):
                answer += data
        return answer


def post(body: bytes) -> bytes:
    return HEADERS + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


def test_many_of_the_largest_bodies_at_once(serving: Serving) -> None:
    """As many come at once as may be pending; complete ones do not have to wait."""
    full = SAMPLE + b" " * (LIMITS.body - len(SAMPLE))
    number = LIMITS.large // LIMITS.body
    #: So that they are not late on a busy machine.
    patient = {"arrival": 600.0}
    with serving(limits=patient) as server:
        with Load(server, clients=number, body=full) as clients:
            until(lambda: clients.answered >= number, seconds=2 * PATIENCE)
        assert clients.failures == []
        assert memory(server.workers()[0])["VmHWM"] < 160 * 1024


# -- client certificates -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "statuses"),
    [
        ("", {"kube-apiserver": 200, "front-proxy": 200, None: 403}),
        ("front-proxy,other", {"kube-apiserver": 403, "front-proxy": 200, None: 403}),
    ],
)
def test_only_the_api_server_may_call(
    names: str,
    statuses: dict[str | None, int],
    serving: Serving,
    authority: Authority,
    tmp_path: Path,
) -> None:
    ours = Authority()
    ours.ca.cert_pem.write_to_path(str(tmp_path / "client-ca.crt"))
    options = ["--client-ca", str(tmp_path / "client-ca.crt"), "--client-names", names]
    with serving(*options) as server:
        for caller, status in statuses.items():
            server.context = authority.trusting()
            if caller:
                ours.ca.issue_cert(common_name=caller).configure_cert(server.context)
            assert server.call("POST", "/mutate", SAMPLE)[0] == status
        assert server.call("GET", "/readyz")[0] == 200, "the kubelet has no certificate"
        authority.ca.issue_cert(common_name="front-proxy").configure_cert(server.context)
        with pytest.raises(OSError):  # noqa: PT011 - refused in the handshake or just after
            server.call("POST", "/mutate", SAMPLE)


def test_a_new_authority_closes_connections_of_the_old_one(
    cert_dir: Path, authority: Authority, tmp_path: Path
) -> None:
    old, new, context = Authority(), Authority(), authority.trusting()
    client_ca = tmp_path / "client-ca.crt"
    old.ca.cert_pem.write_to_path(str(client_ca))
    old.ca.issue_cert(common_name="kube-apiserver").configure_cert(context)
    with serve(cert_dir, context, "--client-ca", str(client_ca), limits=EAGER) as server:
        connection = server.connect()
        assert exchange(connection, "POST", "/mutate", SAMPLE)[0] == 200
        kept = connection.sock
        new.ca.cert_pem.write_to_path(str(client_ca))

        def ended() -> bool:
            assert connection.sock is kept
            connection.request("POST", "/mutate", SAMPLE, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            assert response.status == 200
            return response.getheader("Connection") == "close"

        until(ended)
        with pytest.raises(OSError):  # noqa: PT011 - refused in the handshake or just after
            server.call("POST", "/mutate", SAMPLE)


def test_bodies_at_and_over_the_limit(server: Server) -> None:
    full = SAMPLE + b" " * (LIMITS.body - len(SAMPLE))
    assert send(server, post(full)).startswith(b"HTTP/1.1 200 ")
    answer = send(server, post(full + b" "))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert answer.endswith(b"the body is over 7340032 bytes\n")


def test_user_input_stays_data_in_the_log(server: Server) -> None:
    review = load("create", "sample")
    review["request"]["name"] = name = 'x\n{"level":"error"}\x1b[31m\u2028'
    server.call("POST", "/mutate", json.dumps(review).encode())
    [line] = until(lambda: [line for line in server.lines() if line.get("name") == name])
    assert line["message"] == "rewritten"
    assert server.printed().isascii()


def test_a_log_that_cannot_be_written_stops_no_admission(serving: Serving) -> None:
    with serving(stderr="/dev/full") as server:
        [worker] = server.workers()
        for _ in range(100):  # more than a buffer holds
            status, body = server.call("POST", "/mutate", SAMPLE)
            assert status == 200
            assert json.loads(body)["response"]["allowed"]
        assert server.workers() == [worker]


def test_random_bytes_disturb_nobody(server: Server) -> None:
    assert fuzz_socket.run(server, seed=6, connections=200)[0] == 200


def test_memory_stays_flat(server: Server) -> None:
    """`make soak` does the same with 200,000 requests."""
    with Load(server) as clients:
        until(lambda: clients.answered >= 300)
        before = server.resident()
        until(lambda: clients.answered >= 2_500)
        assert server.resident() - before < 2 * 1024
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


def test_a_body_in_records_of_one_byte_disturbs_nobody(server: Server) -> None:
    """The loop needs seconds for it, but the client sends it as fast as any other."""
    with socket.create_connection((HOST, server.port), PATIENCE) as plain:
        client = BufferedTLS(plain, server.context)
        client.tls.write(HEADERS + b"Content-Length: 7000000\r\n\r\n")
        for _ in range(400_000):
            client.tls.write(b"x")
        sender = threading.Thread(target=_send_all, args=(plain, client.outgoing.read()))
        sender.start()
        answered = 0
        while sender.is_alive():
            assert server.call("POST", "/mutate", SAMPLE)[0] == 200
            answered += 1
        assert answered > 5, "while the body is sent"


def _send_all(plain: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the server may hang up first
        plain.sendall(data)


def test_connections_that_do_nothing_make_room_for_requests(serving: Serving) -> None:
    """A client that holds every connection, idle or stalled, does not stop others."""
    few = 40
    with serving(limits={"connections": few}) as server, contextlib.ExitStack() as stack:
        for number in range(few):
            connection = stack.enter_context(server.raw())
            if number % 2:
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
                assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
            stack.enter_context(stall_in_handshake(server))
        with Load(server, clients=8, reconnect=True) as load:
            until(lambda: load.answered + len(load.failures) >= 100)
        assert load.failures == []


# -- the API server ------------------------------------------------------------------------------


def sample_in(namespace: str) -> bytes:
    review = load("create", "sample")
    review["request"]["namespace"] = namespace
    return json.dumps(review).encode()


def test_waiting_requests_and_those_behind_them_are_answered(
    serving: Serving, api_server: APIServer, reached: list[str]
) -> None:
    api_server.namespaces |= {f"n{i}" for i in range(20)}
    options = ["--provision-templates", *reached]
    kept = [
        post(body).replace(b"Connection: close\r\n", b"")
        for i in range(20)
        for body in (SAMPLE, SAMPLE, sample_in(f"n{i}"))
    ]
    with serving(*options) as server:
        [worker] = server.workers()
        answer = send(server, b"".join(kept) + post(b"{}"))
        assert answer.count(b"HTTP/1.1 200 ") == len(kept)
        assert answer.count(b"HTTP/1.1 400 ") == 1
        assert server.workers() == [worker]


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_an_api_server_that_hangs_costs_many_pods_no_more_than_one(
    fault: str, serving: Serving, api_server: APIServer, reached: list[str]
) -> None:
    """Pods of many namespaces come at once, and no template can be created."""
    options = ["--provision-templates", "--threads", "2", *reached]
    pods = 60
    seconds: list[float] = []

    def admit(server: Server, number: int) -> None:
        before = time.monotonic()
        assert server.call("POST", "/mutate", sample_in(f"n{number}"))[0] == 200
        seconds.append(time.monotonic() - before)

    with serving(*options) as server:
        api_server.fault = FAULTS[fault]
        threads = [threading.Thread(target=admit, args=(server, i)) for i in range(pods)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(seconds) == pods
    # If each waited when a thread was free, it would take half a minute.
    assert max(seconds) < LIMITS.template_patience * pods / 2 / 3
