"""The commands of docs/migrate.md, from the device plugin to NVIDIA's driver and back, on one node.

The device plugin is a resource in the node's status; MIG manager, and the chart of the driver, are
not here: the test cuts the GPUs, and starts and ends the driver.
"""

import re
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from instaslice.webhook_configuration import OPT_IN, webhook_configuration
from test.e2e.cluster import Cluster, Json
from test.e2e.gpus import FIRST_WITH_EXTENDED_RESOURCES, GPU
from test.e2e.node import NAME, Node
from test.e2e.nvidia import NvidiaNode, missing
from test.e2e.pods import limits_left, pod, slices, workload
from test.e2e.runs import PATIENCE, seen, stays
from test.e2e.webhook import Webhook
from test.support.command import instaslice
from test.support.process import ROOT, until

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

PAGE = (ROOT / "docs/migrate.md").read_text()
ONE = "nvidia.com/mig-1g.5gb"
#: What GPU Feature Discovery and MIG manager say of the node.
LABELS = {
    "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB",
    "nvidia.com/gpu.count": "2",
    "nvidia.com/mig.capable": "true",
    "nvidia.com/mig.strategy": "mixed",
    "nvidia.com/mig.config": "two-1g.5gb",
    "nvidia.com/mig.config.state": "success",
    "nvidia.com/gpu.deploy.device-plugin": "true",
    "nvidia.com/gpu.deploy.mig-manager": "true",
}


def commands(section: str) -> list[str]:
    """The commands in the console blocks of a section of the page; and its "Back"."""
    text = re.split(r"\n##+ ", PAGE.partition(f"# {section}")[2])[0]
    blocks = re.findall(r"```console\n(.*?)```", text, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if not line.startswith("#")]


@pytest.fixture
def before(real_node: Node, webhook: Webhook, namespace: Cluster) -> Iterator[NvidiaNode]:
    """The node with cut GPUs and without the driver; InstaSlice serves who opts in."""
    assert isinstance(real_node, NvidiaNode)
    node, cluster = real_node, real_node.cluster
    node.other_gpus("FAKE_NVML_CUT=0:19:2 0:19:3", gates=())
    node.end("driver")
    for each in cluster.list("ResourceSlice"):
        cluster.delete("ResourceSlice", each["metadata"]["name"])
    old = cluster.get("MutatingWebhookConfiguration", "instaslice")
    cluster.delete("MutatingWebhookConfiguration", "instaslice")
    manifest = webhook_configuration(OPT_IN, [GPU])
    manifest["webhooks"][0]["clientConfig"] = webhook.client_config
    cluster.create(manifest)
    advertise(cluster, "2")
    cluster.patch("Node", NAME, {"metadata": {"labels": LABELS}}, "merge")
    yield node
    advertise(cluster, None)
    cluster.kubectl("uncordon", NAME).check_returncode()
    labels = dict.fromkeys([*LABELS, "nvidia.com/dra-kubelet-plugin"])
    cluster.patch("Node", NAME, {"metadata": {"labels": labels}}, "merge")
    cluster.delete("MutatingWebhookConfiguration", "instaslice")
    cluster.create({**old, "metadata": {"name": "instaslice"}})
    node.start_driver()
    node.other_gpus()


def advertise(cluster: Cluster, amount: str | None) -> None:
    """What the device plugin offers."""
    status = {"status": {"capacity": {ONE: amount}, "allocatable": {ONE: amount}}}
    cluster.patch("Node/status", NAME, status, "merge")


def follow(team: Cluster, *lines: str) -> str:
    """Run commands of the page; returns what they print."""
    printed = ""
    for line in lines:
        here = line.replace("NODE", NAME).replace("NAMESPACE", team.namespace)
        program, *words = shlex.split(here)
        kubeconfig = f"--kubeconfig={team.plane.kubeconfig}"
        if program == "instaslice":
            done = instaslice(*words, kubeconfig)
            assert (done.code, done.err) == (0, ""), done.out
            printed += done.out
        else:
            assert program == "kubectl", line
            command = [str(team.plane.kubectl), kubeconfig, *words]
            ran = subprocess.run(command, capture_output=True, text=True, timeout=90)
            assert ran.returncode == 0, f"{line}: {ran.stderr}"
            printed += ran.stdout
    return printed


def running(team: Cluster, *, rewritten: bool) -> list[Json]:
    """The Deployment's two pods, once they run, and no other is left."""

    def found() -> list[Json]:
        pods = [p for p in team.list("Pod") if bool(limits_left(p)) != rewritten]
        run = [p for p in pods if p["status"].get("phase") == "Running"]
        return run if len(run) == 2 == len(team.list("Pod")) else []

    try:
        return until(found, "two pods run", seconds=PATIENCE)
    except TimeoutError as late:
        raise AssertionError(team.kubectl("describe", "pods").stdout) from late


def test_there_and_back(before: NvidiaNode, namespace: Cluster) -> None:
    team = namespace
    template = pod("", stays(limits={"mig-1g.5gb": 1}), terminationGracePeriodSeconds=1)
    team.create(workload("Deployment", "d", replicas=2, template=template))
    running(team, rewritten=False)
    plan = follow(team, "instaslice plan")
    for line in ("7. A node with A100 or A30 that is cut: node", "9. A namespace: test-"):
        assert line in plan

    drain, plugin, driver, published, uncordon = commands("6. A node with Hopper or later")
    all_enabled, _ = commands("7. A node with A100 or A30 that is cut")
    follow(team, drain, all_enabled, plugin, driver)
    advertise(team, None)
    before.start_driver()
    until(lambda: follow(team, published), "devices are published", before.check)
    assert before.log.read_text().count("destroy gi") == 4, "two slices, and what is in them"
    label, restart, doctor = commands("9. A namespace")
    follow(team, uncordon, label, restart)
    for each in running(team, rewritten=True):
        assert slices(each) == {"main": ["mig-1g.5gb"]}
        assert len(seen(team, each["metadata"]["name"])) == 1
    assert "\u2717" not in follow(team, doctor)

    # Back. Between the two, the scheduler serves the pods by itself, from Kubernetes 1.36 on.
    follow(team, "kubectl label namespace NAMESPACE instaslice.io/rewrite-", restart)
    if team.plane.version.minor >= FIRST_WITH_EXTENDED_RESOURCES:
        for each in running(team, rewritten=False):
            assert each["status"]["extendedResourceClaimStatus"]
    follow(team, drain, "kubectl label node NODE nvidia.com/dra-kubelet-plugin-")
    before.end("driver")
    until(lambda: not team.list("ResourceSlice"), "the kubelet has removed them", seconds=60)
    advertise(team, "2")
    follow(team, uncordon)
    for each in running(team, rewritten=False):
        assert "extendedResourceClaimStatus" not in each["status"], "the device plugin serves it"
    follow(team, *commands("Back\n"))
    for kind in ("ResourceClaimTemplate", "DeviceClass"):
        names = {each["metadata"]["name"] for each in team.list(kind)}
        assert names <= {"gpu.nvidia.com", "mig.nvidia.com"}
