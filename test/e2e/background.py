"""What goes on beside a test: kubelets of a cluster without nodes, and pods without end."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Final

from test.e2e.cluster import Cluster, Json, Refused
from test.e2e.pods import limits_left
from test.support.process import until

#: Of a load; and the seconds between two of a thread's pods: it is steady, not the most that goes.
THREADS: Final = 4
PAUSE: Final = 0.02
NOT_REWRITTEN: Final = "it was not rewritten"


@contextmanager
def again_and_again(
    work: Callable[[], object], *, pause: float = 0.1, threads: int = 1
) -> Iterator[None]:
    """Call a function all the time while the context lasts. pause: seconds between two calls."""
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
    """While the context lasts, every pod of a namespace becomes ready.

    Those that are to run once are done: a Job's, and that of `helm test`.
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
                if refused.code != 404:  # it may be gone in between
                    raise

    with again_and_again(work):
        yield


@dataclass
class Load:
    """What became of the pods so far."""

    rewritten: int = 0
    slowest: float = 0.0  #: seconds, of a create
    failures: list[str] = field(default_factory=list)  #: refused, or not rewritten

    def goes_on(self) -> None:
        """Returns once 20 more pods were rewritten."""
        then = self.rewritten
        until(lambda: self.rewritten > then + 20, "pods are rewritten", seconds=60)

    def stops(self) -> None:
        """Returns once ten more were not."""
        then = len(self.failures)
        until(lambda: len(self.failures) > then + 10, "pods are refused", every=0.01)


@contextmanager
def load(cluster: Cluster, manifest: Json) -> Iterator[Load]:
    """Create a pod again and again, as dry runs, so that only admission is at work."""
    seen = Load()

    def work() -> None:
        start = time.monotonic()
        try:
            left = limits_left(cluster.create(manifest, dry_run=True))
        except Refused as refused:
            seen.failures.append(str(refused))
        except Exception as error:  # the API server's own failure is one, too
            seen.failures.append(repr(error))
        else:
            if left:
                seen.failures.append(NOT_REWRITTEN)
            else:
                seen.rewritten += 1
        seen.slowest = max(seen.slowest, time.monotonic() - start)

    with again_and_again(work, pause=PAUSE, threads=THREADS):
        yield seen
