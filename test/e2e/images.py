"""Builds container images of busybox under any names, without a registry.

The archive has the format of `docker save`, which `ctr images import` reads.
"""

import hashlib
import io
import json
import platform
import re
import subprocess
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

#: Go's name of this machine's architecture.
ARCHITECTURE: Final = {"x86_64": "amd64", "aarch64": "arm64"}.get(
    platform.machine(), platform.machine()
)


def busybox_images(archive: Path, busybox: Path, commands: Mapping[str, Sequence[str]]) -> None:
    """Write an archive of images that have busybox and its links.

    busybox: the program, copied with its libraries. commands: by the image's name.
    """
    layer = _layer(busybox)
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    images = []
    with tarfile.open(archive, "w") as tar:
        _add(tar, "layer.tar", layer)
        for number, (name, command) in enumerate(commands.items()):
            config = {
                "architecture": ARCHITECTURE,
                "os": "linux",
                "config": {"Env": ["PATH=/bin"], "Cmd": list(command)},
                "rootfs": {"type": "layers", "diff_ids": [digest]},
            }
            path = f"{number}.json"
            _add(tar, path, json.dumps(config).encode())
            images.append({"Config": path, "RepoTags": [name], "Layers": ["layer.tar"]})
        _add(tar, "manifest.json", json.dumps(images).encode())


def _layer(busybox: Path) -> bytes:
    """A root file system with busybox, as a tar archive."""
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    # `ldd` prints a line `name => /path (address)` for each, or "not a dynamic executable".
    needed = subprocess.run(["ldd", busybox], capture_output=True, text=True)
    libraries = re.findall(r"(/\S+) \(0x", needed.stdout)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for folder in ("bin", "dev", "proc", "sys", "tmp"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        _add(tar, "bin/busybox", busybox.read_bytes(), 0o755)
        for library in libraries:
            _add(tar, library.lstrip("/"), Path(library).read_bytes(), 0o755)
        for name in sorted({*listed.stdout.split()} - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return data.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
