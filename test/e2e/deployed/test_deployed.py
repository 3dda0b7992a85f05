"""InstaSlice as pods of a real node: `make deploy` of the image, with `config/` as it is."""

import json
import time
from collections.abc import Iterator

import pytest
import yaml

from test.e2e.checkout import Checkout
from test.e2e.cluster import Cluster, Json
from test.e2e.deployed.replicas import ready
from test.e2e.installation import NAMESPACE, is_rewriting
from test.e2e.load import Load, load
from test.e2e.node import Node
from test.e2e.pods import pod, slices
from test.e2e.runs import PATIENCE, ends, seen, wait_gone, wait_phase
from test.support.process import ROOT, until

#: What a Python in the container says of its own process and its cgroup, as JSON. Version 1 of
#: cgroups names the limit and the peak otherwise than version 2.
INSIDE = """
import json, pathlib
status = dict(l.split(":", 1) for l in open("/proc/1/status"))
facts = {k: status[k].strip() for k in ("Uid", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
cgroup = pathlib.Path("/sys/fs/cgroup")
for name, files in {
    "limit": ["memory/memory.limit_in_bytes", "memory.max"],
    "peak": ["memory/memory.max_usage_in_bytes", "memory.peak"],
}.items():
    facts[name] = next((int((cgroup / f).read_text()) for f in files if (cgroup / f).exists()), 0)
try:
    open("/app/file", "w")
except OSError as error:
    facts["write"] = error.strerror
print(json.dumps(facts))
"""


@pytest.fixture(scope="module")
def deployed(
    image: str, cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """InstaSlice's namespace, where `make deploy` has deployed it."""
    checkout = Checkout(cluster.plane, tmp_path_factory.mktemp("checkout"), image)
    assert checkout.make("own-certificates").returncode == 0
    done = checkout.make("deploy", COMPONENTS="own-certificates")
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: is_rewriting(cluster), "InstaSlice is called")
    yield cluster.within(NAMESPACE)
    gone = checkout.make("undeploy")
    assert gone.returncode == 0, gone.stderr
    assert cluster.find("Namespace", NAMESPACE) is None


def inside(deployed: Cluster, name: str) -> Json:
    """What a pod's own Python says (INSIDE)."""
    done = deployed.kubectl("exec", name, "--", "/usr/bin/python3", "-ISc", INSIDE)
    assert done.returncode == 0, done.stderr
    facts: Json = json.loads(done.stdout)
    return facts


def test_the_sample_is_rewritten_by_a_pod_and_runs(namespace: Cluster) -> None:
    """The API server reaches it through its Service; its token lets it make the template."""
    sample = yaml.safe_load((ROOT / "samples" / "sample.yaml").read_text())
    sample["spec"]["containers"][0]["command"] = ends()["command"]
    created = namespace.create(sample)
    assert slices(created) == {"busybox": ["mig-1g.5gb"]}
    wait_phase(namespace, "sample", "Succeeded")
    assert len(seen(namespace, "sample", "busybox")) == 1
    assert namespace.find("ResourceClaimTemplate", "mig-1g.5gb")


def test_it_is_confined_as_the_manifest_says(deployed: Cluster) -> None:
    for name in ready(deployed):
        facts = inside(deployed, name)
        assert facts["Uid"].split() == ["65532"] * 4
        assert {int(facts["CapEff"], 16), int(facts["CapBnd"], 16)} == {0}
        assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
        assert facts["write"] == "Read-only file system"
        assert facts["limit"] == 512 << 20


def test_nothing_is_refused_while_it_rolls_over(deployed: Cluster, under_load: Load) -> None:
    before = ready(deployed)
    restarted = deployed.kubectl("rollout", "restart", "deployment/instaslice")
    assert restarted.returncode == 0, restarted.stderr
    rolled = deployed.kubectl("rollout", "status", "deployment/instaslice", "--timeout=55s")
    assert rolled.returncode == 0, rolled.stdout + rolled.stderr
    for name in before:
        wait_gone(deployed, name)
    assert {*before}.isdisjoint(ready(deployed))
    under_load.goes_on()


def evict(deployed: Cluster, name: str) -> str:
    """What a drain does to a pod; returns why it was not to be, or an empty text."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    path = f"/api/v1/namespaces/{deployed.namespace}/pods/{name}/eviction"
    return deployed.kubectl("create", f"--raw={path}", "-f-", stdin=eviction).stderr


def test_nothing_is_refused_while_its_node_is_drained(deployed: Cluster, under_load: Load) -> None:
    """One after the other goes, when there is another in its place; as drain does."""
    first, second = ready(deployed)
    assert evict(deployed, first) == ""
    assert "disruption budget" in evict(deployed, second)
    until(lambda: not evict(deployed, second), "the second may go", seconds=PATIENCE, every=0.5)
    for name in (first, second):
        wait_gone(deployed, name)
    assert {first, second}.isdisjoint(ready(deployed))


def test_it_ends_in_good_time(deployed: Cluster) -> None:
    """Longer than the pause before SIGTERM, and shorter than until it would be killed."""
    name = next(iter(ready(deployed)))
    start = time.monotonic()
    deleted = deployed.kubectl("delete", "pod", name)
    assert deleted.returncode == 0, deleted.stderr
    assert 5 <= time.monotonic() - start < 20
    ready(deployed)


def test_its_limits_hold_under_load(deployed: Cluster, namespace: Cluster) -> None:
    """Large pods, and no container is killed for its memory or started again."""
    large = pod("p")
    large["metadata"]["annotations"] = {"large": "x" * (200 << 10)}
    with load(namespace, large) as seen:
        until(lambda: seen.rewritten > 500 or seen.failures, "pods are created", seconds=PATIENCE)
    assert seen.failures == []
    for name, each in ready(deployed).items():
        (status,) = each["status"]["containerStatuses"]
        assert status["restartCount"] == 0
        facts = inside(deployed, name)
        assert 0 < facts["peak"] < facts["limit"]
        print(f"\n{name}: {facts['peak'] / 1e6:.0f} MB at most")


def test_a_replica_that_dies_starts_again(deployed: Cluster, real_node: Node) -> None:
    name, each = next(iter(ready(deployed).items()))
    container = each["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    real_node.ctr("tasks", "kill", "--signal", "SIGKILL", container)

    def started_again() -> bool:
        (status,) = deployed.get("Pod", name)["status"]["containerStatuses"]
        return bool(status["restartCount"] == 1 and status["ready"])

    until(started_again, "it has started again", seconds=PATIENCE)
