"""Files replaced by their rewritten text, whole or not at all, and otherwise as they were."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

from instaslice.manifests.model import Document
from instaslice.manifests.output import Output, stream
from instaslice.patch import Json


class InPlace(Output):
    """Writes the files in which something changes."""

    def __init__(self, say: Callable[[str], None], *, waits: bool) -> None:
        """say: tells a line. waits: whether templates may be added to a file that has ended."""
        self.say = say
        self.waits = waits
        self.is_bad = False  #: a file could not be written
        self.file = _New("")
        self.waiting: list[_New] = []

    def begin(self, name: str) -> None:
        self.file.drop()  # where the one before could not be read to its end
        self.file = _New(name)

    def documents(self, documents: list[Document], offset: int) -> None:
        file = self.file
        try:
            if file.copy is None and any(document.changed for document in documents):
                file.begin(offset)
            file.is_json = file.is_json or any(document.is_json for document in documents)
            for document in documents:
                file.write(document.after)
        except OSError as error:
            self._failed(file, error)

    def end(self, *, is_bad: bool) -> None:
        if is_bad:
            self.file.drop()
        elif self.waits:
            self.waiting.append(self.file)
        else:
            self._finish(self.file, [])
        self.file = _New("")

    def finish(self, added: dict[str, list[Json]]) -> None:
        for file in self.waiting:
            self._finish(file, added.pop(file.name, []))
        self.waiting.clear()

    def close(self) -> None:
        """Leave nothing behind, whatever has happened."""
        for file in (self.file, *self.waiting):
            file.drop()

    def _finish(self, file: "_New", added: list[Json]) -> None:
        if file.has_failed or (file.copy is None and not added):
            return
        if added and file.is_json:
            self.is_bad = True
            self.say(f"instaslice: {file.name}: templates cannot be appended to JSON")
            file.drop()
            return
        try:
            if file.copy is None:
                file.begin(file.target.stat().st_size)
            file.write(stream(file.last, added))
            file.replace()
        except OSError as error:
            self._failed(file, error)
        else:
            self.say(f"{file.name}: rewritten")

    def _failed(self, file: "_New", error: OSError) -> None:
        self.is_bad = file.has_failed = True
        self.say(f"instaslice: {file.name}: {error.strerror or error}")
        file.drop()


class _New:
    """A file's new text, beside it until all of it is there."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.target = Path(name).resolve()  # a symbolic link stays one
        self.copy: IO[bytes] | None = None
        self.is_beside = True  #: in the same folder, so that it can take the file's place
        self.is_json = False
        self.has_failed = False
        self.last = ""  #: its last character

    def begin(self, length: int) -> None:
        """Something changes: begin with so many bytes of the file as it is. Raises OSError."""
        prefix = f".{self.target.name}."
        try:
            handle, path = tempfile.mkstemp(prefix=prefix, dir=self.target.parent)
        except PermissionError:
            self.is_beside = False
            handle, path = tempfile.mkstemp(prefix=prefix)
        self.path = path
        self.copy = os.fdopen(handle, "w+b")
        with self.target.open("rb") as source:
            left = length
            while left and (chunk := source.read(min(left, 1 << 20))):
                self.copy.write(chunk)
                left -= len(chunk)
                self.last = chr(chunk[-1])

    def write(self, text: str) -> None:
        """The text goes on. Raises OSError."""
        self.last = text[-1:] or self.last
        if self.copy is not None:
            self.copy.write(text.encode())

    def replace(self) -> None:
        """Have the text take the file's place. Raises OSError; then the file is as it was."""
        assert self.copy is not None
        self.copy.flush()
        os.fsync(self.copy.fileno())
        if self.is_beside and self.target.stat().st_nlink == 1 and self._looks_like_it():
            os.replace(self.path, self.target)
            self.copy.close()
            self.copy = None
        else:
            # Another file in its place would have other links, or another owner.
            self._overwrite()
            self.drop()

    def _looks_like_it(self) -> bool:
        """Give the copy the file's owner, mode and attributes; whether it could be done."""
        assert self.copy is not None
        handle = self.copy.fileno()
        status = self.target.stat()
        try:
            if (status.st_uid, status.st_gid) != (os.geteuid(), os.getegid()):
                os.chown(handle, status.st_uid, status.st_gid)
            os.fchmod(handle, status.st_mode & 0o7777)
            for name in os.listxattr(self.target):
                os.setxattr(handle, name, os.getxattr(self.target, name))
        except OSError:
            return False
        return True

    def _overwrite(self) -> None:
        """Write the text into the file itself."""
        assert self.copy is not None
        size = self.copy.seek(0, os.SEEK_END)
        self.copy.seek(0)
        with self.target.open("r+b") as target:
            old = target.seek(0, os.SEEK_END)
            target.seek(0)
            try:
                if size > old:
                    # A disk that is full says so before anything is lost.
                    os.posix_fallocate(target.fileno(), old, size - old)
            except OSError:
                target.truncate(old)
                raise
            shutil.copyfileobj(self.copy, target)
            target.truncate(size)
            target.flush()
            os.fsync(target.fileno())

    def drop(self) -> None:
        """Leave the file as it is, and no copy."""
        if self.copy is not None:
            copy, self.copy = self.copy, None
            os.unlink(self.path)
            copy.close()
