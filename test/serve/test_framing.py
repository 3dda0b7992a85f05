"""Bytes to requests, with h11 and gunicorn's own parser as witnesses."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice.serve.app import MAX_BODY
from instaslice.serve.framing import MAX_HEADERS, RequestReader
from test.support.witnesses import gunicorns, h11s, ours, requests

HEAD = b"POST /mutate HTTP/1.1\r\nHost: webhook\r\n"


def post(body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{header}\r\n" for header in headers).encode()
    return HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


# -- where a request ends ------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b"{}", b"x" * 100_000, b"\r\n\r\n", b"\r\n"])
def test_a_request_is_its_headers_and_as_much_as_they_say(body: bytes) -> None:
    data = post(body)
    [first, second] = requests(data + post(b"next"))
    assert first.head + first.body == data
    assert (first.length, first.is_last, first.refusal) == (len(body), False, None)
    assert second.body == b"next"


def test_a_request_without_a_length_has_no_body() -> None:
    get = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    assert [(each.head, each.body) for each in requests(get * 3)] == [(get, b"")] * 3


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_requests_come_in_any_pieces(size: int) -> None:
    data = post(b"{}") + b"\r\n" + post(b"[1]") + post(b"")
    reader, found = RequestReader(), []
    for start in range(0, len(data), size):
        assert not reader.is_whole()
        reader.feed(data[start : start + size])
        while reader.is_whole():
            found.append(reader.take().body)
    assert found == [b"{}", b"[1]", b""]
    assert len(reader) == 0


def test_nothing_is_taken_before_it_is_whole() -> None:
    reader = RequestReader()
    with pytest.raises(ValueError, match="no request is whole"):
        reader.take()
    reader.feed(post(b"{}")[:-1])
    assert not reader.is_whole()
    assert len(reader) == len(post(b"{}")) - 1


def test_headers_that_come_byte_by_byte_cost_no_more_than_their_length(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Counted: bytes that are searched for the end, in 30,000 pieces."""
    searched = 0

    class Counting(bytearray):
        def find(self, sub: Any, start: Any = 0, end: Any = None, /) -> int:
            nonlocal searched
            searched += len(self) - start
            return super().find(sub, start, end)

    reader = RequestReader()
    reader._buffer = Counting()
    data = HEAD + b"".join(b"X-%d: %b\r\n" % (i, b"y" * 1000) for i in range(30)) + b"\r\n"
    for at in range(len(data)):
        reader.feed(data[at : at + 1])
        assert reader.is_whole() == (at + 1 == len(data))
    assert searched < 5 * len(data)


# -- what has no length --------------------------------------------------------------------------

