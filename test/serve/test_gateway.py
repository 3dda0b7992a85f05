"""Requests to replies, without a socket."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import h11
import pytest
from gunicorn.config import Config

from instaslice.serve.app import MAX_BODY, MAY_WAIT, PEER, Later
from instaslice.serve.framing import MAX_HEADERS, RequestReader
from instaslice.serve.gateway import MAX_REASON, MAX_REMEMBERED, Gateway, Memo, Peer, Reply, Waiting

CONFIG = Config()
CONFIG.set("http_parser", "python")
CONFIG.set("forwarder_headers", "")
CLIENT = Peer(("192.0.2.1", 4711), ("192.0.2.2", 8443), {"subject": ()})

HEAD = "POST /mutate HTTP/1.1\r\nHost: webhook\r\n"


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Answer with path and body."""
    body = environ["PATH_INFO"].encode() + b" " + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


def answer(
    data: bytes, app: Callable[[Any, Any], Any] = echo, memo: Memo | None = None, **more: Any
) -> Reply:
    """The reply to the first request in some bytes."""
    reader = RequestReader()
    reader.feed(data)
    assert reader.is_whole(), "the request is not whole"
    found = Gateway(app, CONFIG).answer(reader.take(), CLIENT, memo or Memo(), **more)
    assert isinstance(found, Reply)
    return found


def post(body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers)
    return f"{HEAD}{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


