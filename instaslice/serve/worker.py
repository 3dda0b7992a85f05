"""gunicorn's worker for a webhook: a loop that slow clients cannot stall.

gunicorn's gthread worker does the TLS handshake and reads the request on a thread of its pool, so
as many silent clients as there are threads stop it. Here one loop does all that a socket can make
wait for, and answers a request once it has arrived whole, which is a matter of microseconds. Only
an answer that must wait for the API server is waited for on a thread of the pool.

1. The loop accepts, shakes hands, reads and writes, and blocks on none of it. In each turn it reads
   what has come, shakes hands for HANDSHAKES seconds, answers the requests that have come whole,
   first come first served, for HOLD seconds, and writes those replies.
2. `framing` says where a request ends, `gateway` what the reply is, `room` how long each phase of a
   connection may take, how much all of them may hold, and who is dropped where that is too much.
3. Whatever is written waits in a connection's outbox until the socket has taken it: TLS demands
   that a write which could not be finished is repeated with the same bytes.
4. No connection that is idle is closed without a look whether something has come on it.
5. On SIGTERM the loop takes in the connections of the backlog, and listens no more. It goes on with
   the connections that are there, and answers what comes on them with "Connection: close", for as
   long as the grace period allows (`room.idle_until`); then it closes what is idle, and ends when
   nothing is in flight.
6. When the authorities that callers' certificates are checked by have changed (`generation`), a
   connection from before is closed with its next reply: who was let in then may not be let in now.
"""

import collections
import contextlib
import errno
import os
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from gunicorn.workers.base import Worker

from instaslice.serve import room
from instaslice.serve.app import MAX_BODY
from instaslice.serve.connection import Connection
from instaslice.serve.framing import CONTINUE, Refusal
from instaslice.serve.gateway import NO_MEMORY, Gateway, Peer, Reply
from instaslice.serve.room import Phase

#: How much is read at once: what a TLS record holds at most (RFC 8446, section 5.1).
RECORD: Final = 16 * 1024
#: Reads of one connection before others are looked after again: those of the largest body, where
#: its records are full.
READS: Final = MAX_BODY // RECORD + 2
#: And where as much is whole as may wait: small requests go on, large ones have to wait.
FEW_READS: Final = 2
#: Seconds for which a turn accepts connections, and again for which it shakes hands, a millisecond
#: each: what comes on the others waits for no longer.
HANDSHAKES: Final = 0.005
#: Seconds for which a turn answers requests, and holds their replies back to send them together.
#: That wakes up their receiver once and not for each of them, which served a third more requests a
#: second on 16 connections; longer ones no more.
HOLD: Final = 0.001
#: Seconds between two looks for connections whose time is up.
SWEEP: Final = 0.5

_NOT_WHOLE: Final = Refusal("400 Bad Request", "the request is not whole")
_TOO_SLOW: Final = Refusal("408 Request Timeout", "the request took too long")
_TOO_MANY: Final = Refusal("503 Service Unavailable", "too much waits already")


