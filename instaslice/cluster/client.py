"""A client of the API server, over the standard library's HTTP client.

Each request opens a connection: requests are rare, and a new connection cannot be stale. Whatever
the API server does, `call` returns or raises ClusterError within its deadline. Nothing can
interrupt a DNS lookup, so each request runs in a thread, which is abandoned after the deadline.
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

#: In seconds. A healthy API server answers in milliseconds.
DEADLINE: Final = 5.0

#: The most bytes of an answer to read: a discovery document has 2 KB, a Status less.
MAX_ANSWER: Final = 1024 * 1024

#: The kinds of objects that InstaSlice creates or probes, as spelt in a URL path.
PLURALS: Final = {
    "DeviceClass": "deviceclasses",
    "ResourceSlice": "resourceslices",
    "ResourceClaimTemplate": "resourceclaimtemplates",
    "GpuClaimParameters": "gpuclaimparameters",
    "MigDeviceClaimParameters": "migdeviceclaimparameters",
}

#: The path of a PEM file, which is read for each request, or its contents.
Pem = Path | str


class ClusterError(Exception):
    """The API server gave no usable answer; `str()` says why, in one line.

    status: the HTTP status by which it refused; 0 if it did not answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        # The message may contain what the other side sent.
        super().__init__(" ".join(message.split())[:300])
        self.status = status


#: The message for each kind of error.
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
    """Describe an error of a connection by its cause, which may be several errors deep."""
    causes: list[BaseException] = [error]
    for each in causes:
        # urllib3 has its cause in `reason`, other libraries in __cause__ or __context__.
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
    """An HTTP status and the JSON object of the body, empty if there is none."""

    status: int
    body: Json

    @property
    def reason(self) -> str:
        """The error, in the API server's words."""
        message = self.body.get("message")
        return f"{self.status} {message}" if isinstance(message, str) else str(self.status)


class Caller(Protocol):
    """The interface of API server clients: `Cluster` and `cli.kube.Client`."""

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        """Make a request; the answer may have any status. Raises ClusterError."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """How to reach an API server. The files are read for each request, since they rotate."""

    host: str
    port: int
    authority: Pem | None = None  #: its CA certificates; None for the system's
    token_file: Path | None = None
    token: str = ""
    client_certificate: tuple[Pem, Pem] | None = None  #: certificate and key
    namespace: str = "default"  #: InstaSlice's own
    deadline: float = DEADLINE  #: seconds for a whole request

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        """Make a request; the answer may have any status. Raises ClusterError."""
        try:
            context, headers = self._context(), self._headers()
        except OSError as error:  # a file is missing or not PEM
            raise ClusterError(f"{error.filename or 'TLS'}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ClusterError("the token is not text") from None
        except ValueError as error:  # the CA file is empty while it is being written
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
            # The standard library reads keys only from files, so it needs a temporary one.
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
    """The API server of the cluster that this process runs in, or None."""
    host = environment.get("KUBERNETES_SERVICE_HOST")
    port = environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not port.isdecimal() or not folder.is_dir():
        return None
    namespace = "default"
    with contextlib.suppress(OSError, UnicodeDecodeError):
        namespace = (folder / "namespace").read_text().strip() or namespace
    return Cluster(host, int(port), folder / "ca.crt", folder / "token", namespace=namespace)


def _text(pem: Pem) -> str:
    # Text around the PEM may be non-ASCII; OpenSSL ignores it.
    return pem.read_bytes().decode("ascii", "ignore") if isinstance(pem, Path) else pem


class _Exchange(threading.Thread):
    """One request and its answer."""

    def __init__(self, cluster: Cluster, context: ssl.SSLContext, *request: Any) -> None:
        """request: the arguments of `http.client.HTTPConnection.request`."""
        super().__init__(name="call", daemon=True)
        self._cluster, self._request = cluster, request
        self._tls = context  # Thread uses the name _context from Python 3.14 on
        self._sock: ssl.SSLSocket | None = None
        self._given_up = False
        self.status, self.data = 0, b""
        self.error: Exception | None = None

    def run(self) -> None:
        """Make the request, and set `status` and `data`, or `error`."""
        host, port = self._cluster.host, self._cluster.port
        connection = http.client.HTTPSConnection(host, port, context=self._tls)
        try:
            # This timeout is for each address and each read; `call` bounds their sum.
            plain = socket.create_connection((host, port), self._cluster.deadline)
            # Otherwise the body waits for the server's delayed ACK of the headers, 40 ms on Linux.
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
        """Close the socket for reading and writing, so that the thread fails at once and ends."""
        self._given_up = True
        if self._sock is not None:
            with contextlib.suppress(OSError):
                # SSLSocket.shutdown would drop the TLS object that the thread uses.
                socket.socket.shutdown(self._sock, socket.SHUT_RDWR)


def json_object(data: bytes | str) -> Json:
    """Decode a JSON object; return an empty one for anything else."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(data)
        if isinstance(found, dict):
            return found
    return {}