def head(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("latin-1")


def test_a_request_is_answered_and_the_connection_kept() -> None:
    reply = answer(post(b"{}"))
    assert reply.data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: keep-alive\r\n" in reply.data
    assert reply.data.endswith(b"\r\n\r\n/mutate {}")
    assert reply.keep


def test_the_application_is_told_who_calls_and_that_it_may_not_wait() -> None:
    told: list[WSGIEnvironment] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        told.append(environ)
        return echo(environ, start_response)

    answer(post(b"{}", "Content-Type: application/json"), app)
    [environ] = told
    assert environ[PEER] is CLIENT.certificate
    assert environ[MAY_WAIT] is False
    assert environ["CONTENT_LENGTH"] == "2"
    assert environ["CONTENT_TYPE"] == "application/json"
    assert (environ["REMOTE_ADDR"], environ["SERVER_PORT"]) == ("192.0.2.1", "8443")
    assert environ["wsgi.url_scheme"] in ("http", "https")
    assert environ["wsgi.multithread"] is True, "what waits is finished on another thread"


# -- what is refused -----------------------------------------------------------------------------

BAD_HTTP: dict[str, tuple[bytes, str]] = {
    "no http": (b"\x00\x01\x02\x03\r\n\r\n", "400"),
    "no version": (head("POST /mutate"), "400"),
    "odd version": (head("POST /mutate HTTP/9.9"), "400"),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400"),
    "odd method": (head("p\xf6st /mutate HTTP/1.1"), "400"),
    "line feeds": (b"POST /mutate HTTP/1.1\nContent-Length: 2\n\n{}\r\n\r\n", "400"),
    "no colon": (head("POST /mutate HTTP/1.1", "Content-Length 2"), "400"),
    "a folded line": (head("POST /mutate HTTP/1.1", "Host: x", "X: y", " z"), "400"),
    "two lengths": (post(b"{}", "Content-Length: 2"), "400"),
    "chunked": (head(HEAD + "Transfer-Encoding: chunked"), "411"),
    "an odd expectation": (post(b"{}", "Expect: a miracle"), "417"),
    "a megabyte of header": (b"GET / HTTP/1.1\r\nX: " + b"x" * 1_000_000 + b"\r\n\r\n", "431"),
    "five hundred headers": (head("GET / HTTP/1.1", *["X: y"] * 500), "431"),
    "a long header": (head("GET / HTTP/1.1", "X: " + "y" * 9000), "431"),
    "a long name that is none": (head("GET / HTTP/1.1", "X" * 5000 + "(: y"), "400"),
    "a long line": (head("GET /" + "x" * 9000 + " HTTP/1.1"), "414"),
    "a line break in a header": (post(b"{}", "X: a\rb"), "400"),
    "a zero byte in a header": (post(b"{}", "X: a\0b"), "400"),
    "two hosts": (head("GET / HTTP/1.1", "Host: x", "Host: x"), "400"),
    "no host": (head("GET / HTTP/1.1"), "400"),
    "no host but a body": (post(b"{}").replace(b"Host: webhook\r\n", b""), "400"),
    "a coding and a length": (post(b"{}", "Transfer-Encoding: chunked"), "411"),
}


@pytest.mark.parametrize("name", BAD_HTTP)
def test_bad_http_is_refused_in_a_line_and_ends_the_connection(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("instaslice"), "propagate", True)
    data, status = BAD_HTTP[name]

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        raise AssertionError("the application was asked")

    reply = answer(data, app)
    top, _, text = reply.data.partition(b"\r\n\r\n")
    assert top.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nConnection: close\r\n" in top
    assert f"Content-Length: {len(text)}".encode() in top
    assert text.endswith(b"\n")
    assert text.count(b"\n") == 1
    assert text.isascii()
    assert len(text) <= MAX_REASON + 1
    assert not reply.keep
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert record.__dict__["fields"]["reason"] == text.decode().rstrip("\n")


def test_an_old_client_needs_no_host() -> None:
    reply = answer(head("GET /x HTTP/1.0"))
    # In the server's own version (RFC 9110, section 6.2).
    assert reply.data.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_script_name_is_a_header_like_any_other() -> None:
    assert answer(post(b"{}", "SCRIPT_NAME: /x")).data.endswith(b"/mutate {}")


def test_headers_may_be_as_long_as_promised() -> None:
    lines = [f"X-{i}: {'y' * 1000}" for i in range(MAX_HEADERS // 1024 - 2)]
    assert answer(post(b"{}", *lines)).data.startswith(b"HTTP/1.1 200 OK\r\n")


# -- which reply is the last ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_line", "connection", "keep"),
    [
        ("GET / HTTP/1.1", "", True),
        ("GET / HTTP/1.1", "Connection: close", False),
        ("GET / HTTP/1.1", "Connection: close, TE", False),
        ("GET / HTTP/1.1", "Connection: TE, Close", False),
        ("GET / HTTP/1.1", "Connection: TE\r\nConnection: close", False),
        ("GET / HTTP/1.1", "Connection: keep-alive", True),
        ("GET / HTTP/1.1", "Connection: closed", True),
        ("HEAD / HTTP/1.1", "", True),
        ("GET / HTTP/1.1", "X: close", True),
        ("GET / HTTP/1.0", "", False),
        ("GET / HTTP/1.0", "Connection: keep-alive", True),
        ("GET / HTTP/1.0", "Connection: keep-alive, close", False),
    ],
)
def test_the_client_says_whether_it_wants_more(
    request_line: str, connection: str, keep: bool
) -> None:
    lines = filter(None, (request_line, "Host: x", connection))
    memo = Memo()
    for _ in range(2):
        reply = answer(head(*lines), memo=memo) if not memo.head else answer(memo.head, memo=memo)
        assert reply.keep is keep
        word = b"keep-alive" if keep else b"close"
        assert b"\r\nConnection: " + word + b"\r\n" in reply.data


def test_the_server_may_want_no_more() -> None:
    reply = answer(post(b"{}"), is_last=True)
    assert not reply.keep
    assert b"\r\nConnection: close\r\n" in reply.data


def test_after_a_body_that_is_not_read_the_connection_ends() -> None:
    lengths: list[str] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        lengths.append(environ["CONTENT_LENGTH"])
        return echo(environ, start_response)

    for digits in (str(MAX_BODY + 1), "9" * 1000):
        reply = answer(f"{HEAD}Content-Length: {digits}\r\n\r\n".encode() + b"GET / ", app)
        assert not reply.keep
        assert b"\r\nConnection: close\r\n" in reply.data
    assert [int(length) > MAX_BODY for length in lengths] == [True, True]


# -- what is remembered --------------------------------------------------------------------------


def test_each_request_is_read_by_its_own_headers() -> None:
    memo = Memo()
    for method, path, body in [
        ("POST", "/a", b"{}"),
        ("POST", "/a", b"x" * 10_000),
        ("POST", "/b", b"{}"),
        ("PUT", "/b", b"{}"),
        ("POST", "/a", b"{}"),
        ("POST", "/a", b""),
    ]:
        top = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        assert answer(top.encode() + body, memo=memo).data.endswith(f"{path} ".encode() + body)


def test_headers_that_differ_by_the_length_are_parsed_once() -> None:
    memo = Memo()
    answer(post(b"{}"), memo=memo)
    environ = memo.environ
    answer(post(b"[1, 2, 3]"), memo=memo)
    assert memo.environ is environ
    answer(post(b"{}", "X: y"), memo=memo)
    assert memo.environ is not environ


def test_remembered_headers_have_the_length_of_their_own_request() -> None:
    lengths: list[str] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        lengths.append(environ["CONTENT_LENGTH"])
        return echo(environ, start_response)

    memo = Memo()
    for body in (b"{}", b"[1, 2, 3]", b""):
        answer(post(body), app, memo)
    assert lengths == ["2", "9", "0"]


def test_headers_are_remembered_up_to_a_length() -> None:
    memo = Memo()
    # The length's digit is not remembered.
    filler = MAX_REMEMBERED - len(post(b"", "X: ")) + 1
    answer(post(b"", "X: " + "y" * filler), memo=memo)
    assert len(memo.head) == MAX_REMEMBERED
    longer = Memo()
    answer(post(b"", "X: " + "y" * (filler + 1)), memo=longer)
    assert longer.head == b""


def test_long_headers_are_not_remembered() -> None:
    memo = Memo()
    answer(post(b"{}", "X: " + "y" * MAX_REMEMBERED), memo=memo)
    assert (memo.head, memo.environ) == (b"", {})


def test_a_refused_request_is_not_remembered() -> None:
    memo = Memo()
    bad = post(b"{}").replace(b"Host: webhook\r\n", b"")
    for _ in range(2):
        assert answer(bad, memo=memo).data.startswith(b"HTTP/1.1 400 ")


# -- answers that wait, and faults ---------------------------------------------------------------


def test_what_must_wait_is_finished_by_whoever_may() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        body = environ["wsgi.input"].read()

        def resume(start_later: StartResponse) -> list[bytes]:
            start_later("200 OK", [("Content-Length", str(len(body)))])
            return [body]

        raise Later(resume, 2)

    reader = RequestReader()
    reader.feed(post(b"{}"))
    later = Gateway(app, CONFIG).answer(reader.take(), CLIENT, Memo())
    assert isinstance(later, Waiting)
    assert later.size == 2
    reply = later.finish()
    assert reply.data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert reply.data.endswith(b"\r\n\r\n{}")
    assert reply.keep


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError, "500 Internal"), (MemoryError, "503 Service")]
)
def test_a_fault_is_a_line_for_the_caller_and_the_rest_in_the_log(
    error: type[Exception],
    status: str,
    waits: bool,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("instaslice"), "propagate", True)

    def fail(start_response: StartResponse) -> list[bytes]:
        raise error

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        if waits:
            raise Later(fail, 0)
        return fail(start_response)

    reader = RequestReader()
    reader.feed(post(b"{}"))
    reply = Gateway(app, CONFIG).answer(reader.take(), CLIENT, Memo())
    if isinstance(reply, Waiting):
        reply = reply.finish()
    assert reply.data.startswith(f"HTTP/1.1 {status}".encode())
    assert not reply.keep
    [record] = caplog.records
    assert record.levelname == "ERROR"
    assert bool(record.exc_info) == (error is not MemoryError), "a traceback takes memory, too"


