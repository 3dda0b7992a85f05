"""How long, how much, and who goes first: numbers in, numbers out."""

import itertools

import pytest

from instaslice.serve import room
from instaslice.serve.app import MAX_BODY
from instaslice.serve.room import ARRIVAL, FAREWELL, PROMPT, WRAP_UP, Phase
from instaslice.serve.templates import Limits
from instaslice.webhook_configuration import webhook_configuration

LONG = PROMPT + 0.001


def test_each_phase_has_its_time() -> None:
    assert {phase: room.patience(phase, 120.0) for phase in Phase if phase != Phase.CLOSED} == {
        Phase.HANDSHAKE: ARRIVAL,
        Phase.IDLE: 120.0,
        Phase.ARRIVING: ARRIVAL,
        Phase.WORKING: float("inf"),
        Phase.WRITING: ARRIVAL,
        Phase.LINGERING: FAREWELL,
    }


#: phase, seconds in it, whether a request was answered: those who are missed least come first.
ORDER: list[list[tuple[Phase, float, bool]]] = [
    [(Phase.LINGERING, LONG, True)],
    [(Phase.IDLE, LONG, False), (Phase.IDLE, 100.0, False)],
    [
        (Phase.HANDSHAKE, LONG, False),
        (Phase.ARRIVING, LONG, False),
        (Phase.ARRIVING, LONG, True),
        (Phase.WRITING, LONG, True),
    ],
    [(Phase.IDLE, LONG, True), (Phase.IDLE, 100.0, True)],
    [
        (Phase.HANDSHAKE, 0.0, False),
        (Phase.IDLE, PROMPT, False),
        (Phase.IDLE, 0.0, True),
        (Phase.ARRIVING, PROMPT, True),
        (Phase.WRITING, 0.0, True),
        (Phase.LINGERING, PROMPT, True),
    ],
]


def test_who_goes_first() -> None:
    ranks = [{room.rank(*each) for each in equals} for equals in ORDER]
    assert all(len(equal) == 1 for equal in ranks)
    order = [rank for [rank] in map(list, ranks)]
    assert all(one is not None and other is not None for one, other in itertools.pairwise(order))
    assert order == sorted(order, key=lambda rank: rank or 0)
    assert len(set(order)) == len(order)


@pytest.mark.parametrize("phase", [Phase.WORKING, Phase.CLOSED])
@pytest.mark.parametrize("age", [0.0, 100.0])
def test_who_is_answered_does_not_go(phase: Phase, age: float) -> None:
    assert room.rank(phase, age, True) is None


@pytest.mark.parametrize(("grace", "seconds"), [(10.0, 10 - WRAP_UP), (WRAP_UP, 0.0), (0.5, 0.0)])
def test_the_grace_period_is_used(grace: float, seconds: float) -> None:
    assert room.idle_until(1000.0, grace) == 1000.0 + seconds


def test_a_request_has_longer_than_the_api_server_waits_for_its_answer() -> None:
    [webhook] = webhook_configuration()["webhooks"]
    assert webhook["timeoutSeconds"] < ARRIVAL


def test_at_the_end_there_is_time_for_templates_and_for_the_last_replies() -> None:
    assert Limits().patience < WRAP_UP
    assert FAREWELL <= WRAP_UP


@pytest.mark.parametrize(
    ("bound", "bodies"),
    [
        (room.MAX_PENDING, 9),
        (room.MAX_WHOLE, 1),
        (room.MAX_WAITING, 2),
        (room.MAX_UNSENT, 4),
        (room.FAREWELL_BYTES, 2),
    ],
)
def test_a_bound_holds_as_many_of_the_largest_bodies_as_is_said(bound: int, bodies: int) -> None:
    assert bound // MAX_BODY == bodies
