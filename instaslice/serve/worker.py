"""A gunicorn worker whose loop no client can stall or monopolize.

gunicorn's gthread worker does the TLS handshake and reads the request on a thread of its pool, so a
few silent clients stop it. Here one loop does all socket I/O without blocking. It bounds beforehand
how much one source can make it do in a turn, hold, or leave queued (`limits`).

1. In each turn the loop reads what has arrived, begins handshakes, answers whole requests, and
   writes replies, each for a bounded time.
2. Requests are read in the order of: a verified client certificate; the processor time that their
   address used lately; how long ago their connection was served. For answers, addresses take turns
   (`Line`). So they do in beginning handshakes; in every other turn the newest connection of an
   address comes first, since older clients may have gone.
3. Large bodies are decided on in another process, one at a time. A request that must wait for the
   API server runs again on a thread of the pool. Both have a `Line`, too.
4. Connections and the bytes that they hold are bounded in every phase. Where room is short,
   `Connection.rank` chooses which one is closed. A connection whose request is being answered
   stays; if all are, the new one is closed. An idle connection is closed only after a check that
   nothing has arrived on it.
5. Idle is not stalled: the API server opens connections ahead and may use one a minute later.
6. After SIGTERM the loop accepts connections for a moment more. It answers what arrives with
   "Connection: close" during the grace period, then closes idle connections, and ends when nothing
   is in flight.
7. When the authorities for client certificates change (`generation`), older connections are closed
   with their next reply, since their certificates may not be valid any more.
"""

import collections
import contextlib
import errno
import logging
import os
import selectors
import socket
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from gunicorn.workers.base import Worker

from instaslice.serve.app import MustWait
from instaslice.serve.connection import Account, Connection, Line, Phase
from instaslice.serve.http import CONTINUE, LAST, Headers, Peer, Refusal, Reply, Request
from instaslice.serve.limits import Limits

_log = logging.getLogger("instaslice")

_NOT_WHOLE: Final = Refusal("400 Bad Request", "the request is not whole")
_TOO_SLOW: Final = Refusal("408 Request Timeout", "the request took too long")
_TOO_MANY: Final = Refusal("503 Service Unavailable", "too many requests wait already")
_TOO_DEMANDING: Final = Refusal(
    "503 Service Unavailable", "there is not enough memory or time for this request"
)
_FAULT: Final = Refusal(
    "500 Internal Server Error", "InstaSlice hit an internal error; see its log"
)


def respond(application: Any, request: Request, peer: Peer, may_wait: bool, last: bool) -> Reply:
    """Have a WSGI application answer a request. Raises MustWait."""
    if request.refusal:
        fields = {"client": peer.address, "reason": request.refusal.message}
        _log.warning("a bad request", extra={"fields": fields})
        return Reply.refusing(request.refusal)
    status = ""
    headers: Headers = []

    def start_response(its_status: str, its_headers: Headers, exc_info: Any = None) -> None:
        nonlocal status, headers
        status, headers = its_status, its_headers

    try:
        environ = request.environ(peer, may_wait)
        body = b"".join(application(environ, start_response))
        keep = request.keep and not last and not environ.get(LAST)
        return Reply.make(status, headers, body, keep)
    except MustWait:
        raise
    except MemoryError:
        _log.error("a request was refused for lack of memory")
        return Reply.refusing(_TOO_DEMANDING)
    except Exception:
        _log.exception("a request failed")
        return Reply.refusing(_FAULT)


