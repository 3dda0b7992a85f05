"""Debian's docker engine, for one test: no network, and all that it keeps in one folder."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from test.image.build import run
from test.support.process import ROOT, Process, until


@dataclass(frozen=True)
class Docker:
    """A client of an engine that runs."""

    socket: Path
    client: str = "docker"

    @classmethod
    @contextmanager
    def running(cls, folder: Path) -> Iterator["Docker"]:
        """An engine that runs while the context does. Raises RuntimeError and TimeoutError."""
        docker = cls(folder / "docker.sock", _client())
        command = [
            *("dockerd", "--bridge=none", "--iptables=false", "--ip6tables=false"),
            f"--host=unix://{docker.socket}",
            *(f"--data-root={folder / 'data'}", f"--exec-root={folder / 'exec'}"),
            f"--pidfile={folder / 'pid'}",
        ]
        engine = Process(command, folder / "dockerd.log")
        try:
            until(docker.answers, "the engine answers", engine.check)
            yield docker
        finally:
            engine.stop(grace=20)  # it ends its containerd, too
            run("rm", "-rf", folder / "data", folder / "exec")

    def answers(self) -> bool:
        """Whether the engine does."""
        done = subprocess.run(
            [self.client, f"--host=unix://{self.socket}", "version"], capture_output=True
        )
        return done.returncode == 0

    def __call__(self, *arguments: str | Path) -> str:
        """What docker prints. Raises RuntimeError."""
        return run(self.client, f"--host=unix://{self.socket}", *arguments).strip()

    def make(self, target: str, variable: str, *options: str) -> None:
        """Run make with this engine. options: of `docker build`. Raises RuntimeError."""
        tool = f"{self.client} --host=unix://{self.socket}"
        done = subprocess.run(
            [
                "make",
                target,
                variable,
                f"CONTAINER_TOOL={tool}",
                f"BUILD_OPTIONS={' '.join(options)}",
            ],
            cwd=ROOT,
            env={key: value for key, value in os.environ.items() if not key.startswith("DOCKER_")},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"make {target}: {done.stdout[-2000:]}{done.stderr[-2000:]}")


def _client() -> str:
    """Debian's own client, whatever else is first on PATH."""
    return "/usr/bin/docker" if Path("/usr/bin/docker").exists() else "docker"
