"""The worker's loop in a thread, with real sockets, real TLS and a test's application.

`test.support.serving` runs a process, with gunicorn's arbiter: forks, signals, replaced workers.
"""

import contextlib
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast
from wsgiref.types import WSGIApplication

from gunicorn.config import Config
from gunicorn.glogging import Logger

from instaslice.serve.limits import Limits
from instaslice.serve.worker import StallFreeWorker
from test.support.process import HOST as HOST
from test.support.process import PATIENCE


class Loop:
    """A running loop, and connections to it."""

    def __init__(self, worker: StallFreeWorker, port: int, trust: ssl.SSLContext) -> None:
        self.worker = worker
        self.port = port
        self.trust = trust

    def plain(
        self,
        timeout: float = PATIENCE,
        receive_buffer: int | None = None,
        source: str = HOST,
    ) -> socket.socket:
        """A TCP connection, without TLS yet."""
        sock = socket.socket()
        sock.bind((source, 0))
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(timeout)
        try:
            sock.connect((HOST, self.port))
        except OSError:
            sock.close()
            raise
        return sock

    def connect(
        self, timeout: float = PATIENCE, receive_buffer: int | None = None
    ) -> ssl.SSLSocket:
        """A TLS connection to write any bytes to."""
        with contextlib.closing(self.plain(timeout, receive_buffer)) as plain:
            # As Go does: the last segment does not wait for an acknowledgement.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self.trust.wrap_socket(plain, server_hostname=HOST)  # takes it over

    def say(self, data: bytes) -> bytes:
        """Send bytes; returns all that the server sends until it hangs up."""
        with self.connect() as connection:
            connection.sendall(data)
            return hear_out(connection)

    def stop(self) -> None:
        """Stop the worker as SIGTERM does."""
        self.worker.alive = False
        os.write(self.worker.PIPE[1], b".")


@contextlib.contextmanager
def running(
    app: WSGIApplication,
    cert_dir: Path,
    trust: ssl.SSLContext,
    limits: Limits = Limits(),  # noqa: B008 - it is frozen
    **settings: Any,
) -> Iterator[Loop]:
    """Run the loop with an application until the block ends.

    limits: the loop's. settings: gunicorn's, such as `graceful_timeout=1`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert_dir / "tls.crt", cert_dir / "tls.key")
    config = Config()
    defaults = {
        "certfile": str(cert_dir / "tls.crt"),
        "keyfile": str(cert_dir / "tls.key"),
        "graceful_timeout": 2,
        "ssl_context": lambda config, default: context,
        "threads": 8,
        "worker_connections": 100,
    }
    for name, value in {**defaults, **settings}.items():
        config.set(name, value)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server((HOST, 0)))
        worker = StallFreeWorker(
            0, os.getppid(), [listener], cast("Any", None), 30, config, Logger(config)
        )
        stack.callback(worker.tmp.close)
        worker.limits = limits
        worker.wsgi = cast("Any", app)
        setattr(worker, "PIPE", list(os.pipe()))  # noqa: B010 - typed as the class's
        for fd in worker.PIPE:
            os.set_blocking(fd, False)
            stack.callback(os.close, fd)
        failures: list[BaseException] = []

        def run() -> None:
            try:
                worker.run()
            except BaseException as error:
                failures.append(error)
                raise

        thread = threading.Thread(target=run, name="loop")
        thread.start()
        loop = Loop(worker, listener.getsockname()[1], trust)
        try:
            yield loop
        finally:
            worker.cfg.set("graceful_timeout", 0)
            loop.stop()
            thread.join(PATIENCE)
        assert not thread.is_alive(), "the loop did not end"
        assert not failures


def hear_out(connection: socket.socket) -> bytes:
    """Read all that the server sends until it hangs up."""
    heard = bytearray()
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
        while data := connection.recv(1 << 16):
            heard += data
    return bytes(heard)


class BufferedTLS:
    """A TLS client that chooses when it sends its records, and can read after it has ended."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext) -> None:
        self.plain = plain
        self._incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._incoming, self.outgoing, server_hostname=HOST)
        while True:
            try:
                self.tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                self.flush()
                self._incoming.write(plain.recv(1 << 16))

    def flush(self) -> None:
        """Send what was written."""
        self.plain.sendall(self.outgoing.read())

    def end(self) -> None:
        """Send what was written, and close_notify."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()

    def hear_out(self) -> bytes:
        """Read all that the server sends until it hangs up."""
        while data := self.plain.recv(1 << 16):
            self._incoming.write(data)
        self._incoming.write_eof()
        heard = b""
        with contextlib.suppress(ssl.SSLError):  # the end, with or without close_notify
            while data := self.tls.read(1 << 16):
                heard += data
        return heard
