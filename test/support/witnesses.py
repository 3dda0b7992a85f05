"""What h11, gunicorn's own parser, and InstaSlice make of the same bytes."""

import random
from collections.abc import Iterator
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import h11
from gunicorn.config import Config
from gunicorn.http.errors import ParseException
from gunicorn.http.parser import RequestParser

from instaslice.serve.framing import MAX_HEADERS, Request, RequestReader
from instaslice.serve.gateway import Gateway, Memo, Peer, Reply


def requests(data: bytes, sizes: Iterator[int] | None = None) -> list[Request]:
    """All requests in some bytes, which come in pieces of some sizes."""
    reader, found, at = RequestReader(), [], 0
    while at < len(data):
        size = next(sizes) if sizes else len(data)
        reader.feed(data[at : at + size])
        at += size
        while reader.is_whole():
            found.append(reader.take())
            if found[-1].is_last:
                return found
    return found


CONFIG = Config()
CONFIG.set("http_parser", "python")
CONFIG.set("forwarder_headers", "")

Seen = tuple[str, str, bytes]  #: method, target and body


def ours(data: bytes, chance: random.Random) -> tuple[list[Seen], list[bytes]]:
    """What reaches the application of bytes that come in pieces; and the bytes of each."""
    seen: list[Seen] = []
    accepted: list[bytes] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        body = environ["wsgi.input"].read()
        seen.append((environ["REQUEST_METHOD"], environ["RAW_URI"], body))
        start_response("204 No Content", [])
        return []

    gateway, memo = Gateway(app, CONFIG), Memo()
    for request in requests(data, iter(lambda: chance.choice((1, 3, 1000)), None)):
        before = len(seen)
        reply = gateway.answer(request, Peer(("127.0.0.1", 1), ("127.0.0.1", 2), None), memo)
        if len(seen) > before and not request.is_last:
            accepted.append(request.head + request.body)
        else:
            del seen[before:]
        if not isinstance(reply, Reply) or not reply.keep:
            break
    return seen, accepted


def h11s(data: bytes) -> list[Seen]:
    seen: list[Seen] = []
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEADERS)
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
