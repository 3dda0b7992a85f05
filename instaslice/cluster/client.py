"""The API server, over the standard library's HTTP client.

One request is one connection: requests are rare, and a connection that is not kept cannot be stale.
Whatever the API server does, `call` returns or raises ClusterError within its deadline. Nothing can
interrupt the lookup of a name, so each request has a thread, which is given up on in the end.
"""

import contextlib
import http.client
import json
import socket
import ssl
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from instaslice import __version__
from instaslice.patch import Json

#: Where the kubelet mounts a pod's token and the cluster's CA, and renews both.
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")

#: In seconds. The API server answers in milliseconds, or is in trouble.
DEADLINE: Final = 5.0

#: The largest answer that is read, in bytes: a discovery document is 2 KB, a Status less.
MAX_ANSWER: Final = 1024 * 1024

#: The kinds of what rewritten pods rely on, as they are in a path.
PLURALS: Final = {
    "DeviceClass": "deviceclasses",
    "ResourceSlice": "resourceslices",
    "ResourceClaimTemplate": "resourceclaimtemplates",
    "GpuClaimParameters": "gpuclaimparameters",
    "MigDeviceClaimParameters": "migdeviceclaimparameters",
}

#: A file in PEM, read for each request, or what such a file holds.
Pem = Path | str


class ClusterError(Exception):
    """The API server gave no usable answer; `str()` of it says why, in one line.

    status: of HTTP, by which it refused one; 0 where it did not answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        # Part of it may be what the other side sent.
        super().__init__(" ".join(message.split())[:300])
        self.status = status


#: What to say of an error.
_FAILURES: Final[Mapping[type[BaseException], str]] = {
    ConnectionResetError: "{url} closed the connection without an answer",  # RemoteDisconnected too
    BrokenPipeError: "{url} closed the connection without an answer",
    ConnectionRefusedError: "connection to {url} refused",
    socket.gaierror: "{url}: its name cannot be resolved: {error.strerror}",
    ssl.SSLCertVerificationError: "{url}: its certificate is not trusted: {error.verify_message}",
    http.client.BadStatusLine: "{url} does not answer in HTTP",
    TimeoutError: "{url}: no answer in time",
}


def failure(url: str, error: BaseException) -> str:
    """What a library raised on the way to an API server, in words; the cause may be deep in it."""
    causes: list[BaseException] = [error]
    for each in causes:
        # urllib3 hands its cause on as `reason`, others as __cause__ or __context__.
        for cause in (getattr(each, "reason", None), each.__cause__, each.__context__):
            if isinstance(cause, BaseException) and cause not in causes:
                causes.append(cause)
    for each in causes:
        for kind, text in _FAILURES.items():
            if isinstance(each, kind):
                return text.format(url=url, error=each)
    last = causes[-1]
    reason = last.strerror if isinstance(last, OSError) and last.strerror else str(last)
    return f"{url}: {reason or type(last).__name__}"


class Answer(NamedTuple):
    """An HTTP status and the JSON object that came with it, empty where there was none."""

    status: int
    body: Json

    @property
    def reason(self) -> str:
        """The error, in the API server's words."""
        message = self.body.get("message")
        return f"{self.status} {message}" if isinstance(message, str) else str(self.status)


