import json
import logging
import re
from typing import Any

import pytest

from instaslice.serve.logs import FORMATS, Formatter, teller

NASTY = 'a\nb\x1b[31m"\u2028\ud800'


def record(message: str, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("instaslice", logging.INFO, __file__, 1, message, (), None)
    made.created = 1.5
    made.fields = fields
    return made


def test_json_is_one_object_a_line() -> None:
    line = Formatter("json").format(record("rewritten", name="sample", claims=1))
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500+00:00",
        "level": "info",
        "message": "rewritten",
        "name": "sample",
        "claims": 1,
    }


def test_text_is_for_people() -> None:
    line = Formatter("text").format(record("rewritten", name="sample", claims=1))
    assert line == '00:00:01.500 INFO rewritten name="sample" claims=1'


@pytest.mark.parametrize("style", FORMATS)
def test_what_a_user_typed_cannot_leave_its_line(style: str) -> None:
    formatter = Formatter(style)
    for line in (formatter.format(record("m", name=NASTY)), formatter.format(record(NASTY))):
        assert line.isascii()
        assert line.isprintable()


@pytest.mark.parametrize("style", FORMATS)
def test_a_traceback_stays_on_its_line(style: str) -> None:
    made = record("failed")
    try:
        raise ZeroDivisionError(NASTY)
    except ZeroDivisionError as error:
        made.exc_info = (ZeroDivisionError, error, error.__traceback__)
    line = Formatter(style).format(made)
    assert line.isprintable()
    assert "ZeroDivisionError" in line


@pytest.mark.parametrize("style", FORMATS)
def test_what_is_told_is_a_line_like_any_other(
    style: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    teller(style)("rewritten", {"name": NASTY, "claims": 1})
    told = capfdbinary.readouterr().err.decode()
    wanted = Formatter(style).format(record("rewritten", name=NASTY, claims=1))
    clock = r"([0-9]{4}-[0-9]{2}-[0-9]{2}T)?[0-9:.]{12}"
    assert re.sub(clock, "", told) == re.sub(clock, "", wanted) + "\n"
