"""Pods that are created all the time, as dry runs, so that only admission is at work."""

import json
import ssl
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPSConnection
from threading import Event, Thread
from typing import Any, Final
from urllib.parse import urlsplit

from test.e2e.cluster import Cluster
from test.e2e.pods import limits_left

Json = dict[str, Any]

THREADS: Final = 4
#: Seconds between two of a thread's pods: the load is steady, not the most that goes.
PAUSE: Final = 0.02
#: A thread stops by itself after so many.
MAX_PODS: Final = 20_000


@dataclass
class Load:
    """What became of the pods so far."""

    rewritten: int = 0
    slowest: float = 0.0  #: seconds, of a create
    failures: list[str] = field(default_factory=list)  #: refused, or not rewritten


@contextmanager
def load(cluster: Cluster, manifest: Json) -> Iterator[Load]:
    """Create a pod again and again while the context lasts; none of them is kept."""
    trust = ssl.create_default_context(cafile=cluster.plane.ca)
    trust.load_cert_chain(cluster.plane.admin)
    url = urlsplit(cluster.plane.url)
    assert url.hostname
    host, port = url.hostname, url.port
    path = f"/api/v1/namespaces/{cluster.namespace}/pods?dryRun=All"
    body = json.dumps(manifest).encode()
    seen, stop = Load(), Event()

    def work() -> None:
        with closing(HTTPSConnection(host, port, context=trust, timeout=30)) as connection:
            for _ in range(MAX_PODS):
                start = time.monotonic()
                connection.request("POST", path, body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                said = json.loads(answer.read())
                seen.slowest = max(seen.slowest, time.monotonic() - start)
                if answer.status != 201:
                    seen.failures.append(said["message"])
                elif limits_left(said):
                    seen.failures.append("it was not rewritten")
                else:
                    seen.rewritten += 1
                if stop.wait(PAUSE):
                    return

    def report() -> None:
        try:
            work()
        except (OSError, HTTPException) as error:  # the API server's own failure is one, too
            seen.failures.append(repr(error))

    threads = [Thread(target=report) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join()
