"""`make bench-files`: how long `instaslice rewrite` takes for files, and how much memory.

Each file is rewritten by a process of its own, as a user starts it. Processor time is what counts
on a machine that others use, too.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: pod-{number}
  labels: {{app: bench}}
spec:
  containers:
  - name: main
    image: registry.example/image:1
    command: ["sh", "-c", "sleep 1"]
    env:
    - name: A
      value: "1"
    resources:
      limits:
        {resource}: 1
        cpu: "1"
"""
MEGABYTE = 1_000_000


class Kind(NamedTuple):
    """A file to rewrite."""

    title: str
    megabytes: int
    every: int  #: which pods have a MIG limit: every so many
    is_list: bool = False  #: one document, as `kubectl get -o yaml` writes it


KINDS = (
    Kind("a stream of pods, 1 in 100 with a MIG limit", 1, 100),
    Kind("a stream of pods, each with a MIG limit", 1, 1),
    Kind("a stream of pods, 1 in 100 with a MIG limit", 50, 100),
    Kind("one List of pods, 1 in 100 with a MIG limit", 50, 100, is_list=True),
    Kind("one List of pods, each with a MIG limit", 5, 1, is_list=True),
)


def written(kind: Kind) -> Iterator[str]:
    """The file's text, in parts."""
    size = 0
    if kind.is_list:
        yield "apiVersion: v1\nkind: List\nitems:\n"
    number = 0
    while size < kind.megabytes * MEGABYTE:
        resource = "nvidia.com/mig-1g.5gb" if number % kind.every == 0 else "example.com/thing"
        pod = POD.format(number=number, resource=resource)
        item = "- " + pod.rstrip().replace("\n", "\n  ") + "\n"
        text = item if kind.is_list else f"---\n{pod}"
        yield text
        size += len(text)
        number += 1


def rewrite(path: Path) -> tuple[float, float, float]:
    """Seconds, seconds of a processor, and megabytes of memory at most, to rewrite a file."""
    start = time.monotonic()
    command = [sys.executable, "-m", "instaslice", "rewrite", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, "it could not be rewritten"
    seconds = time.monotonic() - start
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / MEGABYTE


def measure() -> str:
    """A table of what files take, as Markdown."""
    lines = [
        "| file | MB | seconds | of a processor | MB/s | memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(prefix="instaslice-bench-") as folder:
        path = Path(folder) / "file.yaml"
        for kind in KINDS:
            with path.open("w") as stream:
                stream.writelines(written(kind))
            size = path.stat().st_size / MEGABYTE
            seconds, busy, memory = rewrite(path)
            figures = f"{size:.0f} | {seconds:.1f} | {busy:.1f} | {size / busy:.1f} | {memory:.0f}"
            lines.append(f"| {kind.title} | {figures} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(measure(), end="")
