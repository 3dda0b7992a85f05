"""gunicorn's worker for a server that nobody may stall.

gunicorn's gthread worker does the TLS handshake and reads the request on a thread of its pool, so
as many silent clients as there are threads stop it. Here one loop does all that a socket can make
wait for, and answers a request once it has arrived whole, which is a matter of microseconds. Only
an answer that must wait for the API server is made on a thread of the pool:

1. The loop accepts, shakes hands, reads and writes, and blocks on none of it. In each turn it reads
   what has come, answers the requests that have come whole, first come first served, for HOLD
   seconds, and writes those replies.
2. A connection has a deadline in each phase but while it is answered. From being accepted, or from
   the first byte of a later request, a request has ARRIVAL seconds to be there; so has a reply, to
   be taken. A connection between requests is kept for the `keepalive` setting.
3. Where there are as many connections as `worker_connections`, or as many bytes of unfinished
   requests as MAX_PENDING, one that stalls makes room, or else one that is idle.
4. How long a request is, is read from its headers: from Content-Length, and only from there. Where
   it cannot be told so, gunicorn's parser is to find what is wrong with the headers, and the
   connection is closed after the reply.
5. On SIGTERM the loop takes in the connections of the backlog, and listens no more. For LINGER
   seconds it goes on with the connections that are there, and answers what comes on them with
   "Connection: close"; then it closes what is idle, and ends when nothing is in flight.

phases   handshake -> reading -> working -> writing -> reading -> ... -> lingering -> closed
"""

import collections
import contextlib
import errno
import io
import os
import re
import selectors
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from gunicorn.http import wsgi
from gunicorn.http.errors import NoMoreData
from gunicorn.http.parser import RequestParser
from gunicorn.workers.base import Worker

from instaslice.serve.app import MAX_BODY, MAY_WAIT, PEER, MustWait

#: Seconds for a request to arrive whole, handshake included: longer than the API server's timeout
#: (5 s as deployed), after which nobody waits for the answer any more.
ARRIVAL: Final = 6.0
#: Seconds after which what is still arriving is taken to be stalled, where room is scarce.
PROMPT: Final = 1.0
#: Seconds in which a stopping worker still expects requests on connections that it kept open.
LINGER: Final = 2.0
#: Seconds, and bytes, for which a connection that is closed is still read, so that the peer gets
#: the reply before it learns that the rest of its request went nowhere (RFC 9112, section 9.6).
FAREWELL: Final = 2.0
FAREWELL_BYTES: Final = 2 * MAX_BODY
#: The longest header section, in bytes; the API server's has a few hundred.
MAX_HEADERS: Final = 32 * 1024
#: The longest header section that is remembered with what was made of it, which takes up to 15 KiB
#: of a connection; the API server's has a few hundred bytes.
MAX_REMEMBERED: Final = 2048
#: Bytes of unfinished requests in all: nine of the largest. They come whole within milliseconds, so
#: more than this is somebody stalling.
MAX_PENDING: Final = 64 * 1024 * 1024
#: Bytes of the requests that wait in the pool. Decoded they take ten times as much: this is what
#: keeps hostile bodies within the memory that the Deployment has.
MAX_WAITING: Final = 2 * MAX_BODY
#: How much is read at once: what a TLS record holds at most (RFC 8446, section 5.1).
RECORD: Final = 16 * 1024
#: Reads of one connection before others are looked after again: those of the largest body, where
#: its records are full.
READS: Final = MAX_BODY // RECORD + 2
#: Connections that are accepted before others are looked after again.
AT_ONCE: Final = 64
#: Seconds for which a turn answers requests, and holds their replies back to send them together.
#: That wakes up their receiver once and not for each of them, which served a third more requests a
#: second on 16 connections; twice or four times as long served no more.
HOLD: Final = 0.001
#: Bytes of whole requests that wait for others to be read: one of the largest.
MAX_WHOLE: Final = MAX_BODY
#: Seconds between two looks for connections whose time is up.
SWEEP: Final = 0.5

