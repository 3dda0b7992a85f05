"""HTTP/1.1: bytes to requests, answers to bytes. No socket.

1. A request is a header section, which ends with an empty line, and as many bytes of body as its
   Content-Length says, or none (RFC 9112, section 6). One reading of the headers decides both.
2. It is strict: what two programs might read in two ways is refused, by `Request.refusal`, and
   nothing that follows may be read as a request. It is so where there is a transfer coding, two
   lengths, or one that is not a number; where a line is folded, or holds a control character.
3. Nothing is searched twice: a header section costs its length, in however many pieces.
4. One empty line before a request line is skipped (RFC 9112, section 2.2).
5. A body that is too long is not read; the application is to say so.

feed(data) -> is_whole()? -> take() -> is_whole()? -> ... (what is left begins the next request)
"""

import re
import time
from email.utils import formatdate
from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote

Headers = list[tuple[str, str]]
TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")
#: What a client that waits to be told so is told (RFC 9110, section 10.1.1).
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

#: A bound on what is made of 32 KiB of headers; and as long as a target may be.
MAX_FIELDS: Final = 100
MAX_TARGET: Final = 8 * 1024

_END: Final = b"\r\n\r\n"
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# Possessive, so that no part of it is read twice.
_HEAD: Final = re.compile(
    rb"([A-Z]{3,20}+) ([!-~]++) HTTP/1\.([01])\r\n((?:%b:[\t -~\x80-\xff]*+\r\n)*+)\r\n" % _TOKEN
)
_FIELD: Final = re.compile(rb"([^:]++):([^\r]*+)\r\n")
_ABSOLUTE: Final = re.compile(r"https?://[^/?#]+", re.IGNORECASE)


class Refusal(NamedTuple):
    """Why a request is refused by the server itself: an HTTP status, and a line of text."""

    status: str  #: "400 Bad Request"
    message: str


class Request(NamedTuple):
    """A request, or as much of it as will be read."""

    method: str = ""
    target: str = ""
    version: str = "HTTP/1.1"
    fields: dict[bytes, str] = {}  # noqa: RUF012 - nobody writes to it
    length: int | None = None  #: what Content-Length says
    keep: bool = False  #: whether another request may follow
    refusal: Refusal | None = None
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target's path, as it was before it was escaped."""
        target = self.target
        path = target if target[:1] == "/" else _ABSOLUTE.sub("", target, count=1)
        return unquote(path.partition("?")[0])

    def media_type(self) -> str:
        """As the Content-Type has it: "application/json"."""
        return self.fields.get(b"content-type", "").partition(";")[0].strip().lower()


class Peer(NamedTuple):
    """Who is at the other end of a connection."""

    address: str
    certificate: Any = None  #: as SSLSocket.getpeercert() gives it; verified


class Answer(NamedTuple):
    """What an application says to a request."""

    status: str  #: "200 OK"
    headers: Headers
    body: bytes


def _refuse(status: str, message: str) -> Request:
    return Request(refusal=Refusal(status, message))


_BAD: Final = "400 Bad Request"
_TOO_LARGE: Final = "431 Request Header Fields Too Large"


def _read_head(head: bytes, max_body: int) -> Request:
    """A request without its body yet, from its header section; `length` is at most one more."""
    match = _HEAD.fullmatch(head)
    if match is None:
        bad_line = not re.match(rb"[A-Z]{3,20} [!-~]+ HTTP/1\.[01]\r\n", head)
        return _refuse(_BAD, f"the {'request line' if bad_line else 'headers'} cannot be read")
    method, target, minor, lines = match.groups()
    if len(target) > MAX_TARGET:
        return _refuse("414 URI Too Long", f"the target is over {MAX_TARGET} bytes")
    found = _FIELD.findall(lines)
    if len(found) > MAX_FIELDS:
        return _refuse(_TOO_LARGE, f"there are over {MAX_FIELDS} headers")
    fields: dict[bytes, str] = {}
    for name, value in found:
        key, text = name.lower(), value.strip(b" \t").decode("latin-1")
        if key in fields:
            if key in (b"host", b"content-length"):
                return _refuse(_BAD, f"there is more than one {key.decode().title()}")
            text = f"{fields[key]},{text}"
        fields[key] = text
    if refused := _wrong(fields, target.decode(), minor == b"1"):
        return refused
    length, digits = None, fields.get(b"content-length")
    if digits is not None:
        # Compared as digits: int() of thousands of them would cost or fail.
        digits = digits.lstrip("0") or "0"
        length = int(digits) if len(digits) <= len(str(max_body)) else max_body + 1
    keep = minor == b"1"
    if b"connection" in fields:
        options = [option.strip(" \t").lower() for option in fields[b"connection"].split(",")]
        keep = "close" not in options and (keep or "keep-alive" in options)
    keep = keep and (length or 0) <= max_body
    return Request(
        method.decode(), target.decode(), f"HTTP/1.{minor.decode()}", fields, length, keep
    )


