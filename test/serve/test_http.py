"""Requests, environs and replies. Other parsers, h11 and gunicorn's own, check the requests."""

import random
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice.serve.http import MAY_WAIT, PEER, Peer, Reader, Reply, Request
from instaslice.serve.limits import Limits
from test.support.witnesses import gunicorns, h11s, ours, requests

MAX_BODY, MAX_HEADERS = Limits().body, Limits().headers
CLIENT = Peer("192.0.2.1", ("192.0.2.2", 8443), {"subject": ()})
HEAD = b"POST /mutate HTTP/1.1\r\nHost: webhook\r\n"


def reader() -> Reader:
    return Reader(MAX_BODY, MAX_HEADERS)


def post(body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers).encode("latin-1")
    return HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


def head(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def read(data: bytes) -> Request:
    """The first request in some bytes."""
    return requests(data)[0]


# -- where a request ends ------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"{}", b"x" * 100_000, b"\r\n\r\n", b"\r\n"])
def test_a_request_is_its_headers_and_the_declared_body(body: bytes) -> None:
    [first, second] = requests(post(body) + post(b"next"))
    assert (first.body, first.length, first.keep, first.refusal) == (body, len(body), True, None)
    assert second.body == b"next"


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_requests_may_arrive_in_any_pieces(size: int) -> None:
    get = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    data = post(b"{}") + b"\r\n" + post(b"[1]") + b"\r\n" + get + post(b"")
    some, found = reader(), []
    with pytest.raises(ValueError, match="no request is whole"):
        some.take()
    for start in range(0, len(data), size):
        assert not some.is_whole()
        some.feed(data[start : start + size])
        while some.is_whole():
            found.append(some.take().body)
    assert found == [b"{}", b"[1]", b"", b""]
    assert len(some) == 0


def test_headers_byte_by_byte_cost_linear_time() -> None:
    """The test counts the bytes that are searched for the end, in 30,000 pieces."""
    searched = 0

    class Counting(bytearray):
        def find(self, sub: Any, start: Any = 0, end: Any = None, /) -> int:
            nonlocal searched
            searched += len(self) - start
            return super().find(sub, start, end)

    some = reader()
    some._buffer = Counting()
    data = HEAD + b"".join(b"X-%d: %b\r\n" % (i, b"y" * 1000) for i in range(30)) + b"\r\n"
    for at in range(len(data)):
        some.feed(data[at : at + 1])
        assert some.is_whole() == (at + 1 == len(data))
    assert searched < 5 * len(data)


@pytest.mark.parametrize("digits", [str(MAX_BODY + 1), "1" + "0" * 8, "9" * 5000])
def test_a_body_that_is_too_long_is_not_read(digits: str) -> None:
    [found] = requests(HEAD + f"Content-Length: {digits}\r\n\r\n".encode() + post(b"") * 3)
    assert (found.body, found.keep, found.refusal) == (b"", False, None)
    assert found.length is not None
    assert found.length > MAX_BODY


def test_headers_and_body_may_reach_their_limits() -> None:
    fixed = post(b"x" * MAX_BODY, "X: ")
    top, body = fixed[:-MAX_BODY], fixed[-MAX_BODY:]
    long = top.replace(b"X: ", b"X: " + b"y" * (MAX_HEADERS - len(top)))
    assert len(read(long + body).body) == MAX_BODY
    some = reader()
    some.feed(long.replace(b"X: ", b"X: y")[: MAX_HEADERS - 1])
    assert not some.is_whole()
    some.feed(b"y")
    assert some.take().refusal is not None
    assert len(some) == 0, "the bytes are dropped"


# -- refused requests ----------------------------------------------------------------------------

GET = "GET / HTTP/1.1"
REFUSED: dict[str, tuple[bytes, str, str]] = {
    "two lengths": (post(b"{}", "Content-Length: 2"), "400", "more than one Content-Length"),
    "a list of lengths": (HEAD + b"Content-Length: 2, 2\r\n\r\n{}", "400", "not a number"),
    "a length of -1": (HEAD + b"Content-Length: -1\r\n\r\n", "400", "not a number"),
    "a length of +2": (HEAD + b"Content-Length: +2\r\n\r\n{}", "400", "not a number"),
    "a length of 1_0": (HEAD + b"Content-Length: 1_0\r\n\r\n", "400", "not a number"),
    "an empty length": (HEAD + b"Content-Length:\r\n\r\n", "400", "not a number"),
    "a superscript": (HEAD + b"Content-Length: \xb2\r\n\r\n", "400", "not a number"),
    "a line break after a length": (
        HEAD + b"Content-Length: 2\r \r\n\r\n{}",
        "400",
        "cannot be read",
    ),
    "chunked": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}", "411", "no Content-Length"),
    "chunked and a length": (post(b"{}", "Transfer-Encoding: chunked"), "411", "no Content"),
    "an unknown coding": (HEAD + b"Transfer-Encoding: br\r\n\r\n", "411", "no Content-Length"),
    "a blank before the colon": (HEAD + b"Transfer-Encoding : x\r\n\r\n", "400", "cannot be"),
    "a megabyte of header": (HEAD + b"X: " + b"x" * 1_000_000, "431", "over 32768 bytes"),
    "a hundred thousand headers": (HEAD + b"X: y\r\n" * 100_000, "431", "over 32768 bytes"),
    "many headers": (head(GET, *["X: y"] * 500), "431", "over 100 headers"),
    "two empty lines": (b"\r\n\r\n" + post(b"{}"), "400", "the request line is empty"),
    "no http": (b"\x00\x01\x02\x03\r\n\r\n", "400", "the request line cannot be read"),
    "no version": (head("POST /mutate"), "400", "the request line cannot be read"),
    "odd version": (head("POST /mutate HTTP/9.9"), "400", "the request line cannot be read"),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400", "the request line cannot"),
    "odd method": (head("p\xf6st /mutate HTTP/1.1"), "400", "the request line cannot be read"),
    "line feeds": (b"POST / HTTP/1.1\nX: y\n\n{}\r\n\r\n", "400", "the request line cannot be"),
    "no colon": (head(GET, "Content-Length 2"), "400", "the headers cannot be read"),
    "a folded line": (head(GET, "Host: x", "X: y", " z"), "400", "the headers cannot be read"),
    "an odd expectation": (post(b"{}", "Expect: a miracle"), "417", "only 100-continue"),
    "a long invalid name": (head(GET, "X" * 9000 + "(: y"), "400", "the headers cannot be"),
    "a long line": (head("GET /" + "x" * 9000 + " HTTP/1.1"), "414", "the target is over 8192"),
    "no path": (head("GET x HTTP/1.1", "Host: x"), "400", "the target is not a path"),
    "a line break in a header": (post(b"{}", "X: a\rb"), "400", "the headers cannot be read"),
    "a zero byte in a header": (post(b"{}", "X: a\0b"), "400", "the headers cannot be read"),
    "two hosts": (head(GET, "Host: x", "Host: x"), "400", "there is more than one Host"),
    "no host": (head(GET), "400", "there is no Host"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_ambiguous_request_is_refused_and_is_the_last_one(name: str) -> None:
    data, status, message = REFUSED[name]
    for sizes in (None, iter(lambda: 1, None)):
        [found] = requests(data + post(b"smuggled"), sizes)
        assert found.refusal is not None
        assert found.refusal.status.startswith(status)
        assert message in found.refusal.message
        assert (found.keep, found.body) == (False, b"")
        reply = Reply.refusing(found.refusal)
    top, _, text = reply.data.partition(b"\r\n\r\n")
    assert top.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"Content-Length: {len(text)}".encode() in top
    assert (text.count(b"\n"), text.isascii(), reply.keep) == (1, True, False)


# -- single headers ------------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [1, 20, 4000])
def test_a_length_may_have_leading_zeros(zeros: int) -> None:
    top = HEAD + b"Content-Length: " + b"0" * zeros + b"2\r\n\r\n"
    [found, after] = requests(top + b"{}" + post(b""))
    assert (found.body, found.length, after.body) == (b"{}", 2, b"")


WAITS = "Expect: 100-continue"


@pytest.mark.parametrize(
    ("data", "waits"),
    [
        (post(b"{}", WAITS)[:-2], True),
        (post(b"{}", "expect:\t100-CONTINUE ")[:-1], True),
        (post(b"{}", WAITS), False),
        (post(b"{}")[:-2], False),
        (post(b"", WAITS), False),
        (post(b"{}", WAITS)[:-4], False),
        (post(b"{}", WAITS)[:-2].replace(b"HTTP/1.1", b"HTTP/1.0"), False),
        (HEAD + f"{WAITS}\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n".encode(), False),
    ],
)
def test_an_expectation_is_answered_once(data: bytes, waits: bool) -> None:
    some = reader()
    some.feed(data)
    some.is_whole()
    assert some.wants_continue() is waits
    assert not some.wants_continue()


@pytest.mark.parametrize(
    ("request_line", "connection", "keep"),
    [
        (GET, "X: close", True),
        (GET, "Connection: close", False),
        (GET, "Connection: close, TE", False),
        (GET, "Connection: TE\r\nConnection: Close", False),
        (GET, "Connection: keep-alive", True),
        (GET, "Connection: closed", True),
        ("GET / HTTP/1.0", "X: y", False),
        ("GET / HTTP/1.0", "Connection: keep-alive", True),
        ("GET / HTTP/1.0", "Connection: keep-alive, close", False),
    ],
)
def test_the_client_decides_whether_the_connection_stays(
    request_line: str, connection: str, keep: bool
) -> None:
    assert read(head(request_line, "Host: x", connection)).keep is keep


def test_the_environ_has_the_caller_and_whether_it_may_wait() -> None:
    data = post(b"{}", "Content-Type: application/json", "X-A: Gl\xfcck", "X_A: not mine")
    environ = read(data.replace(b"/mutate", b"/a%20b?c=%41")).environ(CLIENT, False)
    assert environ[PEER] is CLIENT.certificate
    assert environ[MAY_WAIT] is False
    assert environ["wsgi.input"].read() == b"{}"
    expected = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/a b",
        "QUERY_STRING": "c=%41",
        "CONTENT_LENGTH": "2",
        "CONTENT_TYPE": "application/json",
        "REMOTE_ADDR": "192.0.2.1",
        "SERVER_PORT": "8443",
        "wsgi.url_scheme": "https",
        "HTTP_X_A": "Gl\xfcck",
    }
    assert {key: environ[key] for key in expected} == expected
    assert read(head("GET http://x/y HTTP/1.0")).environ(CLIENT, True)["PATH_INFO"] == "/y"


def test_a_reply_has_a_date() -> None:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/mutate", headers=[("Host", "webhook")]))
    connection.send(h11.EndOfMessage())
    # Headers may be in Latin 1 (PEP 3333, "Unicode Issues").
    made = Reply.make("200 OK", [("X", "Gl\xfcck"), ("Content-Length", "2")], b"{}", True)
    connection.receive_data(made.data)
    response, data = connection.next_event(), connection.next_event()
    assert isinstance(response, h11.Response)
    assert (response.http_version, response.status_code, response.reason) == (b"1.1", 200, b"OK")
    headers = dict(response.headers)
    assert headers.keys() == {b"date", b"connection", b"content-length", b"x"}
    date = parsedate_to_datetime(headers[b"date"].decode())
    assert abs(datetime.now(UTC) - date) < timedelta(minutes=10)
    assert isinstance(data, h11.Data)
    assert data.data == b"{}"


# -- other parsers -------------------------------------------------------------------------------

LINES = st.sampled_from(
    [b"POST /mutate HTTP/1.1\r\n", b"GET /healthz HTTP/1.1\r\n", b"HEAD / HTTP/1.0\r\n"]
)
FIELDS = st.sampled_from(
    [
        *(b"Host: x\r\n", b"Host: x\r\n", b"Host: y\r\n", b"Content-Length: 2\r\n"),
        *(b"content-length:2\r\n", b"Content-Length: 02\r\n", b"Content-Length: 0\r\n"),
        *(b"Content-Length: 2, 2\r\n", b"Content-Length: -1\r\n", b"Content-Length: 4\r\n"),
        *(b"Content-Length : 2\r\n", b"Content-Length: 2\r \r\n", b"Connection: close\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"X: y\r\n", b"X: \r\n", b" folded\r\n"),
        *(b": y\r\n", b"X\r\n", b"X:\x00\r\n", b"X: y\n", b"\xff: y\r\n"),
    ]
)
BODIES = st.sampled_from(
    [b"", b"{}", b"{}", b"[{}]", b"\r\n", b"{}\r\n", b"2\r\n{}\r\n0\r\n\r\n", b"\r", b"\n"]
)


def join(line: bytes, fields: list[bytes], body: bytes) -> bytes:
    return (
        line + b"Host: x\r\n" * (b"Host: x\r\n" not in fields) + b"".join(fields) + b"\r\n" + body
    )


#: Most are valid; the others are wrong in different ways.
REQUESTS = st.builds(join, LINES, st.lists(FIELDS, max_size=3), BODIES)
PIECES = st.one_of(REQUESTS, REQUESTS, REQUESTS, LINES, FIELDS, BODIES)
GOOD = st.tuples(
    st.sampled_from(["GET", "POST", "PUT", "HEAD"]),
    st.sampled_from(["/", "/mutate?timeout=5s", "/%41", "http://x/y"]),
    st.binary(max_size=40),
    st.lists(st.sampled_from(["X: y", "X-Long: " + "z" * 500, "Accept: */*", "a:b"]), max_size=5),
)


@pytest.mark.property
@given(st.lists(PIECES, max_size=5), st.randoms())
def test_accepted_requests_are_read_as_h11_and_gunicorn_read_them(
    pieces: list[bytes], chance: random.Random
) -> None:
    """InstaSlice is stricter than both, and agrees with them on where a request ends."""
    data = b"".join(pieces)
    seen, accepted = ours(data, chance)
    assert seen == gunicorns(data)[: len(seen)]
    assert seen == [each for part in accepted for each in h11s(part)]


@pytest.mark.property
@given(st.lists(GOOD, max_size=4), st.randoms())
def test_good_requests_are_accepted_by_all_three(sent: list[Any], chance: random.Random) -> None:
    data = b""
    for method, target, body, headers in sent:
        lines = "".join(f"{header}\r\n" for header in headers)
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
        )
        data += head.encode() + body
    expected = [(method, target, body) for method, target, body, _ in sent]
    assert ours(data, chance)[0] == h11s(data) == gunicorns(data) == expected