class StallFreeWorker(Worker):
    """See the module's text. A `worker_class` for gunicorn."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Tells a number that changes when the authorities of callers do; set by `server`.
        self.generation: Callable[[], int] = lambda: 0
        self.connections: set[Connection] = set()
        self.pending = 0  #: bytes that the connections' readers hold
        self.unsent = 0  #: bytes of the connections' outboxes
        self.selector = selectors.DefaultSelector()
        self.next_sweep = 0.0  #: on the monotonic clock, as is the next
        self.stopping_since: float | None = None
        #: Connections whose next bytes are here, perhaps without the selector knowing.
        self.ready: set[Connection] = set()
        #: Connections whose request has come whole and is not answered yet, and the bytes of those.
        self.whole: collections.deque[tuple[Connection, int]] = collections.deque()
        self.whole_bytes = 0
        self.waiting = 0  #: bytes of requests, and of their answers, that wait in the pool
        #: What is done in the pool: its size, the connection, the reply.
        self.done: collections.deque[tuple[int, Connection, Reply]] = collections.deque()

    # -- the loop --------------------------------------------------------------------------------

    def run(self) -> None:
        """Called by gunicorn in the worker's process: serve until told to stop."""
        self.gateway = Gateway(self.wsgi, self.cfg)
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
        strangers = []
        for key, _ in self.selector.select(0 if self.ready or self.whole else SWEEP):
            if not isinstance(key.data, Connection):
                key.data(key.fileobj)
            elif key.data.phase == Phase.HANDSHAKE:
                strangers.append(key.data)
            else:
                self._advance(key.data)
        while self.done:
            size, connection, reply = self.done.popleft()
            self.waiting -= size
            self._reply(connection, reply)
        ready, self.ready = self.ready, set()
        for connection in ready:
            self._advance(connection)
        until = time.monotonic() + HANDSHAKES
        for connection in strangers:  # the selector names again whom there is no time for now
            self._advance(connection)
            if time.monotonic() > until:
                break
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
                self._accept(listener, float("inf"))
                listener.close()
        if now >= room.idle_until(self.stopping_since, self.cfg.graceful_timeout):
            for connection in list(self.connections):
                if connection.phase == Phase.IDLE:
                    self._close_idle(connection)
        return not self.connections or now >= self.stopping_since + self.cfg.graceful_timeout

    def _wake(self, fd: int) -> None:
        """Signals and pool threads write to the pipe to end the selector's wait."""
        with contextlib.suppress(BlockingIOError):
            os.read(fd, 4096)

    def _accept(self, listener: Any, seconds: float = HANDSHAKES) -> None:
        """Take in the connections that wait, for some seconds; hands are shaken later."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                plain, client = listener.accept()
            except OSError as error:
                is_short = error.errno in (errno.EMFILE, errno.ENFILE)
                if is_short and self._make_room(self.connections):
                    continue
                return  # there is none, or it is gone again
            is_full = len(self.connections) >= self.cfg.worker_connections
            if is_full and not self._make_room(self.connections):
                plain.close()
                continue
            try:
                plain.setblocking(False)
                context = self.cfg.ssl_context(self.cfg, None)
                sock = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
                peer = Peer(client, listener.getsockname(), None)
                connection = Connection(sock, peer, self.generation())
            except OSError:
                plain.close()
                continue
            self.connections.add(connection)
            self._watch(connection, selectors.EVENT_READ)

    def _advance(self, connection: Connection) -> None:
        """Do what the connection's phase can do without waiting."""
        step = _STEPS.get(connection.phase)
        if step is None:
            return  # dropped, or answered, since the selector or `ready` said so
        try:
            step(self, connection)
        except (ssl.SSLWantReadError, BlockingIOError):
            self._watch(connection, selectors.EVENT_READ)
        except ssl.SSLWantWriteError:
            self._watch(connection, selectors.EVENT_WRITE)
        except (OSError, ValueError, MemoryError):  # reset, no TLS at all, closed under our feet
            self._close(connection)

    # -- a connection's phases -------------------------------------------------------------------

    def _shake_hands(self, connection: Connection) -> None:
        connection.sock.do_handshake()
        connection.learn_certificate()
        connection.enter(Phase.IDLE)
        self._read(connection)

    def _read(self, connection: Connection) -> None:
        reader = connection.reader
        self._send(connection)  # what is left of "100 Continue"
        for _ in range(READS if self.whole_bytes <= room.MAX_WHOLE else FEW_READS):
            if reader.is_whole():
                connection.enter(Phase.WORKING)
                self.whole.append((connection, len(reader)))
                self.whole_bytes += len(reader)
                return
            if reader.wants_continue():
                self._put(connection, CONTINUE)
                self._send(connection)
            data = connection.sock.recv(RECORD)
            if not data:
                self._cut_short(connection, _NOT_WHOLE)
                return
            before = len(reader)
            reader.feed(data)
            self.pending += len(reader) - before
            if connection.phase == Phase.IDLE and len(reader):
                connection.enter(Phase.ARRIVING)
            if self.pending > room.MAX_PENDING:
                self._make_room(c for c in self.connections if len(c.reader))
                if connection.phase == Phase.CLOSED:
                    return
        # It sends as fast as it is read, perhaps a byte in each record. Others come first.
        self._watch(connection, selectors.EVENT_READ)
        self.ready.add(connection)

    def _cut_short(self, connection: Connection, refusal: Refusal) -> None:
        """End a connection on which no whole request will come, and say so where one began."""
        if len(connection.reader):
            self._reply(connection, Reply.refusing(refusal))
        else:
            self._close(connection)

    def _work(self) -> None:
        """Answer requests that have come whole, for HOLD seconds, and write the replies."""
        replies: list[tuple[Connection, Reply]] = []
        until = time.monotonic() + HOLD
        while self.whole:
            connection, size = self.whole.popleft()
            self.whole_bytes -= size
            reply = self._answer(connection)
            if reply:
                replies.append((connection, reply))
            if time.monotonic() > until:
                break
        for connection, reply in replies:
            self._reply(connection, reply)

    def _answer(self, connection: Connection) -> Reply | None:
        """The reply to a request that is whole; None where it is waited for in the pool."""
        reader = connection.reader
        before = len(reader)
        connection.used = True
        try:
            request = reader.take()
        except MemoryError:
            return Reply.refusing(NO_MEMORY)
        size = before - len(reader)
        self.pending -= size
        is_last = not self.alive or connection.generation != self.generation()
        answer = self.gateway.answer(request, connection.peer, connection.memo, is_last)
        if isinstance(answer, Reply):
            return answer
        size += answer.size
        if self.waiting + size > room.MAX_WAITING:
            return Reply.refusing(_TOO_MANY)
        self.waiting += size
        self._watch(connection, 0)
        self.pool.submit(self._wait, size, connection, answer.finish)
        return None

    def _wait(self, size: int, connection: Connection, finish: Callable[[], Reply]) -> None:
        """Make a reply on a thread of the pool, and hand it to the loop."""
        self.done.append((size, connection, finish()))
        with contextlib.suppress(BlockingIOError):
            os.write(self.PIPE[1], b".")

    def _reply(self, connection: Connection, reply: Reply) -> None:
        if connection.phase == Phase.CLOSED:
            return
        connection.keep = reply.keep
        connection.enter(Phase.WRITING)
        self._put(connection, reply.data)
        self._advance(connection)
        if self.unsent > room.MAX_UNSENT:
            self._make_room(c for c in self.connections if c.outbox)

    def _put(self, connection: Connection, data: bytes) -> None:
        self.unsent += len(data) - len(connection.outbox)
        connection.outbox = data

    def _send(self, connection: Connection) -> None:
        while connection.outbox:
            sent = connection.sock.send(connection.outbox)
            self._put(connection, connection.outbox[sent:])

    def _write(self, connection: Connection) -> None:
        self._send(connection)
        if not connection.keep:
            connection.enter(Phase.LINGERING)
            with contextlib.suppress(OSError):
                connection.sock.unwrap()  # says goodbye in TLS, and does not wait for an answer
            connection.sock.shutdown(socket.SHUT_WR)
            self._linger(connection)
            return
        connection.enter(Phase.ARRIVING if len(connection.reader) else Phase.IDLE)
        self._watch(connection, selectors.EVENT_READ)
        if len(connection.reader) or connection.sock.pending():
            # The next request is here already, and the selector may not see it. Others come first.
            self.ready.add(connection)

    def _linger(self, connection: Connection) -> None:
        """Read what still comes, and forget it, until the peer has hung up."""
        while connection.to_forget > 0:
            data = connection.sock.recv(RECORD)  # not TLS any more after shutdown()
            if not data:
                break
            connection.to_forget -= len(data)
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

    # -- those who go ----------------------------------------------------------------------------

    def _sweep(self, now: float) -> None:
        """Close the connections whose time is up."""
        allowed = {phase: room.patience(phase, self.cfg.keepalive) for phase in Phase}
        for connection in [c for c in self.connections if now - c.since > allowed[c.phase]]:
            if connection.phase == Phase.IDLE:
                self._close_idle(connection)
            elif connection.phase == Phase.ARRIVING and not connection.outbox:
                self._advance(connection)  # the rest may have come while others were answered
                if connection.phase == Phase.ARRIVING:
                    self._cut_short(connection, _TOO_SLOW)
            else:
                self._close(connection)

    def _close_idle(self, connection: Connection) -> None:
        """Close an idle connection, unless something has come on it."""
        self._advance(connection)
        if connection.phase == Phase.IDLE:
            self._close(connection)

    def _make_room(self, candidates: Iterable[Connection]) -> bool:
        """Close the connection that is missed least, if any may be closed."""
        now = time.monotonic()
        ranked = []
        for connection in candidates:
            rank = room.rank(connection.phase, now - connection.since, connection.used)
            if rank is not None:
                ranked.append((rank, connection.since, id(connection), connection))
        for *_, connection in sorted(ranked):
            if connection.phase != Phase.IDLE or not connection.has_bytes():
                self._close(connection)
                return True
        return False

    def _close(self, connection: Connection) -> None:
        if connection.phase == Phase.CLOSED:
            return
        self._watch(connection, 0)
        self.pending -= len(connection.reader)
        self._put(connection, b"")
        connection.phase = Phase.CLOSED
        connection.sock.close()
        self.connections.discard(connection)


#: phase -> what to do when the socket is ready.
_STEPS: Final = {
    Phase.HANDSHAKE: StallFreeWorker._shake_hands,
    Phase.IDLE: StallFreeWorker._read,
    Phase.ARRIVING: StallFreeWorker._read,
    Phase.WRITING: StallFreeWorker._write,
    Phase.LINGERING: StallFreeWorker._linger,
}
