"""Commands of the documentation, run as a reader runs them."""

import re
import shlex
import subprocess

from test.e2e.checkout import Checkout
from test.e2e.cluster import Cluster
from test.support.command import instaslice
from test.support.process import ROOT


def commands(page: str, section: str) -> list[str]:
    """The commands in the console blocks of a section of a page. Its subsections are others."""
    text = re.split(rf"\n##+ {re.escape(section)}\n", (ROOT / page).read_text())[1]
    blocks = re.findall(r"```console\n(.*?)```", re.split(r"\n##+ ", text)[0], re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if not line.startswith("#")]


class Reader:
    """Runs commands, with what the reader puts in place of words."""

    def __init__(self, cluster: Cluster, checkout: Checkout | None = None, **words: str) -> None:
        """checkout: where make runs. words: by the page's own, NAMESPACE and others."""
        self._plane = cluster.plane
        self._checkout = checkout
        self._words = {"NAMESPACE": cluster.namespace, **words}

    def follow(self, *lines: str) -> str:
        """What the commands print. Fails with what they say of an error."""
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
        else:
            assert program == "kubectl", line
            command = [str(self._plane.kubectl), kubeconfig, *arguments]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=90)
        assert done.returncode == 0, f"{line}: {done.stdout}{done.stderr}"
        return done.stdout