_LENGTH: Final = re.compile(
    rb"\r\ncontent-length[ \t]*:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.IGNORECASE
)
#: What makes a length uncertain: a second one, or a transfer coding.
_UNCERTAIN: Final = re.compile(rb"\r\n(?:content-length|transfer-encoding)[ \t]*:", re.IGNORECASE)
_CODED: Final = re.compile(rb"\r\ntransfer-encoding[ \t]*:", re.IGNORECASE)
_EXPECTS: Final = re.compile(rb"\r\nexpect[ \t]*:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

HANDSHAKE, READING, WORKING, WRITING, LINGERING, CLOSED = range(6)


def refusal(status: str, message: str) -> bytes:
    """A whole HTTP reply that refuses, for what never reaches the application."""
    body = f"{message}\n".encode()
    return (
        f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


class Connection:
    """A client's connection. The loop alone touches it; a pool thread reads who it is from."""

    __slots__ = (
        "client",
        "deadline",
        "events",
        "expected",
        "head",
        "inbox",
        "keep",
        "outbox",
        "parsed",
        "parsed_from",
        "phase",
        "server",
        "sock",
    )

    def __init__(self, sock: ssl.SSLSocket, client: Any, server: Any) -> None:
        self.sock = sock
        self.client = client
        self.server = server
        self.phase = HANDSHAKE
        self.deadline = time.monotonic() + ARRIVAL
        self.events = 0  #: what the selector watches for
        self.inbox = bytearray()  #: of requests, not handed over yet
        self.head = b""  #: of the request that is arriving: its headers, once they are whole
        self.expected = 0  #: bytes of that request; 0 where its headers are not whole
        self.outbox = b""  #: of replies, not written yet
        self.keep = True  #: whether another request may follow
        self.parsed_from = b""  #: the headers of an earlier request, but for its length
        self.parsed: Any = None  #: what gunicorn made of them


class _Reply:
    """The socket that gunicorn's Response writes to: it keeps the reply for the loop to send."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.parts.append(data)

    def send(self, data: bytes) -> int:
        """Take what is only ever "100 Continue": the loop has sent that."""
        return len(data)

    def gettimeout(self) -> float:
        return 0.0


class StallFreeWorker(Worker):
    """See the module's text. A `worker_class` for gunicorn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.connections: set[Connection] = set()
        self.pending = 0  #: bytes in the inboxes of requests that are not whole
        self.selector = selectors.DefaultSelector()
        self.next_sweep = 0.0  #: on the monotonic clock
        self.stopping_since: float | None = None  #: likewise; None while it serves
        #: Connections whose next request is here, or partly, without the selector knowing.
        self.ready: set[Connection] = set()
        #: Connections whose request has come whole and is not answered yet, and the bytes of those.
        self.whole: collections.deque[Connection] = collections.deque()
        self.whole_bytes = 0
        self.waiting = 0  #: bytes of the requests that are in the pool
        #: What is done in the pool: a request's size, its connection, the reply, whether to go on.
        self.done: collections.deque[tuple[int, Connection, bytes, bool]] = collections.deque()

    # -- the loop --------------------------------------------------------------------------------

    def run(self) -> None:
        """Called by gunicorn in the worker's process: serve until told to stop."""
        self.pool = ThreadPoolExecutor(self.cfg.threads, thread_name_prefix="admission")
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.PIPE[0], selectors.EVENT_READ, self._wake)
        for listener in self.sockets:
            listener.setblocking(False)
            self.selector.register(listener, selectors.EVENT_READ, self._accept)
        while self.alive or not self._drained():
            self._turn()
        self.pool.shutdown(wait=False, cancel_futures=True)
        for connection in list(self.connections):
            self._close(connection)

    def _turn(self) -> None:
        """Wait for something to happen, and do what follows from it."""
        for key, _ in self.selector.select(0 if self.ready or self.whole else SWEEP):
            if isinstance(key.data, Connection):
                self._look_after(key.data)
            else:
                key.data(key.fileobj)
        self._finish()
        ready, self.ready = self.ready, set()
        for connection in ready:
            self._look_after(connection)
        self._work()
        now = time.monotonic()
        if now >= self.next_sweep:
            self.next_sweep = now + SWEEP
            self.notify()
            self._sweep(now)
            if self.ppid != os.getppid():
                self.log.info("Parent changed, shutting down: %s", self)
                self.alive = False

    def _drained(self) -> bool:
        """Whether a worker that was told to stop may do so."""
        now = time.monotonic()
        if self.stopping_since is None:
            self.stopping_since = now
            for listener in self.sockets:
                self.selector.unregister(listener)
                self._accept(listener, self.cfg.backlog)
                listener.close()
        if now >= self.stopping_since + LINGER:
            for connection in list(self.connections):
                if connection.phase == READING and not connection.inbox:
                    self._close(connection)
        return not self.connections or now >= self.stopping_since + self.cfg.graceful_timeout

    def _wake(self, fd: int) -> None:
        """Signals and pool threads write to the pipe to end the selector's wait."""
        with contextlib.suppress(BlockingIOError):
            os.read(fd, 4096)

    def _accept(self, listener: Any, most: int = AT_ONCE) -> None:
        """Take in the connections that wait, and begin with each."""
        for _ in range(most):
            try:
                plain, client = listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    self._make_room()
                return  # there is none, or it is gone again
            self._begin(plain, client, listener.getsockname())

    def _begin(self, plain: socket.socket, client: Any, server: Any) -> None:
        if len(self.connections) >= self.cfg.worker_connections:
            self._make_room()
        plain.setblocking(False)
        try:
            context = self.cfg.ssl_context(self.cfg, None)
            sock = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            connection = Connection(sock, client, server)
        except OSError:
            plain.close()
            return
        self.connections.add(connection)
        self._advance(connection)

    def _look_after(self, connection: Connection) -> None:
        """Advance a connection, and keep what has come whole from piling up."""
        self._advance(connection)
        while self.whole_bytes > MAX_WHOLE:
            self._work()

    def _advance(self, connection: Connection) -> None:
        """Do what the connection's phase can do without waiting."""
        if connection.phase in (CLOSED, WORKING):
            return  # to make room, or by a request before, since the selector or `ready` said so
        try:
            _STEPS[connection.phase](self, connection)
        except ssl.SSLWantReadError:
            self._watch(connection, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._watch(connection, selectors.EVENT_WRITE)
        except (OSError, ValueError):  # reset, not TLS at all, or closed under our feet
            self._close(connection)

    def _shake_hands(self, connection: Connection) -> None:
        connection.sock.do_handshake()
        connection.phase = READING
        self._read(connection)

    def _read(self, connection: Connection) -> None:
        inbox = connection.inbox
        for _ in range(READS):
            if self._is_whole(connection):
                connection.phase = WORKING
                self.whole.append(connection)
                self.whole_bytes += connection.expected
                return
            data = connection.sock.recv(RECORD)
            if not data:
                self._cut_short(connection, "400 Bad Request", "the request is not whole")
                return
            if not inbox:  # it may have been idle, and a request begins
                soon = time.monotonic() + ARRIVAL
                connection.deadline = min(connection.deadline, soon)
            inbox += data
            self.pending += len(data)
            if self.pending > MAX_PENDING:
                self._make_room(holding=True)
                if connection.phase == CLOSED:
                    return
        # It sends as fast as it is read, perhaps a byte in each record. Others come first.
        self._watch(connection, selectors.EVENT_READ)
        self.ready.add(connection)

    def _cut_short(self, connection: Connection, status: str, why: str) -> None:
        """End a connection on which no whole request will come, and say so where one began."""
        if not connection.inbox:
            self._close(connection)
            return
        connection.outbox = refusal(status, why)
        connection.keep = False
        connection.phase = WRITING
        connection.deadline = time.monotonic() + FAREWELL
        self._advance(connection)

    def _is_whole(self, connection: Connection) -> bool:
        """Whether the inbox holds all of a request, or all that will be read of it."""
        inbox = connection.inbox
        if not connection.expected:
            end = inbox.find(b"\r\n\r\n", 0, MAX_HEADERS)
            if end < 0:
                if len(inbox) < MAX_HEADERS:
                    return False
                connection.keep = False
                connection.expected = len(inbox)
                return True
            connection.head = head = bytes(inbox[: end + 4])
            connection.expected = end + 4
            lengths = _UNCERTAIN.findall(head)
            length = _LENGTH.search(head)
            if length and len(lengths) == 1 and int(length[1]) <= MAX_BODY:
                connection.expected += int(length[1])
                if len(inbox) < connection.expected and _EXPECTS.search(head):
                    connection.sock.send(_CONTINUE)
            elif lengths:
                connection.keep = False
        return len(inbox) >= connection.expected

    def _work(self) -> None:
        """Answer requests that have come whole, for HOLD seconds, and write the replies."""
        replies: list[tuple[Connection, bytes, bool]] = []
        until = time.monotonic() + HOLD
        while self.whole:
            connection = self.whole.popleft()
            self.whole_bytes -= connection.expected
            answer = self._work_on(connection)
            if answer:
                replies.append((connection, *answer))
            if time.monotonic() > until:
                break
        for connection, reply, keep in replies:
            self._reply(connection, reply, keep)

    def _work_on(self, connection: Connection) -> tuple[bytes, bool] | None:
        """Answer a whole request, here or, where that means to wait, in the pool (None)."""
        head, size = connection.head, connection.expected
        with memoryview(connection.inbox) as inbox:
            body = bytes(inbox[len(head) : size])
        del connection.inbox[:size]
        self.pending -= size
        connection.head, connection.expected = b"", 0
        try:
            return self._answer(connection, head, body, may_wait=False)
        except MustWait:
            if self.waiting + size > MAX_WAITING:
                return refusal("503 Service Unavailable", "too much waits already"), False
        self.waiting += size
        self._watch(connection, 0)
        self.pool.submit(self._answer_later, connection, head, body)
        return None

    def _finish(self) -> None:
        """Take replies from the pool."""
        while self.done:
            size, connection, reply, keep = self.done.popleft()
            self.waiting -= size
            self._reply(connection, reply, keep)

    def _reply(self, connection: Connection, reply: bytes, keep: bool) -> None:
        connection.outbox = reply
        connection.keep = connection.keep and keep
        connection.phase = WRITING
        connection.deadline = time.monotonic() + ARRIVAL
        self._advance(connection)

    def _write(self, connection: Connection) -> None:
        while connection.outbox:
            sent = connection.sock.send(connection.outbox)
            connection.outbox = connection.outbox[sent:]
        now = time.monotonic()
        if not connection.keep:
            connection.phase = LINGERING
            connection.deadline = now + FAREWELL
            connection.expected = FAREWELL_BYTES
            with contextlib.suppress(OSError):
                connection.sock.unwrap()  # says goodbye in TLS, and does not wait for an answer
            connection.sock.shutdown(socket.SHUT_WR)
            self._linger(connection)
            return
        connection.phase = READING
        connection.deadline = now + (ARRIVAL if connection.inbox else self.cfg.keepalive)
        self._watch(connection, selectors.EVENT_READ)
        if connection.inbox or connection.sock.pending():
            # The next request is here already, and the selector may not see it. Others come first.
            self.ready.add(connection)

    def _linger(self, connection: Connection) -> None:
        """Read what still comes, and forget it, until the peer has hung up."""
        while connection.expected > 0:
            try:
                data = connection.sock.recv(RECORD)  # not TLS any more after shutdown()
            except BlockingIOError:
                self._watch(connection, selectors.EVENT_READ)
                return
            if not data:
                break
            connection.expected -= len(data)
        self._close(connection)

    def _watch(self, connection: Connection, events: int) -> None:
        """Have the selector wait for `events` of a connection, 0 for none."""
        if connection.events == events:
            return
        if not events:
            self.selector.unregister(connection.sock)
        elif connection.events:
            self.selector.modify(connection.sock, events, connection)
        else:
            self.selector.register(connection.sock, events, connection)
        connection.events = events

    # -- those who stall -------------------------------------------------------------------------

    def _sweep(self, now: float) -> None:
        """Close the connections whose time is up."""
        for connection in [c for c in self.connections if c.deadline < now]:
            if connection.phase == READING:
                self._cut_short(connection, "408 Request Timeout", "the request took too long")
            elif connection.phase != WORKING:
                self._close(connection)

    def _make_room(self, holding: bool = False) -> None:
        """Close the connection that is missed least, of those that hold bytes if `holding`.

        That is the one that has been arriving longest, if for more than PROMPT seconds; or the one
        that has been idle longest; or, where all have just begun to arrive, the first of them.
        """
        now = time.monotonic()

        def rank(connection: Connection) -> tuple[int, float]:
            left = connection.deadline - now
            just_begun = ARRIVAL - PROMPT < left <= ARRIVAL
            return (2 if just_begun else 1 if left > ARRIVAL else 0), left

        waiting = [
            c
            for c in self.connections
            if c.phase in (HANDSHAKE, READING) and (c.inbox or not holding)
        ]
        if waiting:
            self._close(min(waiting, key=rank))

    def _close(self, connection: Connection) -> None:
        if connection.phase == CLOSED:
            return
        if connection.events:
            self.selector.unregister(connection.sock)
            connection.events = 0
        self.pending -= len(connection.inbox)
        connection.phase = CLOSED
        connection.sock.close()
        self.connections.discard(connection)

    # -- answers ---------------------------------------------------------------------------------

    def _answer_later(self, connection: Connection, head: bytes, body: bytes) -> None:
        """Answer a request on a thread of the pool, and hand the reply to the loop."""
        reply, keep = self._answer(connection, head, body, may_wait=True)
        self.done.append((len(head) + len(body), connection, reply, keep))
        with contextlib.suppress(BlockingIOError):
            os.write(self.PIPE[1], b".")

    def _answer(
        self, connection: Connection, head: bytes, body: bytes, may_wait: bool
    ) -> tuple[bytes, bool]:
        """The reply to a request, and whether to keep the connection. Raises MustWait."""
        reply: Any = _Reply()
        keep = False
        try:
            keep = self._respond(connection, head, body, reply, may_wait)
        except MustWait:
            raise
        except (NoMoreData, StopIteration):
            reply.parts = [refusal("400 Bad Request", "the request ends in its headers")]
        except Exception as error:
            reply.parts.clear()
            self.handle_error(None, reply, connection.client, error)
        return b"".join(reply.parts), keep

    def _respond(
        self, connection: Connection, head: bytes, body: bytes, reply: Any, may_wait: bool
    ) -> bool:
        """Parse a request, call the application; returns whether to keep the connection."""
        if not head:
            text = f"the headers are over {MAX_HEADERS} bytes"
            reply.sendall(refusal("431 Request Header Fields Too Large", text))
            return False
        if _CODED.search(head):
            reply.sendall(refusal("411 Length Required", "there is no Content-Length"))
            return False
        length = _LENGTH.search(head)
        request = self._parse(connection, head, length)
        response: Any
        response, environ = wsgi.create(
            request, reply, connection.client, connection.server, self.cfg
        )
        if length:
            environ["CONTENT_LENGTH"] = length[1].decode()
        environ["wsgi.input"] = io.BytesIO(body)
        environ["wsgi.multithread"] = True
        environ[PEER] = connection.sock.getpeercert()
        environ[MAY_WAIT] = may_wait
        if not self.alive:
            response.force_close()
        for item in self.wsgi(environ, response.start_response):
            response.write(item)
        response.close()
        return not response.should_close()

    def _parse(self, connection: Connection, head: bytes, length: re.Match[bytes] | None) -> Any:
        """What gunicorn makes of a request's headers.

        length: where they say how long the body is. The API server sends the same headers again and
        again but for this, so what was made of the last ones is good for these.
        """
        but_for_it = head[: length.start(1)] + head[length.end(1) :] if length else b""
        if but_for_it and but_for_it == connection.parsed_from:
            return connection.parsed
        parsed = next(RequestParser(self.cfg, iter((head,)), connection.client))
        if 0 < len(but_for_it) <= MAX_REMEMBERED:
            connection.parsed_from, connection.parsed = but_for_it, parsed
        return parsed


#: phase -> what to do when the socket is ready.
_STEPS: Final = {
    HANDSHAKE: StallFreeWorker._shake_hands,
    READING: StallFreeWorker._read,
    WRITING: StallFreeWorker._write,
    LINGERING: StallFreeWorker._linger,
}
