import contextlib
import errno
import json
import logging
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from instaslice.serve import logs
from instaslice.serve.limits import Limits
from instaslice.serve.logs import FORMATS, Handler

NASTY = 'a\nb\x1b[31m"\u2028\ud800'


def record(message: str, **fields: Any) -> logging.LogRecord:
    made = logging.LogRecord("instaslice", logging.INFO, __file__, 1, message, (), None)
    made.created = 1.5
    made.fields = fields
    return made


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The two ends of a pipe, to read from and to write to."""
    ends = os.pipe()
    yield ends
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)


def line_of(style: str, made: logging.LogRecord, pipe: tuple[int, int]) -> str:
    handler = Handler(style, pipe[1])
    handler.handle(made)
    handler.flush()
    return os.read(pipe[0], 65536).decode().removesuffix("\n")


def test_json_has_one_object_per_line(pipe: tuple[int, int]) -> None:
    line = line_of("json", record("rewritten", name="sample", claims=1), pipe)
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.500+00:00",
        "level": "info",
        "message": "rewritten",
        "name": "sample",
        "claims": 1,
    }


@pytest.mark.parametrize(
    ("created", "milliseconds"), [(1.5, "500"), (1.0625, "062"), (1.9999, "999")]
)
def test_text_lines_are_readable(created: float, milliseconds: str, pipe: tuple[int, int]) -> None:
    made = record("rewritten", name="sample", claims=1)
    made.created = created
    line = f'00:00:01.{milliseconds} INFO rewritten name="sample" claims=1'
    assert line_of("text", made, pipe) == line


@pytest.mark.parametrize("style", FORMATS)
def test_user_input_cannot_leave_its_line(style: str, pipe: tuple[int, int]) -> None:
    for made in (record("m", name=NASTY), record(NASTY)):
        line = line_of(style, made, pipe)
        assert line.isascii()
        assert line.isprintable()


@pytest.mark.parametrize("style", FORMATS)
def test_a_traceback_stays_on_its_line(style: str, pipe: tuple[int, int]) -> None:
    made = record("failed")
    try:
        raise ZeroDivisionError(NASTY)
    except ZeroDivisionError as error:
        made.exc_info = (ZeroDivisionError, error, error.__traceback__)
    line = line_of(style, made, pipe)
    assert line.isprintable()
    assert "ZeroDivisionError" in line


def test_info_writes_the_same_line_as_a_logger_unless_below_the_level(
    pipe: tuple[int, int],
) -> None:
    handler = Handler("json", pipe[1])
    handler.info("rewritten", {"name": "sample"})
    handler.setLevel(logging.WARNING)
    handler.info("nobody wants to know", {})
    handler.flush()
    [line] = os.read(pipe[0], 65536).decode().splitlines()
    found = json.loads(line)
    assert list(found) == ["time", "level", "message", "name"]
    assert found["level"] == "info"


# -- the queue and its thread --------------------------------------------------------------------


def test_lines_are_written_in_order(pipe: tuple[int, int]) -> None:
    handler = Handler("json", pipe[1], Limits(log_flush=60.0))
    for i in range(100):
        handler.handle(record("rewritten", claims=i))
    start = time.monotonic()
    handler.flush()
    assert time.monotonic() - start < 60, "it returns when all lines are written"
    lines = os.read(pipe[0], 65536).decode().splitlines()
    assert [json.loads(line)["claims"] for line in lines] == list(range(100))


def test_a_full_pipe_does_not_block_and_lost_lines_are_counted(pipe: tuple[int, int]) -> None:
    dropped: list[int] = []
    handler = Handler("json", pipe[1], Limits(log=100_000))
    handler.on_drop = dropped.append
    logged = 2000
    for i in range(logged):  # of over 200 bytes each: more than pipe and queue hold
        handler.handle(record("rewritten", name="x" * 200, number=i))
    assert dropped
    written = b""
    while written.count(b"\n") < logged - sum(dropped):
        written += os.read(pipe[0], 65536)
    numbers = [json.loads(line)["number"] for line in written.splitlines()]
    assert numbers == sorted(set(numbers)), "written lines are whole and in order"
    handler.handle(record("at last"))
    assert b"at last" in os.read(pipe[0], 65536), "it goes on when the pipe is read again"


def test_the_queue_can_be_filled_again_and_again(pipe: tuple[int, int]) -> None:
    dropped: list[int] = []
    size = len(line_of("json", record("rewritten"), pipe)) + 1
    handler = Handler("json", pipe[1], Limits(log=size, log_gather=0.0))
    handler.on_drop = dropped.append
    for _ in range(20):
        handler.handle(record("rewritten"))
        handler.flush()
    assert not dropped
    assert os.read(pipe[0], 65536).count(b"\n") == 20


def test_after_a_partial_write_only_the_rest_is_counted_as_lost(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk may become full during a write."""
    dropped: list[int] = []
    handler = Handler("json", pipe[1])
    handler.on_drop = dropped.append
    write, room = os.write, 2 * (len(line_of("json", record("rewritten"), pipe)) + 1)

    def cut(fd: int, data: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "no space left")
        written = write(fd, data[:room])
        room -= written
        return written

    monkeypatch.setattr(os, "write", cut)
    for _ in range(5):
        handler.handle(record("rewritten"))
    handler.flush()
    assert sum(dropped) == 3
    assert os.read(pipe[0], 65536).count(b"\n") == 2


