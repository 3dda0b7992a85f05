"""A client's connection: its TLS, its buffers, its phase, and its next step.

handshake -> idle -> arriving -> working -> writing -> idle -> ... -> lingering -> closed

Only the loop uses it. TLS works on memory BIOs: each step reads a bounded number of raw bytes from
the socket and hands them to OpenSSL, whose own read loop never sees the socket. Raw bytes that
carry no data are counted.
"""

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

from instaslice.serve.http import Peer, Reader, Request
from instaslice.serve.limits import Limits

#: A record that every handshake has at most once, but TLS 1.3 ignores any number of them (RFC 8446,
#: section 5).
_CHANGE_CIPHER_SPEC: Final = b"\x14\x03\x03\x00\x01\x01"


class Phase(IntEnum):
    """The event that a connection waits for."""

    HANDSHAKE = 0  #: the end of the TLS handshake
    IDLE = 1  #: the first byte of a request
    ARRIVING = 2  #: the rest of a request
    WORKING = 3  #: the answer
    WRITING = 4  #: the client to read the reply
    LINGERING = 5  #: the client to hang up after the last reply
    CLOSED = 6


@dataclass(eq=False)
class Account:
    """The recent work of the server for one peer address."""

    turn: int  #: the loop's turn that last began a handshake with it
    used: float = 0.0  #: seconds of processor time
    connections: int = 0
    #: Connections whose handshake has not begun, oldest first.
    silent: dict["Connection", None] = field(default_factory=dict)


