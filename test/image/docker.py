"""Debian's docker engine for one test, without a network and with its state in one folder."""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from test.image.build import run
from test.support.process import ROOT, Process, until


@dataclass(frozen=True)
class Docker:
    """A client of a running engine."""

    socket: Path
    #: Debian's client, even if another one is first on PATH.
    client: ClassVar = "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"

    @classmethod
    @contextmanager
    def running(cls, *, containerd: bool = False) -> Iterator["Docker"]:
        """Run an engine inside the context.

        containerd: whether it keeps images in containerd's store, which can hold several platforms,
        and creates a bridge for an SBOM scanner; the caller must then be in a separate network.
        Raises RuntimeError and TimeoutError.
        """
        # pytest's folder is too long for the path of a Unix socket, at most 107 bytes (unix(7)).
        folder = Path(tempfile.mkdtemp(prefix="docker-"))
        docker = cls(folder / "docker.sock")
        config = folder / "daemon.json"
        config.write_text(json.dumps({"features": {"containerd-snapshotter": containerd}}))
        command = [
            *("dockerd", "--iptables=false", "--ip6tables=false"),
            *([] if containerd else ["--bridge=none"]),
            *(f"--host=unix://{docker.socket}", f"--config-file={config}"),
            *(f"--data-root={folder / 'data'}", f"--exec-root={folder / 'exec'}"),
            f"--pidfile={folder / 'pid'}",
        ]
        engine = Process(command, folder / "dockerd.log")
        try:
            until(docker.answers, "the engine answers", engine.check)
            yield docker
        finally:
            engine.stop(grace=20)  # it stops its containerd, too
            # With containerd's store, the engine leaves its folder mounted on itself.
            subprocess.run(["umount", folder / "data"], stderr=subprocess.DEVNULL)
            run("rm", "-rf", folder)

    def answers(self) -> bool:
        """Whether the engine answers."""
        command = [self.client, "version"]
        return subprocess.run(command, env=self._environment(), capture_output=True).returncode == 0

    def __call__(self, *arguments: str | Path) -> str:
        """Run docker, and return its output. Raises RuntimeError."""
        return run(self.client, *arguments, env=self._environment()).strip()

    def make(self, target: str, variable: str, *options: str) -> None:
        """Run make with this engine. options: of `docker build`. Raises RuntimeError."""
        done = subprocess.run(
            ["make", target, variable, f"BUILD_OPTIONS={' '.join(options)}"],
            cwd=ROOT,
            env=self._environment(),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"make {target}: {done.stdout[-2000:]}{done.stderr[-2000:]}")

    def _environment(self) -> dict[str, str]:
        """An environment without other engines and without the user's configuration."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")}
        path = f"{Path(self.client).parent}:{kept['PATH']}"
        own = {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.socket.parent)}
        return {**kept, "PATH": path, **own}
