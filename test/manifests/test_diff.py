"""The diff equals that of `diff -u`, and applying it as a patch gives the rewritten text."""

from difflib import unified_diff

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice.manifests import files
from instaslice.manifests.edit import Edit, applied


@st.composite
def edited(draw: st.DrawFn) -> tuple[str, list[Edit]]:
    """Some lines, with edits of whole lines and edits within lines."""
    lines = draw(st.lists(st.sampled_from(["a\n", "b\n", "\n", "cc\r\n"]), max_size=40))
    text = "".join(lines)
    places = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8, unique=True)))
    edits = []
    for start, end in zip(places[::2], places[1::2], strict=False):
        new = draw(st.sampled_from(["", "x", "y\n", "z\nz\n"]))
        # An edit up to the end of a line keeps a line end, unless it removes whole lines.
        goes = not new and (start == 0 or text[start - 1] == "\n")
        if text[:end].endswith("\n") and not new.endswith("\n") and not goes:
            new += "\n"
        edits.append(Edit(start, end, new))
    if draw(st.booleans()):
        edits.append(Edit(len(text), len(text), "---\nnew\n"))
    return text, edits


@pytest.mark.property
@given(edited=edited())
def test_diff_covers_the_whole_file(edited: tuple[str, list[Edit]]) -> None:
    before, after = edited[0], applied(*edited)
    found = "".join(files.diff("f", *edited))
    assert _patched(before, found) == after
    assert found or before == after


def _patched(before: str, diff: str) -> str:
    """Apply a unified diff to a text, and check the numbers of hunks and every line."""
    old = _lines(before)
    new: list[str] = []
    place = 0
    for line in _lines(diff)[2:]:
        if line.startswith("@@"):
            start, _, length = line.split()[1][1:].partition(",")
            first = int(start) - (length != "0")
            new += old[place:first]
            place = first
            their = line.split()[2][1:].partition(",")
            assert int(their[0]) - (their[2] != "0") == len(new)
        elif line[0] == "+":
            new.append(line[1:])
        else:
            assert old[place] == line[1:]
            place += 1
            if line[0] == " ":
                new.append(line[1:])
    return "".join(new + old[place:])


def _lines(text: str) -> list[str]:
    return [line + "\n" for line in text.split("\n")[:-1]]


def test_missing_line_end_is_added() -> None:
    found = files.diff("f", "a: 1", [Edit(4, 4, "\n---\nb\n")])
    assert "".join(found) == (
        "--- a/f\n+++ b/f\n@@ -1 +1,3 @@\n-a: 1\n\\ No newline at end of file\n+a: 1\n+---\n+b\n"
    )


@pytest.mark.parametrize("apart", [1, 5, 6, 7, 8])
def test_hunks_are_joined_as_in_difflib(apart: int) -> None:
    lines = [f"{n}\n" for n in range(20 + apart)]
    before = "".join(lines)
    first, second = before.index("5\n"), before.index(f"{6 + apart}\n")
    edits = [Edit(first, first + 1, "x"), Edit(second, second + len(f"{6 + apart}"), "y")]
    after = applied(before, edits)
    theirs = unified_diff(_lines(before), _lines(after), "a/f", "b/f")
    assert [*files.diff("f", before, edits)] == [*theirs]
