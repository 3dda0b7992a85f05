"""Rewritten pods with Kueue's manager, configured by `instaslice deviceclasses --kueue`.

KUEUE_MANAGER names the program. KUEUE_CONFIG names the folder config/components of its repository,
which has its definitions and webhooks.
"""

import json
import os
import socket
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
import yaml

from test.e2e import gpus
from test.e2e.cluster import Cluster, Json, fresh_namespace
from test.e2e.installation import serving
from test.e2e.pods import container, job, limits_left, pod, wishing
from test.support.certs import Authority
from test.support.command import instaslice
from test.support.process import HOST, free_ports, running, until

API: Final = "kueue.x-k8s.io/v1beta2"
#: The quota of each team.
QUOTA: Final = {"nvidia.com/mig-1g.5gb": 2, "nvidia.com/mig-3g.20gb": 1}
#: Kueue's webhooks for kinds that exist here.
HOOKS: Final = ("--v1-pod", "-batch-v1-job", "-kueue-x-k8s-io-")

#: Gives Kueue a private /etc with its metrics certificate. $1: its folder; then a command.
_START: Final = """
mount -t tmpfs tmpfs /etc && mkdir -p /etc/kueue/metrics && ln -s "$1" /etc/kueue/metrics/certs
shift && exec "$@"
"""


def missing() -> str:
    """What is missing, in one line; empty if nothing is."""
    if not os.access(os.environ.get("KUEUE_MANAGER", ""), os.X_OK):
        return "needs Kueue: KUEUE_MANAGER names no program"
    if not Path(os.environ.get("KUEUE_CONFIG", "none"), "crd/bases").is_dir():
        return "needs Kueue: KUEUE_CONFIG is not config/components of its repository"
    return "" if os.geteuid() == 0 else "needs, for Kueue, root's rights"


pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def cluster(empty_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with two A100s, InstaSlice and Kueue."""
    folder, cluster = tmp_path_factory.mktemp("kueue"), empty_cluster
    with ExitStack() as stack:
        stack.enter_context(gpus.a100s(cluster))
        stack.enter_context(serving(cluster, folder / "webhook"))
        stack.enter_context(_kueue(cluster, folder))
        yield cluster


def _kueue(cluster: Cluster, folder: Path) -> ExitStack:
    """Start Kueue, which runs until the stack is closed."""
    config = Path(os.environ["KUEUE_CONFIG"])
    definitions = [str(config / "crd/bases")]
    applied = cluster.kubectl("apply", "--server-side", "-f", *definitions)
    assert applied.returncode == 0, applied.stderr
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all").check_returncode()
    cluster.kubectl("create", "namespace", "kueue-system").check_returncode()
    authority, (port, health) = Authority(), free_ports(2)
    certificates = authority.mint(folder / "certificates")
    own = yaml.safe_load(instaslice("deviceclasses", "--kueue", "1g.5gb", "3g.20gb").out)
    settings = {
        "namespace": "kueue-system",
        "health": {"healthProbeBindAddress": f"{HOST}:{health}"},
        "metrics": {"bindAddress": "0"},
        "webhook": {"port": port, "host": HOST, "certDir": str(certificates)},
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "integrations": {"frameworks": ["batch/job", "pod"]},
    }
    path = folder / "kueue.yaml"
    path.write_text(json.dumps({**own, **settings}))
    stack = ExitStack()
    command = [os.environ["KUEUE_MANAGER"], f"--config={path}"]
    command += ["--feature-gates=VisibilityOnDemand=false"]
    start = ["unshare", "--mount", "sh", "-c", _START, "sh", str(certificates), *command]
    environment = {"KUBECONFIG": str(cluster.plane.kubeconfig)}
    process = stack.enter_context(running(start, folder / "kueue.log", environment))

    def answers() -> bool:
        with socket.socket() as client:
            return client.connect_ex((HOST, port)) == 0

    until(answers, "Kueue answers", process.check, seconds=90)
    bundle = b64encode(authority.pem).decode()
    hooks = yaml.safe_load_all((config / "webhook/manifests.yaml").read_text())
    for each in filter(None, hooks):
        kept = []
        for hook in each["webhooks"]:
            way = hook["clientConfig"]["service"]["path"]
            if any(part in way for part in HOOKS):
                hook["clientConfig"] = {"url": f"https://{HOST}:{port}{way}", "caBundle": bundle}
                kept.append(hook)
        cluster.create({**each, "webhooks": kept})
    return stack


@pytest.fixture
def team(cluster: Cluster, numbers: Iterator[int]) -> Iterator[Cluster]:
    """A namespace with its own queue; its pods are deleted afterwards."""
    with fresh_namespace(cluster, numbers, {}) as team:
        name = team.namespace
        resources = [{"name": each, "nominalQuota": most} for each, most in QUOTA.items()]
        flavors = [{"name": name, "resources": resources}]
        group = {"coveredResources": list(QUOTA), "flavors": flavors}
        for kind, spec in {
            "ResourceFlavor": {},
            "ClusterQueue": {"namespaceSelector": {}, "resourceGroups": [group]},
            "LocalQueue": {"clusterQueue": name},
        }.items():
            metadata = {"name": name}
            team.create({"apiVersion": API, "kind": kind, "metadata": metadata, "spec": spec})
        yield team
        team.kubectl("delete", "jobs", "--all", "--cascade=foreground", "--wait=false")
        gpus.clear(team)


def queued(team: Cluster, manifest: Json, **wishes: str) -> Json:
    """Create a workload in the team's queue. wishes: InstaSlice's annotations."""
    made = gpus.tolerating(wishing(manifest, **wishes))
    made["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": team.namespace}
    return team.create(made)


def workload(team: Cluster, name: str) -> Json:
    """Wait until Kueue has judged a pod or Job, and return the status of its Workload."""

    def judged() -> Json | None:
        for each in team.send("get", "Workload", API).body["items"]:
            if name in {owner["name"] for owner in each["metadata"]["ownerReferences"]}:
                status: Json = each.get("status", {})
                return status if status.get("conditions") else None
        return None

    return until(judged, f"Kueue has judged {name}")


def waits(team: Cluster, name: str, why: str) -> None:
    """Wait until Kueue states why it does not admit a pod."""

    def told() -> bool:
        status = workload(team, name)
        assert not status.get("admission")
        return any(why in each["message"] for each in status["conditions"])

    until(told, f"Kueue says {why!r} about {name}")


def usage(team: Cluster, name: str) -> Json:
    """The amounts of the quota that an admitted workload uses."""
    assigned: Json = workload(team, name)["admission"]["podSetAssignments"][0]
    used: Json = assigned["resourceUsage"]
    return used


def running_pods(team: Cluster) -> set[str]:
    """The names of the pods that Kueue has admitted and that have a node."""
    return {each["metadata"]["name"] for each in team.list("Pod") if each["spec"].get("nodeName")}


def test_third_pod_waits_for_the_quota(team: Cluster) -> None:
    names = {f"p{number}" for number in range(4)}
    for name in sorted(names):
        assert limits_left(queued(team, pod(name))) == {}
    first = until(lambda: running_pods(team) if len(running_pods(team)) == 2 else None, "two run")
    for name in names - first:
        waits(team, name, "insufficient unused quota")
    team.delete("Pod", min(first))
    until(lambda: len(running_pods(team) - first) == 1, "the next pod runs")


@pytest.mark.parametrize(
    ("limits", "wishes", "why"),
    [
        ({"mig-1g.5gb": 3}, {}, "insufficient quota"),
        # A pod with a class that is not mapped waits forever.
        ({"mig-2g.10gb": 1}, {}, "mig-2g.10gb.nvidia.com"),
        (
            {"mig-1g.5gb": 1},
            {"alternatives": "1g.5gb or 3g.20gb"},
            "FirstAvailable device selection is not supported",
        ),
    ],
    ids=["more than the quota", "a class that is not mapped", "alternatives"],
)
def test_pods_beyond_quota_or_mapping_are_not_admitted(
    team: Cluster, limits: Json, wishes: dict[str, str], why: str
) -> None:
    queued(team, pod("p", container(limits=limits)), **wishes)
    waits(team, "p", why)


def test_pod_with_placement_is_admitted_and_counted(team: Cluster) -> None:
    """Kueue leaves the choice of the GPU to the scheduler."""
    queued(team, pod("p", container(limits={"mig-1g.5gb": 2})), placement="same-gpu")
    until(lambda: workload(team, "p").get("admission"), "the pod is admitted")
    assert usage(team, "p") == {"nvidia.com/mig-1g.5gb": "2"}


def test_job_is_admitted_by_limits_before_its_pod_is_rewritten(team: Cluster) -> None:
    manifest = job("j")
    template = gpus.tolerating(pod("", container(limits={"mig-3g.20gb": 1}), restartPolicy="Never"))
    metadata = {"name": "j", "labels": {"kueue.x-k8s.io/queue-name": team.namespace}}
    spec = {"suspend": True, "template": {"spec": template["spec"]}}
    team.create({**manifest, "metadata": metadata, "spec": spec})
    (name,) = until(lambda: running_pods(team), "the pod has a node")
    assert usage(team, "j") == {"nvidia.com/mig-3g.20gb": "1"}
    made = team.get("Pod", name)
    assert limits_left(made) == {}
    assert len(gpus.held(team, made)) == 1
