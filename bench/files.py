"""`make bench-files`: measure the time and the memory of `instaslice rewrite`.

A new process rewrites each file, as when a user starts it. On a shared machine, only the processor
time is meaningful.
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


class Shape(NamedTuple):
    """A file: a head, followed by as many parts as its size needs."""

    head: str
    part: str
    is_one: bool = True  #: whether the file is one document


#: The head of a custom resource with a MIG limit and a list.
CUSTOM = """\
apiVersion: example.com/v1
kind: Thing
limits: {nvidia.com/mig-1g.5gb: 1}
things:
"""
#: The head of a Deployment with a MIG limit; its container may go on.
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: bench}
spec:
  template:
    spec:
      containers:
      - name: main
        resources:
          limits: {nvidia.com/mig-1g.5gb: 1}
"""
ITEM = "- " + POD.rstrip().replace("\n", "\n  ") + "\n"
STREAM = Shape("", f"---\n{POD}", is_one=False)
LIST = Shape("apiVersion: v1\nkind: List\nitems:\n", ITEM)
VARIABLES = Shape(DEPLOYMENT + "        env:\n", "        - {{name: A{number}, value: b}}\n")
ARGUMENTS = Shape(DEPLOYMENT + "        args:\n", "        - argument-{number}\n")
CONTAINERS = Shape(DEPLOYMENT, "      - name: c{number}\n        image: registry.example/image:1\n")
OBJECTS = Shape(CUSTOM, "- a: {number}\n  b: [x, y]\n")
EMPTY = Shape(CUSTOM, "- {{}}\n")
DATA = Shape(
    'kind: ConfigMap\ndata:\n  a: "nvidia.com/mig-1g.5gb: 1"\n', "  key-{number}: value {number}\n"
)
JSON = Shape(
    '{"kind": "Thing", "limits": {"nvidia.com/mig-1g.5gb": 1}, "things": [0',
    ', {{"a": {number}, "b": ["x", "y"]}}',
)


class Kind(NamedTuple):
    """A file to rewrite."""

    title: str
    megabytes: int
    shape: Shape
    every: int = 1  #: one in so many pods has a MIG limit


#: Only streams and Lists are large in practice: etcd, and so the API server, takes objects of at
#: most 1.5 MiB.
KINDS = (
    Kind("a stream of pods, each with a MIG limit", 1, STREAM),
    Kind("a stream of pods, 1 in 100 with a MIG limit", 10, STREAM, 100),
    Kind("a stream of pods, 1 in 100 with a MIG limit", 20, STREAM, 100),
    Kind("one List of pods, 1 in 100 with a MIG limit", 10, LIST, 100),
    Kind("one List of pods, 1 in 100 with a MIG limit", 20, LIST, 100),
    Kind("one List of pods, each with a MIG limit", 5, LIST),
    Kind("one Deployment, environment variables", 2, VARIABLES),
    Kind("one Deployment, arguments", 2, ARGUMENTS),
    Kind("one Deployment, containers", 2, CONTAINERS),
    Kind("one custom resource, small objects", 2, OBJECTS),
    Kind("one custom resource, empty objects", 2, EMPTY),
    Kind("one ConfigMap, short values", 2, DATA),
    Kind("one custom resource in JSON, small objects", 2, JSON),
)


def written(kind: Kind) -> Iterator[str]:
    """The file's text, in parts."""
    head, part, _ = kind.shape
    yield head
    size = number = 0
    while size < kind.megabytes * MEGABYTE:
        resource = "nvidia.com/mig-1g.5gb" if number % kind.every == 0 else "example.com/thing"
        text = part.format(number=number, resource=resource)
        yield text
        size += len(text)
        number += 1
    if head.startswith("{"):
        yield "]}\n"


def rewrite(path: Path) -> tuple[float, float, float]:
    """Rewrite a file; returns seconds, seconds of processor time, and megabytes of peak memory."""
    start = time.monotonic()
    command = [sys.executable, "-m", "instaslice", "rewrite", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, "the file was not rewritten"
    seconds = time.monotonic() - start
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / MEGABYTE


def measure() -> str:
    """Measure all files; returns a Markdown table.

    The last column is the memory above that for a small file, divided by the document's size.
    """
    lines = [
        "| file | MB | seconds | processor time | MB/s | memory, MB | times the document |",
        "|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory(prefix="instaslice-bench-") as folder:
        path = Path(folder) / "file.yaml"
        path.write_text(POD.format(number=0, resource="nvidia.com/mig-1g.5gb"))
        _, _, least = rewrite(path)
        for kind in KINDS:
            with path.open("w") as stream:
                stream.writelines(written(kind))
            size = path.stat().st_size / MEGABYTE
            seconds, busy, memory = rewrite(path)
            times = f"{(memory - least) / size:.1f}" if kind.shape.is_one else ""
            figures = f"{size:.0f} | {seconds:.1f} | {busy:.1f} | {size / busy:.1f} | {memory:.0f}"
            lines.append(f"| {kind.title} | {figures} | {times} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(measure(), end="")
