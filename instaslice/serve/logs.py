"""One log record a line, as a JSON object for machines or as text for people.

Records carry what they are about in `extra={"fields": {...}}`. What a user typed is only ever such
a field, written as JSON and in ASCII, so that it cannot forge a line or drive a terminal.

A container's standard error is a pipe, and a pipe that nobody reads is full after 64 KiB: whoever
writes to it then waits for ever. So a record becomes a line where it is logged, since its traceback
may hold a whole pod, and a thread of its own writes the line. (logging's QueueListener wakes up for
each, which costs a seventh of an admission.) What does not fit into the queue between them is
dropped and counted.
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


#: What makes a line: of seconds since 1970, a level, a message, and what it is about.
FORMATS: Final[dict[str, Callable[[float, str, str, Fields], str]]] = {"json": _json, "text": _text}


class Handler(logging.Handler):
    """Writes lines to a file descriptor, in a thread of its own."""

    #: Called with a number of lines that were dropped.
    on_drop: Callable[[int], None]

    def __init__(self, log_format: str, fd: int, limits: Limits = Limits()) -> None:  # noqa: B008
        super().__init__()
        self._line = FORMATS[log_format]
        self.on_drop = lambda lines: None
        self._fd = fd
        self._limits = limits
        self.start()

    def start(self) -> None:
        """Begin with an empty queue, as a forked process has to: it has no thread but its own."""
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        # Bytes since the start. Each has one writer: who logs has the lock, and the thread is one.
        self._queued = 0
        self._done = 0  #: written, or lost for an error
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Have the line of a record written; called by logging, with the lock."""
        try:
            fields = getattr(record, "fields", {})
            if record.exc_info:
                fields = {**fields, "traceback": _traceback(record.exc_info)}
            self._put(record.created, record.levelname.lower(), record.getMessage(), fields)
        except Exception:  # logging would write a traceback to standard error
            self.on_drop(1)

    def info(self, message: str, fields: Fields) -> None:
        """The same as by a logger, at a quarter of what it costs: for each admission."""
        if self.level <= logging.INFO:
            self.acquire()
            try:
                self._put(time.time(), "info", message, fields)
            finally:
                self.release()

    def _put(self, *said: Any) -> None:
        line = f"{self._line(*said)}\n".encode()
        queued = self._queued + len(line)
        if queued - self._done > self._limits.log:
            self.on_drop(1)
            return
        self._queued = queued
        self._lines.put(line)

    def flush(self) -> None:
        """Wait for a while until what was logged is written; called at exit."""
        deadline = time.monotonic() + self._limits.log_flush
        while self._done < self._queued and time.monotonic() < deadline:
            time.sleep(self._limits.log_gather)

    def _write(self) -> None:
        lines = self._lines
        while True:
            if lines.empty():
                time.sleep(self._limits.log_gather)
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
    part = b""
    for line in lines:
        if part and len(part) + len(line) > select.PIPE_BUF:
            yield part
            part = b""
        part += line
    yield part


def configure(log_format: str, level: str = "info") -> Handler:
    """Send the log of this process, and of those that it forks, to standard error."""
    # What no line shows need not be found out (logging's HOWTO, "Optimization"): 2 us a record.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = Handler(log_format, sys.stderr.fileno())
    handler.setLevel(level.upper())
    for name in ("instaslice", "gunicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
    os.register_at_fork(after_in_child=handler.start)
    return handler