class Caller(Protocol):
    """An API server to ask: a `Cluster`, or another client's likeness of it (`cli.kube`)."""

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        """One request with a JSON answer of any status. Raises ClusterError."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """How to reach an API server. The files are read for each request, since they rotate."""

    host: str
    port: int
    authority: Pem | None = None  #: who signed its certificate; None for the system's authorities
    token_file: Path | None = None
    token: str = ""
    client_certificate: tuple[Pem, Pem] | None = None  #: certificate and key
    namespace: str = "default"  #: InstaSlice's own
    deadline: float = DEADLINE  #: seconds for a whole request

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        """One request with a JSON answer of any status. Raises ClusterError."""
        try:
            context, headers = self._context(), self._headers()
        except OSError as error:  # a file that is missing or not PEM
            raise ClusterError(f"{error.filename or 'TLS'}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ClusterError("the token is not text") from None
        except ValueError as error:  # an empty file of authorities: it is being written
            raise ClusterError(f"{self.authority}: {error}") from None
        data = json.dumps(body).encode() if body else None
        url = f"https://{self.host}:{self.port}"
        exchange = _Exchange(self, context, method, path, data, headers)
        exchange.start()
        exchange.join(self.deadline)
        if exchange.is_alive():
            exchange.give_up()
            raise ClusterError(f"{url}: no answer within {self.deadline:g} s")
        if exchange.error:
            raise ClusterError(failure(url, exchange.error))
        return Answer(exchange.status, json_object(exchange.data))

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if self.authority is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cadata=_text(self.authority))
        if self.client_certificate:
            # The standard library takes a key from a file only; this one is gone in a moment.
            with tempfile.NamedTemporaryFile("w", prefix="instaslice-") as file:
                file.write("\n".join(map(_text, self.client_certificate)))
                file.flush()
                context.load_cert_chain(file.name)
        return context

    def _headers(self) -> dict[str, str]:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        headers["User-Agent"] = f"instaslice/{__version__}"
        token = self.token_file.read_text().strip() if self.token_file else self.token
        if token:
            headers["Authorization"] = f"Bearer {token}"
        return headers


def in_cluster(environment: Mapping[str, str], folder: Path = SERVICE_ACCOUNT) -> Cluster | None:
    """The API server of the cluster whose pod this is, or None outside of one."""
    host = environment.get("KUBERNETES_SERVICE_HOST")
    port = environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not port.isdecimal() or not folder.is_dir():
        return None
    namespace = "default"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        namespace = (folder / "namespace").read_text().strip() or namespace
    return Cluster(host, int(port), folder / "ca.crt", folder / "token", namespace=namespace)


def _text(pem: Pem) -> str:
    # What is not ASCII is around the PEM, where OpenSSL does not look at it.
    return pem.read_bytes().decode("ascii", "ignore") if isinstance(pem, Path) else pem


class _Exchange(threading.Thread):
    """One request and its answer."""

    def __init__(self, cluster: Cluster, context: ssl.SSLContext, *request: Any) -> None:
        """request: what `http.client.HTTPConnection.request` takes."""
        super().__init__(name="call", daemon=True)
        self._cluster, self._request = cluster, request
        self._tls = context  # not _context, which a Thread has itself from Python 3.14 on
        self._sock: ssl.SSLSocket | None = None
        self._given_up = False
        self.status, self.data = 0, b""
        self.error: Exception | None = None

    def run(self) -> None:
        """Make the request; leaves `status` and `data`, or `error`."""
        host, port = self._cluster.host, self._cluster.port
        connection = http.client.HTTPSConnection(host, port, context=self._tls)
        try:
            # For each address, and then for each read: who waits for them all is `call`.
            plain = socket.create_connection((host, port), self._cluster.deadline)
            # As http.client connects: else the body waits for the server's delayed ACK of the
            # headers, 40 ms on Linux.
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sock = self._sock = self._tls.wrap_socket(
                plain, server_hostname=host, do_handshake_on_connect=False
            )
            if self._given_up:
                return
            self._sock.do_handshake()
            connection.request(*self._request)
            response = connection.getresponse()
            self.status, self.data = response.status, response.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.error = error
        finally:
            connection.close()

    def give_up(self) -> None:
        """Hang up: what waits for the socket fails at once, and the thread ends."""
        self._given_up = True
        if self._sock is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket's own, which takes the TLS away from under the thread's feet.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)


def json_object(data: bytes | str) -> Json:
    """The object that an answer holds; empty for anything else."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(data)
        if isinstance(found, dict):
            return found
    return {}
