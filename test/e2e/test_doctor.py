"""`instaslice doctor` asks a real API server, and `demo/run.sh` is played on it."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from test.e2e.cluster import Cluster
from test.e2e.controlplane import COUNTERS
from test.e2e.installation import render
from test.e2e.webhook import Webhook
from test.support.command import instaslice

Json = dict[str, Any]

DEMO = Path(__file__).parents[2] / "demo"
NODE = "demo-node"
#: The ClusterRole that only reads.
READING = "instaslice-doctor"


def doctor(cluster: Cluster, *arguments: str) -> tuple[int, dict[str, Json]]:
    """The exit code, and the last finding of each check."""
    kubeconfig = f"--kubeconfig={cluster.plane.kubeconfig}"
    namespace = f"--namespace={cluster.namespace}"
    done = instaslice("doctor", kubeconfig, "-o", "json", namespace, *arguments)
    assert done.err == ""
    return done.code, {finding["check"]: finding for finding in json.loads(done.out)}


def mig_pod(name: str) -> Json:
    resources = {"limits": {"nvidia.com/mig-1g.5gb": 1}}
    containers = [{"name": "c", "image": "none", "resources": resources}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": containers},
    }


def test_what_works_and_what_is_missing(namespace: Cluster) -> None:
    code, found = doctor(namespace)
    signs = {check: finding["state"] for check, finding in found.items()}
    assert (signs["DRA"], signs["webhook"]) == ("good", "good")
    assert namespace.plane.resource_api in found["DRA"]["text"]
    assert signs["dry run"] == "good"
    # There is no driver here.
    assert (code, signs["driver"]) == (1, "wrong")


def test_nothing_is_left_behind(namespace: Cluster) -> None:
    doctor(namespace)
    assert namespace.list("Pod") == []
    assert namespace.list("ResourceClaimTemplate") == []


def test_a_namespace_that_opted_out(bare_namespace: Cluster, webhook: Webhook) -> None:
    _, found = doctor(bare_namespace)
    assert found["dry run"]["state"] == "wrong"
    assert "keeps its limits" in found["dry run"]["text"]


@pytest.fixture
def looker(cluster: Cluster, tmp_path: Path) -> Iterator[Any]:
    """Runs `doctor` as somebody who has some of the ClusterRoles of config/components/doctor."""
    roles = [m for m in render(cluster.plane, "doctor") if "doctor" in m["metadata"]["name"]]
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "looker"}}
    for manifest in (*roles, account):
        cluster.create(manifest)
    token = cluster.kubectl("create", "token", "looker").stdout.strip()
    kubeconfig = json.loads(cluster.plane.kubeconfig.read_text())
    kubeconfig["users"] = [{"name": "admin", "user": {"token": token}}]
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(kubeconfig))

    def run(namespace: str, *names: str, command: str = "doctor") -> Any:
        for name in names:
            bound = ["--clusterrole", name, "--serviceaccount=default:looker"]
            cluster.kubectl("create", "clusterrolebinding", name, *bound).check_returncode()
        where = ["-n", namespace] if command == "doctor" else []
        done = instaslice(command, f"--kubeconfig={path}", "-o", "json", *where)
        assert done.err == ""
        return json.loads(done.out)

    yield run
    cluster.delete("ServiceAccount", "looker")
    names = [manifest["metadata"]["name"] for manifest in roles]
    cluster.kubectl("delete", "clusterrolebinding,clusterrole", *names, "--ignore-not-found")


def test_the_rights_in_config_are_enough_and_only_read(
    namespace: Cluster, looker: Callable[..., Any]
) -> None:
    (role, *_) = (m for m in render(namespace.plane, "doctor") if m["metadata"]["name"] == READING)
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "list"}
    found = looker(namespace.namespace, READING)
    texts = [finding["text"] for finding in found]
    assert not [text for text in texts if "could not be read" in text]
    tried = {f["check"]: f["state"] for f in found if "cannot create" in f["text"]}
    assert tried.pop("gates", "unsure") == "unsure"
    assert tried == {"dry run": "unsure"}
    assert looker(namespace.namespace, command="plan")["unknown"] == {}
    found = looker(namespace.namespace, "instaslice-doctor-dry-run")
    assert not [finding for finding in found if "cannot create" in finding["text"]]
    assert {f["state"] for f in found if f["check"] == "dry run"} == {"good"}


#: Since which version of Kubernetes a gate is on, by default or in these control planes.
ON_SINCE = {
    "DRAPartitionableDevices": min(COUNTERS),
    "DRAExtendedResource": 36,
    "DRAPrioritizedList": 34,
    "DRAConsumableCapacity": 36,
}


def test_feature_gates_are_told_by_what_is_kept(namespace: Cluster) -> None:
    minor = namespace.plane.version.minor
    if namespace.plane.resource_api != "v1":
        pytest.skip("resource.k8s.io/v1 has them all")
    kubeconfig = f"--kubeconfig={namespace.plane.kubeconfig}"
    done = instaslice("doctor", kubeconfig, "-o", "json")
    texts = [each["text"] for each in json.loads(done.out) if each["check"] == "gates"]
    on = [name for text in texts if text.startswith("on: ") for name in text[4:].split(", ")]
    off = [text[5:].partition(",")[0] for text in texts if text.startswith("off: ")]
    assert on == [name for name, since in ON_SINCE.items() if minor >= since]
    assert off == [name for name, since in ON_SINCE.items() if minor < since]


def test_one_pod(namespace: Cluster) -> None:
    namespace.create(mig_pod("p"))
    _, found = doctor(namespace, "p")
    assert found["asks for"]["text"] == "1g.5gb"
    assert found["became"]["text"] == "rewritten: 1 claim"


@pytest.fixture
def node(cluster: Cluster) -> Any:
    """A node that is only an object, ready and empty."""
    amounts = {"cpu": "16", "memory": "64Gi", "pods": "110"}
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": NODE},
        "status": {
            "capacity": amounts,
            "allocatable": amounts,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
    cluster.create(node)
    # Put on by the API server, and taken off by a controller that does not run here.
    cluster.patch("Node", NODE, {"spec": {"taints": None}}, "merge")
    yield NODE
    cluster.delete("Node", NODE)


def test_the_demo(cluster: Cluster, webhook: Webhook, node: str) -> None:
    if not cluster.plane.has_scheduler or cluster.plane.version.minor < 36:
        pytest.skip("needs Kubernetes 1.36 with its controller manager and scheduler")
    environment = {
        **os.environ,
        "KUBECTL": str(cluster.plane.kubectl),
        "KUBECONFIG": str(cluster.plane.kubeconfig),
    }
    done = subprocess.run(
        ["sh", DEMO / "run.sh"], env=environment, capture_output=True, text=True, timeout=180
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for device in ("mig-2g10gb-", "mig-3g20gb-", "mig-1g10gb-"):
        assert device in done.stdout
    assert "cannot allocate all claims" in done.stdout
    left = cluster.kubectl("get", "resourceslices,deviceclasses,namespaces", "-o", "name")
    assert "demo" not in left.stdout
    assert "mig.nvidia.com" not in left.stdout
