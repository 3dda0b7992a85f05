"""The requests that cost a server the most memory, of those that it does not refuse at once."""

import contextlib
import json
import ssl

from instaslice.serve.judge import estimate
from instaslice.serve.limits import Limits
from test.support.reviews import load
from test.support.serving import Server

MAX_BODY, MAX_DECODED = Limits().body, Limits().decoded
#: The server does not remember longer headers.
_LONG = "".join(f"X-{i}: {'y' * 100}\r\n" for i in range(16))


def dense(namespace: str = "default") -> bytes:
    """A review of 7 MiB that takes the most memory once it is decoded.

    It has as many lists in lists as are accepted (104 bytes for two of the body), then short
    strings (64 bytes for five), and a character that makes Python use four bytes for each.
    """
    review = load("create", "sample")
    review["request"]["namespace"] = namespace
    review["request"]["object"]["x"] = "@"
    around = json.dumps(review)
    nest = "[" * 900 + "]" * 900 + ","
    lists = nest * (MAX_DECODED // estimate(nest.encode()) - 1)
    strings = '"ab",' * ((MAX_BODY - len(around) - len(lists) - 100) // 5)
    body = around.replace('"@"', f'[{lists}{strings}"\N{GRINNING FACE}"]').encode()
    assert estimate(body) <= MAX_DECODED
    assert len(body) <= MAX_BODY
    return body


def hold_idle(server: Server, stack: contextlib.ExitStack, number: int) -> None:
    """Open idle connections, each after a request with long headers, which the server remembers."""
    request = f"GET /healthz HTTP/1.1\r\nHost: x\r\n{_LONG}\r\n".encode()
    for _ in range(number):
        connection = stack.enter_context(server.raw())
        connection.sendall(request)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")


def hold_unfinished(server: Server, stack: contextlib.ExitStack, size: int) -> list[ssl.SSLSocket]:
    """Send `size` bytes of unfinished requests."""
    connections = []
    head = f"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Length: {MAX_BODY}\r\n\r\n".encode()
    while size > 0:
        connection = stack.enter_context(server.raw())
        with contextlib.suppress(OSError):  # the server may close it to make room
            connection.sendall(head + b"x" * min(size, MAX_BODY - 1))
        connections.append(connection)
        size -= MAX_BODY
    return connections
