"""The requests that h11, gunicorn's own parser, and InstaSlice read in the same bytes."""

import random
from collections.abc import Iterator
from typing import Any

import h11
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from gunicorn.http.parser import RequestParser

from instaslice.serve.http import Reader, Request
from instaslice.serve.limits import Limits


def requests(data: bytes, sizes: Iterator[int] | None = None) -> list[Request]:
    """The requests in some bytes, which come in pieces of some sizes."""
    reader, found, at = Reader(LIMITS.body, LIMITS.headers), [], 0
    while at < len(data):
        size = next(sizes) if sizes else len(data)
        reader.feed(data[at : at + size])
        at += size
        while reader.is_whole():
            found.append(reader.take())
            if not found[-1].keep:
                return found
    return found


LIMITS = Limits()
CONFIG = Config()
CONFIG.set("http_parser", "python")
CONFIG.set("forwarder_headers", "")

Seen = tuple[str, str, bytes]  #: method, target and body


def ours(data: bytes, chance: random.Random) -> tuple[list[Seen], list[bytes]]:
    """The requests that reach the application, and the bytes of each. Bytes come in pieces."""
    reader, fed, start = Reader(LIMITS.body, LIMITS.headers), 0, 0
    seen: list[Seen] = []
    accepted: list[bytes] = []
    while fed < len(data):
        piece = data[fed : fed + chance.choice((1, 3, 1000))]
        reader.feed(piece)
        fed += len(piece)
        while reader.is_whole():
            found = reader.take()
            if found.refusal or (found.length or 0) > len(found.body):
                return seen, accepted
            seen.append((found.method, found.target, found.body))
            # Without the skipped empty line, which h11 refuses.
            accepted.append(data[start : fed - len(reader)].removeprefix(b"\r\n"))
            start = fed - len(reader)
            if not found.keep:
                return seen, accepted
    return seen, accepted


def h11s(data: bytes) -> list[Seen]:
    seen: list[Seen] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=LIMITS.headers)
    connection.receive_data(data)
    method, target, body = b"", b"", b""
    try:
        while True:
            event = connection.next_event()
            match event:
                case h11.Request():
                    method, target, body = event.method, event.target, b""
                case h11.Data():
                    body += bytes(event.data)
                case h11.EndOfMessage():
                    seen.append((method.decode(), target.decode(), body))
                    connection.send(h11.Response(status_code=200, headers=[("a", "b")]))
                    connection.send(h11.EndOfMessage())
                    if connection.our_state is h11.MUST_CLOSE:
                        return seen
                    connection.start_next_cycle()
                case _:
                    return seen
    except h11.RemoteProtocolError:
        return seen


def gunicorns(data: bytes) -> list[Seen]:
    seen: list[Seen] = []
    try:
        for request in RequestParser(CONFIG, iter((data,)), ("127.0.0.1", 1)):
            parsed: Any = request
            seen.append((parsed.method, parsed.uri, parsed.body.read()))
    except (ParseException, OSError):
        pass
    return seen
