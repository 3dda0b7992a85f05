"""The standard streams, which may be closed, full or cut, and Ctrl-C: a line each, no traceback."""

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TextIO

#: What a shell reports of a program that a signal has ended: 128 and its number.
INTERRUPTED: Final = 128 + 2  # SIGINT
CUT: Final = 128 + 13  # SIGPIPE
FAILED: Final = 2

_STANDARD_ERROR: Final = 2


def guarded(command: Callable[[], int]) -> int:
    """Run a command, and return its exit code, or that of how it was stopped."""
    _prepare()
    try:
        try:
            return command()
        finally:
            # Here and not as the interpreter ends, which would tell of a fault in its own way.
            sys.stdout.flush()
            sys.stderr.flush()
    except BrokenPipeError:
        return _end("", CUT)  # as head ends what is before it: silently
    except KeyboardInterrupt:
        return _end("interrupted", INTERRUPTED)
    except OSError as error:
        return _end(_reason(error), FAILED)
    except Exception as error:
        if os.environ.get("INSTASLICE_DEBUG"):
            raise
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return _end(f"a fault of its own: {what} (INSTASLICE_DEBUG=1 says where)", FAILED)


def _prepare() -> None:
    """Have all three streams there, so that no file takes the number of one that a shell closed.

    Python has None for such a stream; one that cannot be written takes its place.
    """
    while (handle := os.open(os.devnull, os.O_RDONLY)) <= _STANDARD_ERROR:
        pass
    os.close(handle)
    if sys.stdout is None:
        sys.stdout = _stream(1)
    if sys.stderr is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STANDARD_ERROR)
        sys.stderr = _stream(_STANDARD_ERROR)


def _stream(handle: int) -> TextIO:
    return open(handle, "w", encoding="utf-8", closefd=False)


def _reason(error: OSError) -> str:
    where = error.filename if isinstance(error.filename, str) else "standard output"
    reason = "is closed" if error.errno == errno.EBADF else error.strerror or str(error)
    return f"{where}: {reason}"


def _end(line: str, code: int) -> int:
    """Say why, if that can be said, and drop what was not written."""
    with suppress(OSError):
        if line:
            print(f"instaslice: {line}", file=sys.stderr, flush=True)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code
