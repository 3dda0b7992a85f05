"""A request to the bytes of its reply, through a WSGI application (PEP 3333). No socket.

1. gunicorn's parser reads the headers, and gunicorn makes the environ of them. What the parser
   refuses is a line of text with the status that REFUSALS gives it, and ends the connection.
2. HTTP/1.1 without a Host is refused (RFC 9112, section 3.2), and a Connection that names "close"
   among others closes (section 9.6): the parser leaves both to the server.
3. The API server sends the same headers again and again, but for the length. The environ that was
   made of them is remembered for each connection: that took a third of an admission.
4. An answer that would wait for the API server is not waited for: `answer` returns a Waiting in the
   reply's place, to be finished where that stops nobody.
5. A fault in the application is a 500 and a traceback in the log; a lack of memory is a 503.
"""

import io
import logging
import time
from collections.abc import Callable, Iterable
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final, NamedTuple
from wsgiref.types import WSGIEnvironment

from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.errors import (
    ExpectationFailed,
    LimitRequestHeaders,
    LimitRequestLine,
    NoMoreData,
    ParseException,
)
from gunicorn.http.parser import RequestParser

from instaslice.serve.app import MAY_WAIT, PEER, TEXT, Headers, Later
from instaslice.serve.framing import Refusal, Request

_log = logging.getLogger("instaslice")

#: What the parser raises, and the status for it; anything else that it raises is a 400.
REFUSALS: Final[dict[type[Exception], str]] = {
    LimitRequestLine: "414 URI Too Long",
    ExpectationFailed: "417 Expectation Failed",
    LimitRequestHeaders: "431 Request Header Fields Too Large",
}
_BAD: Final = "400 Bad Request"
_NO_HOST: Final = Refusal(_BAD, "there is no Host")
NO_MEMORY: Final = Refusal("503 Service Unavailable", "there is no memory left for this request")
_FAULT: Final = Refusal(
    "500 Internal Server Error", "InstaSlice hit an internal error; see its log"
)
#: Characters of what the parser says, which repeats what was sent, in a reply and in the log.
MAX_REASON: Final = 200
#: The longest header section that is remembered, in bytes. What is made of it takes up to
#: 20 KiB for each connection, where it is full of short ones; the API server's takes 3 KiB.
MAX_REMEMBERED: Final = 2048
#: What gunicorn adds to an environ that writes to the socket.
_NEEDS_SOCKET: Final = ("gunicorn.socket", "wsgi.early_hints")


#: A WSGI application, as `wsgiref.types` and gunicorn's stubs cannot agree to type it.
Application = Callable[[Any, Any], Iterable[bytes]]


class Peer(NamedTuple):
    """Who is at the other end of a connection."""

    client: Any  #: its address, as socket.accept() gives it
    server: Any  #: the address that it connected to
    certificate: Any  #: as SSLSocket.getpeercert() gives it


class Reply(NamedTuple):
    """The bytes of a reply, and whether another request may follow on the connection."""

    data: bytes
    keep: bool

    @classmethod
    def make(cls, status: str, headers: Headers, body: bytes, keep: bool) -> "Reply":
        """An HTTP/1.1 reply (RFC 9112, section 4), whose headers say how long its body is."""
        top = (
            f"HTTP/1.1 {status}\r\nDate: {_date(int(time.time()))}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n"
        )
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers])
        return cls(f"{top}{fields}\r\n".encode("latin-1") + body, keep)

    @classmethod
    def refusing(cls, refusal: Refusal) -> "Reply":
        """The last reply, for what the server itself refuses."""
        body = f"{refusal.message}\n".encode()
        length = ("Content-Length", str(len(body)))
        return cls.make(refusal.status, [TEXT, length], body, keep=False)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    """A moment as HTTP writes it (RFC 9110, section 5.6.7)."""
    return formatdate(second, usegmt=True)


class Waiting(NamedTuple):
    """What makes a reply, and takes time; and how many bytes it holds meanwhile."""

    finish: Callable[[], Reply]
    size: int


