"""A file cut into documents as it is read, so that no more than one of them is in memory."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

#: A line that begins or ends a document. YAML allows neither in the first column anywhere else.
_MARKER: Final = re.compile(rb"^(?:---|\.\.\.)(?=[ \t\r\n]|\Z)", re.MULTILINE)
_HEAD: Final = rb"(?:\xef\xbb\xbf)?(?:---[ \t]*(?:#[^\n]*)?\r?\n)?[ \t\r\n]*"
#: How a document begins that may be followed by another without a marker, as JSON may.
_OBJECT: Final = re.compile(_HEAD + rb"\{")
#: A document of which nothing has been read that tells.
_UNTOLD: Final = re.compile(_HEAD)
#: Where an object of JSON may end and another begin. A string of JSON holds no line end, and
#: between an object and its neighbour in an array is a comma.
_BETWEEN: Final = re.compile(rb"\}[ \t\r]*\n(?=[ \t\r\n]*\{)")

CHUNK: Final = 1 << 20


class Piece(NamedTuple):
    """A document's bytes; all of a stream, joined, are the stream."""

    data: bytes
    line: int  #: its first in the file, from 1
    offset: int  #: of its first byte in the file


def pieces(read: Callable[[int], bytes]) -> Iterator[Piece]:
    """Cut a stream in front of each marker, and between objects of JSON.

    read: at most so many bytes; none at the end.
    """
    splitter = _Splitter()
    line, offset = 1, 0
    while True:
        chunk = read(CHUNK)
        for data in splitter.feed(chunk):
            yield Piece(data, line, offset)
            line += data.count(b"\n")
            offset += len(data)
        if not chunk:
            return


class _Splitter:
    """What was read and not yet given out: a document that may go on."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.searched = 0  #: up to here no document ends
        self.is_json: bool | None = None  #: whether it may be; None where that is not known yet

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """The documents that are complete with some more bytes; with none, all that is left."""
        self.buffer += chunk
        # A marker shows with the end of its line.
        end = self.buffer.rfind(b"\n") + 1 if chunk else len(self.buffer)
        while cut := self._cut(end):
            yield bytes(self.buffer[:cut])
            del self.buffer[:cut]
            self.searched, self.is_json = 0, None
            end -= cut
        self.searched = max(end, self.searched)
        if not chunk and self.buffer:
            yield bytes(self.buffer)
            self.buffer.clear()

    def _cut(self, end: int) -> int:
        """Where the first document ends, before an index; 0 where it goes on."""
        if self.is_json is None and (end > CHUNK or not _UNTOLD.fullmatch(self.buffer, 0, end)):
            self.is_json = bool(_OBJECT.match(self.buffer, 0, end))
        between = None
        if self.is_json:
            # An object's end shows with what comes behind it, which may have come just now.
            brace = max(0, self.buffer.rfind(b"}", 0, self.searched))
            between = _BETWEEN.search(self.buffer, brace, end)
        # The marker that a document begins with does not end it.
        stop = between.end() if between else end
        marker = _MARKER.search(self.buffer, max(1, self.searched), stop)
        if marker:
            return marker.start()
        if between:
            if _is_json(self.buffer[:stop]):
                return stop
            self.is_json = False
            return self._cut(end)
        return 0


def _is_json(data: bytearray) -> bool:
    try:
        json.loads(data.removeprefix(b"\xef\xbb\xbf").lstrip().removeprefix(b"---"))
    except (ValueError, RecursionError):
        return False
    return True
