"""The standard streams, which may be closed, full or cut, and Ctrl-C: a line each, no traceback."""

import errno
import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

#: What a shell reports of a program that a signal has ended: 128 and its number.
INTERRUPTED: Final = 128 + 2  # SIGINT
CUT: Final = 128 + 13  # SIGPIPE
FAILED: Final = 2


def guarded(command: Callable[[], int]) -> int:
    """Run a command, and return its exit code, or that of how it was stopped."""
    _open_what_is_closed()
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
        where = error.filename if isinstance(error.filename, str) else "standard output"
        reason = "is closed" if error.errno == errno.EBADF else error.strerror or str(error)
        return _end(f"{where}: {reason}", FAILED)
    except Exception as error:
        if os.environ.get("INSTASLICE_DEBUG"):
            raise
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return _end(f"a fault of its own: {what} (INSTASLICE_DEBUG=1 says where)", FAILED)


def _open_what_is_closed() -> None:
    """Have all three streams there, so that no file takes the number of one that a shell closed.

    Python has None for such a stream; an output that cannot be written takes its place.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # which gives out the least number that is free
    sys.stdout = sys.stdout or io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8")
    sys.stderr = sys.stderr or io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8")


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
