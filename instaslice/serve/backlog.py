"""What is known to be there, and what is still to be made: the books of `provision`.

Nothing here has a thread, a clock or a network. `now` is always in seconds on a monotonic clock.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

#: Seconds that an admission waits for all that its pod needs; the API server gives it five.
PATIENCE: Final = 1.0
#: Seconds for which something is taken to be there: someone may have deleted it since.
MEMORY: Final = 600.0
#: Seconds after which what is known is made again beside the next admission that needs it, which
#: does not wait: its namespace may have been deleted, and made anew under the same name.
RECHECK: Final = 10.0
#: Seconds before the second attempt, doubled with each, and the longest pause.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 300.0
#: What is remembered, and what is waited for, at most: namespaces are what users make.
MAX_KNOWN: Final = 10_000
MAX_PENDING: Final = 1_000

Key = TypeVar("Key")


@dataclass(slots=True, eq=False)
class Task(Generic[Key]):
    """Something that is not known to be there, or is looked at again."""

    key: Key
    asked: float  #: when it was last asked for
    due: float  #: when to try
    pause: float  #: seconds to the attempt after that
    tried: threading.Event = field(default_factory=threading.Event)  #: set by the next attempt


class Backlog(Generic[Key]):
    """What is known to be there, and what is to be made. Its owner keeps threads apart."""

    def __init__(self) -> None:
        self.known: dict[Key, float] = {}  #: until when; oldest first
        self.pending: dict[Key, Task[Key]] = {}

    def missing(self, keys: Iterable[Key], now: float) -> list[Key]:
        """Those that are not known to be there."""
        return [key for key in keys if self.known.get(key, now) <= now]

    def ask_for(self, keys: Iterable[Key], now: float) -> tuple[list[Task[Key]], float]:
        """The tasks of those that are missing, new ones among them; and until when to wait.

        One that has failed is due again at once: whatever kept it from being made may be over.
        Who waits does so together: an API server that hangs costs all of them PATIENCE once, and
        not each of them anew when a thread is free again.
        """
        tasks = []
        for key in keys:
            left = self.known.get(key, now) - now
            if left > MEMORY - RECHECK:
                continue
            task = self.pending.get(key) or self._add(key, now)
            if left <= 0:
                tasks.append(task)
                if task.tried.is_set():
                    task.tried = threading.Event()
                    task.asked, task.due, task.pause = now, now, FIRST_PAUSE
        waiting = [task.asked for task in self.pending.values() if not task.tried.is_set()]
        return tasks, min(waiting, default=now) + PATIENCE

    def _add(self, key: Key, now: float) -> Task[Key]:
        if len(self.pending) >= MAX_PENDING:  # what has failed most gives way, or else the oldest
            del self.pending[max(self.pending, key=lambda each: self.pending[each].pause)]
        self.pending[key] = Task(key, asked=now, due=now, pause=FIRST_PAUSE)
        return self.pending[key]

    def next(self, now: float) -> Task[Key] | None:
        """What is due longest, if anything is."""
        first = min(self.pending.values(), key=lambda task: task.due, default=None)
        return first if first and first.due <= now else None

    def until_due(self, now: float) -> float | None:
        """Seconds until anything is due; None where nothing is asked for."""
        dues = [task.due for task in self.pending.values()]
        return max(0.0, min(dues) - now) if dues else None

    def succeeded(self, task: Task[Key], now: float) -> None:
        """Remember that something is there."""
        self.forget(task)
        self.known[task.key] = now + MEMORY
        if len(self.known) > MAX_KNOWN:
            del self.known[next(iter(self.known))]  # the oldest

    def failed(self, task: Task[Key], now: float) -> None:
        """Try once more, after a pause."""
        task.due = now + task.pause
        task.pause = min(2 * task.pause, LONGEST_PAUSE)

    def forget(self, task: Task[Key]) -> None:
        """Neither know nor try what was asked for."""
        self.pending.pop(task.key, None)  # it may have given way meanwhile
        self.known.pop(task.key, None)
