"""A program within so much memory: in a cgroup, as a container is, where there may be one."""

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
    peak: str  #: the file that tells the most that was used


_KINDS = (
    Kind(Path("/sys/fs/cgroup"), "memory.max", "memory.peak"),
    Kind(Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
)
#: Puts itself into the cgroup of $0, and becomes the program.
_JOIN = 'echo $$ >"$0/cgroup.procs" && exec "$@"'


class Limit:
    """A limit on memory, and what is run to be under it."""

    def __init__(self, command: list[str], peak: Path | None) -> None:
        self.command = command  #: to be followed by the program's own
        self._peak = peak

    def peak(self) -> int | None:
        """The most that all its programs have used, in bytes; None where nobody counts."""
        return int(self._peak.read_text()) if self._peak else None


@contextlib.contextmanager
def memory_limit(size: int) -> Iterator[Limit]:
    """Have programs share `size` bytes, and end where that is not enough.

    Where there may be no cgroup, there is no limit, and `peak` does not know.
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
    """Make a cgroup with a limit, if that is allowed here."""
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
