import pytest

from instaslice.serve import backlog
from instaslice.serve.backlog import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MEMORY,
    PATIENCE,
    RECHECK,
    Backlog,
    Task,
)


@pytest.fixture
def books() -> Backlog[str]:
    return Backlog()


def ask(books: Backlog[str], key: str, now: float) -> Task[str]:
    [task], _ = books.ask_for([key], now)
    return task


def make(books: Backlog[str], key: str, now: float) -> None:
    books.succeeded(ask(books, key, now), now)


def test_what_was_made_is_known_until_it_expires(books: Backlog[str]) -> None:
    assert books.missing(["a", "b"], 0) == ["a", "b"]
    make(books, "a", 0)
    assert books.missing(["a", "b"], 0) == ["b"]
    assert books.missing(["a"], MEMORY - 0.001) == []
    assert books.missing(["a"], MEMORY) == ["a"]


def test_what_is_known_is_made_again_beside_admissions_after_a_while(books: Backlog[str]) -> None:
    make(books, "a", 0)
    assert books.ask_for(["a"], RECHECK - 0.001)[0] == []
    assert books.next(RECHECK) is None
    assert books.ask_for(["a"], RECHECK)[0] == [], "nobody waits for it"
    again = books.next(RECHECK)
    assert again is not None
    assert again.key == "a"
    assert books.missing(["a"], RECHECK) == [], "meanwhile it is taken to be there"
    books.succeeded(again, RECHECK)
    assert books.missing(["a"], MEMORY + RECHECK - 1) == []
    assert books.next(MEMORY) is None


def test_what_has_expired_is_waited_for(books: Backlog[str]) -> None:
    make(books, "a", 0)
    assert [task.key for task in books.ask_for(["a"], MEMORY)[0]] == ["a"]


def test_the_next_attempt_is_that_of_what_is_due_first(books: Backlog[str]) -> None:
    for key, now in (("a", 0), ("b", 100)):
        books.failed(ask(books, key, now), now)
    assert books.until_due(0.5) == FIRST_PAUSE - 0.5
    assert books.until_due(200) == 0


def test_what_is_made_again_is_not_the_oldest_any_more(
    books: Backlog[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MAX_KNOWN", 2)
    for now, key in enumerate("ab"):
        make(books, key, now)
    assert books.ask_for(["a"], RECHECK)[0] == []
    again = books.next(RECHECK)
    assert again is not None
    books.succeeded(again, RECHECK)
    make(books, "c", RECHECK)
    assert books.missing("abc", RECHECK) == ["b"]


def test_what_is_due_longest_is_next(books: Backlog[str]) -> None:
    assert books.until_due(5) is None
    for now, key in enumerate("abc"):
        ask(books, key, now)
    assert [task.key for task in [books.next(0)] if task] == ["a"]
    first = ask(books, "a", 0)
    books.failed(first, 10)
    assert [task.key for task in [books.next(10)] if task] == ["b"]
    for key in "bc":
        books.succeeded(books.pending[key], 10)
    assert books.next(10) is None
    assert books.until_due(10) == FIRST_PAUSE
    assert books.next(10 + FIRST_PAUSE) is first
    assert books.until_due(10 + FIRST_PAUSE) == 0
    assert books.until_due(100) == 0


def test_pauses_double_up_to_the_longest(books: Backlog[str]) -> None:
    task = ask(books, "a", 0)
    pauses = []
    for _ in range(12):
        books.failed(task, 1000)
        pauses.append(task.due - 1000)
    assert pauses[:4] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE, 8 * FIRST_PAUSE]
    assert pauses[-3:] == [LONGEST_PAUSE] * 3
    assert max(pauses) == LONGEST_PAUSE


def test_what_failed_is_due_at_once_for_who_asks_and_its_pauses_begin_anew(
    books: Backlog[str],
) -> None:
    task = ask(books, "a", 0)
    for now in (0, 1, 3, 7):
        books.failed(task, now)
        task.tried.set()
    assert task.due == 15
    assert books.ask_for(["a"], 8) == ([task], 8 + PATIENCE)
    assert not task.tried.is_set(), "who asks now waits for the attempt to come"
    assert books.next(8) is task
    books.failed(task, 8)
    assert task.due == 8 + FIRST_PAUSE


def test_what_is_known_and_looked_at_again_without_success_keeps_its_pauses(
    books: Backlog[str],
) -> None:
    """Nobody waits for it, so nobody's asking makes it due."""
    make(books, "a", 0)
    books.ask_for(["a"], RECHECK)
    task = books.pending["a"]
    books.failed(task, RECHECK)
    task.tried.set()
    books.ask_for(["a"], RECHECK)
    assert books.next(RECHECK) is None


def test_those_who_wait_do_so_together(books: Backlog[str]) -> None:
    [first], deadline = books.ask_for(["a"], 0)
    assert deadline == PATIENCE
    assert books.ask_for(["a", "b"], 0.7)[1] == PATIENCE
    assert books.ask_for(["c"], 5)[1] == PATIENCE, "it is over, so nobody waits any more"
    for task in books.pending.values():
        task.tried.set()
        books.failed(task, 5)
    assert books.ask_for(["d"], 6)[1] == 6 + PATIENCE
    assert books.ask_for([], 7)[1] == 6 + PATIENCE
    assert first is books.pending["a"]


def test_what_has_failed_most_gives_way_or_else_the_oldest(
    books: Backlog[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MAX_PENDING", 3)
    for key in "abc":
        ask(books, key, 0)
    books.failed(books.pending["b"], 0)
    books.failed(books.pending["c"], 0)
    books.failed(books.pending["c"], 0)
    ask(books, "d", 0)
    assert list(books.pending) == ["a", "b", "d"]
    ask(books, "e", 0)
    assert list(books.pending) == ["a", "d", "e"]
    ask(books, "f", 0)
    assert list(books.pending) == ["d", "e", "f"], "none has failed: the oldest"
    ask(books, "e", 0)
    assert list(books.pending) == ["d", "e", "f"], "who is there already takes nobody's place"


def test_a_thousand_wait_and_ten_thousand_are_remembered(books: Backlog[str]) -> None:
    for i in range(1001):
        ask(books, str(i), 0)
    assert len(books.pending) == 1000
    for i in range(10_001):
        make(books, f"made-{i}", 0)
    assert len(books.known) == 10_000
    assert books.missing(["made-0", "made-1"], 0) == ["made-0"], "the oldest is forgotten"


def test_what_gave_way_while_it_was_tried_may_still_succeed(books: Backlog[str]) -> None:
    task = ask(books, "a", 0)
    del books.pending["a"]
    books.failed(task, 0)
    assert books.next(1000) is None
    books.succeeded(task, 0)
    assert books.missing(["a"], 0) == []


def test_what_is_forgotten_is_neither_known_nor_tried(books: Backlog[str]) -> None:
    make(books, "a", 0)
    books.ask_for(["a"], RECHECK)
    books.forget(books.pending["a"])
    assert books.missing(["a"], RECHECK) == ["a"]
    assert books.next(RECHECK) is None
