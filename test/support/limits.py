"""Programs with limited memory: in a cgroup, like a container, if one can be created."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from test.support.process import until


class Kind(NamedTuple):
    """One of the two versions of the kernel's memory controller."""

    root: Path
    limit: str  #: the file for the limit, in bytes
    peak: str  #: the file with the most that was used, in bytes


_KINDS = (
    Kind(Path("/sys/fs/cgroup"), "memory.max", "memory.peak"),
    Kind(Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
)
#: Joins the cgroup $0, then becomes the program.
_JOIN = 'echo $$ >"$0/cgroup.procs" && exec "$@"'


class Limit:
    """A memory limit, and the command that puts a program under it."""

    def __init__(self, command: list[str], peak: Path | None) -> None:
        self.command = command  #: precedes the program's own
        self._peak = peak

    def peak(self) -> int | None:
        """The most memory that its programs have used, in bytes; None if it is not measured."""
        return int(self._peak.read_text()) if self._peak else None


@contextlib.contextmanager
def memory_limit(size: int) -> Iterator[Limit]:
    """Let programs share `size` bytes; the kernel kills one if that is not enough.

    If no cgroup can be created, there is no limit, and `peak` returns None.
    """
    for kind in _KINDS:
        folder = kind.root / f"instaslice-test-{os.getpid()}"
        if _make(folder, kind, size):
            peak = folder / kind.peak
            try:
                yield Limit(["sh", "-c", _JOIN, str(folder)], peak if peak.exists() else None)
            finally:
                members = folder / "cgroup.procs"
                until(lambda file=members: not file.read_text(), "the cgroup is empty")
                folder.rmdir()
            return
    yield Limit([], None)


def _make(folder: Path, kind: Kind, size: int) -> bool:
    """Create a cgroup with a limit; returns whether that was possible."""
    if not (kind.root / "cgroup.procs").exists():
        return False  # the other version is mounted
    try:
        folder.mkdir()
    except OSError:
        return False
    try:
        (folder / kind.limit).write_text(str(size))
    except OSError:
        folder.rmdir()
        return False
    return True