REFUSED: dict[str, tuple[bytes, str, str]] = {
    "two lengths": (post(b"{}", "Content-Length: 2"), "400", "more than one Content-Length"),
    "two other lengths": (post(b"{}", "Content-Length: 3"), "400", "more than one Content-Length"),
    "a list of lengths": (HEAD + b"Content-Length: 2, 2\r\n\r\n{}", "400", "not a number"),
    "a length of -1": (HEAD + b"Content-Length: -1\r\n\r\n", "400", "not a number"),
    "a length of +2": (HEAD + b"Content-Length: +2\r\n\r\n{}", "400", "not a number"),
    "a length of 1e3": (HEAD + b"Content-Length: 1e3\r\n\r\n", "400", "not a number"),
    "a length of 1_0": (HEAD + b"Content-Length: 1_0\r\n\r\n", "400", "not a number"),
    "a length of 0x2": (HEAD + b"Content-Length: 0x2\r\n\r\n{}", "400", "not a number"),
    "no length behind its name": (HEAD + b"Content-Length:\r\n\r\n", "400", "not a number"),
    "a superscript": (HEAD + b"Content-Length: \xb2\r\n\r\n{}", "400", "not a number"),
    "a line break behind it": (HEAD + b"Content-Length: 2\r \r\n\r\n{}", "400", "not a number"),
    "chunked": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "411",
        "no Content",
    ),
    "chunked wrongly": (HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", "411", "no Content"),
    "chunked and a length": (post(b"{}", "Transfer-Encoding: chunked"), "411", "no Content-Length"),
    "a length and chunked": (
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        "411",
        "no Content-Length",
    ),
    "an unknown coding": (HEAD + b"Transfer-Encoding: br\r\n\r\n", "411", "no Content-Length"),
    "a blank before the colon": (HEAD + b"Transfer-Encoding : x\r\n\r\n", "411", "no Content"),
    "a megabyte of header": (HEAD + b"X: " + b"x" * 1_000_000 + b"\r\n\r\n", "431", "over 32768"),
    "a hundred thousand headers": (HEAD + b"X: y\r\n" * 100_000, "431", "over 32768 bytes"),
    "two empty lines": (b"\r\n\r\n" + post(b"{}"), "400", "the request line is empty"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_certain_length_is_refused_and_the_last(name: str) -> None:
    data, status, message = REFUSED[name]
    for sizes in (None, iter(lambda: 1, None)):
        [found] = requests(data + post(b"smuggled"), sizes)
        assert found.refusal is not None
        assert found.refusal.status.startswith(status)
        assert message in found.refusal.message
        assert (found.is_last, found.body) == (True, b"")


@pytest.mark.parametrize("digits", [str(MAX_BODY + 1), "1" + "0" * 8, "9" * 5000])
def test_a_body_that_is_too_long_is_not_read(digits: str) -> None:
    [found] = requests(HEAD + f"Content-Length: {digits}\r\n\r\n".encode() + post(b"") * 3)
    assert (found.body, found.is_last, found.refusal) == (b"", True, None)
    assert found.length is not None
    assert found.length > MAX_BODY


def test_headers_and_body_may_be_as_long_as_promised() -> None:
    fixed = post(b"x" * MAX_BODY, "X: ")
    head = fixed[:-MAX_BODY]
    long = head.replace(b"X: ", b"X: " + b"y" * (MAX_HEADERS - len(head)))
    [found] = requests(long + fixed[-MAX_BODY:])
    assert len(found.head) == MAX_HEADERS
    assert len(found.body) == MAX_BODY
    [found] = requests(long.replace(b"X: ", b"X: y") + fixed[-MAX_BODY:])
    assert found.refusal is not None


def test_headers_that_are_too_long_are_held_no_longer() -> None:
    reader = RequestReader()
    reader.feed(HEAD + b"X: " + b"x" * 1_000_000)
    assert reader.take().refusal is not None
    assert len(reader) == 0


def test_headers_that_may_not_go_on_are_refused_without_another_byte() -> None:
    reader = RequestReader()
    reader.feed(HEAD + b"X: " + b"y" * (MAX_HEADERS - len(HEAD) - len(b"X: ") - 1))
    assert not reader.is_whole()
    reader.feed(b"y")
    assert reader.is_whole()
    assert reader.take().refusal is not None


# -- small things --------------------------------------------------------------------------------


@pytest.mark.parametrize("zeros", [1, 20, 4000])
def test_zeros_before_a_length_are_nothing(zeros: int) -> None:
    head = HEAD + b"Content-Length: " + b"0" * zeros + b"2\r\n\r\n"
    [found, after] = requests(head + b"{}" + post(b""))
    assert (found.body, found.length) == (b"{}", 2)
    assert after.body == b""


def test_an_empty_line_after_a_body_is_not_part_of_a_request() -> None:
    reader = RequestReader()
    reader.feed(post(b"{}") + b"\r\n")
    assert reader.take().body == b"{}"
    assert len(reader) == 0
    assert not reader.is_whole()
    reader.feed(post(b"[]"))
    assert reader.take().head == post(b"[]")[:-2]


def test_an_empty_line_may_come_before_each_request() -> None:
    found = requests((b"\r\n" + post(b"{}")) * 3)
    assert [(each.body, each.refusal) for each in found] == [(b"{}", None)] * 3


def test_the_digits_of_a_length_are_no_other_digits() -> None:
    """Or requests for two paths would have all in common."""
    twelve, twenty_one = (
        requests(b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n." % number)[0]
        for number in (12, 21)
    )
    assert twelve.but_for_length == twelve.head.replace(b"Length: 1", b"Length: ")
    assert twelve.but_for_length != twenty_one.but_for_length


def test_requests_that_differ_by_their_length_have_the_rest_in_common() -> None:
    found = requests(post(b"{}") + post(b"x" * 1000) + post(b"{}", "X: y") + HEAD + b"\r\n")
    keys = [each.but_for_length for each in found]
    assert keys[0] == keys[1] == HEAD + b"Content-Length: \r\n\r\n"
    assert len({*keys}) == 3
    assert keys[3] == HEAD + b"\r\n"


WAITS = "Expect: 100-continue"


@pytest.mark.parametrize(
    ("data", "waits"),
    [
        (post(b"{}", WAITS)[:-2], True),
        (post(b"{}", "expect:\t100-CONTINUE ")[:-2], True),
        (post(b"{}", WAITS)[:-1], True),
        (post(b"{}", WAITS), False),
        (post(b"{}")[:-2], False),
        (post(b"", WAITS), False),
        (post(b"{}", WAITS)[:-4], False),
        (post(b"{}", WAITS)[:-2].replace(b"HTTP/1.1", b"HTTP/1.0"), False),
        (post(b"{}", WAITS, "Transfer-Encoding: chunked")[:-2], False),
        (HEAD + f"{WAITS}\r\nContent-Length: {MAX_BODY + 1}\r\n\r\n".encode(), False),
    ],
)
def test_who_waits_to_be_told_to_continue_is_told_once(data: bytes, waits: bool) -> None:
    reader = RequestReader()
    reader.feed(data)
    reader.is_whole()
    assert reader.wants_continue() is waits
    assert not reader.wants_continue()


# -- the witnesses -------------------------------------------------------------------------------

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


#: Mostly right, each wrong in a way of its own.
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
def test_what_is_accepted_is_what_h11_and_gunicorn_accept(
    pieces: list[bytes], chance: random.Random
) -> None:
    """Stricter than both, and never of another opinion on where a request ends."""
    data = b"".join(pieces)
    seen, accepted = ours(data, chance)
    assert seen == gunicorns(data)[: len(seen)]
    # Without the empty lines that were skipped, which h11 refuses.
    assert seen == [each for part in accepted for each in h11s(part)]


@pytest.mark.property
@given(st.lists(GOOD, max_size=4), st.randoms())
def test_good_requests_are_accepted_by_all(sent: list[Any], chance: random.Random) -> None:
    data = b""
    for method, target, body, headers in sent:
        lines = "".join(f"{header}\r\n" for header in headers)
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: x\r\n{lines}Content-Length: {len(body)}\r\n\r\n"
        )
        data += head.encode() + body
    expected = [(method, target, body) for method, target, body, _ in sent]
    assert ours(data, chance)[0] == h11s(data) == gunicorns(data) == expected
