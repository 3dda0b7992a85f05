"""Runs `make` and the commands of the documentation, as a user does, on a cluster of the tests."""

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from test.e2e.cluster import Cluster, Json
from test.e2e.controlplane import ControlPlane
from test.support.command import instaslice
from test.support.helm import Helm
from test.support.process import ROOT


class Checkout:
    """A copy of the files that `make deploy` needs."""

    def __init__(self, plane: ControlPlane, folder: Path, image: str) -> None:
        """folder: an existing one. image: the one to deploy."""
        self._folder = folder
        self._settings = {
            "IMG": image,
            "KUBECTL": f"{plane.kubectl} --kubeconfig={plane.kubeconfig}",
        }
        for name in ("Makefile", "config", "hack", "instaslice"):
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, folder / name)

    def make(self, target: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """Run make. variables: for the Makefile and the environment."""
        settings = {**self._settings, **variables}
        return subprocess.run(
            ["make", "--no-print-directory", target, *(f"{k}={v}" for k, v in settings.items())],
            cwd=self._folder,
            env={**os.environ, "TIMEOUT": "60s", **variables},
            capture_output=True,
            text=True,
            timeout=120,
        )


def commands(page: str, section: str) -> list[str]:
    """The commands in the console blocks of a page's section, without its subsections."""
    text = re.split(rf"\n##+ {re.escape(section)}\n", (ROOT / page).read_text())[1]
    blocks = re.findall(r"```console\n(.*?)```", re.split(r"\n##+ ", text)[0], re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if not line.startswith("#")]


def doctor(cluster: Cluster, *arguments: str) -> list[Json]:
    """All findings of `instaslice doctor` about a namespace."""
    done = instaslice("doctor", *cluster.where, "-o", "json", *arguments)
    assert done.err == ""
    found: list[Json] = json.loads(done.out)
    assert done.code == any(each["state"] == "wrong" for each in found)
    return found


class Reader:
    """Runs a page's commands, with values in the place of its placeholders."""

    def __init__(
        self,
        cluster: Cluster,
        checkout: Checkout | None = None,
        helm: Helm | None = None,
        **words: str,
    ) -> None:
        """checkout: where make runs. words: the values of placeholders such as NAMESPACE."""
        self._plane = cluster.plane
        self._checkout = checkout
        self._helm = helm
        self._words = {"NAMESPACE": cluster.namespace, **words}

    def follow(self, *lines: str) -> str:
        """Run commands, and return their output. Fails with their error messages."""
        return "".join(map(self._follow, lines))

    def _follow(self, line: str) -> str:
        for word, here in self._words.items():
            line = re.sub(rf"\b{word}\b", here, line)
        program, *arguments = shlex.split(line, comments=True)
        kubeconfig = f"--kubeconfig={self._plane.kubeconfig}"
        if program == "instaslice":
            found = instaslice(*arguments, kubeconfig)
            assert (found.code, found.err) == (0, ""), found.out
            return found.out
        if program == "make":
            assert self._checkout
            target, *variables = arguments
            pairs = dict(each.split("=", 1) for each in variables)
            done = self._checkout.make(target, **{k: v for k, v in pairs.items() if v != "..."})
        elif program == "helm":
            assert self._helm
            done = self._helm.run(*arguments)
        else:
            assert program == "kubectl", line
            command = [str(self._plane.kubectl), kubeconfig, *arguments]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout
