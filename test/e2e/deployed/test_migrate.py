"""The commands of docs/migrate.md, from the device plugin to NVIDIA's driver and back, on one node.

The page's `make deploy` deploys InstaSlice, and Helm installs the driver's chart; the pods of both
run on that node. A resource in the node's status replaces the device plugin, and the test cuts the
GPUs in place of MIG manager. The driver's image has its own program, and none for ComputeDomains.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from test.e2e import cert_manager, nvidia
from test.e2e.checkout import Checkout, Reader, commands, doctor
from test.e2e.cluster import Cluster, Json
from test.e2e.gpus import FIRST_WITH_EXTENDED_RESOURCES, PLUGIN_LABELS
from test.e2e.installation import is_rewriting
from test.e2e.node import NAME, Node
from test.e2e.nvidia import NvidiaNode
from test.e2e.pods import pod, slices, workload
from test.e2e.runs import PATIENCE, ends, running, seen, stays, wait_phase
from test.support.a100 import device_classes
from test.support.helm import NONE, Helm, programs
from test.support.process import until

NO_CHART = "" if nvidia.chart() else f"needs the driver's chart: {nvidia.CHART} names none"
NO_HELM = "" if programs() else NONE
LACKS = nvidia.missing() or cert_manager.missing() or NO_CHART or NO_HELM
pytestmark = pytest.mark.skipif(bool(LACKS), reason=LACKS)

PAGE = "docs/migrate.md"
#: The driver's release and namespace.
RELEASE = "dra-driver-nvidia-gpu"
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
    # Section 5 installs the classes.
    for each in device_classes():
        cluster.delete("DeviceClass", each["metadata"]["name"])
    yield node
    advertise(cluster, None)
    cluster.kubectl("uncordon", NAME).check_returncode()
    labels = dict.fromkeys([*PLUGIN_LABELS, "nvidia.com/dra-kubelet-plugin"])
    cluster.patch("Node", NAME, {"metadata": {"labels": labels}}, "merge")
    for each in device_classes():
        cluster.create(each)
    node.other_gpus()


@pytest.fixture
def helm(before: NvidiaNode, tmp_path: Path) -> Iterator[Helm]:
    helm = Helm(programs()[-1], tmp_path, before.plane.kubeconfig)
    yield helm
    helm.run("uninstall", "--ignore-not-found", f"--namespace={RELEASE}", RELEASE)


def advertise(cluster: Cluster, amount: str | None) -> None:
    """Set the amount that the device plugin offers."""
    status = {"status": {"capacity": {ONE: amount}, "allocatable": {ONE: amount}}}
    cluster.patch("Node/status", NAME, status, "merge")


def policies(team: Cluster) -> list[Json]:
    """What doctor reports of the namespace's quotas and LimitRanges that has to change."""
    checks = ("quotas", "limit ranges")
    return [each for each in doctor(team) if each["check"] in checks and each["state"] != "good"]


def test_migration_and_return(
    before: NvidiaNode,
    namespace: Cluster,
    checkout: Checkout,
    helm: Helm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    team, page = namespace, Reader(namespace, checkout, helm, NODE=NAME)
    chooses = {"nodeSelector": {"nvidia.com/mig.config": PLUGIN_LABELS["nvidia.com/mig.config"]}}
    one = stays(limits={"mig-1g.5gb": 1})
    template = pod("", one, terminationGracePeriodSeconds=1, **chooses)
    team.create(workload("Deployment", "d", replicas=2, template=template))
    running(team, 2, rewritten=False)
    selector = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}
    hard = {f"requests.{ONE}": "4"}
    team.make("ResourceQuota", "scoped", spec={"hard": hard, "scopeSelector": selector})
    minimum = {"limits": [{"type": "Container", "min": {ONE: "1"}}]}
    team.make("LimitRange", "least", spec=minimum)
    plan = page.follow("instaslice plan")
    assert "1. The control plane" not in plan, "the gate is on"
    for number in (2, 4, 7, 9, 10):
        assert f"{number}. " in plan

    (opt_in,) = commands(PAGE, "2. InstaSlice, for namespaces that opt in")
    (mapping,) = commands(PAGE, "3. Whole GPUs")
    page.follow(opt_in, mapping)
    assert not is_rewriting(team)

    # Section 4: an editor leaves only the type of the LimitRange's limits.
    only_type = "/- defaultRequest:/ { s/- .*/- type: Container/; n; N; N; N; d }"
    monkeypatch.setenv("KUBE_EDITOR", f"sed -i '{only_type}'")
    for each in policies(team):
        page.follow(each["advice"])
    (scoped,) = policies(team)
    assert f"{team.namespace}/scoped " in scoped["text"], "it still counts no claims"
    assert team.get("ResourceQuota", "scoped-unscoped")["spec"]["hard"] == hard

    (install,) = commands(PAGE, "5. The driver")
    chart = nvidia.chart()
    assert chart
    named = re.sub(r"oci://\S+ --version \S+", str(chart), install)
    assert named != install
    version = yaml.safe_load((chart / "Chart.yaml").read_text())["appVersion"]
    before.load_image(f"registry.k8s.io/dra-driver-nvidia/{RELEASE}:v{version}")
    values = tmp_path / "values.json"
    values.write_text(json.dumps(before.chart_values(MODELS)))
    assert "STATUS: deployed" in page.follow(f"{named} --values={values}")
    drivers = team.within(RELEASE)
    assert drivers.list("Pod") == drivers.list("ResourceSlice") == []

    drain, plugin, driver, published, uncordon = commands(PAGE, "6. A node with Hopper or later")
    all_enabled, _ = commands(PAGE, "7. A node with A100 or A30 that is cut")
    page.follow(drain + BUT_INSTASLICE, all_enabled, plugin, driver)
    advertise(team, None)
    try:
        until(lambda: page.follow(published), "devices are published", seconds=PATIENCE)
    except TimeoutError as late:
        raise AssertionError(drivers.kubectl("describe", "pods").stdout) from late
    assert before.log.read_text().count("destroy gi") == 4, "two slices, and what is in them"
    label, restart, doctor = commands(PAGE, "9. A namespace")
    page.follow(uncordon)
    without = {"spec": {"template": {"spec": {"nodeSelector": None}}}}
    team.patch("Deployment", "d", without)  # section 10
    page.follow(label, restart)
    for name, each in running(team, 2).items():
        assert slices(each) == {"main": ["mig-1g.5gb"]}
        assert len(seen(team, name, models=MODELS)) == 1
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
        for each in running(team, 2, rewritten=False).values():
            assert each["status"]["extendedResourceClaimStatus"]
    page.follow(drain + BUT_INSTASLICE, "kubectl label node NODE nvidia.com/dra-kubelet-plugin-")
    until(lambda: not drivers.list("Pod"), "the driver's pod is gone", seconds=PATIENCE)
    until(lambda: not team.list("ResourceSlice"), "the kubelet has removed the slices", seconds=60)
    advertise(team, "2")
    page.follow(uncordon)
    for each in running(team, 2, rewritten=False).values():
        assert "extendedResourceClaimStatus" not in each["status"], "the device plugin serves it"
    page.follow(f"helm uninstall --namespace {RELEASE} {RELEASE}")
    page.follow("make undeploy", *commands(PAGE, "Back"))
    for kind in ("ResourceClaimTemplate", "DeviceClass"):
        assert team.list(kind) == []
