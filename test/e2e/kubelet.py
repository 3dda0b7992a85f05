"""Stands for the kubelets of a cluster without nodes: says of pods that they run, or are done."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread

from test.e2e.cluster import Cluster, Json, Refused

#: Seconds between two looks.
PERIOD = 0.1


@contextmanager
def kubelet(namespace: Cluster) -> Iterator[None]:
    """While the context lasts, every pod of a namespace becomes ready.

    Those that are to run once are done: a Job's, and that of `helm test`.
    """
    stop = Event()

    def work() -> None:
        while not stop.wait(PERIOD):
            for pod in namespace.list("Pod"):
                if status := _becomes(pod):
                    try:
                        namespace.patch("Pod/status", pod["metadata"]["name"], {"status": status})
                    except Refused as refused:
                        if refused.code != 404:  # it may be gone in between
                            raise

    thread = Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _becomes(pod: Json) -> Json | None:
    """The status to give a pod; None where it has it."""
    phase = "Running" if pod["spec"]["restartPolicy"] == "Always" else "Succeeded"
    if pod["status"].get("phase") == phase:
        return None
    ready = "True" if phase == "Running" else "False"
    conditions = [{"type": kind, "status": ready} for kind in ("Ready", "ContainersReady")]
    return {"phase": phase, "conditions": conditions}