class Memo:
    """The last headers of a connection, but for the length, and what was made of them."""

    __slots__ = ("environ", "head", "keep")

    def __init__(self) -> None:
        self.head = b""
        self.environ: WSGIEnvironment = {}
        self.keep = False  #: whether they let another request follow


class _NoSocket:
    """What gunicorn writes "100 Continue" to when it makes an environ: the loop has sent that."""

    def send(self, data: bytes) -> int:
        return len(data)


class Gateway:
    """Answers requests with a WSGI application.

    application: may raise `app.Later`. config: gunicorn's.
    """

    def __init__(self, application: Application, config: Config) -> None:
        self._application = application
        self._config = config

    def answer(
        self, request: Request, peer: Peer, memo: Memo, is_last: bool = False
    ) -> Reply | Waiting:
        """The reply to a request, or what makes it.

        is_last: whether the connection is to be closed after it, whatever the client wishes.
        """
        refusal = request.refusal
        if refusal is None:
            try:
                return self._respond(request, peer, memo, is_last or request.is_last)
            except ParseException as error:
                status = REFUSALS.get(type(error), _BAD)
                refusal = Refusal(status, ascii(str(error))[1:-1][:MAX_REASON])
            except (NoMoreData, StopIteration):
                refusal = Refusal(_BAD, "the request ends in its headers")
            except _NoHost:
                refusal = _NO_HOST
            except Exception as error:
                return _failed(error)
        fields = {"client": str(peer.client), "reason": refusal.message}
        _log.warning("a bad request", extra={"fields": fields})
        return Reply.refusing(refusal)

    def _respond(self, request: Request, peer: Peer, memo: Memo, is_last: bool) -> Reply | Waiting:
        shared, keep = self._read(request, peer, memo)
        environ = {
            **shared,
            "wsgi.input": io.BytesIO(request.body),
            PEER: peer.certificate,
            MAY_WAIT: False,
        }
        if request.length is not None:
            environ["CONTENT_LENGTH"] = str(request.length)
        status = ""
        headers: Headers = []

        def start_response(its_status: str, its_headers: Headers, exc_info: Any = None) -> Any:
            nonlocal status, headers
            status, headers = its_status, its_headers

        def finish(chunks: Iterable[bytes]) -> Reply:
            return Reply.make(status, headers, b"".join(chunks), keep and not is_last)

        try:
            return finish(self._application(environ, start_response))
        except Later as later:
            resume, size = later.resume, later.size

        def wait() -> Reply:
            try:
                return finish(resume(start_response))
            except Exception as error:
                return _failed(error)

        return Waiting(wait, size)

    def _read(self, request: Request, peer: Peer, memo: Memo) -> tuple[WSGIEnvironment, bool]:
        """The environ without the body, and whether the headers let another request follow."""
        if memo.head and memo.head == request.but_for_length:
            return memo.environ, memo.keep
        parsed: Any = next(RequestParser(self._config, iter((request.head,)), peer.client))
        options = [
            option.strip(" \t").lower()
            for name, value in parsed.headers
            if name == "CONNECTION"
            for option in value.split(",")
        ]
        keep = "close" not in options and not parsed.should_close()
        if parsed.version >= (1, 1) and not any(name == "HOST" for name, _ in parsed.headers):
            raise _NoHost
        no_socket: Any = _NoSocket()
        _, made = wsgi.create(parsed, no_socket, peer.client, peer.server, self._config)
        environ = {key: value for key, value in made.items() if key not in _NEEDS_SOCKET}
        environ["wsgi.multithread"] = True
        if len(request.but_for_length) <= MAX_REMEMBERED:
            memo.head, memo.environ, memo.keep = request.but_for_length, environ, keep
        return environ, keep


class _NoHost(Exception):
    """There is no Host where there must be one."""


def _failed(error: Exception) -> Reply:
    """The reply where the application has none."""
    if isinstance(error, MemoryError):
        _log.error("a request was refused for lack of memory")
        return Reply.refusing(NO_MEMORY)
    _log.error("a request failed", exc_info=error)
    return Reply.refusing(_FAULT)
