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
from types import MappingProxyType
from typing import Final

#: Go's name of this machine's architecture.
ARCHITECTURE: Final = {"x86_64": "amd64", "aarch64": "arm64"}.get(
    platform.machine(), platform.machine()
)


def busybox_images(
    archive: Path,
    busybox: Path,
    commands: Mapping[str, Sequence[str]],
    files: Mapping[str, Path | str] = MappingProxyType({}),
) -> None:
    """Write an archive of images that have busybox and its links.

    busybox: the program. commands: by the image's name. files: more programs and scripts, by their
    paths in the image. Programs are copied with their libraries.
    """
    layer = _layer(busybox, files)
    digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
    images = []
    with tarfile.open(archive, "w") as tar:
        _add(tar, "layer.tar", layer)
        for number, (name, command) in enumerate(commands.items()):
            config = {
                "architecture": ARCHITECTURE,
                "os": "linux",
                "config": {"Env": ["PATH=/bin:/usr/bin"], "Cmd": list(command)},
                "rootfs": {"type": "layers", "diff_ids": [digest]},
            }
            path = f"{number}.json"
            _add(tar, path, json.dumps(config).encode())
            images.append({"Config": path, "RepoTags": [name], "Layers": ["layer.tar"]})
        _add(tar, "manifest.json", json.dumps(images).encode())


def _layer(busybox: Path, files: Mapping[str, Path | str]) -> bytes:
    """A root file system with busybox and other files, as a tar archive."""
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    copied = {"bin/busybox": busybox, **files}
    programs = [each for each in copied.values() if isinstance(each, Path)]
    # `ldd` prints a line `name => /path (address)` for each, or "not a dynamic executable".
    needed = subprocess.run(["ldd", *programs], capture_output=True, text=True)
    libraries = {each: Path(each) for each in re.findall(r"(/\S+) \(0x", needed.stdout)}
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for folder in ("bin", "dev", "proc", "sys", "tmp"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        for name, file in {**copied, **libraries}.items():
            content = file.read_bytes() if isinstance(file, Path) else file.encode()
            _add(tar, name.lstrip("/"), content, 0o755)
        for name in sorted({*listed.stdout.split()} - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return data.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
