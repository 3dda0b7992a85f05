"""InstaSlice as a process, and a client that speaks to it over TLS."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from test.support.process import HOST as HOST
from test.support.process import PATIENCE, Process
from test.support.process import free_port as free_port
from test.support.process import until as until
from test.support.reviews import load

SAMPLE = json.dumps(load("create", "sample")).encode()


class Server:
    """A running `instaslice serve`."""

    def __init__(self, process: Process, port: int, context: ssl.SSLContext) -> None:
        self.process = process
        self.port = port
        self.context = context

    def connect(self, timeout: float = PATIENCE) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(HOST, self.port, context=self.context, timeout=timeout)

    def raw(self, timeout: float = PATIENCE) -> ssl.SSLSocket:
        """A TLS connection to write any bytes to."""
        plain = socket.create_connection((HOST, self.port), timeout)
        return self.context.wrap_socket(plain, server_hostname=HOST)

    def call(
        self, method: str, path: str, body: bytes | None = None, timeout: float = PATIENCE
    ) -> tuple[int, bytes]:
        with contextlib.closing(self.connect(timeout)) as connection:
            return exchange(connection, method, path, body)

    def workers(self) -> list[int]:
        """The process ids of gunicorn's workers."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in children.read_text().split()]

    def resident(self) -> int:
        """The memory of the first worker, in KiB (VmRSS)."""
        return memory(self.workers()[0])["VmRSS"]

    def printed(self) -> str:
        """Its output so far."""
        return self.process.printed()

    def lines(self) -> list[dict[str, Any]]:
        """The lines of its log so far."""
        text = self.printed()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def metric(self, name: str) -> float:
        text = self.call("GET", "/metrics")[1].decode()
        [value] = [line.split()[-1] for line in text.splitlines() if line.startswith(name + " ")]
        return float(value)


def memory(pid: int) -> dict[str, int]:
    """The kernel's figures on a process, in KiB: VmRSS (resident), VmHWM (its peak), ..."""
    status = Path(f"/proc/{pid}/status").read_text()
    return {
        line.split(":")[0]: int(line.split()[1])
        for line in status.splitlines()
        if line.startswith("Vm")
    }


def exchange(
    connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None
) -> tuple[int, bytes]:
    """Send a request on a kept connection; returns the status and the body of the reply."""
    connection.request(method, path, body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    return response.status, response.read()


@contextlib.contextmanager
def serve(
    cert_dir: Path,
    context: ssl.SSLContext,
    *options: str,
    environment: dict[str, str] | None = None,
    stderr: str | None = None,
    limits: Mapping[str, Any] | None = None,
    bind: str = HOST,
    within: Sequence[str] = (),
) -> Iterator[Server]:
    """Run `instaslice serve` until the block ends, then kill it.

    stderr: the file for its log; by default a temporary one. limits: the fields of `Limits` that
    differ. within: a command that precedes its own.
    """
    port = free_port()
    command = [*within, sys.executable, "-m", "instaslice"]
    if limits:
        command[-1:] = ["test.support.impatient", json.dumps(limits)]
    command += ["serve", "--cert-dir", str(cert_dir), "--bind", f"{bind}:{port}", *options]
    with tempfile.NamedTemporaryFile(prefix="instaslice-log-") as file:
        log = Path(stderr or file.name)
        process = Process(command, log, {"INSTASLICE_RESOURCE_API": "v1", **(environment or {})})
        try:
            server = Server(process, port, context)
            until(lambda: answers(server), "InstaSlice answers", process.check, every=0.005)
            yield server
        finally:
            if "COVERAGE_PROCESS_CONFIG" in os.environ:
                process.stop()  # so that it writes its coverage
            process.kill()


#: As `serve`, after its first two arguments: a fixture of test/serve.
Serving = Callable[..., contextlib.AbstractContextManager[Server]]
#: Returns the message and the fields of each line of the log: a fixture of test/serve.
Logged = Callable[[], list[tuple[str, dict[str, Any]]]]


def answers(server: Server) -> bool:
    try:
        return server.call("GET", "/healthz", timeout=2)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


#: A failure of a `Load` before any request was sent.
NOT_CONNECTED = "not connected"


class Load:
    """Clients that send a review repeatedly, each on its own connection, until the block ends."""

    def __init__(
        self, server: Server, clients: int = 4, reconnect: bool = False, body: bytes = SAMPLE
    ) -> None:
        self.server = server
        self.body = body
        self.reconnect = reconnect
        self.answered = 0
        self.seconds: list[float] = []  #: of each answer
        self.failures: list[str] = []
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        connection = self.server.connect()
        while not self._stop.is_set():
            start = time.monotonic()
            try:
                if connection.sock is None:
                    connection.connect()
            except ConnectionError:
                # Refused, or reset: Linux resets the backlog of a listener that is closed. No
                # request was sent.
                with self._lock:
                    self.failures.append(NOT_CONNECTED)
                return
            try:
                status, body = exchange(connection, "POST", "/mutate", self.body)
                assert status == 200
                assert json.loads(body)["response"]["allowed"]
            except (OSError, http.client.HTTPException, AssertionError) as error:
                with self._lock:
                    self.failures.append(repr(error))
                connection.close()
            with self._lock:
                self.answered += 1
                self.seconds.append(time.monotonic() - start)
            if self.reconnect:
                connection.close()
        connection.close()


# -- stalled clients -----------------------------------------------------------------------------


def client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=HOST).do_handshake()
    return outgoing.read()


HELLO = client_hello()
HEADERS = b"POST /mutate HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\n"


def stall_in_handshake(server: Server) -> socket.socket:
    plain = socket.create_connection((HOST, server.port), PATIENCE)
    plain.sendall(HELLO)
    return plain


def stall_in_headers(server: Server) -> socket.socket:
    connection = server.raw()
    connection.sendall(HEADERS)
    return connection


def stall_in_body(server: Server) -> socket.socket:
    connection = server.raw()
    connection.sendall(HEADERS + b"Content-Length: 100000\r\n\r\n" + b"x" * 50_000)
    return connection


STALLS = (stall_in_handshake, stall_in_headers, stall_in_body)


def hung_up(connection: socket.socket) -> bool:
    """Whether the server has ended a connection; what it sent before is read and dropped."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        pass
    return True


# -- certificates --------------------------------------------------------------------------------


def replace_pair(folder: Path, pair: Path) -> None:
    """Replace a certificate and its key, one file after the other."""
    for name in ("tls.crt", "tls.key"):
        shutil.copy(pair / name, folder / f".{name}")
        os.replace(folder / f".{name}", folder / name)
