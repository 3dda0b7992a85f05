"""HTTP/1.1: bytes to requests and WSGI environs (PEP 3333), replies to bytes. No sockets.

1. A request is a header section, which ends with an empty line, and a body of the length that
   Content-Length gives, or none (RFC 9112, section 6).
2. The parser is strict. Whatever two programs could read differently gets a `Request.refusal`, and
   the bytes after it are dropped: a transfer coding, two lengths or one that is not a number, a
   folded line, a control character.
3. Parsing is linear: no byte is searched twice, in however many pieces a header section comes.
4. One empty line before a request line is skipped (RFC 9112, section 2.2).
5. A body that is too long is not read; the application refuses the request.

feed(data) -> is_whole()? -> take() -> is_whole()? -> ... (the rest begins the next request)
"""

import io
import re
import sys
import time
from dataclasses import dataclass, field
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIEnvironment

#: The environ's key for the caller's verified certificate, as `SSLSocket.getpeercert` returns it.
PEER: Final = "instaslice.peer"
#: The environ's key for whether the application may block. If not, it raises MustWait instead.
MAY_WAIT: Final = "instaslice.may_wait"
#: The environ's key by which the application ends the connection after its answer.
LAST: Final = "instaslice.last"

Headers = list[tuple[str, str]]
TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")
#: The interim reply to "Expect: 100-continue" (RFC 9110, section 10.1.1).
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

#: Bounds on the number of headers, and on the bytes of a target.
MAX_FIELDS: Final = 100
MAX_TARGET: Final = 8 * 1024

_END: Final = b"\r\n\r\n"
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# The quantifiers are possessive, so the regular expression never backtracks.
_HEAD: Final = re.compile(
    rb"([A-Z]{3,20}+) ([!-~]++) HTTP/1\.([01])\r\n((?:%b:[\t -~\x80-\xff]*+\r\n)*+)\r\n" % _TOKEN
)
_FIELD: Final = re.compile(r"([^:]++):([^\r]*+)\r\n")
_ABSOLUTE: Final = re.compile(r"https?://[^/?#]+", re.IGNORECASE)


#: The keys that have the same value in every environ.
_SAME: Final = {
    "SCRIPT_NAME": "",
    "wsgi.version": (1, 0),
    "wsgi.url_scheme": "https",
    "wsgi.multithread": True,
    "wsgi.multiprocess": False,
    "wsgi.run_once": False,
}


class Refusal(NamedTuple):
    """An answer by the server itself, without the application."""

    status: str  #: "400 Bad Request"
    message: str  #: one line


@dataclass(slots=True)
class Request:
    """A request. One with a refusal has no other field."""

    method: str = ""
    target: str = ""
    version: str = "HTTP/1.1"
    headers: dict[str, str] = field(default_factory=dict)  #: as the environ has them
    length: int | None = None  #: the Content-Length
    keep: bool = False  #: whether another request may follow
    refusal: Refusal | None = None
    body: bytes = b""

    def environ(self, peer: "Peer", may_wait: bool) -> WSGIEnvironment:
        """The environ of PEP 3333 for this request."""
        target = self.target
        relative = target if target[:1] == "/" else _ABSOLUTE.sub("", target, count=1)
        path, _, query = relative.partition("?")
        return {
            **_SAME,
            **self.headers,
            "REQUEST_METHOD": self.method,
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1") if "%" in path else path,
            "QUERY_STRING": query,
            "SERVER_NAME": peer.server[0],
            "SERVER_PORT": str(peer.server[1]),
            "SERVER_PROTOCOL": self.version,
            "REMOTE_ADDR": peer.address,
            "wsgi.input": io.BytesIO(self.body),
            "wsgi.errors": sys.stderr,
            PEER: peer.certificate,
            MAY_WAIT: may_wait,
        }


class Peer(NamedTuple):
    """The other end of a connection."""

    address: str
    server: tuple[str, int]  #: the local address and port
    certificate: Any = None  #: the verified one, as SSLSocket.getpeercert() returns it


def _refuse(status: str, message: str) -> Request:
    return Request(refusal=Refusal(status, message))


_BAD: Final = "400 Bad Request"
_TOO_LARGE: Final = "431 Request Header Fields Too Large"


def _read_head(head: bytes, max_body: int) -> Request:
    """A request from its header section. A length over max_body becomes max_body + 1."""
    match = _HEAD.fullmatch(head)
    if match is None:
        bad_line = not re.match(rb"[A-Z]{3,20} [!-~]+ HTTP/1\.[01]\r\n", head)
        return _refuse(_BAD, f"the {'request line' if bad_line else 'headers'} cannot be read")
    method, target, minor, lines = match.groups()
    if len(target) > MAX_TARGET:
        return _refuse("414 URI Too Long", f"the target is over {MAX_TARGET} bytes")
    found = _FIELD.findall(lines.decode("latin-1"))
    if len(found) > MAX_FIELDS:
        return _refuse(_TOO_LARGE, f"there are over {MAX_FIELDS} headers")
    headers: dict[str, str] = {}
    for name, value in found:
        if "_" in name:
            continue  # it could pass for one with a hyphen
        key, value = f"HTTP_{name.upper().replace('-', '_')}", value.strip(" \t")
        if key in headers:
            if key in ("HTTP_HOST", "HTTP_CONTENT_LENGTH"):
                return _refuse(_BAD, f"there is more than one {name.title()}")
            value = f"{headers[key]},{value}"
        headers[key] = value
    if refused := _wrong(headers, target.decode(), minor == b"1"):
        return refused
    length, digits = None, headers.pop("HTTP_CONTENT_LENGTH", None)
    if digits is not None:
        # int() is slow for thousands of digits, and fails for more than 4,300.
        digits = digits.lstrip("0") or "0"
        length = int(digits) if len(digits) <= len(str(max_body)) else max_body + 1
    headers["CONTENT_LENGTH"] = "" if length is None else str(length)
    headers["CONTENT_TYPE"] = headers.pop("HTTP_CONTENT_TYPE", "")
    keep = minor == b"1"
    if "HTTP_CONNECTION" in headers:
        options = [option.strip(" \t").lower() for option in headers["HTTP_CONNECTION"].split(",")]
        keep = "close" not in options and (keep or "keep-alive" in options)
    keep = keep and (length or 0) <= max_body
    version = "HTTP/1.1" if minor == b"1" else "HTTP/1.0"
    return Request(method.decode(), target.decode(), version, headers, length, keep)


