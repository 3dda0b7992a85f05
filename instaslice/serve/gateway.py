"""A request to the bytes of its reply, through a WSGI application (PEP 3333). No socket, no clock.

1. gunicorn's parser reads the headers, and its Response writes the reply. What the parser refuses
   is a line of text with the status that REFUSALS gives it, and ends the connection.
2. HTTP/1.1 without a Host is refused (RFC 9112, section 3.2), and a Connection that names "close"
   among others closes (section 9.6): the parser leaves both to the server.
3. The API server sends the same headers again and again, but for the length. What was made of them
   is remembered for each connection: to parse them took a third of an admission.
4. An answer that would wait for the API server is not waited for: `answer` returns a Waiting in the
   reply's place, to be finished where that stops nobody.
5. A fault in the application is a 500 and a traceback in the log; a lack of memory is a 503.
"""

import io
import logging
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

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

from instaslice.serve.app import MAY_WAIT, PEER, Later
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
#: The longest header section that is remembered, in bytes. What is made of it takes up to seven
#: times as much, for each connection.
MAX_REMEMBERED: Final = 2048


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
    def refusing(cls, refusal: Refusal) -> "Reply":
        return cls(refusal.reply(), keep=False)


class Waiting(NamedTuple):
    """What makes a reply, and takes time; and how many bytes it holds meanwhile."""

    finish: Callable[[], Reply]
    size: int


class Memo:
    """The last headers of a connection, but for the length, and what the parser made of them."""

    __slots__ = ("closes", "head", "parsed")

    def __init__(self) -> None:
        self.head = b""
        self.parsed: Any = None
        self.closes = False


class _Sink:
    """The socket that gunicorn's Response writes to: it keeps the reply."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def sendall(self, data: bytes) -> None:
        self.parts.append(data)

    def send(self, data: bytes) -> int:
        """Take what is only ever "100 Continue": the loop has sent that."""
        return len(data)

    def gettimeout(self) -> float:
        return 0.0


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
        parsed, closes = self._parse(request, peer, memo)
        sink: Any = _Sink()
        response: Any
        response, environ = wsgi.create(parsed, sink, peer.client, peer.server, self._config)
        if request.length is not None:
            environ["CONTENT_LENGTH"] = str(request.length)
        environ["wsgi.input"] = io.BytesIO(request.body)
        environ["wsgi.multithread"] = True
        environ[PEER] = peer.certificate
        environ[MAY_WAIT] = False
        if is_last or closes:
            response.force_close()

        def finish(chunks: Iterable[bytes]) -> Reply:
            for chunk in chunks:
                response.write(chunk)
            response.close()
            return Reply(b"".join(sink.parts), not response.should_close())

        try:
            return finish(self._application(environ, response.start_response))
        except Later as later:
            resume, size = later.resume, later.size

        def wait() -> Reply:
            try:
                return finish(resume(response.start_response))
            except Exception as error:
                return _failed(error)

        return Waiting(wait, size)

    def _parse(self, request: Request, peer: Peer, memo: Memo) -> tuple[Any, bool]:
        """What gunicorn makes of the headers, and whether they ask for the connection's end."""
        if memo.head and memo.head == request.but_for_length:
            return memo.parsed, memo.closes
        parsed: Any = next(RequestParser(self._config, iter((request.head,)), peer.client))
        options = [
            option.strip(" \t").lower()
            for name, value in parsed.headers
            if name == "CONNECTION"
            for option in value.split(",")
        ]
        closes = "close" in options
        if parsed.version >= (1, 1) and not any(name == "HOST" for name, _ in parsed.headers):
            raise _NoHost
        if len(request.but_for_length) <= MAX_REMEMBERED:
            memo.head, memo.parsed, memo.closes = request.but_for_length, parsed, closes
        return parsed, closes


class _NoHost(Exception):
    """There is no Host where there must be one."""


def _failed(error: Exception) -> Reply:
    """The reply where the application has none."""
    if isinstance(error, MemoryError):
        _log.error("a request was refused for lack of memory")
        return Reply.refusing(NO_MEMORY)
    _log.error("a request failed", exc_info=error)
    return Reply.refusing(_FAULT)
