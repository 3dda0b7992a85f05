"""`make` as a user runs it, in a copy of the checkout, against a cluster of the tests."""

import os
import shutil
import subprocess
from pathlib import Path

from test.e2e.controlplane import ControlPlane
from test.support.process import ROOT


class Checkout:
    """A copy of what `make deploy` needs."""

    def __init__(self, plane: ControlPlane, folder: Path, image: str) -> None:
        """folder: is there. image: the one to deploy."""
        self._folder = folder
        self._settings = {
            "IMG": image,
            "KUBECTL": f"{plane.kubectl} --kubeconfig={plane.kubeconfig}",
        }
        for name in ("Makefile", "config", "hack", "instaslice"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)

    def make(self, target: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run make. variables: of the Makefile and of the environment."""
        settings = {**self._settings, **variables}
        return subprocess.run(
            ["make", "--no-print-directory", target, *(f"{k}={v}" for k, v in settings.items())],
            cwd=self._folder,
            env={**os.environ, "TIMEOUT": "60s", **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )
