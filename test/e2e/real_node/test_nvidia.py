"""Tests that only NVIDIA's DRA driver can run, on the stand-in for NVML.

`make e2e-driver` runs the other tests with it, too.
"""

from collections.abc import Iterator

import pytest

from instaslice.doctor.inventory import Inventory
from test.e2e import gpus
from test.e2e.cluster import Cluster, Json
from test.e2e.gpus import gpu_of, profile_of
from test.e2e.node import NAME, Node
from test.e2e.nvidia import NvidiaNode, missing
from test.e2e.pods import pod
from test.e2e.runs import PATIENCE, ends, seen, stays, wait_gone, wait_phase
from test.support import a100
from test.support.process import until

pytestmark = [
    pytest.mark.skipif(bool(missing()), reason=missing()),
    pytest.mark.usefixtures("webhook"),
]


@pytest.fixture
def driver(real_node: Node, namespace: Cluster) -> NvidiaNode:
    """The node, with two A100s in MIG mode."""
    assert isinstance(real_node, NvidiaNode)
    return real_node


@pytest.fixture
def other(driver: NvidiaNode, namespace: Cluster) -> Iterator[NvidiaNode]:
    """The node, for a test that replaces its GPUs (`other_gpus`)."""
    yield driver
    pods = namespace.kubectl("delete", "pods", "--all", "--timeout=50s")
    assert pods.returncode == 0, pods.stderr
    driver.other_gpus()


def by_name(slices: list[Json], part: str) -> dict[str, Json]:
    """Devices or counter sets of ResourceSlices, by name."""
    return {each["name"]: each for one in slices for each in one["spec"].get(part) or []}


def test_driver_publishes_the_same_devices_as_the_tests(other: NvidiaNode) -> None:
    """Every test with test/support/a100.py relies on this."""
    other.other_gpus("FAKE_NVML_MIG=11", models="ah")
    published = other.cluster.list("ResourceSlice")
    ours = a100.resource_slices(NAME, models=[a100.A100, a100.H100])
    ours[-1]["spec"]["devices"].append(a100.whole_gpu(1, a100.H100))  # its MIG mode can be toggled
    for part in ("sharedCounters", "devices"):
        assert by_name(published, part) == by_name(ours, part)


@pytest.mark.parametrize("name", ["mig-1g.5gb.me", "mig-1g.10gb", "mig-7g.40gb"])
def test_a_profile_of_each_kind(driver: NvidiaNode, namespace: Cluster, name: str) -> None:
    namespace.create(pod("p", ends(limits={name: 1}), restartPolicy="Never"))
    wait_phase(namespace, "p", "Succeeded")
    (device,) = seen(namespace, "p")
    assert profile_of(device) == name.removeprefix("mig-").replace(".me", "-me").replace(".", "")


def test_fifteenth_pod_on_two_gpus_waits_for_a_free_slice(
    driver: NvidiaNode, namespace: Cluster
) -> None:
    names = [f"p{number}" for number in range(15)]
    for name in names:
        namespace.create(pod(name, stays(limits={"mig-1g.5gb": 1})))

    def running() -> list[str]:
        pods = {p["metadata"]["name"]: p["status"].get("phase") for p in namespace.list("Pod")}
        found = [name for name in names if pods[name] == "Running"]
        return found if len(found) == 14 else []

    first = until(running, "fourteen pods run", driver.check, seconds=3 * PATIENCE)
    assert len({device for name in first for device in seen(namespace, name)}) == 14
    (last,) = {*names} - {*first}
    gpus.waits(namespace, last)
    namespace.kubectl("delete", "pod", first[0], "--wait=false")
    wait_phase(namespace, last, "Running")


def test_slices_outlive_the_driver(driver: NvidiaNode, namespace: Cluster) -> None:
    """A restarted driver knows its slices, and releases those of pods that ended meanwhile."""
    for name in ("goes", "stays"):
        namespace.create(pod(name, stays(limits={"mig-1g.5gb": 2})))
        wait_phase(namespace, name, "Running")
    cut = driver.log.read_text()
    driver.end("driver")
    namespace.create(pod("late", ends(limits={"mig-1g.5gb": 1}), restartPolicy="Never"))
    namespace.kubectl("delete", "pod", "goes", "--wait=false")
    driver.start_driver()
    wait_phase(namespace, "late", "Succeeded")
    wait_gone(namespace, "goes")
    done = driver.log.read_text().removeprefix(cut)
    assert done.count("destroy gi") >= 4, "two slices, each with its compute instance"


