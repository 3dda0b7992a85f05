"""Decides on reviews: bytes in, a verdict out. Large reviews are decided in a separate process.

Python's JSON decoder lets no other thread run. For 7 MiB it takes up to a second, in which nobody
else would be served, and 200 MiB, for which the kernel may kill the process that decodes.
"""

import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from json import JSONDecodeError, JSONDecoder
from multiprocessing.connection import Connection, Pipe
from typing import Any, Final

from instaslice import review
from instaslice.resource_api import ResourceAPI, Unavailable
from instaslice.resources import Resources
from instaslice.serve.http import TEXT, Headers
from instaslice.serve.limits import Limits

#: Bytes in CPython 3.11 to 3.13 of a list, an object, and an empty one of either, with its slot in
#: the list or object around it.
_LIST: Final = 104
_OBJECT: Final = 232
_EMPTY: Final = 88
#: The most bytes of memory for one byte of the body: nested lists, where "[" and "]" make a list.
DENSEST: Final = _LIST // 2

#: Finds strings, whose brackets do not count. It takes as long as decoding.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # whether it ends or not

Answer = tuple[str, Headers, bytes]
#: A request without its pod, and the verdict on it or the traceback of an internal error.
Decision = tuple[review.Request, review.Verdict | str]
Decide = Callable[[bytes, ResourceAPI | Unavailable, Resources], Decision]


class BadCall(Exception):
    """A call that cannot be answered with a review. status: as in "400 Bad Request"."""

    def __init__(self, status: str, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(status, message, *headers)
        self.answer: Answer = (status, [TEXT, *headers], f"{message}\n".encode())


def decide(body: bytes, api: ResourceAPI | Unavailable, resources: Resources) -> Decision:
    """Decide on the pod in a review. Raises BadCall."""
    request = parse(body)
    verdict: review.Verdict | str
    try:
        verdict = review.judge(request, api, resources)
    except Exception:
        verdict = traceback.format_exc()
    return review.Request(*request[:-2], {}, {}), verdict  # in half the time of _replace


def parse(body: bytes, limits: Limits = Limits()) -> review.Request:  # noqa: B008 - it is frozen
    """Read the review in a body. Raises BadCall."""
    if len(body) * DENSEST > limits.decoded and _is_dense(body, limits.decoded):
        raise BadCall("413 Content Too Large", "the body holds too many lists and objects")
    try:
        return review.read(_decode(body.decode()))
    except review.BadReview as bad:
        raise BadCall("400 Bad Request", str(bad)) from None
    except UnicodeDecodeError as bad:
        raise BadCall("400 Bad Request", f"byte {bad.start} of the body is not UTF-8") from None
    except JSONDecodeError as bad:
        where = f"line {bad.lineno}, column {bad.colno}"
        raise BadCall("400 Bad Request", f"the body is not JSON: {bad.msg}: {where}") from None
    except RecursionError:
        raise BadCall("400 Bad Request", "the body is nested too deeply") from None
    except ValueError as bad:  # NaN, or a number of more digits than Python reads
        raise BadCall("400 Bad Request", f"the body is not JSON: {bad}") from None


def _is_dense(body: bytes, bound: int) -> bool:
    return estimate(body) > bound and estimate(_STRING.sub(b"", body)) > bound


def estimate(body: bytes) -> int:
    """An upper bound for the memory of the lists and objects in JSON text, in bytes."""
    empty = body.count(b"[]") + body.count(b"{}")
    lists, objects = body.count(b"[") - body.count(b"[]"), body.count(b"{") - body.count(b"{}")
    return _LIST * lists + _OBJECT * objects + _EMPTY * empty


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


# By default Python's decoder accepts NaN and Infinity, which RFC 8259 does not have.
_decode: Final = JSONDecoder(parse_constant=_refuse_constant).decode


class Judge:
    """A process that decides on large reviews, one at a time. It is started for the first one.

    patience: how long a decision may take, in seconds.
    """

    def __init__(self, patience: float = Limits().judging) -> None:
        self._patience = patience
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Any, Any]

    def decide(self, body: bytes, api: ResourceAPI | Unavailable, resources: Resources) -> Decision:
        """As the function `decide`. Raises BadCall, or MemoryError if the process fails."""
        if isinstance(api, Unavailable):
            api = Unavailable(api.reason)  # a subclass may hold a lock, which cannot be sent
        alarm = threading.Timer(self._patience, self.kill)
        with self._lock:
            alarm.start()
            try:
                if self._process is None or self._process.poll() is not None:
                    self.close()  # it may have died since the last review
                    self._start()
                self._pipe.send((api, resources))
                self._pipe.send_bytes(body)  # a pickle would hold it a second time
                answer = self._pipe.recv()
            except (OSError, EOFError):
                self.close()
                raise MemoryError from None
            finally:
                alarm.cancel()
        if isinstance(answer, Exception):
            raise answer
        decision: Decision = answer
        return decision

    def kill(self) -> None:
        """End the process, if it runs, even while another thread waits for its answer."""
        if self._process:
            self._process.kill()

    def close(self) -> None:
        """End the process, if it runs; the next review starts another."""
        self.kill()
        if self._process:
            self._process.wait()
            self._pipe.close()
            self._process = None

    def _start(self) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            fd = theirs.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", f"from {__name__} import main; main({fd})"],
                pass_fds=[fd],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )


def prepare_memory(size: int = Limits().body) -> None:
    """Tune this process to decode reviews of up to `size` bytes."""
    # A large review is a million objects without a reference cycle. Python's default thresholds
    # would spend most of the decoding time on the search for cycles.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    # glibc returns each freed block of over 128 KiB to the system, until a larger one has been
    # freed once (mallopt(3), M_MMAP_THRESHOLD). This frees one; its pages are never touched.
    bytes(size)


def main(fd: int) -> None:
    """Decide on the reviews that arrive on a pipe, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which closes the pipe
    os.nice(5)  # the serving process comes first
    prepare_memory()
    answer: Decision | Exception
    with Connection(fd) as pipe, contextlib.suppress(OSError, EOFError):
        while True:
            try:
                api, resources = pipe.recv()
                answer = decide(pipe.recv_bytes(), api, resources)
            except (BadCall, MemoryError) as error:
                answer = error.with_traceback(None)
            pipe.send(answer)
