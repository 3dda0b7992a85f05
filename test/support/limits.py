"""Programs with limited memory: in a cgroup, like a container, if one can be created."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from test.support.process import until

#: The two versions of the kernel's memory controller: its folder, and its files for the limit and
#: for the most that was used, both in bytes.
_VERSIONS = (
    (Path("/sys/fs/cgroup"), "memory.max", "memory.peak"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes", "memory.max_usage_in_bytes"),
)
#: Joins the cgroup $0, then becomes the program.
_JOIN = 'echo $$ >"$0/cgroup.procs" && exec "$@"'


class Limit(NamedTuple):
    """A memory limit, and the command that puts a program under it."""

    command: list[str]  #: precedes the program's own
    file: Path | None

    def peak(self) -> int | None:
        """The most memory that its programs have used, in bytes; None if it is not measured."""
        return int(self.file.read_text()) if self.file and self.file.exists() else None


@contextlib.contextmanager
def memory_limit(size: int) -> Iterator[Limit]:
    """Let programs share `size` bytes; the kernel kills one if that is not enough.

    If no cgroup can be created, there is no limit, and `peak` returns None.
    """
    for root, limit, peak in _VERSIONS:
        if not (root / "cgroup.procs").exists():
            continue  # the other version is mounted
        folder = root / f"instaslice-test-{os.getpid()}"
        try:
            folder.mkdir()
            (folder / limit).write_text(str(size))
        except OSError:  # nothing may be written
            with contextlib.suppress(OSError):
                folder.rmdir()
            continue
        try:
            yield Limit(["sh", "-c", _JOIN, str(folder)], folder / peak)
        finally:
            members = folder / "cgroup.procs"
            until(lambda file=members: not file.read_text(), "the cgroup is empty")
            folder.rmdir()
        return
    yield Limit([], None)
