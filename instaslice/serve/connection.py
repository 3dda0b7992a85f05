"""A client's connection: its TLS, its buffers, its phase, and what it may do next.

handshake -> idle -> arriving -> working -> writing -> idle -> ... -> lingering -> closed

The loop alone touches it. TLS is done on memory: each step takes a bounded number of raw bytes from
the socket and gives them to OpenSSL, whose own loop never sees the socket. What carries no data is
counted.
"""

import contextlib
import socket
import ssl
import time
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from instaslice.serve.http import Peer, Reader
from instaslice.serve.limits import Limits


class Phase(IntEnum):
    """What a connection is waiting for."""

    HANDSHAKE = 0  #: TLS is being agreed on
    IDLE = 1  #: no byte of a (next) request is here
    ARRIVING = 2  #: a request is here in part
    WORKING = 3  #: it is whole, and answered or waited for: the application has its own limits
    WRITING = 4  #: the reply is not taken yet
    LINGERING = 5  #: the last reply is; the end is awaited
    CLOSED = 6


@dataclass(eq=False)
class Account:
    """What one peer address has had."""

    used: float = 0.0  #: seconds of processor, lately
    connections: int = 0


class Connection:
    """A client's connection.

    sock: non-blocking. generation: of the authorities that its certificate is checked by.
    """

    __slots__ = (
        *("_hello", "_incoming", "_outgoing", "_raw", "account", "carried", "cost", "ended"),
        *("events", "forgotten", "generation", "keep", "limits", "outbox", "peer", "phase"),
        *("reader", "reserved", "since", "sock", "tls", "turn", "used"),
    )

    def __init__(
        self, sock: socket.socket, peer: Peer, account: Account, generation: int, limits: Limits
    ) -> None:
        self.sock, self.peer, self.account = sock, peer, account
        self.generation, self.limits = generation, limits
        self.phase = Phase.HANDSHAKE
        self.since = time.monotonic()  #: in that phase
        self.used = False  #: whether it has brought a whole request
        self.ended = False  #: whether its peer will send nothing more
        self.keep = True  #: whether another request may follow
        self.events = 0  #: what the selector watches for
        self.turn = 0  #: in which it was looked after last
        self.cost = 0.0  #: seconds of processor that a request on it takes, as far as is known
        self.reserved = 0  #: bytes of a large body
        self.forgotten = 0  #: bytes read while it lingers
        self.reader = Reader(limits.body, limits.headers)
        self.outbox = b""  #: raw bytes, not taken by the socket yet
        self.tls: ssl.SSLObject | None = None  #: from its ClientHello on
        self._hello = b""
        self._raw = self.carried = 0  #: bytes that have come, and bytes of data in them

    def enter(self, phase: Phase) -> None:
        """Begin a phase, and its time."""
        self.phase = phase
        self.since = time.monotonic()

    @property
    def is_known(self) -> bool:
        """Whether it has shown a certificate, which was verified."""
        return bool(self.peer.certificate)

    def patience(self) -> float:
        """The seconds that it may spend in its phase."""
        if self.phase == Phase.IDLE:
            return self.limits.keep_alive
        if self.phase == Phase.WORKING:
            return float("inf")
        return self.limits.farewell if self.phase == Phase.LINGERING else self.limits.arrival

    def rank(self, now: float) -> tuple[int, int, float] | None:
        """How much it is missed, the least first; None where it must not be dropped."""
        if self.phase in (Phase.WORKING, Phase.CLOSED):
            return None
        if now - self.since <= self.limits.prompt:
            rank = 4  # it has just begun, or just been of use
        elif self.phase == Phase.IDLE:
            rank = 3 if self.used else 1
        else:
            rank = 0 if self.phase == Phase.LINGERING else 2
        return rank, -self.account.connections, self.since

    def expected(self) -> float:
        """Seconds of processor that its whole request may take."""
        return max(self.cost, self.reader.size * self.limits.byte)

    def has_bytes(self) -> bool:
        """Whether something has come that is not read yet; that the peer hung up is nothing."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def receive(self, context: ssl.SSLContext) -> bool:
        """Take in what has come, up to `limits.raw` bytes; returns whether that was all.

        Raises BlockingIOError where nothing has, and OSError where this is no TLS that is served.
        """
        data = self.sock.recv(self.limits.raw)
        if not data:
            self.ended = True
            return True
        is_all = len(data) < self.limits.raw
        self._raw += len(data)
        if self.tls is None:
            data = self._hello = self._hello + data
            if len(data) < 9:
                return True
            # The record's type and its length; the message's type and its (RFC 8446, 4 and 5.1).
            is_hello = data[0] == 0x16 and data[5] == 1 and int.from_bytes(data[3:5]) >= 4
            if not is_hello or int.from_bytes(data[6:9]) > self.limits.hello:
                raise ssl.SSLError("not a ClientHello that is served")
            self._hello = b""
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._incoming.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            try:
                if self.phase == Phase.HANDSHAKE:
                    self.tls.do_handshake()
                    certificate: Any = self.tls.getpeercert()
                    self.peer = self.peer._replace(certificate=certificate)
                    self.enter(Phase.IDLE)
                    self.carried = self._raw
                self._decrypt(self.tls)
            finally:
                self._collect()  # a refusal is for the peer to read, too
        if self._raw - self.limits.wrapping * self.carried > self.limits.dataless:
            raise ssl.SSLError("TLS that carries nothing")
        return is_all

    def _decrypt(self, tls: ssl.SSLObject) -> None:
        while self._incoming.pending or tls.pending():
            try:
                data = tls.read(16 * 1024)
            except ssl.SSLZeroReturnError:
                data = b""
            if not data:
                self.ended = True
                return
            self.carried += len(data)
            self.reader.feed(data)

    def _collect(self) -> None:
        if self._outgoing.pending:
            self.outbox += self._outgoing.read()

    def put(self, data: bytes) -> None:
        """Have something sent."""
        assert self.tls is not None
        self.tls.write(data)
        self._collect()

    def flush(self) -> None:
        """Send what the socket takes."""
        while self.outbox:
            try:
                sent = self.sock.send(self.outbox)
            except BlockingIOError:
                return
            self.outbox = self.outbox[sent:]

    def say_goodbye(self) -> None:
        """Put TLS's close_notify behind what is sent, and wait for no answer."""
        assert self.tls is not None
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self._collect()

    def forget(self) -> bool:
        """Read what still comes, and forget it; returns whether that is over."""
        while self.forgotten < self.limits.farewell_bytes:
            data = self.sock.recv(256 * 1024)
            if not data:
                return True
            self.forgotten += len(data)
        return True
