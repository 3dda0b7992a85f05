import json
import logging
from typing import Any

import pytest

from instaslice.logs import FORMATTERS

NASTY = 'a\nb\x1b[31m"\u2028\ud800'


def record(message: str, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("instaslice", logging.INFO, __file__, 1, message, (), None)
    made.created = 1.5
    made.fields = fields
    return made


def test_json_is_one_object_a_line() -> None:
    line = FORMATTERS["json"]().format(record("rewritten", name="sample", claims=1))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500+00:00",
        "level": "info",
        "message": "rewritten",
        "name": "sample",
        "claims": 1,
    }


def test_text_is_for_people() -> None:
    line = FORMATTERS["text"]().format(record("rewritten", name="sample", claims=1))
    assert line == '00:00:01.500 INFO rewritten name="sample" claims=1'


@pytest.mark.parametrize("style", FORMATTERS)
def test_what_a_user_typed_cannot_leave_its_line(style: str) -> None:
    formatter = FORMATTERS[style]()
    for line in (formatter.format(record("m", name=NASTY)), formatter.format(record(NASTY))):
        assert line.isascii()
        assert line.isprintable()


@pytest.mark.parametrize("style", FORMATTERS)
def test_a_traceback_stays_on_its_line(style: str) -> None:
    made = record("failed")
    try:
        raise ZeroDivisionError(NASTY)
    except ZeroDivisionError as error:
        made.exc_info = (ZeroDivisionError, error, error.__traceback__)
    line = FORMATTERS[style]().format(made)
    assert line.isprintable()
    assert "ZeroDivisionError" in line
