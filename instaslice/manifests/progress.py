"""A line on a terminal for what takes long: how much of a file has been read."""

import time
from collections.abc import Callable
from typing import Final, TextIO

#: What takes less is over before one wonders.
PATIENCE: Final = 2.0  # seconds
#: Fast enough for eyes, and slow enough to cost nothing.
_EVERY: Final = 0.2  # seconds
_MEGABYTE: Final = 1_000_000
#: To the line's beginning, and erase it (ECMA-48, EL).
_CLEAR: Final = "\r\x1b[K"


class Progress:
    """Tells how far a command has got, and gets out of the way of other lines."""

    def __init__(self, err: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self.err = err
        self.now = now
        self.is_shown = False
        self.name, self.total = "", 0
        self.next = now() + PATIENCE if err.isatty() else float("inf")

    def begin(self, name: str, total: int) -> None:
        """A file of so many bytes comes next; 0 where that is not known."""
        self.name, self.total = name, total

    def at(self, done: int) -> None:
        """So many of its bytes have been read."""
        now = self.now()
        if now < self.next:
            return
        self.next = now + _EVERY
        of = f" of {self.total / _MEGABYTE:.0f}" if self.total else ""
        self.err.write(f"{_CLEAR}{self.name}: {done / _MEGABYTE:.0f}{of} MB")
        self.err.flush()
        self.is_shown = True

    def clear(self) -> None:
        """Make room for another line."""
        if self.is_shown:
            self.err.write(_CLEAR)
            self.is_shown = False

    def say(self, line: str) -> None:
        """Write a line of its own."""
        self.clear()
        print(line, file=self.err)