def _wrong(headers: dict[str, str], target: str, is_new: bool) -> Request | None:
    """Why a request with such headers is refused, if it is; is_new: HTTP/1.1."""
    if "HTTP_TRANSFER_ENCODING" in headers:
        return _refuse("411 Length Required", "there is no Content-Length")
    if is_new and "HTTP_HOST" not in headers:
        return _refuse(_BAD, "there is no Host")
    if headers.get("HTTP_EXPECT", "100-continue").lower() != "100-continue":
        return _refuse("417 Expectation Failed", "only 100-continue can be expected")
    if target[0] != "/" and target != "*" and not _ABSOLUTE.match(target):
        return _refuse(_BAD, "the target is not a path")
    length = headers.get("HTTP_CONTENT_LENGTH", "0")
    if not (length.isascii() and length.isdigit()):
        return _refuse(_BAD, "the Content-Length is not a number")
    return None


class Reader:
    """Collects the bytes of a connection and returns the requests in them."""

    __slots__ = (
        *("size", "_buffer", "_end", "_max_body", "_max_headers", "_request", "_searched"),
        *("_skipped", "_continued"),
    )

    def __init__(self, max_body: int, max_headers: int) -> None:
        self._max_body, self._max_headers = max_body, max_headers
        self._buffer = bytearray()
        self._skipped = False  #: whether an empty line before this request was skipped
        self._begin()

    def _begin(self) -> None:
        self._searched = 0  #: bytes of the buffer without the end of a header section
        self._request: Request | None = None  #: without its body; None until its headers are here
        self._end = 0  #: where its headers end in the buffer
        #: The bytes of the arriving request with its body; 0 until its headers are here.
        self.size = 0
        self._continued = False  #: whether CONTINUE was sent

    def __len__(self) -> int:
        """The number of bytes held."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take in received bytes."""
        self._buffer += data
        if self._request is None and self._buffer:
            self._look()

    def is_whole(self) -> bool:
        """Whether a request can be taken."""
        return self._request is not None and len(self._buffer) >= self.size

    def wants_continue(self) -> bool:
        """Whether the client waits for CONTINUE; true at most once for each request."""
        request = self._request
        if request is None or self._continued or len(self._buffer) >= self.size:
            return False
        self._continued = True
        # HTTP/1.0 knows no interim replies (RFC 9110, section 15.2).
        return request.version != "HTTP/1.0" and "HTTP_EXPECT" in request.headers

    def take(self) -> Request:
        """Remove and return the request. Raises ValueError if none is whole."""
        if not self.is_whole() or self._request is None:
            raise ValueError("no request is whole")
        request, buffer = self._request, self._buffer
        with memoryview(buffer) as view:
            body = bytes(view[self._end : self.size])
        if request.refusal:
            buffer.clear()
        else:
            del buffer[: self.size]
        self._skipped = False
        self._begin()
        self.feed(b"")  # looks at the rest
        request.body = body
        return request

    def _look(self) -> None:
        """Read the headers, if their end is here."""
        buffer = self._buffer
        if not self._skipped and buffer.startswith(b"\r\n"):
            del buffer[:2]
            self._skipped = True
        end = buffer.find(_END, max(0, self._searched - 3), self._max_headers)
        if buffer.startswith(b"\r\n"):
            request, end = _refuse(_BAD, "the request line is empty"), -4
        elif end >= 0:
            request = _read_head(bytes(buffer[: end + 4]), self._max_body)
        elif len(buffer) >= self._max_headers:
            message = f"the headers are over {self._max_headers} bytes"
            request, end = _refuse(_TOO_LARGE, message), -4
        else:
            self._searched = len(buffer)
            return
        self._request = request
        self._end = self.size = end + 4
        if request.length is not None and request.length <= self._max_body:
            self.size += request.length


class Reply(NamedTuple):
    """The bytes of a reply, and whether another request may follow on the connection."""

    data: bytes
    keep: bool

    @classmethod
    def make(cls, status: str, headers: Headers, body: bytes, keep: bool) -> "Reply":
        """An HTTP/1.1 reply (RFC 9112, section 4). headers: with the Content-Length."""
        top = (
            f"HTTP/1.1 {status}\r\nDate: {_date(int(time.time()))}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n"
        )
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers])
        return cls(f"{top}{fields}\r\n".encode("latin-1") + body, keep)

    @classmethod
    def refusing(cls, refusal: Refusal) -> "Reply":
        """The last reply on a connection whose request the server itself refuses."""
        body = f"{refusal.message}\n".encode()
        length = ("Content-Length", str(len(body)))
        return cls.make(refusal.status, [TEXT, length], body, keep=False)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    """A time in seconds since 1970, as HTTP writes it (RFC 9110, section 5.6.7)."""
    return formatdate(second, usegmt=True)
