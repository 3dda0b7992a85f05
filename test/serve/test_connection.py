"""A connection, between two real sockets with TLS on them."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from instaslice.serve.connection import Connection
from instaslice.serve.gateway import Peer
from instaslice.serve.room import Phase
from test.support.certs import Authority

Pair = tuple[Connection, ssl.SSLSocket]


@pytest.fixture
def connect(authority: Authority) -> Iterator[Callable[[bool], Pair]]:
    """Connects a client, which may show a certificate; hands are shaken."""
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.verify_mode = ssl.CERT_OPTIONAL
    authority.ca.configure_trust(served)
    authority.ca.issue_cert("localhost").configure_cert(served)
    with contextlib.ExitStack() as stack:

        def connect(shows_certificate: bool = False) -> Pair:
            context = authority.trusting()
            if shows_certificate:
                authority.ca.issue_cert(common_name="kube-apiserver").configure_cert(context)
            ours, theirs = socket.socketpair()
            wrapped = served.wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
            client = context.wrap_socket(
                theirs, server_hostname="localhost", do_handshake_on_connect=False
            )
            thread = threading.Thread(target=wrapped.do_handshake)
            thread.start()
            client.do_handshake()
            thread.join()
            for each in (wrapped, client):
                stack.callback(each.close)
            wrapped.setblocking(False)
            return Connection(wrapped, Peer("a", 1, None), 1), client

        yield connect


def test_a_phase_begins_when_it_is_entered(connect: Callable[..., Pair]) -> None:
    connection, _ = connect()
    connection.since -= 60
    before = time.monotonic()
    connection.enter(Phase.IDLE)
    assert connection.phase is Phase.IDLE
    assert before <= connection.since <= time.monotonic()


@pytest.mark.parametrize("shows", [True, False])
def test_the_certificate_that_was_shown_is_kept(shows: bool, connect: Callable[..., Pair]) -> None:
    connection, _ = connect(shows)
    assert connection.peer.certificate is None
    connection.learn_certificate()
    assert ("kube-apiserver" in str(connection.peer.certificate)) is shows
    assert connection.peer[:2] == ("a", 1)


def test_bytes_that_came_are_seen_and_stay_to_be_read(connect: Callable[..., Pair]) -> None:
    connection, client = connect()
    assert not connection.has_bytes()
    client.sendall(b"hello")
    assert connection.has_bytes()
    assert connection.has_bytes()
    assert connection.sock.recv(2) == b"he"
    assert connection.has_bytes(), "the rest of a record is with TLS, not with the kernel"
    assert connection.sock.recv(9) == b"llo"
    assert not connection.has_bytes()


def test_that_the_peer_hung_up_is_nothing_that_came(connect: Callable[..., Pair]) -> None:
    connection, client = connect()
    client.close()
    assert not connection.has_bytes()
