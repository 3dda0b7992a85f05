"""One log record a line, as a JSON object for machines or as text for people.

Records carry what they are about in `extra={"fields": {...}}`. What a user typed is only ever such
a field, written as JSON and in ASCII, so that it cannot forge a line or drive a terminal.
"""

import logging
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from json import JSONEncoder
from time import time
from typing import Any, Final

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

#: gunicorn's own logger; its records go the same way as InstaSlice's.
_LOGGERS: Final = ("instaslice", "gunicorn.error")


class Formatter(logging.Formatter):
    """A record as a line in one of FORMATS."""

    def __init__(self, log_format: str) -> None:
        super().__init__()
        self._line = FORMATS[log_format]

    def format(self, record: logging.LogRecord) -> str:
        fields = dict(getattr(record, "fields", {}))
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return self._line(record.created, record.levelname.lower(), record.getMessage(), fields)


def configure(log_format: str) -> None:
    """Send the process's log to standard error, in one of FORMATS."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Formatter(log_format))
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.setLevel(logging.INFO)
        logger.propagate = False


def teller(log_format: str) -> Callable[[str, Fields], None]:
    """What writes a line of level info to standard error, for what happens at each admission.

    `logging` would write the same, and take three times as long: an eighth of an admission. As with
    it, a line that cannot be written is lost: a full disk must not refuse pods.
    """
    line, stream = FORMATS[log_format], sys.stderr.buffer

    def tell(message: str, fields: Fields) -> None:
        try:
            stream.write(f"{line(time(), 'info', message, fields)}\n".encode())
            stream.flush()
        except OSError:
            pass

    return tell