def test_a_line_that_is_written_in_parts_is_whole(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """write(2) may write a part if a signal arrives."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:7]))
    handler = Handler("json", pipe[1])
    handler.handle(record("rewritten", name="sample"))
    handler.flush()
    assert json.loads(os.read(pipe[0], 65536))["name"] == "sample"


def test_flush_waits_a_bounded_time(pipe: tuple[int, int]) -> None:
    """It does so whether the queue has room or not."""
    handler = Handler("json", pipe[1], Limits(log=100_000, log_flush=0.1))
    for number in (400, 2000):
        for _ in range(number):
            handler.handle(record("rewritten", name="x" * 200))
        start = time.monotonic()
        handler.flush()
        assert 0.1 <= time.monotonic() - start < 10


def test_lines_are_joined_up_to_pipe_buf() -> None:
    """Another process writes into the same pipe, so no write may be longer than PIPE_BUF."""
    lengths = (10, select.PIPE_BUF - 12, 2, 1, 3 * select.PIPE_BUF, 5)
    lines = [b"x" * (length - 1) + b"\n" for length in lengths]
    parts = list(logs.together(lines))
    assert [len(part) for part in parts] == [select.PIPE_BUF, 1, 3 * select.PIPE_BUF, 5]
    assert b"".join(parts) == b"".join(lines)
    long, *short = b"x" * 2 * select.PIPE_BUF, b"a\n", b"b\n"
    assert list(logs.together([long, *short])) == [long, b"a\nb\n"]


def test_a_line_that_cannot_be_formatted_or_written_is_counted(
    pipe: tuple[int, int], capfd: pytest.CaptureFixture[str]
) -> None:
    dropped: list[int] = []
    handler = Handler("json", os.open("/dev/full", os.O_WRONLY))
    handler.on_drop = dropped.append
    handler.handle(record("a full disk"))
    handler.flush()
    assert dropped == [1]
    broken = record("%d")
    broken.args = ("no number",)
    handler.handle(broken)
    assert dropped == [1, 1]
    handler.handle(record("the thread goes on"))
    handler.flush()
    assert dropped == [1, 1, 1]
    assert capfd.readouterr() == ("", ""), "nothing is printed instead"


def test_a_forked_process_logs_too(pipe: tuple[int, int]) -> None:
    """gunicorn's worker is forked. A fork keeps only the thread that called it."""
    program = (
        "import logging, os\n"
        "logging.basicConfig()\n"  # its handler has another format
        "from instaslice.serve import logs\n"
        "logs.configure('json')\n"
        "log = logging.getLogger('instaslice')\n"
        "log.info('parent')\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    logging.getLogger('gunicorn.error').info('child')\n"
        "    raise SystemExit\n"
        "os.waitpid(child, 0)\n"
    )
    # Python 3.12 and later warn of a fork in a process with threads.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        stderr=subprocess.PIPE,
        text=True,
        timeout=30,
        check=True,
    )
    written = [json.loads(line)["message"] for line in done.stderr.splitlines()]
    assert sorted(written) == ["child", "parent"]
