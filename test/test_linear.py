"""What a review costs grows with its size and no faster, in whatever it is large (R8)."""

import pytest

from instaslice import review
from instaslice.resource_api import NEWEST
from test.support.counting import lines_of_python
from test.support.reviews import Json
from test.support.shapes import SHAPES


def lines(recorded: Json) -> int:
    """How many lines of Python run for an answer."""

    def answer() -> None:
        request = review.read(recorded)
        review.respond(request, review.judge(request, NEWEST), [])

    return lines_of_python(answer)


@pytest.mark.parametrize("shape", SHAPES)
def test_twice_the_size_costs_at_most_twice_as_much(shape: str) -> None:
    make = SHAPES[shape]
    once, twice = lines(make(400)), lines(make(800))
    assert twice <= 2.3 * once
    # Beyond every bound it goes on so.
    assert lines(make(8000)) <= 2.3 * lines(make(4000))
