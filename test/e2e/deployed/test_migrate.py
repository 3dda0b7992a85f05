"""The commands of docs/migrate.md, from the device plugin to NVIDIA's driver and back, on one node.

The page's `make deploy` deploys InstaSlice, and its pods run on that node. A resource in the node's
status replaces the device plugin. In place of MIG manager and the driver's chart, the test creates
slices on the GPUs, and starts and stops the driver.
"""

from collections.abc import Iterator

import pytest

from test.e2e import cert_manager, nvidia
from test.e2e.checkout import Checkout, Reader, commands
from test.e2e.cluster import Cluster, Json
from test.e2e.gpus import FIRST_WITH_EXTENDED_RESOURCES, PLUGIN_LABELS
from test.e2e.installation import is_rewriting
from test.e2e.node import NAME, Node
from test.e2e.nvidia import NvidiaNode
from test.e2e.pods import limits_left, pod, slices, workload
from test.e2e.runs import PATIENCE, ends, seen, stays, wait_phase
from test.support.process import until

LACKS = nvidia.missing() or cert_manager.missing()
pytestmark = pytest.mark.skipif(bool(LACKS), reason=LACKS)

PAGE = "docs/migrate.md"
ONE = "nvidia.com/mig-1g.5gb"
#: The node's GPUs: an A100 and an H100 (test/support/a100.py).
MODELS = "ah"
#: InstaSlice's own pods are not drained, since there is no other node for them.
BUT_INSTASLICE = " --pod-selector=app.kubernetes.io/name!=instaslice"


@pytest.fixture(scope="module")
def deployed(issuer: None, checkout: Checkout) -> Iterator[None]:
    """Run cert-manager only; the test deploys InstaSlice."""
    yield
    assert checkout.make("undeploy").returncode == 0


@pytest.fixture
def before(real_node: Node, namespace: Cluster) -> Iterator[NvidiaNode]:
    """The node with slices on its A100 and none on its H100, without the driver."""
    assert isinstance(real_node, NvidiaNode)
    node, cluster = real_node, real_node.cluster
    node.other_gpus("FAKE_NVML_CUT=0:19:2 0:19:3", models=MODELS, gates=())
    node.end("driver")
    for each in cluster.list("ResourceSlice"):
        cluster.delete("ResourceSlice", each["metadata"]["name"])
    advertise(cluster, "2")
    cluster.patch("Node", NAME, {"metadata": {"labels": PLUGIN_LABELS}}, "merge")
    yield node
    advertise(cluster, None)
    cluster.kubectl("uncordon", NAME).check_returncode()
    labels = dict.fromkeys([*PLUGIN_LABELS, "nvidia.com/dra-kubelet-plugin"])
    cluster.patch("Node", NAME, {"metadata": {"labels": labels}}, "merge")
    node.other_gpus()


def advertise(cluster: Cluster, amount: str | None) -> None:
    """Set the amount that the device plugin offers."""
    status = {"status": {"capacity": {ONE: amount}, "allocatable": {ONE: amount}}}
    cluster.patch("Node/status", NAME, status, "merge")


def running(team: Cluster, *, rewritten: bool) -> list[Json]:
    """Wait until exactly the Deployment's two pods run, and return them."""

    def found() -> list[Json]:
        pods = [p for p in team.list("Pod") if bool(limits_left(p)) != rewritten]
        run = [p for p in pods if p["status"].get("phase") == "Running"]
        return run if len(run) == 2 == len(team.list("Pod")) else []

    try:
        return until(found, "two pods run", seconds=3 * PATIENCE)
    except TimeoutError as late:
        raise AssertionError(team.kubectl("describe", "pods").stdout) from late


def test_migration_and_return(before: NvidiaNode, namespace: Cluster, checkout: Checkout) -> None:
    team, page = namespace, Reader(namespace, checkout, NODE=NAME)
    chooses = {"nodeSelector": {"nvidia.com/mig.config": PLUGIN_LABELS["nvidia.com/mig.config"]}}
    one = stays(limits={"mig-1g.5gb": 1})
    template = pod("", one, terminationGracePeriodSeconds=1, **chooses)
    team.create(workload("Deployment", "d", replicas=2, template=template))
    running(team, rewritten=False)
    plan = page.follow("instaslice plan")
    assert "1. The control plane" not in plan, "the gate is on"
    for section in ("2. InstaSlice, ", "7. A node with A100 or A30", "9. A namespace", "10. Pods"):
        assert section in plan

    (opt_in,) = commands(PAGE, "2. InstaSlice, for namespaces that opt in")
    (mapping,) = commands(PAGE, "3. Whole GPUs")
    page.follow(opt_in, mapping)
    assert not is_rewriting(team)

    drain, plugin, driver, published, uncordon = commands(PAGE, "6. A node with Hopper or later")
    all_enabled, _ = commands(PAGE, "7. A node with A100 or A30 that is cut")
    page.follow(drain + BUT_INSTASLICE, all_enabled, plugin, driver)
    advertise(team, None)
    before.start_driver(models=MODELS)
    until(lambda: page.follow(published), "devices are published", before.check)
    assert before.log.read_text().count("destroy gi") == 4, "two slices, and what is in them"
    label, restart, doctor = commands(PAGE, "9. A namespace")
    page.follow(uncordon)
    without = {"spec": {"template": {"spec": {"nodeSelector": None}}}}
    team.patch("Deployment", "d", without)  # section 10
    page.follow(label, restart)
    for each in running(team, rewritten=True):
        assert slices(each) == {"main": ["mig-1g.5gb"]}
        assert len(seen(team, each["metadata"]["name"], models=MODELS)) == 1
    assert "\u2717" not in page.follow(doctor)
    # Section 8: a Hopper GPU serves either whole or as slices.
    for limits, gives in (({"gpu": 1}, "gpu-1"), ({"mig-2g.20gb": 1}, "gpu-1-mig-2g20gb")):
        team.create(pod("p", ends(limits=limits), restartPolicy="Never"))
        wait_phase(team, "p", "Succeeded")
        assert all(each.startswith(gives) for each in seen(team, "p", models=MODELS))
        team.kubectl("delete", "pod", "p").check_returncode()
    page.follow(mapping.replace(" opt-in", ""))  # section 11
    until(lambda: is_rewriting(team.within("default")), "every namespace is served")

    # The way back. In between, Kubernetes' scheduler serves the pods by itself from 1.36 on.
    page.follow(mapping, "kubectl label namespace NAMESPACE instaslice.io/rewrite-")
    until(lambda: not is_rewriting(team), "the namespace is not served")
    page.follow(restart)
    if team.plane.version.minor >= FIRST_WITH_EXTENDED_RESOURCES:
        for each in running(team, rewritten=False):
            assert each["status"]["extendedResourceClaimStatus"]
    page.follow(drain + BUT_INSTASLICE, "kubectl label node NODE nvidia.com/dra-kubelet-plugin-")
    before.end("driver")
    until(lambda: not team.list("ResourceSlice"), "the kubelet has removed the slices", seconds=60)
    advertise(team, "2")
    page.follow(uncordon)
    for each in running(team, rewritten=False):
        assert "extendedResourceClaimStatus" not in each["status"], "the device plugin serves it"
    page.follow("make undeploy", *commands(PAGE, "Back"))
    for kind in ("ResourceClaimTemplate", "DeviceClass"):
        names = {each["metadata"]["name"] for each in team.list(kind)}
        assert names <= {"gpu.nvidia.com", "mig.nvidia.com"}
