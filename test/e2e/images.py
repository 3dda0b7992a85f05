"""Container images made on the spot, without a registry: busybox, under any names.

An archive in the OCI image layout, as `ctr images import` reads it.
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
from typing import Any, Final

Json = dict[str, Any]

#: What Go calls this machine's architecture.
ARCHITECTURE: Final = {"x86_64": "amd64", "aarch64": "arm64"}.get(
    platform.machine(), platform.machine()
)
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"


def busybox_images(archive: Path, busybox: Path, commands: Mapping[str, Sequence[str]]) -> None:
    """Write an archive of images that have busybox and its links.

    busybox: the program; libraries that it needs come along. commands: by the image's name.
    """
    layer = _layer(busybox)
    blobs = {_digest(layer): layer}

    def add(data: bytes, media_type: str, **more: Any) -> Json:
        blobs[_digest(data)] = data
        return {"mediaType": media_type, "digest": _digest(data), "size": len(data), **more}

    index = []
    for name, command in commands.items():
        config = {
            "architecture": ARCHITECTURE,
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": list(command)},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": add(_json(config), "application/vnd.oci.image.config.v1+json"),
            "layers": [add(layer, "application/vnd.oci.image.layer.v1.tar")],
        }
        names = {"io.containerd.image.name": name}
        index.append(add(_json(manifest), _MANIFEST, annotations=names))
    with tarfile.open(archive, "w") as tar:
        _add(tar, "oci-layout", _json({"imageLayoutVersion": "1.0.0"}))
        _add(tar, "index.json", _json({"schemaVersion": 2, "manifests": index}))
        for digest, data in blobs.items():
            _add(tar, "blobs/" + digest.replace(":", "/"), data)


def _layer(busybox: Path) -> bytes:
    """A root file system with busybox, as a tar archive."""
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    # Prints a line `name => /path (address)` for each, or "not a dynamic executable".
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


def _json(value: Json) -> bytes:
    return json.dumps(value).encode()


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