# -- the bytes of a reply ------------------------------------------------------------------------


def test_a_reply_is_http_with_a_date() -> None:
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="POST", target="/mutate", headers=[("Host", "webhook")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(answer(post(b"{}")).data)
    response, data = connection.next_event(), connection.next_event()
    assert isinstance(response, h11.Response)
    assert (response.http_version, response.status_code, response.reason) == (b"1.1", 200, b"OK")
    headers = dict(response.headers)
    assert headers.keys() == {b"date", b"connection", b"content-length"}
    made = parsedate_to_datetime(headers[b"date"].decode())
    assert abs(datetime.now(UTC) - made) < timedelta(minutes=10)
    assert isinstance(data, h11.Data)
    assert data.data == b"/mutate {}"


def test_a_header_may_be_in_latin_1() -> None:
    """PEP 3333, "Unicode Issues"."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        start_response("200 OK", [("X-Name", "Gl\xfcck"), ("Content-Length", "0")])
        return []

    assert b"\r\nX-Name: Gl\xfcck\r\n" in answer(post(b"{}"), app).data


def test_an_environ_holds_nothing_that_writes_to_a_socket_and_no_other_request() -> None:
    environs: list[WSGIEnvironment] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        environs.append(environ)
        environ["mark"] = len(environs)
        return echo(environ, start_response)

    memo = Memo()
    for _ in range(2):
        answer(post(b"{}"), app, memo)
    assert [environ["mark"] for environ in environs] == [1, 2]
    assert "mark" not in memo.environ
    assert not {"gunicorn.socket", "wsgi.early_hints"} & environs[0].keys()
