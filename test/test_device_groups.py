"""R6 by numbers; `test_rewrite` holds the same for whole pods."""

import pytest

from instaslice.device_groups import Demand, Group, groups, held

CONTAINER = Demand(0, 3, "container")


def init(user: int, count: int) -> Demand:
    return Demand(user, count, "init")


def sidecar(user: int, count: int) -> Demand:
    return Demand(user, count, "sidecar")


@pytest.mark.parametrize(
    ("demands", "wanted"),
    [
        ([], []),
        ([CONTAINER], [Group((0,), 3)]),
        ([CONTAINER, Demand(1, 1, "container")], [Group((0,), 3), Group((1,), 1)]),
        # An init container uses a part, the whole, or more than there is.
        ([CONTAINER, init(1, 1)], [Group((0, 1), 1), Group((0,), 2)]),
        ([CONTAINER, init(1, 3)], [Group((0, 1), 3)]),
        ([CONTAINER, init(1, 5)], [Group((0, 1), 3), Group((1,), 2)]),
        ([init(0, 2)], [Group((0,), 2)]),
        # Init containers share what only they need.
        (
            [CONTAINER, init(1, 4), init(2, 5)],
            [Group((0, 1, 2), 3), Group((1, 2), 1), Group((2,), 1)],
        ),
        # A sidecar's slices are free for those before it, and taken for those after it.
        ([sidecar(0, 2), init(1, 1)], [Group((1,), 1), Group((0,), 2)]),
        ([init(0, 1), sidecar(1, 2)], [Group((0, 1), 1), Group((1,), 1)]),
        (
            [sidecar(0, 1), init(1, 2), sidecar(2, 1)],
            [Group((1,), 1), Group((1, 2), 1), Group((0,), 1)],
        ),
    ],
)
def test_who_uses_what(demands: list[Demand], wanted: list[Group]) -> None:
    assert groups(demands, 32) == wanted
    assert held(demands) == sum(group.devices for group in wanted)


@pytest.mark.parametrize(("most", "sizes"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (32, [5])])
def test_a_group_is_cut_to_what_a_claim_holds(most: int, sizes: list[int]) -> None:
    assert [group.devices for group in groups([Demand(0, 5, "container")], most)] == sizes
