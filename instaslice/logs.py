"""One log record a line, as a JSON object for machines or as text for people.

Records carry what they are about in `extra={"fields": {...}}`. What a user typed is only ever such
a field, written as JSON and in ASCII, so that it cannot forge a line or drive a terminal.
"""

import logging
import sys
from datetime import UTC, datetime
from functools import lru_cache
from json import JSONEncoder
from typing import Any, Final

_encode: Final = JSONEncoder(separators=(",", ":"), default=str).encode


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = dict(getattr(record, "fields", {}))
    if record.exc_info:
        fields["traceback"] = logging.Formatter().formatException(record.exc_info)
    return fields


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _time(record: logging.LogRecord) -> str:
    second = int(record.created)
    return f"{_second(second)}.{int((record.created - second) * 1000):03d}+00:00"


class JSONFormatter(logging.Formatter):
    """{"time":"2026-11-23T07:35:50.123+00:00","level":"info","message":"rewritten",...}"""

    def format(self, record: logging.LogRecord) -> str:
        head = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        return _encode(head | _fields(record))


class TextFormatter(logging.Formatter):
    """07:35:50.123 INFO rewritten namespace="ml" name="sample"."""

    def format(self, record: logging.LogRecord) -> str:
        message = ascii(record.getMessage())[1:-1]
        fields = "".join(f" {key}={_encode(value)}" for key, value in _fields(record).items())
        return f"{_time(record)[11:23]} {record.levelname} {message}{fields}"


FORMATTERS: Final = {"json": JSONFormatter, "text": TextFormatter}

#: gunicorn's own logger; its records go the same way as InstaSlice's.
_LOGGERS: Final = ("instaslice", "gunicorn.error")


def configure(log_format: str) -> None:
    """Send the process's log to standard error, in one of FORMATTERS."""
    # What no formatter of ours uses and each record would look up: "Optimization" in the Logging
    # HOWTO of Python's documentation.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    setattr(logging, "_srcfile", None)  # noqa: B010 - named so in that text, and not in the types
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(FORMATTERS[log_format]())
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False
