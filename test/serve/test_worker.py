"""The loop, with small limits, and an application that tests control."""

import contextlib
import dataclasses
import errno
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from instaslice.serve.app import MustWait
from instaslice.serve.connection import Account, Connection, Line, Phase
from instaslice.serve.http import MAY_WAIT, Peer, Reader, Request
from instaslice.serve.limits import Limits
from instaslice.serve.worker import newest_first, oldest_first
from test.support.certs import Authority
from test.support.loop import HOST, BufferedTLS, Loop, hear_out, running
from test.support.process import PATIENCE
from test.support.serving import HELLO, hung_up, until


def get(path: str, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode()


def post(path: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {size}\r\n\r\n"
    return head.encode() + body


MAX_BODY = Limits().body


class App:
    """Echoes path and body.

    /bytes/N answers N bytes. /wait waits for `release` on a thread. /slow sets `begun` and blocks
    the loop until `go`, as a large review does; /slower blocks it until `go_on`.
    """

    def __init__(self) -> None:
        self.release = threading.Event()
        self.begun, self.go, self.go_on = (threading.Event() for _ in range(3))
        self.served: list[str] = []

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        path = environ["PATH_INFO"]
        number = path.removeprefix("/bytes/")
        body = b"x" * int(number) if number.isdecimal() else path.encode()
        body += environ["wsgi.input"].read()

        def answer(start_response: StartResponse) -> list[bytes]:
            assert path != "/wait" or self.release.wait(PATIENCE)
            if path == "/slow":
                self.begun.set()
                assert self.go.wait(PATIENCE)
            assert path != "/slower" or self.go_on.wait(PATIENCE)
            self.served.append(path)
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]

        if path == "/wait" and not environ[MAY_WAIT]:
            raise MustWait
        return answer(start_response)


@pytest.fixture
def app() -> Iterator[App]:
    made = App()
    yield made
    for event in (made.release, made.go, made.go_on):
        event.set()


#: By default nothing is late, even on a busy machine.
PATIENT: dict[str, Any] = {
    "buffers": 0,
    "arrival": 600.0,
    "farewell": 600.0,
    "prompt": 100.0,
    "sweep": 0.05,
}
WRAP_UP = Limits().wrap_up


OF_LIMITS = {field.name for field in dataclasses.fields(Limits)}
Start = Callable[..., contextlib.AbstractContextManager[Loop]]


@pytest.fixture
def start(app: App, cert_dir: Path, authority: Authority) -> Start:
    def begin(**settings: Any) -> contextlib.AbstractContextManager[Loop]:
        own = {name: settings.pop(name) for name in [*settings] if name in OF_LIMITS}
        return running(app, cert_dir, authority.trusting(), Limits(**PATIENT | own), **settings)

    return begin


def read(connection: ssl.SSLSocket, size: int) -> bytes:
    """Read at least `size` bytes."""
    heard = bytearray()
    while len(heard) < size:
        data = connection.recv(1 << 16)
        assert data, f"the server hung up after {len(heard)} of {size} bytes"
        heard += data
    return bytes(heard)


def reply_to(connection: ssl.SSLSocket) -> bytes:
    """Read one reply, headers and body."""
    heard = b""
    while b"\r\n\r\n" not in heard:
        data = connection.recv(1 << 16)
        assert data, f"the server hung up after {heard!r}"
        heard += data
    head, _, body = heard.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    return heard + (read(connection, length - len(body)) if length > len(body) else b"")


#: More than the buffers of both sockets (tcp_wmem and tcp_rmem, 4 and 6 MiB by default).
MUCH = 16 * 1024 * 1024


def stalled_reader(loop: Loop, size: int = MUCH) -> ssl.SSLSocket:
    """A client that has asked for more than the sockets buffer, and reads none of it."""
    connection = loop.connect(receive_buffer=4096)
    connection.sendall(get(f"/bytes/{size}"))
    return connection


# -- replies -------------------------------------------------------------------------------------


def test_a_slow_reader_gets_the_whole_reply_and_keeps_its_connection(start: Start) -> None:
    with start() as loop, loop.connect(receive_buffer=4096) as connection:
        connection.sendall(get(f"/bytes/{MUCH}"))
        until(lambda: any(len(c.outbox) > MUCH // 4 for c in loop.worker.connections))
        with loop.connect() as other:
            other.sendall(get("/other"))
            assert reply_to(other).endswith(b"/other")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        heard = reply_to(connection)
        assert heard.startswith(b"HTTP/1.1 200 OK\r\n")
        assert heard.endswith(b"x" * MUCH)
        connection.sendall(get("/after"))
        assert reply_to(connection).endswith(b"/after")


def test_a_client_that_never_reads_is_closed(start: Start) -> None:
    with start() as loop, stalled_reader(loop) as connection:
        until(lambda: any(len(c.outbox) > MUCH // 4 for c in loop.worker.connections))
        time_passes(loop, 1000)
        until(lambda: not loop.worker.connections)
        assert len(hear_out(connection)) < MUCH


@pytest.mark.parametrize("cut", [1, 10, -20, -1])
def test_a_request_that_is_cut_off_is_a_400(cut: int, start: Start) -> None:
    with start() as loop, loop.plain() as plain:
        client = BufferedTLS(plain, loop.trust)
        client.tls.write(post("/cut", b"x" * 40)[:cut])
        client.end()
        heard = client.hear_out()
    assert heard.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert heard.endswith(b"\r\n\r\nthe request is not whole\n")


# -- bounds --------------------------------------------------------------------------------------


def test_unfinished_requests_are_bounded_in_bytes(start: Start) -> None:
    """The longest sender makes room; connections without received bytes stay."""
    with start(pending=1_100_000) as loop, contextlib.ExitStack() as stack:
        idle = stack.enter_context(loop.connect())
        idle.sendall(get("/idle"))
        assert reply_to(idle).endswith(b"/idle")
        part = post("/part", b"x" * 300_000, length=400_000)
        senders = []
        for number in range(6):
            sender = stack.enter_context(loop.connect())
            sender.sendall(part)
            senders.append(sender)
            until(lambda n=number: loop.worker.pending == len(part) * min(n + 1, 3))
            until(lambda n=number: all(map(hung_up, senders[: max(0, n - 2)])))
        assert not any(map(hung_up, senders[3:]))
        for sender in senders[3:]:
            sender.settimeout(PATIENCE)
            sender.sendall(b"y" * 100_000)
            assert reply_to(sender).startswith(b"HTTP/1.1 200 OK\r\n")
        idle.sendall(get("/still"))
        assert reply_to(idle).endswith(b"/still")
        assert loop.worker.pending == 0


def test_requests_in_the_pool_are_bounded_and_the_rest_get_503(start: Start, app: App) -> None:
    body = b"x" * 1000
    with start(waiting=2 * len(body)) as loop, contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(loop.connect()) for _ in range(2)]
        for connection in waiting:
            connection.sendall(post("/wait", body))
        until(lambda: loop.worker.waiting == 2 * len(body))
        heard = loop.say(post("/wait", body))
        assert heard.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert heard.endswith(b"\r\n\r\ntoo many requests wait already\n")
        app.release.set()
        for connection in waiting:
            assert reply_to(connection).endswith(b"/wait" + body)
        assert loop.worker.waiting == 0
        assert loop.say(post("/wait", body, "Connection: close")).endswith(b"/wait" + body)


def time_passes(loop: Loop, seconds: float) -> None:
    """Make every connection seem to have been in its phase for longer."""
    for connection in list(loop.worker.connections):
        connection.since -= seconds


def test_stalled_connections_close_before_idle_ones_and_new_ones_last(start: Start) -> None:
    with start(worker_connections=4, keep_alive=600) as loop, contextlib.ExitStack() as stack:

        def connect(data: bytes) -> ssl.SSLSocket:
            connection = stack.enter_context(loop.connect())
            connection.sendall(data)
            return connection

        idle = connect(get("/idle"))
        assert reply_to(idle).endswith(b"/idle")
        stalled = connect(b"GET /stalled")
        until(lambda: loop.worker.pending == len(b"GET /stalled"))
        time_passes(loop, 2 * PATIENT["prompt"])
        fresh = [connect(b"GET /fresh") for _ in range(2)]
        until(lambda: loop.worker.pending == len(b"GET /stalled" + b"GET /fresh" * 2))
        assert reply_to(connect(get("/first"))).endswith(b"/first")
        until(lambda: hung_up(stalled))
        assert not any(map(hung_up, [idle, *fresh]))
        assert reply_to(connect(get("/second"))).endswith(b"/second")
        until(lambda: hung_up(idle))
        assert not any(map(hung_up, fresh))


class Full(Reader):
    """A reader without memory for received bytes."""

    def feed(self, data: bytes) -> None:
        raise MemoryError


class Filled(Reader):
    """A reader without memory for a copy of received bytes."""

    def take(self) -> Request:
        raise MemoryError


def test_a_memory_error_ends_the_connection_but_not_the_loop(start: Start) -> None:
    with start() as loop, loop.connect() as other:
        for reader, heard in ((Full, b""), (Filled, b"HTTP/1.1 503 Service Unavailable\r\n")):
            with loop.connect() as connection:
                until(lambda: [c.phase for c in loop.worker.connections] == [Phase.IDLE] * 2)
                for each in loop.worker.connections:
                    if each.sock.getpeername() == connection.getsockname():
                        each.reader = reader(1000, 1000)
                connection.sendall(get("/"))
                assert hear_out(connection).startswith(heard)
            until(lambda: len(loop.worker.connections) == 1)
        other.sendall(get("/other"))
        assert reply_to(other).endswith(b"/other")


def test_a_tls_error_ends_the_connection_but_not_the_loop(start: Start) -> None:
    with start() as loop:
        context = loop.worker.cfg.ssl_context
        refusals = [OSError(errno.ENOENT, "no certificate")]

        def missing(config: Any, default: Any) -> ssl.SSLContext:
            if refusals:
                raise refusals.pop()
            made: ssl.SSLContext = context(config, default)
            return made

        loop.worker.cfg.set("ssl_context", missing)
        with loop.plain() as plain:
            plain.sendall(HELLO)
            assert hear_out(plain) == b""
        assert loop.say(get("/", "Connection: close")).startswith(b"HTTP/1.1 200 ")


# -- requests ------------------------------------------------------------------------------------


def test_pipelined_requests_are_answered_in_order(start: Start, app: App) -> None:
    with start() as loop:
        app.release.set()
        paths = ["/one", "/wait", "/two", "/wait", "/three"]
        heard = loop.say(b"".join(map(get, paths)) + get("/last", "Connection: close"))
    assert app.served == [*paths, "/last"]
    assert heard.count(b"HTTP/1.1 200 OK\r\n") == 6
    assert heard.endswith(b"/last")


def test_bytes_after_the_last_reply_are_read_up_to_a_bound(start: Start) -> None:
    with start() as loop, loop.connect() as connection:
        [ours] = until(lambda: [c for c in loop.worker.connections if c.phase == Phase.IDLE])
        ours.forgotten = Limits().farewell_bytes - 100_000
        connection.sendall(get("/", "Connection: close"))
        assert reply_to(connection).endswith(b"/")
        with contextlib.suppress(OSError):  # it is reset while it sends
            connection.sendall(b"x" * 200_000)
        until(lambda: not loop.worker.connections)


def test_the_last_reply_ends_with_close_notify(start: Start) -> None:
    """Without it a client cannot tell the end from a cut (RFC 8446, section 6.1)."""
    with start() as loop, contextlib.closing(loop.plain()) as plain:
        client = loop.trust.wrap_socket(plain, server_hostname=HOST, suppress_ragged_eofs=False)
        with client:
            client.sendall(get("/", "Connection: close"))
            assert reply_to(client).endswith(b"/")
            assert client.recv(1) == b""


def test_a_dripping_client_gets_408(start: Start) -> None:
    with start(arrival=0.5) as loop, loop.connect() as connection:
        connection.settimeout(0.02)

        def heard_of_a_byte_more() -> bytes:
            connection.sendall(b"X")
            with contextlib.suppress(TimeoutError):
                return connection.recv(4096)
            return b""

        heard = until(heard_of_a_byte_more)
    assert heard.startswith(b"HTTP/1.1 408 Request Timeout\r\n")


@contextlib.contextmanager
def busy(loop: Loop, app: App) -> Iterator[None]:
    """Run the block while the loop answers a slow request.

    Then every connection's time is up, and the loop checks at once.
    """
    with loop.connect() as slow:
        slow.sendall(get("/slow"))
        assert app.begun.wait(PATIENCE)
        yield
        time_passes(loop, 1000)
        loop.worker.next_sweep = 0.0
        app.go.set()
        assert reply_to(slow).endswith(b"/slow")


def test_a_request_that_arrived_during_another_is_not_late(start: Start, app: App) -> None:
    with start() as loop, loop.connect() as late:
        late.sendall(get("/late")[:-2])
        until(lambda: [c for c in loop.worker.connections if c.phase == Phase.ARRIVING])
        with busy(loop, app):
            late.sendall(get("/late")[-2:])
        assert reply_to(late).endswith(b"/late")


def test_large_bodies_beyond_the_bound_wait(start: Start, app: App) -> None:
    body = b"x" * 2 * Limits().light
    with start(large=5 * Limits().light) as loop, contextlib.ExitStack() as stack:
        slow = [stack.enter_context(loop.connect()) for _ in range(6)]
        for connection in slow:
            connection.sendall(post("/slow", body))
        assert app.begun.wait(PATIENCE)
        until(lambda: len(loop.worker.paused) >= 4)
        assert loop.say(get("/quick", "Connection: close")).endswith(b"/quick"), (
            "small requests do not wait"
        )
        app.go.set()
        for connection in slow:
            assert reply_to(connection).endswith(b"/slow" + body)
        assert (loop.worker.large, loop.worker.pending) == (0, 0)


def test_announced_bodies_take_no_room_until_they_arrive(start: Start, app: App) -> None:
    size = 4 * Limits().light
    head = post("/x", b"", "Expect: 100-continue", length=size)
    with start(large=2 * size) as loop, contextlib.ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(loop.connect()).sendall(head)
        until(lambda: len(loop.worker.growing) == 8)
        assert loop.say(post("/honest", b"x" * size, "Connection: close")).endswith(b"x")


def test_a_paused_body_that_waits_for_continue_goes_on(start: Start, app: App) -> None:
    body = b"x" * 2 * Limits().light
    with start(large=len(body)) as loop, loop.connect() as slow, loop.connect() as late:
        slow.sendall(post("/slow", body))
        assert app.begun.wait(PATIENCE)
        late.sendall(post("/late", b"", "Expect: 100-continue", length=len(body)))
        until(lambda: loop.worker.paused)
        app.go.set()
        assert late.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        late.sendall(body)
        assert reply_to(late).endswith(b"/late" + body)


def test_stalled_large_bodies_make_room_for_others(start: Start, app: App) -> None:
    body = b"x" * 2 * Limits().light
    with start(large=len(body), prompt=0.1) as loop, contextlib.ExitStack() as stack:
        for _ in range(3):
            stalled = stack.enter_context(loop.connect())
            stalled.sendall(post("/x", body)[:-1])
        until(lambda: len(loop.worker.growing) == 3)
        assert loop.say(post("/honest", body, "Connection: close")).endswith(body)


@pytest.mark.parametrize("bound", ["silent", "silent_of_one"])
def test_silent_connections_are_bounded(bound: str, start: Start) -> None:
    with start(**{bound: 3}) as loop, contextlib.ExitStack() as stack:
        strangers = [stack.enter_context(loop.plain()) for _ in range(8)]
        until(lambda: sum(map(hung_up, strangers)) == 5)
        assert loop.say(get("/", "Connection: close")).startswith(b"HTTP/1.1 200 ")


def test_addresses_take_turns_in_beginning_handshakes(start: Start) -> None:
    with start() as loop, contextlib.ExitStack() as stack:
        places = ["127.0.0.1", "127.0.0.2", "127.0.0.2"]
        for place in places:
            stack.enter_context(loop.plain(source=place))
        until(lambda: len(loop.worker.silent) == 3)
        api_server, older, newest = loop.worker.silent
        newest.account.turn = api_server.account.turn + 1
        everyone = [newest, older, api_server]
        assert sorted(everyone, key=newest_first) == [api_server, newest, older]
        assert sorted(everyone, key=oldest_first) == [api_server, older, newest]


def test_the_address_with_most_unfinished_handshakes_loses_one(start: Start) -> None:
    with start(handshakes=5) as loop, contextlib.ExitStack() as stack:
        slow = stack.enter_context(loop.plain(source="127.0.0.2"))
        slow.sendall(HELLO)
        until(lambda: len(loop.worker.handshaking) == 1)
        strangers = [stack.enter_context(loop.plain()) for _ in range(8)]
        for stranger in strangers:
            stranger.sendall(HELLO)
        until(lambda: sum(map(hung_up, strangers)) == 4)
        assert not hung_up(slow)


@pytest.mark.parametrize(("many", "cost"), [("addresses", 0.02), ("requests", 0.0)])
def test_neither_many_addresses_nor_many_cheap_requests_come_first(many: str, cost: float) -> None:
    line, account = Line(), Account(turn=0)
    with contextlib.ExitStack() as stack:

        def wait(account: Account, cost: float, certificate: str = "") -> Connection:
            sock = stack.enter_context(socket.socket())
            peer = Peer("127.0.0.1", ("127.0.0.1", 443), certificate)
            connection = Connection(sock, peer, account, 0, Limits(), cost=cost)
            line.add(connection)
            return connection

        others = [
            wait(Account(turn=0) if many == "addresses" else account, cost) for _ in range(50)
        ]
        honest = wait(Account(turn=0, used=1.0), 0.001)
        verified = wait(Account(turn=0, used=1.0), 1.0, "its certificate")
        taken = [line.take() for _ in range(4)]
        assert taken[0] == verified
        assert honest in taken
        line.discard(others[-1])
        assert len(line) == 47
        assert {line.take() for _ in range(47)} == {*others[:-1], honest} - {*taken}
        assert not line


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x40\x00\x01\x02\x01\x44",  # announces 131,396 bytes
        b"\x16\x03\x01\x00\x03\x01\x00\x02\x00",  # the first record lacks the length
        b"\x15\x03\x01\x00\x02\x02\x28\x00\x00",
        b"\x16\x03\x01\xff\xff" + b"\0" * 70_000,
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_bytes_that_are_no_client_hello_close_the_connection(head: bytes, start: Start) -> None:
    with start() as loop, loop.plain() as plain:
        with contextlib.suppress(OSError):  # the server may hang up first
            plain.sendall(head)
        until(lambda: hung_up(plain))


def test_stalled_connections_are_closed_and_idle_ones_stay(start: Start) -> None:
    with start() as loop, contextlib.ExitStack() as stack:
        ahead, used, in_headers, in_body = (stack.enter_context(loop.connect()) for _ in range(4))
        in_handshake = stack.enter_context(loop.plain())
        used.sendall(get("/used"))
        reply_to(used)
        in_handshake.sendall(HELLO)
        in_headers.sendall(get("/x")[:-2])
        in_body.sendall(post("/x", b"{", length=2))
        phases = [Phase.HANDSHAKE, Phase.IDLE, Phase.IDLE, Phase.ARRIVING, Phase.ARRIVING]
        until(lambda: sorted(c.phase for c in loop.worker.connections) == phases)
        for connection in list(loop.worker.connections):
            connection.since -= 1000 * (connection.phase != Phase.IDLE)
        until(lambda: all(map(hung_up, (in_handshake, in_headers, in_body))))
        for idle in (ahead, used):
            idle.sendall(get("/idle"))
            assert reply_to(idle).endswith(b"/idle")


def test_an_idle_connection_is_closed_unless_a_request_has_arrived(start: Start, app: App) -> None:
    with start() as loop, loop.connect() as idle, loop.connect() as late:
        until(lambda: [c.phase for c in loop.worker.connections] == [Phase.IDLE] * 2)
        with busy(loop, app):
            late.sendall(get("/late"))  # its time is up before the selector reports it
        assert reply_to(late).endswith(b"/late")
        assert hear_out(idle) == b""


# -- scarce room ---------------------------------------------------------------------------------


def test_unread_replies_are_bounded_in_bytes(start: Start) -> None:
    with start(unsent=2 * MUCH) as loop, contextlib.ExitStack() as stack:
        idle = stack.enter_context(loop.connect())
        until(lambda: [c.phase for c in loop.worker.connections] == [Phase.IDLE])
        for number in range(6):
            stack.enter_context(stalled_reader(loop))
            until(lambda n=number: len(loop.worker.connections) == 1 + min(n + 1, 2))
            until(lambda n=number: loop.worker.unsent > MUCH * min(n + 1, 2) // 2)
            assert loop.worker.unsent <= 2 * MUCH
        idle.sendall(get("/idle"))
        assert reply_to(idle).endswith(b"/idle"), "an idle connection stays"
        assert loop.say(get("/", "Connection: close")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_without_free_file_descriptors_an_idle_connection_makes_room(
    number: int, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, refusals = socket.socket.accept, [OSError(number, os.strerror(number))]
    with start(keep_alive=600) as loop, loop.connect() as idle, loop.connect() as used:
        used.sendall(get("/used"))
        assert reply_to(used).endswith(b"/used")
        until(lambda: [c.phase for c in loop.worker.connections] == [Phase.IDLE] * 2)
        time_passes(loop, 2 * PATIENT["prompt"])

        def short(listener: socket.socket) -> Any:
            if refusals:
                raise refusals.pop()
            return accept(listener)

        monkeypatch.setattr(socket.socket, "accept", short)
        assert loop.say(get("/", "Connection: close")).startswith(b"HTTP/1.1 200 ")
        assert hear_out(idle) == b""
        used.sendall(get("/still"))
        assert reply_to(used).endswith(b"/still")


def test_a_connection_with_unread_bytes_does_not_make_room(start: Start, app: App) -> None:
    with start(worker_connections=3, keep_alive=6000) as loop, contextlib.ExitStack() as stack:
        late, idle = (stack.enter_context(loop.connect()) for _ in range(2))
        until(lambda: [c.phase for c in loop.worker.connections] == [Phase.IDLE] * 2)
        with busy(loop, app):
            for _ in range(2):
                stack.enter_context(loop.plain()).sendall(HELLO)
            late.sendall(get("/late"))
        assert reply_to(late).endswith(b"/late")
        assert hear_out(idle) == b""


BOUNDED = [Phase.HANDSHAKE, Phase.WRITING, Phase.LINGERING, Phase.WORKING]


@pytest.mark.parametrize("phase", BOUNDED)
def test_connections_are_bounded_in_every_phase(phase: Phase, start: Start, app: App) -> None:
    data = {
        Phase.HANDSHAKE: HELLO,
        Phase.WRITING: get(f"/bytes/{MUCH}"),
        Phase.LINGERING: get("/", "Connection: close"),
        Phase.WORKING: get("/wait"),
    }[phase]
    with start(worker_connections=4, unsent=100 * MUCH) as loop, contextlib.ExitStack() as stack:
        for number in range(6):
            with contextlib.suppress(OSError):  # refused if all others are being answered
                connect = loop.plain if phase == Phase.HANDSHAKE else loop.connect
                connection = stack.enter_context(connect(receive_buffer=4096))
                connection.sendall(data)
            until(
                lambda n=number: (
                    [c.phase for c in loop.worker.connections] == [phase] * min(n + 1, 4)
                )
            )
        app.release.set()
        if phase == Phase.WORKING:
            until(lambda: app.served == ["/wait"] * 4)
        assert loop.say(get("/", "Connection: close")).startswith(b"HTTP/1.1 200 ")


# -- the end of the worker -----------------------------------------------------------------------


def test_a_stopping_worker_answers_open_connections(start: Start) -> None:
    with start(graceful_timeout=60) as loop, loop.connect() as idle, loop.connect() as used:
        used.sendall(get("/before"))
        reply_to(used)
        loop.stop()
        loop.worker.stopping_since = until(lambda: loop.worker.stopping_since) - 55  # 55 s ago
        until(lambda: not loop.worker.sockets)
        with pytest.raises(OSError):  # noqa: PT011 - refused, or reset
            loop.say(get("/new"))
        for connection in (idle, used):
            connection.sendall(get("/after"))
            reply = reply_to(connection)
            assert reply.endswith(b"/after")
            assert b"\r\nConnection: close\r\n" in reply
            assert hear_out(connection) == b""


def test_at_the_end_of_the_grace_period_arrived_requests_are_answered(start: Start) -> None:
    with start(graceful_timeout=60) as loop, contextlib.ExitStack() as stack:
        quiet = stack.enter_context(loop.connect())
        late = [stack.enter_context(loop.connect()) for _ in range(10)]
        until(lambda: [c.phase for c in loop.worker.connections] == [Phase.IDLE] * 11)
        loop.stop()
        loop.worker.stopping_since = until(lambda: loop.worker.stopping_since) - 60 + WRAP_UP
        for connection in late:
            connection.sendall(get("/late"))
        for connection in late:
            heard = hear_out(connection)
            assert heard == b"" or heard.endswith(b"/late")
        assert hear_out(quiet) == b""


def test_a_stopping_worker_serves_its_backlog(start: Start, app: App) -> None:
    with start(graceful_timeout=60) as loop, loop.connect() as slow:
        slow.sendall(get("/slow"))
        assert app.begun.wait(PATIENCE)
        with contextlib.closing(loop.plain()) as waiting:
            loop.stop()
            app.go.set()
            with loop.trust.wrap_socket(waiting, server_hostname=HOST) as late:
                late.sendall(get("/late"))
                assert reply_to(late).endswith(b"/late")


def test_the_worker_ends_with_its_grace_period(start: Start) -> None:
    with start(graceful_timeout=60) as loop, stalled_reader(loop):
        until(lambda: any(len(c.outbox) > MUCH // 4 for c in loop.worker.connections))
        loop.stop()
        loop.worker.stopping_since = until(lambda: loop.worker.stopping_since) - 60
        until(lambda: not loop.worker.connections)


def test_a_worker_whose_arbiter_is_gone_ends(start: Start) -> None:
    with start() as loop:
        loop.worker.ppid = 0
        until(lambda: not loop.worker.alive)
