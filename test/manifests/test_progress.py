"""The line that shows how far a command has got."""

import io

import pytest

from instaslice.manifests.progress import PATIENCE, Progress

CLEAR = "\r\x1b[K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.time = 100.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_takes_less_than_two_seconds_is_not_told_of(clock: Clock) -> None:
    terminal = Terminal()
    progress = Progress(terminal, clock)
    progress.begin("a.yaml", 9_000_000)
    clock.time += PATIENCE - 0.01
    progress.at(3_000_000)
    progress.clear()
    assert terminal.getvalue() == ""


def test_how_much_has_been_read_five_times_a_second(clock: Clock) -> None:
    terminal = Terminal()
    progress = Progress(terminal, clock)
    progress.begin("a.yaml", 9_000_000)
    clock.time += PATIENCE
    progress.at(3_000_000)
    progress.at(4_000_000)
    assert terminal.getvalue() == f"{CLEAR}a.yaml: 3 of 9 MB"
    clock.time += 0.2
    progress.begin("-", 0)
    progress.at(5_000_000)
    assert terminal.getvalue() == f"{CLEAR}a.yaml: 3 of 9 MB{CLEAR}-: 5 MB"


def test_a_message_takes_the_lines_place(clock: Clock) -> None:
    terminal = Terminal()
    progress = Progress(terminal, clock)
    clock.time += PATIENCE
    progress.at(1_000_000)
    progress.say("warning: x")
    progress.clear()
    assert terminal.getvalue().endswith(f"1 MB{CLEAR}warning: x\n")


def test_what_is_not_a_terminal_is_told_nothing_but_messages(clock: Clock) -> None:
    stream = io.StringIO()
    progress = Progress(stream, clock)
    clock.time += 1000
    progress.at(1_000_000)
    progress.say("warning: x")
    assert stream.getvalue() == "warning: x\n"
