"""Pods that run on a real node, and the devices that their containers see."""

from typing import Any, Final

from test.e2e.cluster import Cluster, Json
from test.e2e.driver import PREFIX
from test.e2e.node import IMAGE
from test.e2e.nvidia import devices_of
from test.e2e.pods import container, limits_left
from test.support.a100 import TWO_A100S
from test.support.process import until

#: Prints the names of the container's devices (test/e2e/driver.py), or the files of NVIDIA's
#: (test/e2e/nvidia.py), and then END.
END: Final = "that is all"
SHOW: Final = (
    f"env | sed -n 's/^{PREFIX}[A-Z0-9_]*=//p' | sort; "
    f"ls /dev /dev/nvidia-caps 2>/dev/null | grep ^nvidia; echo {END}"
)

#: Waits for SIGTERM, and then ends at once; a first process ignores the signal without a trap.
STAY: Final = "trap 'exit 0' TERM; sleep 3600 & wait"

#: Seconds to wait for a state of a pod; it takes one or two.
PATIENCE: Final = 60.0


def ends(name: str = "main", limits: Json | None = None, **more: Any) -> Json:
    """A container that prints its devices and ends."""
    return container(name, limits, image=IMAGE, command=["sh", "-c", SHOW], **more)


def stays(name: str = "main", limits: Json | None = None, **more: Any) -> Json:
    """A container that prints its devices and keeps running."""
    return container(name, limits, image=IMAGE, command=["sh", "-c", f"{SHOW}; {STAY}"], **more)


def sidecar(name: str, limits: Json | None = None) -> Json:
    """A sidecar: an init container that keeps running."""
    return stays(name, limits, restartPolicy="Always")


def wait_phase(cluster: Cluster, name: str, *phases: str) -> Json:
    """Wait until a pod is in one of the phases, and return it. Raises AssertionError."""

    def found() -> Json | None:
        found = cluster.find("Pod", name)
        return found if found and found["status"].get("phase") in phases else None

    try:
        pod = until(found, f"{name} is {' or '.join(phases)}", seconds=PATIENCE)
    except TimeoutError as late:
        told = cluster.kubectl("describe", "pod", name).stdout
        raise AssertionError(f"{late}\n{told}") from late
    assert pod
    return pod


def running(cluster: Cluster, number: int, *, rewritten: bool = True) -> dict[str, Json]:
    """Wait until exactly this number of pods exist and run, and return them by name.

    rewritten: whether InstaSlice has rewritten them. Raises AssertionError.
    """

    def found() -> dict[str, Json]:
        pods = cluster.list("Pod")
        run = {
            each["metadata"]["name"]: each
            for each in pods
            if each["status"].get("phase") == "Running"
            and "deletionTimestamp" not in each["metadata"]
            and bool(limits_left(each)) != rewritten
        }
        return run if len(run) == len(pods) == number else {}

    try:
        return until(found, f"{number} pods run", seconds=3 * PATIENCE)
    except TimeoutError as late:
        raise AssertionError(cluster.kubectl("describe", "pods").stdout) from late


def restarts(cluster: Cluster, pod: str) -> int:
    """How often the containers of a pod were restarted."""
    statuses = cluster.get("Pod", pod)["status"].get("containerStatuses", [])
    return sum(status["restartCount"] for status in statuses)


def wait_gone(cluster: Cluster, name: str) -> None:
    """Wait until a deleted pod is gone."""
    until(lambda: cluster.find("Pod", name) is None, f"{name} is gone", seconds=PATIENCE)


def seen(
    cluster: Cluster, pod: str, container: str = "main", *options: str, models: str = TWO_A100S
) -> list[str]:
    """Wait until a container has printed its devices, and return them.

    options: of `kubectl logs`. models: of the node's GPUs. Raises TimeoutError.
    """

    def told() -> list[str] | None:
        logs = cluster.kubectl("logs", pod, f"--container={container}", *options)
        lines = logs.stdout.splitlines()
        return lines if END in lines else None

    lines = until(told, f"{container} of {pod} has printed its devices", seconds=PATIENCE)
    assert lines
    told_of = lines[: lines.index(END)]
    files = [line for line in told_of if line.startswith("nvidia")]
    return devices_of(files, models) if files else told_of


def ready(deployed: Cluster) -> dict[str, Json]:
    """Wait until InstaSlice has two ready pods and no others, and return them by name."""

    def found() -> dict[str, Json] | None:
        pods = {
            each["metadata"]["name"]: each
            for each in deployed.list("Pod", label_selector="app.kubernetes.io/name=instaslice")
            if "deletionTimestamp" not in each["metadata"]
        }
        conditions = [
            condition["status"]
            for each in pods.values()
            for condition in each["status"].get("conditions", [])
            if condition["type"] == "Ready"
        ]
        return pods if conditions == ["True"] * 2 == ["True"] * len(pods) else None

    return until(found, "two pods are ready", seconds=PATIENCE)
