"""One log record a line, as a JSON object for machines or as text for people.

Records carry what they are about in `extra={"fields": {...}}`. What a user typed is only ever such
a field, written as JSON and in ASCII, so that it cannot forge a line or drive a terminal.

A container's standard error is a pipe, and a pipe that nobody reads is full after 64 KiB: whoever
writes to it then waits for ever. So a record becomes a line where it is logged, and a thread of its
own writes the line. What does not fit into the queue between them is dropped and counted.
"""

import logging
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from json import JSONEncoder
from logging.handlers import QueueHandler
from typing import Any, Final

#: Bytes of lines that wait to be written: some 10,000 lines, or more than a second of the most that
#: a core answers, and little beside the Deployment's memory.
MAX_QUEUED: Final = 4 * 1024 * 1024

#: Seconds for which a process that ends waits for its last lines to be written.
FLUSH: Final = 1.0

#: Seconds for which lines are gathered, once all before them are written. To be woken up for each
#: cost a seventh of an admission, and every hundredth of a second still a twentieth.
GATHER: Final = 0.05

Fields = dict[str, Any]

_encode: Final = JSONEncoder(separators=(",", ":"), default=str).encode


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


#: What makes a line: of seconds since 1970, a level, a message, and what it is about.
FORMATS: Final[dict[str, Callable[[float, str, str, Fields], str]]] = {"json": _json, "text": _text}


class Formatter(logging.Formatter):
    """A record as a line in one of FORMATS."""

    def __init__(self, log_format: str) -> None:
        super().__init__()
        self._line = FORMATS[log_format]

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        if record.exc_info:
            fields = {**fields, "traceback": self.formatException(record.exc_info)}
        return self._line(record.created, record.levelname.lower(), record.getMessage(), fields)


class Handler(QueueHandler):
    """Writes lines to a file descriptor, in a thread of its own.

    The record is formatted here and not in the thread, since its traceback may hold a whole pod.
    """

    #: Called with a number of lines that were dropped.
    on_drop: Callable[[int], None]

    def __init__(self, log_format: str, fd: int) -> None:
        super().__init__(queue.SimpleQueue())
        self.setFormatter(Formatter(log_format))
        self.on_drop = lambda lines: None
        self._fd = fd
        self.start()

    def start(self) -> None:
        """Begin with an empty queue, as a forked process has to: it has no thread but its own."""
        self.queue: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        # Bytes since the start. Each has one writer, so neither needs a lock: who logs holds the
        # handler's own, and the thread is one.
        self._queued = 0
        self._done = 0  #: written, or lost for an error
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def prepare(self, record: logging.LogRecord) -> bytes:
        """The line of a record."""
        return f"{self.format(record)}\n".encode()

    def enqueue(self, line: Any) -> None:
        """Have a line written, or drop it."""
        queued = self._queued + len(line)
        if queued - self._done > MAX_QUEUED:
            self.on_drop(1)
            return
        self._queued = queued
        self.queue.put(line)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging names it so
        """Drop what cannot be formatted: logging would write a traceback to standard error."""
        self.on_drop(1)

    def flush(self) -> None:
        """Wait until what was logged is written, for at most FLUSH seconds; called at exit."""
        deadline = time.monotonic() + FLUSH
        while self._done < self._queued and time.monotonic() < deadline:
            time.sleep(GATHER)

    def _write(self) -> None:
        lines = self.queue
        while True:
            if lines.empty():
                time.sleep(GATHER)
            gathered = [lines.get()]
            while not lines.empty():
                gathered.append(lines.get())
            for part in together(gathered):
                rest = part
                try:
                    while rest:
                        rest = rest[os.write(self._fd, rest) :]
                except OSError:  # a full disk, say, which must not refuse pods
                    self.on_drop(rest.count(b"\n"))
                self._done += len(part)


def together(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines joined to as much as the kernel writes without tearing it (pipe(7), PIPE_BUF).

    Another process, gunicorn's arbiter, writes into the same pipe.
    """
    part: list[bytes] = []
    size = 0
    for line in lines:
        if part and size + len(line) > select.PIPE_BUF:
            yield b"".join(part)
            part, size = [], 0
        part.append(line)
        size += len(line)
    yield b"".join(part)


#: gunicorn's own logger; its records go the same way as InstaSlice's.
_LOGGERS: Final = ("instaslice", "gunicorn.error")


def configure(log_format: str, level: str = "info") -> Handler:
    """Send the log of this process, and of those that it forks, to standard error."""
    # What no line shows need not be found out (logging's HOWTO, "Optimization"): 2 us a record.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = Handler(log_format, sys.stderr.fileno())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
    os.register_at_fork(after_in_child=handler.start)
    return handler
