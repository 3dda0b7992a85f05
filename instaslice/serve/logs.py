"""One log record per line, as a JSON object for machines or as text for people.

Records carry their details in `extra={"fields": {...}}`. Whatever a user typed appears only in such
a field, written as JSON in ASCII, so it cannot forge a line or control a terminal.

A container's standard error is a pipe. If nobody reads it, it is full after 64 KiB and blocks its
writer. So a record becomes a line where it is logged, a queue of bounded size takes the line, and a
thread writes it. Lines that do not fit into the queue are dropped and counted.
"""

import logging
import os
import queue
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from json import JSONEncoder
from logging.handlers import QueueHandler, QueueListener
from typing import Any, Final

from instaslice.serve.limits import Limits

Fields = dict[str, Any]

_encode: Final = JSONEncoder(separators=(",", ":"), default=str).encode
_traceback: Final = logging.Formatter().formatException


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _time(created: float) -> str:
    second = int(created)
    return f"{_second(second)}.{int((created - second) * 1000):03d}+00:00"


def _json(created: float, level: str, message: str, fields: Fields) -> str:
    """{"time":"2026-11-23T07:35:50.123+00:00","level":"info","message":"rewritten",...}"""
    return _encode({"time": _time(created), "level": level, "message": message, **fields})


def _text(created: float, level: str, message: str, fields: Fields) -> str:
    """07:35:50.123 INFO rewritten namespace="ml" name="sample"."""
    about = "".join(f" {key}={_encode(value)}" for key, value in fields.items())
    return f"{_time(created)[11:23]} {level.upper()} {ascii(message)[1:-1]}{about}"


#: Functions that make a line from a time in seconds since 1970, a level, a message, and fields.
FORMATS: Final[dict[str, Callable[[float, str, str, Fields], str]]] = {"json": _json, "text": _text}


class Handler(QueueHandler):
    """Makes records into lines, which a thread writes to a file descriptor."""

    #: Called with a number of lines that were dropped.
    on_drop: Callable[[int], None]

    def __init__(self, log_format: str, fd: int, limits: Limits = Limits()) -> None:  # noqa: B008
        super().__init__(queue.SimpleQueue())
        self.fd, self.limits = fd, limits
        self.on_drop = lambda lines: None
        self._line = FORMATS[log_format]
        self.start()

    def start(self) -> None:
        """Start writing with an empty queue; also in a forked process, which has no threads."""
        self.queue = lines = queue.SimpleQueue[bytes]()
        # Bytes since the start. Each number has one writer: the lock's holder, and the thread.
        self.queued = 0
        self.done = 0  #: written, or lost in an error
        _Writer(self, lines).start()

    def prepare(self, record: logging.LogRecord) -> bytes:
        """The line of a record. `logging` calls it with the handler's lock."""
        fields = getattr(record, "fields", {})
        if record.exc_info:
            fields = {**fields, "traceback": _traceback(record.exc_info)}
        return self._encoded(record.created, record.levelname.lower(), record.getMessage(), fields)

    def _encoded(self, *said: Any) -> bytes:
        return f"{self._line(*said)}\n".encode()

    def enqueue(self, line: bytes) -> None:  # type: ignore[override]
        """Leave a line to the thread, or drop it."""
        if self.queued + len(line) - self.done > self.limits.log:
            self.on_drop(1)
            return
        self.queued += len(line)
        self.queue.put_nowait(line)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Count a record that cannot become a line; `logging` would print a traceback."""
        self.on_drop(1)

    def info(self, message: str, fields: Fields) -> None:
        """Log an admission, at a quarter of the cost of a logger."""
        if self.level <= logging.INFO:
            self.acquire()
            try:
                self.enqueue(self._encoded(time.time(), "info", message, fields))
            finally:
                self.release()

    def flush(self) -> None:
        """Wait a bounded time until all lines are written; called at exit."""
        deadline = time.monotonic() + self.limits.log_flush
        while self.done < self.queued and time.monotonic() < deadline:
            time.sleep(self.limits.log_gather)


class _Writer(QueueListener):
    """The thread of a Handler. It collects lines, since waking it for each one is expensive."""

    def __init__(self, handler: Handler, lines: queue.SimpleQueue[bytes]) -> None:
        super().__init__(lines)
        self._handler, self._lines = handler, lines

    def dequeue(self, block: bool) -> list[bytes]:  # type: ignore[override]
        if self._lines.empty():
            time.sleep(self._handler.limits.log_gather)
        gathered = [self._lines.get()]
        while not self._lines.empty():
            gathered.append(self._lines.get())
        return gathered

    def handle(self, lines: list[bytes]) -> None:  # type: ignore[override]
        for part in together(lines):
            rest = part
            try:
                while rest:
                    rest = rest[os.write(self._handler.fd, rest) :]
            except OSError:  # such as a full disk, which must not stop admissions
                self._handler.on_drop(rest.count(b"\n"))
            self._handler.done += len(part)


def together(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines into parts that the kernel writes atomically (pipe(7), PIPE_BUF).

    gunicorn's arbiter, another process, writes to the same pipe.
    """
    part = b""
    for line in lines:
        if part and len(part) + len(line) > select.PIPE_BUF:
            yield part
            part = b""
        part += line
    yield part


def configure(log_format: str, level: str = "info", limits: Limits = Limits()) -> Handler:  # noqa: B008
    """Send the log of this process and of its forks to standard error."""
    # Do not collect what no line shows (logging's HOWTO, "Optimization"): 2 us a record.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = Handler(log_format, sys.stderr.fileno(), limits)
    handler.setLevel(level.upper())
    for name in ("instaslice", "gunicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
    os.register_at_fork(after_in_child=handler.start)
    return handler