class StallFreeWorker(Worker):
    """A `worker_class` for gunicorn; see the module's docstring."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Both are set by `server`. The generation changes with the authorities for callers.
        self.generation: Callable[[], int] = lambda: 0
        self.limits = Limits()
        self.selector = selectors.DefaultSelector()
        self.accounts: dict[str, Account] = {}
        self.connections: set[Connection] = set()
        # The keys of these are ordered, oldest first.
        self.silent: dict[Connection, None] = {}  #: has not begun its handshake
        self.handshaking: dict[Connection, None] = {}  #: in its handshake
        self.growing: dict[Connection, None] = {}  #: has sent a part of a large body
        self.paused: dict[Connection, None] = {}  #: of these, must wait before it sends more
        self.ready: set[Connection] = set()  #: may have its next request in its buffer
        self.pending = 0  #: bytes that requests hold
        self.unsent = 0  #: bytes in the connections' outboxes
        self.large = 0  #: bytes of large bodies, until they are answered
        self.waiting = 0  #: bytes of requests in the pool
        self.whole = Line()  #: connections with a whole request
        self.for_judge = Line()  #: the same for a request with a large body
        self.for_pool = Line()  #: connections whose request waits for a thread
        self.in_pool = 0  #: requests in the pool
        self.judging = False  #: whether a large body is being decided on
        self.turns = 0
        self.next_sweep = 0.0  #: on the monotonic clock
        self.stopping_since: float | None = None
        #: Functions that pool threads leave for the loop to call.
        self.done: collections.deque[Callable[[], None]] = collections.deque()

    # -- the loop --------------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until told to stop. gunicorn calls it in the worker's process."""
        sys.setswitchinterval(self.limits.switch)
        self.pool = ThreadPoolExecutor(self.cfg.threads, thread_name_prefix="admission")
        self.judge = ThreadPoolExecutor(1, thread_name_prefix="judge")
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.PIPE[0], selectors.EVENT_READ, self._wake)
        for listener in self.sockets:
            listener.setblocking(False)
            self.selector.register(listener, selectors.EVENT_READ, self._accept)
        while self.alive or not self._drained():
            self._turn()
        for pool in (self.pool, self.judge):
            pool.shutdown(wait=False, cancel_futures=True)
        for connection in list(self.connections):
            self._close(connection)

    def _turn(self) -> None:
        """Wait for events and handle them."""
        self.turns += 1
        patience = self.limits.sweep
        if self.ready or self.whole:
            patience = 0
        known, new = self.ready, []
        self.ready = set()
        for key, _ in self.selector.select(patience):
            connection = key.data
            if not isinstance(connection, Connection):
                connection(key.fileobj)
            elif connection.phase == Phase.WORKING:
                self._watch(connection, 0)  # the next request is read after this one
            elif connection.phase == Phase.HANDSHAKE and connection.tls is None:
                new.append(connection)
            else:
                known.add(connection)
        for _ in range(len(self.done)):  # threads go on adding to it
            self.done.popleft()()
        small: list[Connection] = []
        large: list[Connection] = []
        for connection in known:
            (large if connection.reader.size > self.limits.light else small).append(connection)
        self._look_after(sorted(small, key=_turn_of), self.limits.reading)
        new.sort(key=newest_first if self.turns % 2 else oldest_first)
        self._look_after(new, self.limits.newcomers)
        self._look_after(sorted(large, key=_turn_of), self.limits.reading_large)
        self._work()
        now = time.monotonic()
        if now >= self.next_sweep:
            self.next_sweep = now + self.limits.sweep
            self.notify()
            self._sweep(now)
            if self.ppid != os.getppid():
                self.log.info("Parent changed, shutting down: %s", self)
                self.alive = False

    def _drained(self) -> bool:
        """Whether a worker that was told to stop can stop now."""
        now = time.monotonic()
        if self.stopping_since is None:
            self.stopping_since = now
        if now >= self.stopping_since + self.limits.last_call:
            while self.sockets:
                listener = self.sockets.pop()
                self.selector.unregister(listener)
                listener.close()
        if now >= self.stopping_since + max(0.0, self.cfg.graceful_timeout - self.limits.wrap_up):
            for connection in list(self.connections):
                if connection.phase == Phase.IDLE:
                    self._close_idle(connection)
        is_empty = not self.connections and not self.sockets
        return is_empty or now >= self.stopping_since + self.cfg.graceful_timeout

    def _wake(self, fd: int) -> None:
        """Empty the pipe by which signals and pool threads end the selector's wait."""
        with contextlib.suppress(BlockingIOError):
            os.read(fd, 4096)

    def _accept(self, listener: Any) -> None:
        """Accept connections for a bounded time; handshakes come later."""
        until = time.monotonic() + self.limits.newcomers
        server = listener.getsockname()[:2]
        while time.monotonic() < until:
            try:
                sock, (address, *_) = listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and self._make_room():
                    continue
                return  # there is none left, or it has gone
            try:
                sock.setblocking(False)
                if _has_gone(sock):
                    sock.close()
                    continue
                # A new address counts as served just now, so it does not come before older ones.
                account = self.accounts.setdefault(address, Account(self.turns))
                peer = Peer(address, server)
                connection = Connection(sock, peer, account, self.generation(), self.limits)
                self._watch(connection, selectors.EVENT_READ)
            except OSError:
                sock.close()
                continue
            self._let_in(connection)

    def _let_in(self, connection: Connection) -> None:
        """Take in a connection, perhaps in place of one whose handshake has not begun.

        It must cost less than connect() does, whatever is open.
        """
        account = connection.account
        if len(account.silent) >= self.limits.silent_of_one:
            self._close(next(iter(account.silent)))
        elif len(self.silent) >= self.limits.silent:
            self._close(next(iter(self.silent)))
        account.connections += 1
        account.silent[connection] = self.silent[connection] = None
        self.connections.add(connection)

    def _look_after(self, connections: list[Connection], seconds: float) -> None:
        """Advance connections for some seconds; the others come again in the next turn."""
        now = time.monotonic()
        until = now + seconds
        for number, connection in enumerate(connections):
            if now > until:
                # The selector reports the others again, but not what is already in a buffer.
                self.ready.update(c for c in connections[number:] if len(c.reader))
                return
            connection.turn = self.turns
            self._advance(connection)
            before, now = now, time.monotonic()
            connection.account.used += now - before

    def _advance(self, connection: Connection) -> None:
        """Do what a connection's phase can do without blocking."""
        try:
            connection.flush()
            if connection.outbox:
                self._watch(connection, selectors.EVENT_WRITE)
            elif connection.phase == Phase.WRITING:
                self._written(connection)
            elif connection.phase == Phase.LINGERING:
                if connection.forget():
                    self._close(connection)
            elif connection.phase < Phase.WORKING:
                self._read(connection)
        except BlockingIOError:
            self._watch(connection, selectors.EVENT_READ)
        except (OSError, ValueError, MemoryError):  # reset, not TLS, or closed meanwhile
            with contextlib.suppress(OSError):
                connection.flush()  # the TLS alert
            self._close(connection)
        self._count(connection)

    # -- a connection's phases -------------------------------------------------------------------

    def _read(self, connection: Connection) -> None:
        reader = connection.reader
        if not reader.is_whole():
            self._receive(connection)
        is_whole = reader.is_whole()
        is_large = reader.size > self.limits.light
        if is_large:
            self._count_large(connection)
        if is_whole:
            connection.used = True
            connection.enter(Phase.WORKING)
            self.growing.pop(connection, None)
            (self.for_judge if is_large else self.whole).add(connection)
            return
        if connection.ended:
            self._cut_short(connection, _NOT_WHOLE)
            return
        if connection.phase in (Phase.IDLE, Phase.ARRIVING):
            phase = Phase.ARRIVING if connection.held() else Phase.IDLE
            if phase != connection.phase:
                connection.enter(phase)
        if is_large and not self._may_grow(connection):
            self.paused[connection] = None
        elif reader.wants_continue():
            connection.put(CONTINUE)
        connection.flush()
        if connection.phase != Phase.CLOSED:
            events = selectors.EVENT_WRITE if connection.outbox else selectors.EVENT_READ
            self._watch(connection, 0 if connection in self.paused else events)

    def _receive(self, connection: Connection) -> None:
        """Read once from a connection, or a few times while it sends mostly data."""
        was, was_silent = connection.phase, connection.tls is None
        with contextlib.suppress(BlockingIOError):
            for _ in range(self.limits.parts):
                before = len(connection.reader)
                is_all = connection.receive(self._context)
                if is_all or len(connection.reader) - before < self.limits.raw // 2:
                    break
        if was_silent:
            connection.account.turn = self.turns
        if was == Phase.HANDSHAKE and connection.tls is not None:
            self._went_on(connection)

    def _went_on(self, connection: Connection) -> None:
        """Keep the number of handshakes, and of connections that have begun one, bounded."""
        if connection in self.silent:
            del self.silent[connection], connection.account.silent[connection]
            self.handshaking[connection] = None
            if len(self.handshaking) > self.limits.handshakes:
                started = collections.Counter(each.account for each in self.handshaking)
                self._close(max(self.handshaking, key=lambda each: started[each.account]))
            if len(self.connections) - len(self.silent) > self.cfg.worker_connections:
                self._make_room(each for each in self.connections if each.tls)
        if connection.phase != Phase.HANDSHAKE:
            self.handshaking.pop(connection, None)

    def _context(self) -> Any:
        return self.cfg.ssl_context(self.cfg, None)

    def _count_large(self, connection: Connection) -> None:
        """Count the bytes of a large body that have arrived. Announced bytes take no room yet."""
        self.growing[connection] = None
        self.large += len(connection.reader) - connection.large
        connection.large = len(connection.reader)

    def _may_grow(self, connection: Connection) -> bool:
        """Whether the rest of a large body may be read before others are answered."""
        if self.large + connection.reader.size - connection.large <= self.limits.large:
            return True
        # Where nothing is being decided on, one must go on.
        others_wait = all(each is connection or each in self.paused for each in self.growing)
        return others_wait and self.large == sum(each.large for each in self.growing)

    def _release(self, connection: Connection) -> None:
        """Stop counting a large body, and let others go on."""
        self.growing.pop(connection, None)
        self.paused.pop(connection, None)
        if not connection.large:
            return
        self.large -= connection.large
        connection.large = 0
        for other in sorted(self.paused, key=_turn_of):
            if not self._may_grow(other):
                break
            del self.paused[other]
            other.since = time.monotonic()
            self.ready.add(other)

    def _cut_short(self, connection: Connection, refusal: Refusal) -> None:
        """End a connection that will bring no whole request, with a reply if one has begun."""
        if len(connection.reader):
            self._reply(connection, Reply.refusing(refusal))
        else:
            self._close(connection)

    # -- answers ---------------------------------------------------------------------------------

    def _work(self) -> None:
        """Answer whole requests for a bounded time, then send the replies."""
        replies: list[tuple[Connection, Reply]] = []
        now = time.thread_time()
        until = now + self.limits.answering
        while self.whole and now < until:
            connection = self.whole.take()
            if reply := self._answer(connection):
                replies.append((connection, reply))
            before, now = now, time.thread_time()
            _charge(connection, now - before)
        if self.for_judge and not self.judging:
            self.judging = True
            connection = self.for_judge.take()
            self.judge.submit(self._run, connection, *self._take(connection), may_wait=False)
        for connection, reply in replies:
            self._reply(connection, reply)

    def _take(self, connection: Connection) -> tuple[Request, bool]:
        """Take a whole request from a connection; also whether it must be the last one."""
        request = connection.reader.take()
        self._count(connection)
        return request, not self.alive or connection.generation != self.generation()

    def _answer(self, connection: Connection) -> Reply | None:
        """The reply to a connection's request, or None if it has been passed to the pool."""
        try:
            request, is_last = self._take(connection)
            return respond(self.wsgi, request, connection.peer, False, is_last)
        except MustWait:
            self._wait(connection, request, is_last)
            return None
        except MemoryError:
            return Reply.refusing(_TOO_DEMANDING)

    def _wait(self, connection: Connection, request: Request, is_last: bool) -> None:
        """Have a request answered again in the pool, where it may wait."""
        small = 0 if connection.large else len(request.body)
        if self.waiting + small > self.limits.waiting:
            self._reply(connection, Reply.refusing(_TOO_MANY))
            return
        self.waiting += small
        connection.taken = request, is_last
        self.for_pool.add(connection)
        self._fill_pool()

    def _fill_pool(self) -> None:
        """Give requests to the free threads of the pool."""
        while self.for_pool and self.in_pool < self.cfg.threads:
            self.in_pool += 1
            connection = self.for_pool.take()
            self.pool.submit(self._run, connection, *connection.taken, may_wait=True)

    def _run(self, connection: Connection, request: Request, is_last: bool, may_wait: bool) -> None:
        """Answer a request on a pool thread, and leave the reply to the loop."""
        clock = time.thread_time if may_wait else time.monotonic  # another process decides
        before = clock()
        reply: Reply | None = None
        with contextlib.suppress(MustWait):
            reply = respond(self.wsgi, request, connection.peer, may_wait, is_last)
        seconds = clock() - before

        def finish() -> None:
            _charge(connection, seconds)
            if may_wait:
                self.waiting -= 0 if connection.large else len(request.body)
                self.in_pool -= 1
                self._fill_pool()
            else:
                self.judging = False
            if reply is None:
                self._wait(connection, request, is_last)
            else:
                self._reply(connection, reply)

        self.done.append(finish)
        with contextlib.suppress(BlockingIOError):
            os.write(self.PIPE[1], b".")

    def _reply(self, connection: Connection, reply: Reply) -> None:
        if connection.phase == Phase.CLOSED:
            return
        self._release(connection)
        connection.keep = reply.keep
        connection.enter(Phase.WRITING)
        try:
            connection.put(reply.data)
        except (OSError, MemoryError):
            self._close(connection)
            return
        self._advance(connection)

    def _count(self, connection: Connection) -> None:
        """Bring the counts up to date with what a connection holds, and keep them bounded."""
        if connection.phase == Phase.CLOSED:
            return
        held, unsent = connection.held(), len(connection.outbox)
        if held == connection.pending and unsent == connection.unsent:
            return
        self.pending += held - connection.pending
        self.unsent += unsent - connection.unsent
        connection.pending, connection.unsent = held, unsent
        if self.pending > self.limits.pending:
            share = self.pending // len(self.connections)
            if held >= share:  # a small request is not what takes the room
                self._make_room(each for each in self.connections if each.held() >= share)
        if self.unsent > self.limits.unsent:
            self._make_room(each for each in self.connections if each.outbox)

    def _written(self, connection: Connection) -> None:
        """Go on after a reply has been sent."""
        if not connection.keep:
            connection.enter(Phase.LINGERING)
            connection.say_goodbye()
            connection.flush()
            connection.sock.shutdown(socket.SHUT_WR)
            self._watch(connection, selectors.EVENT_READ)
            return
        connection.enter(Phase.ARRIVING if len(connection.reader) else Phase.IDLE)
        self._watch(connection, selectors.EVENT_READ)
        if len(connection.reader):
            self.ready.add(connection)  # the selector does not see what is in the buffer

    def _watch(self, connection: Connection, events: int) -> None:
        """Have the selector watch a connection for `events`, 0 for none."""
        if connection.events == events:
            return
        if not events:
            self.selector.unregister(connection.sock)
        elif connection.events:
            self.selector.modify(connection.sock, events, connection)
        else:
            self.selector.register(connection.sock, events, connection)
        connection.events = events

    # -- closing connections ---------------------------------------------------------------------

    def _sweep(self, now: float) -> None:
        """Close connections whose time is up, and lower the accounts."""
        for address, account in list(self.accounts.items()):
            account.used *= self.limits.memory
            if not account.connections and account.used < self.limits.cheap:
                del self.accounts[address]
        for connection in [c for c in self.connections if now - c.since > c.patience()]:
            if connection.phase == Phase.IDLE:
                self._close_idle(connection)
            elif connection.phase == Phase.ARRIVING and not connection.outbox:
                self._advance(connection)  # the rest may have arrived meanwhile
                if connection.phase == Phase.ARRIVING:
                    self._cut_short(connection, _TOO_SLOW)
            else:
                self._close(connection)
        first = next(iter(self.paused), None)
        if first and now - first.since > self.limits.prompt:
            for each in [c for c in self.growing if c not in self.paused]:
                if now - each.since > self.limits.prompt:
                    self._close(each)

    def _close_idle(self, connection: Connection) -> None:
        """Close an idle connection, unless a request has begun on it."""
        self._advance(connection)
        if connection.phase == Phase.IDLE:
            self._close(connection)

    def _make_room(self, candidates: Iterable[Connection] | None = None) -> bool:
        """Close the connection of the lowest rank; returns whether there was one."""
        now = time.monotonic()
        candidates = self.connections if candidates is None else candidates
        ranked = [(rank, id(c), c) for c in candidates if (rank := c.rank(now)) is not None]
        for *_, connection in sorted(ranked):
            if connection.phase != Phase.IDLE or not connection.has_bytes():
                self._close(connection)
                return True
        return False

    def _close(self, connection: Connection) -> None:
        if connection.phase == Phase.CLOSED:
            return
        self._watch(connection, 0)
        self.pending -= connection.pending
        self.unsent -= connection.unsent
        connection.outbox = b""
        connection.phase = Phase.CLOSED
        connection.sock.close()
        account = connection.account
        account.connections -= 1
        for held in (self.silent, account.silent, self.handshaking):
            held.pop(connection, None)
        for line in (self.whole, self.for_judge, self.for_pool):
            line.discard(connection)
        self.connections.discard(connection)
        self._release(connection)


def _has_gone(sock: socket.socket) -> bool:
    """Whether a client has hung up, even if what it sent is not read yet."""
    if not hasattr(socket, "TCP_INFO"):  # only Linux has it
        return False
    # The first byte is the state: 7 is CLOSE, and 8 CLOSE_WAIT (Linux, include/net/tcp_states.h). A
    # new connection can be in SYN_RECV for a moment more.
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) in (b"\x07", b"\x08")


def _charge(connection: Connection, seconds: float) -> None:
    connection.account.used += seconds
    connection.cost = max(seconds, connection.cost / 2)  # the most expensive one lately


def _turn_of(connection: Connection) -> tuple[bool, int, int]:
    """The sorting key of a connection; the lowest comes first."""
    limits = connection.limits
    used = min(connection.account.used, limits.heavy_user) / limits.heavy_user
    return not connection.is_known, int(10 * used), connection.turn


def newest_first(connection: Connection) -> tuple[int, float]:
    """A sorting key for connections whose handshake has not begun; addresses take turns."""
    return connection.account.turn, -connection.since


def oldest_first(connection: Connection) -> tuple[int, float]:
    """The same, for every other turn."""
    return connection.account.turn, connection.since
