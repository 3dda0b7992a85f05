"""The cost of a review grows at most linearly, whichever part of it is large (R8)."""

import pytest

from instaslice import review
from instaslice.resource_api import NEWEST
from test.support.counting import lines_of_python
from test.support.reviews import Json
from test.support.shapes import SHAPES


def lines(recorded: Json) -> int:
    """The number of lines of Python that run for an answer."""

    def answer() -> None:
        request = review.read(recorded)
        review.respond(request, review.judge(request, NEWEST), [])

    return lines_of_python(answer)


@pytest.mark.parametrize("shape", SHAPES)
def test_doubling_the_size_at_most_doubles_the_cost(shape: str) -> None:
    make = SHAPES[shape]
    once, twice = lines(make(400)), lines(make(800))
    assert twice <= 2.3 * once
    # This also holds beyond every bound.
    assert lines(make(8000)) <= 2.3 * lines(make(4000))
