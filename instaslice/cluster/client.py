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
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from instaslice import __version__
from instaslice.patch import Json

#: Where the kubelet mounts a pod's token and the cluster's CA, and renews both.
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")

#: In seconds. A healthy API server answers in milliseconds.
DEADLINE: Final = 5.0

#: The most bytes of an answer to read: a discovery document has 2 KB, a template less than 100.
#: Comparing larger ones, which users can create, would take long.
MAX_ANSWER: Final = 256 * 1024

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
        until = time.monotonic() + self.deadline
        sock: ssl.SSLSocket | None = None

        def ask() -> Answer:
            nonlocal sock
            connection = http.client.HTTPSConnection(self.host, self.port, context=context)
            with contextlib.closing(connection):
                # This timeout is for each address and each read; `within` bounds their sum.
                plain = socket.create_connection((self.host, self.port), self.deadline)
                # Otherwise the body waits for the server's delayed ACK of the headers, 40 ms.
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.sock = sock = context.wrap_socket(
                    plain, server_hostname=self.host, do_handshake_on_connect=False
                )
                if time.monotonic() < until:  # otherwise `give_up` may have come before the socket
                    sock.do_handshake()
                    connection.request(method, path, data, headers)
                    response = connection.getresponse()
                    return Answer(response.status, json_object(response.read(MAX_ANSWER)))
            raise TimeoutError

        def give_up() -> None:
            """Close the socket in both directions, so that the thread fails at once and ends."""
            if sock is not None:
                with contextlib.suppress(OSError):
                    # SSLSocket.shutdown would drop the TLS object that the thread uses.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

        return within(self.deadline, f"https://{self.host}:{self.port}", ask, give_up)

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


def within(
    deadline: float, url: str, ask: Callable[[], Answer], give_up: Callable[[], None]
) -> Answer:
    """Make a request in a thread, which is abandoned after the deadline. Raises ClusterError.

    deadline: in seconds. url: for messages. give_up: called after the deadline, to end the thread.
    """
    results: list[Answer | Exception] = []

    def run() -> None:
        try:
            results.append(ask())
        except Exception as error:  # the caller reports it
            results.append(error)

    thread = threading.Thread(target=run, name=ask.__qualname__, daemon=True)
    thread.start()
    thread.join(deadline)
    if not results:
        give_up()
        raise ClusterError(f"{url}: no answer within {deadline:g} s")
    if isinstance(results[0], Exception):
        raise ClusterError(failure(url, results[0]))
    return results[0]


def json_object(data: bytes | str) -> Json:
    """Decode a JSON object; return an empty one for anything else."""
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(data)
        if isinstance(found, dict):
            return found
    return {}
