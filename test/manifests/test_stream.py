"""A stream is cut between documents, wherever the chunks end in which it is read."""

import io
import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice.manifests.stream import pieces


def in_chunks(data: bytes, size: int) -> Callable[[int], bytes]:
    """Reads at most so many bytes at once."""
    stream = io.BytesIO(data)
    return lambda most: stream.read(min(size, most))


def cut(data: bytes, size: int = 1 << 20) -> list[bytes]:
    return [piece.data for piece in pieces(in_chunks(data, size))]


@pytest.mark.parametrize(
    "documents",
    [
        [b""],
        [b"a: 1"],
        [b"a: 1\n", b"---\nb: 2\n"],
        [b"---\na: 1\n", b"--- # second\nb: 2\n", b"---"],
        [b"a: 1\n", b"...\n", b"---\nb: 2"],
        [b"a: |\n  ---\n  ...\n", b"---\r\nb: 2\r\n"],
        [b"----\n--- a\n"[:5], b"--- a\n"],
        [b'{"a": 1}\n', b'{"b": 2}\n'],
        [b'{\n"a": [\n{}\n, {}\n]}\n', b'\n{"b": 2}'],
        [b'\xef\xbb\xbf{"a": 1}\n', b'{"b": 2}'],
        [b'---\n{"a": 1}\n', b'{"b": 2}\n'],
        [b"{a: 1}\n{b: 2}\n"],  # not JSON: one document, with something wrong in it
        [b'{"a": 1} {"b": 2}'],  # likewise
    ],
)
def test_documents(documents: list[bytes]) -> None:
    data = b"".join(documents)
    found = [piece for piece in documents if piece]
    for size in (1, 2, 3, 7, 1 << 20):
        assert cut(data, size) == found


def test_a_piece_knows_its_place() -> None:
    found = list(pieces(in_chunks(b"a: 1\n---\nb: 2\n---\nc: 3\n", 4)))
    assert [(piece.line, piece.offset) for piece in found] == [(1, 0), (2, 5), (4, 14)]


@pytest.mark.property
@given(st.text(alphabet='-. {}\n\r\t"a:,[]\ufeff'), st.integers(1, 5))
def test_nothing_is_lost_and_chunks_do_not_matter(text: str, size: int) -> None:
    data = text.encode()
    assert b"".join(cut(data, size)) == data
    assert cut(data, size) == cut(data)


@pytest.mark.property
@given(
    st.lists(
        st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=3),
        min_size=1,
        max_size=5,
    ),
    st.booleans(),
)
def test_objects_of_json_are_documents_each(objects: list[dict[str, str]], spread: bool) -> None:
    texts = [json.dumps(each, indent=2 if spread else None).encode() + b"\n" for each in objects]
    assert cut(b"".join(texts)) == texts
