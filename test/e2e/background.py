"""Background work during a test: kubelets for a cluster without nodes, and a load of pods."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Final

from test.e2e.cluster import Cluster, Json, Refused
from test.e2e.pods import limits_left
from test.support.process import until

#: Threads of a load, and seconds between two pods of a thread: a steady load, not the highest.
THREADS: Final = 4
PAUSE: Final = 0.02
NOT_REWRITTEN: Final = "it was not rewritten"


@contextmanager
def again_and_again(
    work: Callable[[], object], *, pause: float = 0.1, threads: int = 1
) -> Iterator[None]:
    """Call a function again and again inside the context. pause: seconds between two calls."""
    stop = Event()

    def loop() -> None:
        while not stop.wait(pause):
            work()

    running = [Thread(target=loop) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in running:
            thread.join()


@contextmanager
def kubelet(namespace: Cluster) -> Iterator[None]:
    """Make every pod in a namespace ready inside the context.

    Pods that run once succeed: those of Jobs, and that of `helm test`.
    """

    def work() -> None:
        for pod in namespace.list("Pod"):
            phase = "Running" if pod["spec"]["restartPolicy"] == "Always" else "Succeeded"
            if pod["status"].get("phase") == phase:
                continue
            ready = "True" if phase == "Running" else "False"
            conditions = [{"type": kind, "status": ready} for kind in ("Ready", "ContainersReady")]
            status = {"status": {"phase": phase, "conditions": conditions}}
            try:
                namespace.patch("Pod/status", pod["metadata"]["name"], status)
            except Refused as refused:
                if refused.code != 404:  # the pod may be gone already
                    raise

    with again_and_again(work):
        yield


@dataclass
class Load:
    """The results of a load so far."""

    rewritten: int = 0
    slowest: float = 0.0  #: seconds of the slowest create
    failures: list[str] = field(default_factory=list)  #: pods refused, or not rewritten

    def goes_on(self) -> None:
        """Wait until 20 more pods are rewritten."""
        then = self.rewritten
        until(lambda: self.rewritten > then + 20, "pods are rewritten", seconds=60)

    def stops(self) -> None:
        """Wait until ten more pods fail."""
        then = len(self.failures)
        until(lambda: len(self.failures) > then + 10, "pods are refused", every=0.01)


@contextmanager
def load(cluster: Cluster, manifest: Json) -> Iterator[Load]:
    """Create a pod again and again inside the context, as dry runs that only test admission."""
    seen = Load()

    def work() -> None:
        start = time.monotonic()
        try:
            left = limits_left(cluster.create(manifest, dry_run=True))
        except Refused as refused:
            seen.failures.append(str(refused))
        except Exception as error:  # failures of the API server count, too
            seen.failures.append(repr(error))
        else:
            if left:
                seen.failures.append(NOT_REWRITTEN)
            else:
                seen.rewritten += 1
        seen.slowest = max(seen.slowest, time.monotonic() - start)

    with again_and_again(work, pause=PAUSE, threads=THREADS):
        yield seen
