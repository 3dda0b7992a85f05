"""Decides on reviews: bytes in, a verdict out; on large ones in a process of its own.

Python's JSON decoder lets no other thread run. On 7 MiB it takes up to a second, in which nobody
else would be served, and 200 MiB, which a process beside it may be killed for.
"""

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

#: Bytes for two of the body at most, lists in lists, in CPython: a list of one, 104.
DENSEST: Final = 52
#: Bytes of each in CPython 3.11 to 3.13, its place in another list or object included.
_LIST: Final = 104
_OBJECT: Final = 232
_EMPTY: Final = 88

#: To take strings out, whose brackets are none; it takes as long as decoding.
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)

Answer = tuple[str, Headers, bytes]
#: A request without its pod, and what becomes of it; or the traceback of an error of our own.
Decision = tuple[review.Request, review.Verdict | str]
Decide = Callable[[bytes, ResourceAPI | Unavailable, Resources], Decision]


class BadCall(Exception):
    """A call that cannot be answered with a review, and its HTTP status ("400 Bad Request")."""

    def __init__(self, status: str, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(status, message, *headers)
        self.answer: Answer = (status, [TEXT, *headers], f"{message}\n".encode())


def decide(body: bytes, api: ResourceAPI | Unavailable, resources: Resources) -> Decision:
    """What becomes of the pod in a review. Raises BadCall."""
    request = parse(body)
    verdict: review.Verdict | str
    try:
        verdict = review.judge(request, api, resources)
    except Exception:
        verdict = traceback.format_exc()
    return request._replace(pod={}, old_pod={}), verdict


def parse(body: bytes, limits: Limits = Limits()) -> review.Request:  # noqa: B008 - it is frozen
    """The review that a body holds. Raises BadCall."""
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
    """The bytes that JSON's lists and objects take when they are decoded, at most."""
    empty = body.count(b"[]") + body.count(b"{}")
    lists, objects = body.count(b"[") - body.count(b"[]"), body.count(b"{") - body.count(b"{}")
    return _LIST * lists + _OBJECT * objects + _EMPTY * empty


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


# Python's decoder takes NaN and Infinity by default, which RFC 8259 does not have.
_decode: Final = JSONDecoder(parse_constant=_refuse_constant).decode


class Judge:
    """The process that decides on large reviews, one at a time; it begins with the first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection[Any, Any]

    def decide(self, body: bytes, api: ResourceAPI | Unavailable, resources: Resources) -> Decision:
        """As `decide` does. Raises BadCall, and MemoryError where the process did not survive."""
        if isinstance(api, Unavailable):
            api = Unavailable(api.reason)  # it may hold a lock
        with self._lock:
            try:
                if self._process is None:
                    self._start()
                self._pipe.send((api, resources))
                self._pipe.send_bytes(body)
                answer = self._pipe.recv()
            except (OSError, EOFError):
                self.close()
                raise MemoryError from None
        if isinstance(answer, Exception):
            raise answer
        decision: Decision = answer
        return decision

    def close(self) -> None:
        """End the process, if there is one; the next review begins another."""
        if self._process:
            self._process.kill()
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
    """Have a process that is about to decode reviews of such a size spend no time on memory."""
    # A large review is a million objects without a cycle among them. To look for one as often as
    # Python does by default takes most of the time of decoding it.
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)
    # glibc gives memory of over 128 KiB back to the system, and so to the next request page by
    # page, until a larger block has been freed once (mallopt(3), M_MMAP_THRESHOLD). No page of this
    # one is touched.
    bytes(size)


def main(fd: int) -> None:
    """Decide on what comes through a pipe, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # for the whole group: the other end will close
    os.nice(5)  # who serves comes first
    prepare_memory()
    with Connection(fd) as pipe:
        while True:
            try:
                api, resources = pipe.recv()
                body = pipe.recv_bytes()
            except (OSError, EOFError):
                return
            answer: Decision | Exception
            try:
                answer = decide(body, api, resources)
            except (BadCall, MemoryError) as error:
                answer = error.with_traceback(None)
            pipe.send(answer)