@dataclass(eq=False, repr=False, slots=True)
class Connection:
    """A client's connection on a non-blocking socket."""

    sock: socket.socket
    peer: Peer
    account: Account
    generation: int  #: of the authorities that its certificate is checked against
    limits: Limits
    phase: Phase = Phase.HANDSHAKE
    since: float = field(default_factory=time.monotonic)  #: when the phase began
    used: bool = False  #: whether a whole request has come on it
    ended: bool = False  #: whether the client has ended its side
    keep: bool = True  #: whether another request may follow
    events: int = 0  #: what the selector watches for
    turn: int = 0  #: the loop's turn that last served it
    cost: float = 0.0  #: seconds of processor time that its last requests took
    # What the worker's counts of the same names hold of this connection, in bytes.
    pending: int = 0
    unsent: int = 0
    large: int = 0
    taken: tuple[Request, bool] = field(init=False)  #: what waits for the pool; whether it is last
    forgotten: int = 0  #: bytes read while lingering
    outbox: bytes = b""  #: raw bytes to be sent
    tls: ssl.SSLObject | None = None  #: from a whole ClientHello on
    carried: int = 0  #: bytes of data in the raw bytes
    reader: Reader = field(init=False)
    _raw: int = 0  #: bytes received
    _hello: bytearray = field(default_factory=bytearray)  #: these, until the ClientHello is whole
    # These exist from the ClientHello on.
    _incoming: ssl.MemoryBIO = field(init=False)
    _outgoing: ssl.MemoryBIO = field(init=False)

    def __post_init__(self) -> None:
        self.reader = Reader(self.limits.body, self.limits.headers)

    def enter(self, phase: Phase) -> None:
        """Begin a phase."""
        self.phase = phase
        self.since = time.monotonic()

    @property
    def is_known(self) -> bool:
        """Whether the client has shown a certificate, which was verified."""
        return bool(self.peer.certificate)

    def patience(self) -> float:
        """How long it may stay in its phase, in seconds."""
        if self.phase == Phase.IDLE:
            return self.limits.keep_alive
        if self.phase == Phase.WORKING:
            return float("inf")
        return self.limits.farewell if self.phase == Phase.LINGERING else self.limits.arrival

    def rank(self, now: float) -> tuple[int, int, float] | None:
        """The order in which connections are dropped, least first; None: it must stay."""
        if self.phase in (Phase.WORKING, Phase.CLOSED):
            return None
        if now - self.since <= self.limits.prompt:
            rank = 4  # it made progress just now
        elif self.phase == Phase.IDLE:
            rank = 3 if self.used else 1
        else:
            rank = 0 if self.phase == Phase.LINGERING else 2
        return rank, -self.account.connections, self.since

    def held(self) -> int:
        """The bytes of memory that its requests take, with those of an unfinished TLS record."""
        held = len(self.reader) + (self._incoming.pending if self.tls else 0)
        return held and held + self.limits.buffers

    def cost_class(self) -> int:
        """The class of the processor time that its request is expected to take.

        Class 0 is cheap; each of the others costs twice as much as the one before.
        """
        seconds = max(self.cost, self.reader.size * self.limits.byte)
        return int(seconds / self.limits.cheap).bit_length()

    def has_bytes(self) -> bool:
        """Whether bytes have come that are not read yet. The end of the connection is not one."""
        try:
            return bool(self.sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def receive(self, context: Callable[[], ssl.SSLContext]) -> bool:
        """Read at most `limits.raw` bytes from the socket; returns whether it had no more.

        context: called once, for the TLS of a new connection.
        Raises BlockingIOError if there is nothing to read, and OSError for TLS that is not served.
        """
        room = self.limits.raw_handshake if self.phase == Phase.HANDSHAKE else self.limits.raw
        data = self.sock.recv(room)
        if not data:
            self.ended = True
            return True
        is_all = len(data) < room
        self._raw += len(data)
        if self.phase == Phase.HANDSHAKE and data.count(_CHANGE_CIPHER_SPEC) > 1:
            raise ssl.SSLError("records that a handshake does not need")
        if self.tls is None:
            self._hello += data
            if not self._has_hello():
                return True
            data, self._hello = bytes(self._hello), bytearray()
            self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = context().wrap_bio(self._incoming, self._outgoing, server_side=True)
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
                self._collect()  # also the alert of a failed handshake
        if self._raw - self.limits.wrapping * self.carried > self.limits.dataless:
            raise ssl.SSLError("TLS that carries nothing")
        return is_all

    def _has_hello(self) -> bool:
        """Whether the ClientHello, or its first record, is whole. Raises SSLError for another.

        Source: type and length of a record and of a message, RFC 8446, sections 5.1 and 4.
        """
        head = self._hello[:9]
        if len(head) < 9:
            return False
        length = int.from_bytes(head[3:5])
        is_hello = head[0] == 0x16 and head[5] == 1 and 4 <= length <= self.limits.raw
        if not is_hello or int.from_bytes(head[6:9]) > self.limits.hello:
            raise ssl.SSLError("not a ClientHello that is served")
        return len(self._hello) >= 5 + length

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
        """Encrypt data that is to be sent."""
        assert self.tls is not None
        self.tls.write(data)
        self._collect()

    def flush(self) -> None:
        """Send as much as the socket takes."""
        while self.outbox:
            try:
                sent = self.sock.send(self.outbox)
            except BlockingIOError:
                return
            self.outbox = self.outbox[sent:]

    def say_goodbye(self) -> None:
        """Add TLS's close_notify to what is sent, without waiting for an answer."""
        assert self.tls is not None
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self._collect()

    def forget(self) -> bool:
        """Read and drop what still comes; returns whether that is over."""
        while self.forgotten < self.limits.farewell_bytes:
            data = self.sock.recv(256 * 1024)
            if not data:
                return True
            self.forgotten += len(data)
        return True


#: Which of a line's two orders, whether the caller is unknown, and the class of cost.
_Key = tuple[int, bool, int]


class Line:
    """Connections whose requests wait for their turn.

    Callers with a verified certificate come first. Otherwise, the oldest request of an address and
    the cheapest one come in turn, and so do addresses: neither many cheap requests nor many
    addresses with expensive ones keep others waiting. No step takes longer for a longer line.
    """

    def __init__(self) -> None:
        self._keys: dict[Connection, tuple[_Key, _Key]] = {}
        #: The connections of each address, oldest first, for each key. In order 0 all costs are one
        #: class.
        self._lanes: dict[_Key, dict[Account, dict[Connection, None]]] = {}
        self._takes = 0

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, connection: Connection) -> None:
        """Add a connection as the last one of its address."""
        is_unknown = not connection.is_known
        keys = (0, is_unknown, 0), (1, is_unknown, connection.cost_class())
        self._keys[connection] = keys
        for key in keys:
            lanes = self._lanes.setdefault(key, {})
            lanes.setdefault(connection.account, {})[connection] = None

    def discard(self, connection: Connection) -> None:
        """Remove a connection, if it waits."""
        for key in self._keys.pop(connection, ()):
            lanes = self._lanes[key]
            del lanes[connection.account][connection]
            if not lanes[connection.account]:
                del lanes[connection.account]
            if not lanes:
                del self._lanes[key]

    def take(self) -> Connection:
        """Remove the connection whose turn it is. Raises ValueError if there is none."""
        self._takes += 1
        order = self._takes % 2
        lanes = self._lanes[min(key for key in self._lanes if key[0] == order)]
        account = next(iter(lanes))
        lanes[account] = lane = lanes.pop(account)  # as the last one
        connection = next(iter(lane))
        self.discard(connection)
        return connection