def _wrong(fields: dict[bytes, str], target: str, is_new: bool) -> Request | None:
    """Why a request with such fields is refused, if it is; is_new: HTTP/1.1."""
    if b"transfer-encoding" in fields:
        return _refuse("411 Length Required", "there is no Content-Length")
    if is_new and b"host" not in fields:
        return _refuse(_BAD, "there is no Host")
    if fields.get(b"expect", "100-continue").lower() != "100-continue":
        return _refuse("417 Expectation Failed", "only 100-continue can be expected")
    if target[0] != "/" and target != "*" and not _ABSOLUTE.match(target):
        return _refuse(_BAD, "the target is not a path")
    digits = fields.get(b"content-length", "0")
    if not (digits.isascii() and digits.isdigit()):
        return _refuse(_BAD, "the Content-Length is not a number")
    return None


class Reader:
    """The bytes of a connection, and the requests in them.

    max_body, max_headers: in bytes.
    """

    __slots__ = (
        *("_buffer", "_end", "_max_body", "_max_headers", "_request", "_searched", "_size"),
        *("_skipped", "_told"),
    )

    def __init__(self, max_body: int, max_headers: int) -> None:
        self._max_body, self._max_headers = max_body, max_headers
        self._buffer = bytearray()
        self._skipped = False  #: an empty line, before the request that is arriving
        self._begin()

    def _begin(self) -> None:
        self._searched = 0  #: bytes of the buffer that hold no end of a header section
        self._request: Request | None = None  #: without its body; None until its headers are whole
        self._end = 0  #: of its headers in the buffer
        self._size = 0  #: of that request in bytes, as far as it will be read
        self._told = False  #: to continue

    def __len__(self) -> int:
        """How many bytes are held."""
        return len(self._buffer)

    @property
    def size(self) -> int:
        """Bytes of the request that is arriving, 0 until its headers are whole."""
        return self._size

    def feed(self, data: bytes) -> None:
        """Take in what has come."""
        buffer = self._buffer
        buffer += data
        if buffer[:1] == b"\r" and not self._skipped and buffer[:2] == b"\r\n":
            del buffer[:2]
            self._skipped = True

    def is_whole(self) -> bool:
        """Whether a request can be taken."""
        return (self._request or self._look()) is not None and len(self._buffer) >= self._size

    def wants_continue(self) -> bool:
        """Whether the client waits to be told to send its body; true at most once a request."""
        request = self._request
        if request is None or self._told or len(self._buffer) >= self._size:
            return False
        self._told = True
        # HTTP/1.0 knows no interim replies (RFC 9110, section 15.2).
        return request.version != "HTTP/1.0" and b"expect" in request.fields

    def take(self) -> Request:
        """The request that is whole. Raises ValueError where none is."""
        if not self.is_whole() or self._request is None:
            raise ValueError("no request is whole")
        request, buffer = self._request, self._buffer
        with memoryview(buffer) as view:
            body = bytes(view[self._end : self._size])
        if request.refusal:
            buffer.clear()
        else:
            del buffer[: self._size]
        self._skipped = False
        self._begin()
        self.feed(b"")  # an empty line may have come behind the body
        return request._replace(body=body) if body else request

    def _look(self) -> Request | None:
        """Look for the end of the headers, and read them."""
        buffer = self._buffer
        end = buffer.find(_END, max(0, self._searched - 3), self._max_headers)
        if buffer[:2] == b"\r\n":
            request, end = _refuse(_BAD, "the request line is empty"), -4
        elif end >= 0:
            request = _read_head(bytes(buffer[: end + 4]), self._max_body)
        elif len(buffer) >= self._max_headers:
            message = f"the headers are over {self._max_headers} bytes"
            request, end = _refuse(_TOO_LARGE, message), -4
        else:
            self._searched = len(buffer)
            return None
        self._request = request
        self._end = self._size = end + 4
        if request.length is not None and request.length <= self._max_body:
            self._size += request.length
        return request


class Reply(NamedTuple):
    """The bytes of a reply, and whether another request may follow on the connection."""

    data: bytes
    keep: bool

    @classmethod
    def make(cls, answer: Answer, keep: bool, is_head: bool = False) -> "Reply":
        """An HTTP/1.1 reply (RFC 9112, section 4). is_head: to HEAD, so without its body."""
        status, headers, body = answer
        fields = "".join([f"{name}: {value}\r\n" for name, value in headers])
        top = (
            f"HTTP/1.1 {status}\r\nDate: {_date(int(time.time()))}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n"
            f"Content-Length: {len(body)}\r\n{fields}\r\n"
        )
        return cls(top.encode("latin-1") + (b"" if is_head else body), keep)

    @classmethod
    def refusing(cls, refusal: Refusal) -> "Reply":
        """The last reply, for what the server itself refuses."""
        return cls.make(Answer(refusal.status, [TEXT], f"{refusal.message}\n".encode()), False)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    """A moment as HTTP writes it (RFC 9110, section 5.6.7)."""
    return formatdate(second, usegmt=True)
