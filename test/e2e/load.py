"""Pods that are created all the time, as dry runs, so that only admission is at work."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Final

from test.e2e.cluster import Cluster, Json, Refused
from test.e2e.pods import limits_left
from test.support.process import until

THREADS: Final = 4
#: Seconds between two of a thread's pods: the load is steady, not the most that goes.
PAUSE: Final = 0.02
NOT_REWRITTEN: Final = "it was not rewritten"


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
    """Create a pod again and again while the context lasts; none of them is kept."""
    seen, stop = Load(), Event()

    def work() -> None:
        while not stop.wait(PAUSE):
            start = time.monotonic()
            try:
                left = limits_left(cluster.create(manifest, dry_run=True))
            except Refused as refused:
                seen.failures.append(str(refused))
            except Exception as error:  # the API server's own failure is one, too
                seen.failures.append(repr(error))
                return
            else:
                if left:
                    seen.failures.append(NOT_REWRITTEN)
                else:
                    seen.rewritten += 1
            seen.slowest = max(seen.slowest, time.monotonic() - start)

    threads = [Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()
