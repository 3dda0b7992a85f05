"""InstaSlice as pods on a real node: `make deploy` of the image, with `config/` unchanged."""

from collections.abc import Iterator

import pytest
import yaml

from test.e2e.background import Load, load
from test.e2e.checkout import Checkout
from test.e2e.cluster import Cluster
from test.e2e.installation import NAMESPACE, is_rewriting
from test.e2e.pods import pod, slices
from test.e2e.runs import PATIENCE, ends, ready, seen, wait_gone, wait_phase
from test.support.process import ROOT, until


@pytest.fixture(scope="module")
def deployed(checkout: Checkout, cluster: Cluster) -> Iterator[Cluster]:
    """InstaSlice's namespace after `make deploy`."""
    assert checkout.make("own-certificates").returncode == 0
    done = checkout.make("deploy", COMPONENTS="own-certificates")
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: is_rewriting(cluster), "InstaSlice is called")
    yield cluster.within(NAMESPACE)
    gone = checkout.make("undeploy")
    assert gone.returncode == 0, gone.stderr
    assert cluster.find("Namespace", NAMESPACE) is None


def test_sample_is_rewritten_and_runs(namespace: Cluster) -> None:
    """The API server calls InstaSlice by its Service; its token lets it create the template."""
    sample = yaml.safe_load((ROOT / "samples" / "sample.yaml").read_text())
    sample["spec"]["containers"][0]["command"] = ends()["command"]
    created = namespace.create(sample)
    assert slices(created) == {"busybox": ["mig-1g.5gb"]}
    wait_phase(namespace, "sample", "Succeeded")
    assert len(seen(namespace, "sample", "busybox")) == 1
    assert namespace.find("ResourceClaimTemplate", "mig-1g.5gb")


def test_rolling_update_refuses_no_pod(deployed: Cluster, under_load: Load) -> None:
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
    """Evict a pod, as a drain does. Returns the reason of a refusal, or an empty text."""
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    path = f"/api/v1/namespaces/{deployed.namespace}/pods/{name}/eviction"
    return deployed.kubectl("create", f"--raw={path}", "-f-", stdin=eviction).stderr


def test_node_drain_refuses_no_pod(deployed: Cluster, under_load: Load) -> None:
    """As in a drain, each pod is evicted once the one before has a replacement."""
    first, second = ready(deployed)
    assert evict(deployed, first) == ""
    assert "disruption budget" in evict(deployed, second)
    until(lambda: not evict(deployed, second), "the second may end", seconds=PATIENCE, every=0.5)
    for name in (first, second):
        wait_gone(deployed, name)
    assert {first, second}.isdisjoint(ready(deployed))


def test_resource_limits_suffice_under_load(deployed: Cluster, namespace: Cluster) -> None:
    """Under a load of large pods, no container is killed for its memory or restarted."""
    large = pod("p")
    large["metadata"]["annotations"] = {"large": "x" * (200 << 10)}
    with load(namespace, large) as seen:
        enough = 3 * PATIENCE
        until(lambda: seen.rewritten > 500 or seen.failures, "pods are created", seconds=enough)
    assert seen.failures == []
    for each in ready(deployed).values():
        (status,) = each["status"]["containerStatuses"]
        assert status["restartCount"] == 0
