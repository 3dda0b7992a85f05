"""Helm, in each major version that is installed; `make helm` fetches them."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from test.support.process import ROOT


def programs() -> list[Path]:
    """The programs that HELM names; if it is not set, those in .helm/, or helm on PATH."""
    if named := os.environ.get("HELM"):
        return [Path(each) for each in named.split(os.pathsep)]
    found = sorted((ROOT / ".helm").glob("helm?"))
    on_path = shutil.which("helm")
    return found or ([Path(on_path)] if on_path else [])


#: The reason for which tests are skipped without Helm.
NONE = "needs Helm: `make helm`, helm on PATH, or HELM=path:path"


class Helm:
    """A Helm with its own settings."""

    def __init__(self, program: Path, folder: Path, kubeconfig: Path | None = None) -> None:
        """folder: for everything that it writes."""
        self.program = program
        homes = {f"HELM_{kind}_HOME": str(folder / kind) for kind in ("CACHE", "CONFIG", "DATA")}
        self._environment = {**os.environ, **homes, "KUBECONFIG": str(kubeconfig or folder / "no")}

    def run(
        self, *arguments: str | Path, values: Mapping[str, Any] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        """Run it; returns its output and exit code. values: passed as a file."""
        given = [] if values is None else ["--values=-"]
        return subprocess.run(
            [self.program, *arguments, *given],
            env=self._environment,
            input=None if values is None else json.dumps(values),
            capture_output=True,
            text=True,
            timeout=120,
        )