def test_driver_allocates_what_doctor_reports_as_free(
    driver: NvidiaNode, namespace: Cluster
) -> None:
    namespace.create(pod("taken", stays(limits={"mig-3g.20gb": 1, "mig-1g.5gb.me": 1})))
    wait_phase(namespace, "taken", "Running")
    published, claims = driver.cluster.list("ResourceSlice"), namespace.list("ResourceClaim")
    free = Inventory(published, claims).supply["2g.10gb"].free
    names = [f"p{number}" for number in range(free + 1)]
    for name in names:
        namespace.create(pod(name, stays(limits={"mig-2g.10gb": 1})))
    for name in names[:-1]:
        wait_phase(namespace, name, "Running")
    gpus.waits(namespace, names[-1])


def test_starting_driver_destroys_slices_of_others(other: NvidiaNode) -> None:
    """So the device plugin's pods must leave the node first (docs/migrate.md)."""
    other.other_gpus("FAKE_NVML_CUT=0:19:2 1:9:0")
    done = other.log.read_text()
    assert done.count("/ci0 MIG-") == 2
    assert len([line for line in done.splitlines() if "destroy gi" in line]) == 4


def test_driver_without_gate_publishes_slices(other: NvidiaNode, namespace: Cluster) -> None:
    cut = [("1g.5gb", 2), ("3g.20gb", 4)]
    other.other_gpus("FAKE_NVML_CUT=0:19:2 0:9:4", gates=())
    published = by_name(other.cluster.list("ResourceSlice"), "devices")
    for name, device in by_name(a100.static_slices(NAME, *cut), "devices").items():
        found = published[name]
        assert found["attributes"].pop("uuid")["string"].startswith("MIG-")
        assert device["attributes"].pop("uuid")
        assert found == device
    namespace.create(pod("p", ends(limits={"mig-3g.20gb": 1}), restartPolicy="Never"))
    wait_phase(namespace, "p", "Succeeded")
    assert seen(namespace, "p") == ["gpu-0-mig-3g20gb-9-4"]
    assert "destroy" not in other.log.read_text(), "existing slices stay"


def test_a_whole_gpu_beside_slices(other: NvidiaNode, namespace: Cluster) -> None:
    """One of the two A100s is in MIG mode; InstaSlice maps nvidia.com/gpu."""
    other.other_gpus("FAKE_NVML_MIG=10")
    namespace.create(pod("whole", stays(limits={"gpu": 1})))
    namespace.create(pod("slices", stays(limits={"mig-1g.5gb": 2})))
    for name in ("whole", "slices"):
        wait_phase(namespace, name, "Running")
    assert seen(namespace, "whole") == ["gpu-1"]
    assert {gpu_of(device) for device in seen(namespace, "slices")} == {"gpu-0"}


@pytest.mark.parametrize("start", ["MIG on", "MIG off"])
def test_an_h100(other: NvidiaNode, namespace: Cluster, start: str) -> None:
    """The driver switches MIG mode as slices come and go. Pods get several only with MIG mode on.

    If MIG mode was off when the driver started, it created several slices of a pod, but could not
    destroy them (v0.4.0 and main of August 2026: "In use by another client").
    """
    other.other_gpus(f"FAKE_NVML_MIG={'11' if start == 'MIG on' else '00'}", models="hh")
    several = 2 if start == "MIG on" else 1
    for limits in ({"mig-1g.10gb": several}, {"mig-7g.80gb": 1}):
        namespace.create(pod("p", ends(limits=limits), restartPolicy="Never"))
        wait_phase(namespace, "p", "Succeeded")
        devices = seen(namespace, "p", models="hh")
        assert [f"mig-{profile_of(each)}" for each in devices] == [
            name.replace(".", "") for name, amount in limits.items() for _ in range(amount)
        ]
        namespace.kubectl("delete", "pod", "p", "--wait=false")
        wait_gone(namespace, "p")
    until(lambda: not other.prepared(), "all slices are released", seconds=PATIENCE)
