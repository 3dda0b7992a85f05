"""Bytes to HTTP/1.1 requests: where one ends, and nothing else. No socket, no clock.

1. A request is a header section, which ends with an empty line, and as many bytes of body as its
   Content-Length says, or none (RFC 9112, section 6).
2. Nothing is searched twice: a search goes on where the last one has ended, less the three bytes
   that may begin what is looked for. So a header section costs its length, in however many pieces.
3. One empty line before a request line is skipped (RFC 9112, section 2.2): there are clients that
   end a body with one. It is neither a request nor part of one.
4. Where a length cannot be told for certain the request is whole with its headers, `refusal` says
   why, and nothing that follows may be read as a request. It is so where the headers are too long,
   name a transfer coding, or have two lengths or one that is not a number. A body that is too long
   is not read either; the application is to say so.
5. What else headers may be wrong in is left to gunicorn's parser (`gateway`), which sees the same
   bytes. Where it accepts a header section, it finds the same length in it as is found here.

feed(data) -> is_whole()? -> take() -> is_whole()? -> ... (what is left begins the next request)
"""

import re
from typing import Final, NamedTuple

from instaslice.serve.app import MAX_BODY

#: The longest header section, in bytes; the API server's has a few hundred.
MAX_HEADERS: Final = 32 * 1024

#: What a client that waits to be told so is told (RFC 9110, section 10.1.1).
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

_CRLF: Final = b"\r\n"
_EMPTY_LINE: Final = b"\r\n\r\n"
#: The fields that decide on a length, whatever their values: one that cannot be read is not absent.
_FRAMING: Final = re.compile(
    rb"\r\n(content-length|transfer-encoding)[ \t]*:([^\r\n]*)", re.IGNORECASE
)
_EXPECTS: Final = re.compile(rb"\r\nexpect[ \t]*:[ \t]*100-continue[ \t]*\r\n", re.IGNORECASE)
#: HTTP/1.0 knows no interim replies (RFC 9110, section 15.2).
_OLD: Final = b" HTTP/1.0\r\n"
#: More digits than the largest body has, zeros aside, are a larger one whatever they are.
_MAX_DIGITS: Final = len(str(MAX_BODY))


class Refusal(NamedTuple):
    """Why a request is refused by the server itself: an HTTP status, and a line of text."""

    status: str  #: "400 Bad Request"
    message: str


class Request(NamedTuple):
    """A request, or as much of it as will be read."""

    head: bytes  #: request line and headers, the empty line included; b"" where they are too long
    body: bytes
    length: int | None = None  #: what Content-Length says
    #: The head but for the digits of its length: what the requests of one client have in common.
    but_for_length: bytes = b""
    refusal: Refusal | None = None

    @property
    def is_last(self) -> bool:
        """Whether no other request can be told from what follows."""
        return self.refusal is not None or (self.length or 0) > len(self.body)


_TOO_LONG: Final = Refusal(
    "431 Request Header Fields Too Large", f"the headers are over {MAX_HEADERS} bytes"
)
_NO_REQUEST_LINE: Final = Refusal("400 Bad Request", "the request line is empty")
_CODED: Final = Refusal("411 Length Required", "there is no Content-Length")
_TWO_LENGTHS: Final = Refusal("400 Bad Request", "there is more than one Content-Length")
_NO_NUMBER: Final = Refusal("400 Bad Request", "the Content-Length is not a number")


class RequestReader:
    """The bytes of a connection, and the requests in them."""

    __slots__ = ("_buffer", "_request", "_searched", "_size", "_skipped", "_told")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._skipped = False  #: an empty line, before the request that is arriving
        self._begin()

    def _begin(self) -> None:
        self._searched = 0  #: bytes of the buffer that hold no end of a header section
        self._request: Request | None = None  #: without its body; None until its headers are whole
        self._size = 0  #: of that request in bytes, as far as it will be read
        self._told = False  #: to continue

    def __len__(self) -> int:
        """How many bytes are held."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take in what has come."""
        buffer = self._buffer
        buffer += data
        if buffer[:1] == b"\r" and not self._skipped and buffer[:2] == _CRLF:
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
        line_end = request.head.index(_CRLF) + 2
        is_old = request.head.endswith(_OLD, 0, line_end)
        return not is_old and _EXPECTS.search(request.head) is not None

    def take(self) -> Request:
        """The request that is whole. Raises ValueError where none is."""
        if not self.is_whole() or self._request is None:
            raise ValueError("no request is whole")
        request, buffer = self._request, self._buffer
        with memoryview(buffer) as view:
            body = bytes(view[len(request.head) : self._size])
        if request.head:
            del buffer[: self._size]
        else:
            buffer.clear()
        self._skipped = False
        self._begin()
        self.feed(b"")  # an empty line may have come behind the body
        return request._replace(body=body) if body else request

    def _look(self) -> Request | None:
        """Look for the end of the headers, and in them for a length."""
        buffer = self._buffer
        end = buffer.find(_EMPTY_LINE, max(0, self._searched - 3), MAX_HEADERS)
        if buffer[:2] == _CRLF:
            request = Request(bytes(buffer[:2]), b"", refusal=_NO_REQUEST_LINE)
        elif end >= 0:
            request = _read_length(bytes(buffer[: end + 4]))
        elif len(buffer) >= MAX_HEADERS:
            request = Request(b"", b"", refusal=_TOO_LONG)
        else:
            self._searched = len(buffer)
            return None
        self._request = request
        self._size = len(request.head)
        if request.length is not None and request.length <= MAX_BODY:
            self._size += request.length
        return request


def _read_length(head: bytes) -> Request:
    """A request without its body yet, which is as long as its headers say."""
    fields = list(_FRAMING.finditer(head))
    if not fields:
        return Request(head, b"", but_for_length=head)
    field, *more = fields
    digits = field[2].strip(b" \t")
    if any(each[1].lower() == b"transfer-encoding" for each in fields):
        return Request(head, b"", refusal=_CODED)
    if more:
        return Request(head, b"", refusal=_TWO_LENGTHS)
    if not digits.isdigit() or not head.startswith(_CRLF, field.end()):  # ASCII only, of bytes
        return Request(head, b"", refusal=_NO_NUMBER)
    number = digits.lstrip(b"0")
    length = int(number or b"0") if len(number) <= _MAX_DIGITS else MAX_BODY + 1
    start = head.index(digits, field.start(2))
    return Request(head, b"", length, head[:start] + head[start + len(digits) :])
