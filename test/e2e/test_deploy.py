"""`make deploy` and `make undeploy` on a separate API server: which objects exist when."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from test.e2e import cert_manager, machine
from test.e2e.background import kubelet
from test.e2e.cert_manager import CERTIFICATES, define
from test.e2e.checkout import Checkout, Reader, commands
from test.e2e.cluster import Cluster, Refused
from test.e2e.controlplane import control_plane
from test.e2e.installation import (
    FIRST_WITH_MATCH_CONDITIONS,
    NAMESPACE,
    define_parameters,
    is_rewriting,
    kubeconfig_of,
)
from test.e2e.pods import pod, slices
from test.support.process import running, until

Make = Callable[..., "subprocess.CompletedProcess[str]"]

WEBHOOK = ("MutatingWebhookConfiguration", "instaslice")


@pytest.fixture(scope="module")
def cluster(empty_cluster: Cluster) -> Cluster:
    return empty_cluster


@pytest.fixture(scope="module")
def make(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A function that runs make in a copy of the checkout, for that API server."""
    image = "registry.example.com/instaslice:1"
    checkout = Checkout(cluster.plane, tmp_path_factory.mktemp("checkout"), image)
    assert checkout.make("own-certificates").returncode == 0
    return checkout.make


@pytest.fixture(scope="module")
def deployed(cluster: Cluster, make: Make) -> Cluster:
    """The cluster with InstaSlice deployed, but without kubelets to run its pods."""
    with kubelet(cluster.within(NAMESPACE)):
        done = make("deploy", COMPONENTS="own-certificates")
    assert done.returncode == 0, done.stderr
    return cluster.within(NAMESPACE)


def names(cluster: Cluster, kinds: str) -> set[str]:
    """InstaSlice's objects, as "kind/name". kinds: separated by commas, as for kubectl."""
    selector = "--selector=app.kubernetes.io/part-of=instaslice"
    listed = cluster.kubectl("get", kinds, selector, "--output=name")
    assert listed.returncode == 0, listed.stderr
    return set(listed.stdout.split())


def test_failed_deployment_locks_nobody_out(cluster: Cluster, make: Make) -> None:
    """As with an image that cannot be pulled. This test is first, on a fresh cluster."""
    done = make("deploy", COMPONENTS="own-certificates", TIMEOUT="1s")
    assert done.returncode == 2
    assert "make: its pods did not become ready within 1s; the webhook was neither" in done.stderr
    assert cluster.find(*WEBHOOK) is None
    assert cluster.within(NAMESPACE).find("Deployment", "instaslice")
    cluster.create(pod("p"), dry_run=True)


def test_webhook_is_registered_once_ready_and_with_its_ca(deployed: Cluster) -> None:
    (webhook,) = deployed.get(*WEBHOOK)["webhooks"]
    fails_open = deployed.plane.version < FIRST_WITH_MATCH_CONDITIONS
    assert webhook["failurePolicy"] == ("Ignore" if fails_open else "Fail")
    assert webhook["clientConfig"]["caBundle"]
    assert deployed.get("Deployment", "instaslice")["status"]["availableReplicas"] == 2


ROLES = "clusterroles,clusterrolebindings"


def test_deploying_fewer_components_deletes_the_others(deployed: Cluster, make: Make) -> None:
    assert len(names(deployed, ROLES)) == 2
    with kubelet(deployed):
        done = make("deploy", COMPONENTS="own-certificates no-api opt-in")
    assert done.returncode == 0, done.stderr
    assert names(deployed, ROLES) == set()
    (webhook,) = deployed.get(*WEBHOOK)["webhooks"]
    assert webhook["namespaceSelector"]["matchExpressions"][1]["operator"] == "In"
    with kubelet(deployed):
        assert make("deploy", COMPONENTS="own-certificates").returncode == 0
    assert len(names(deployed, ROLES)) == 2


def test_webhook_is_not_registered_without_cert_manager(deployed: Cluster, make: Make) -> None:
    """cert-manager's definitions exist, but it does not run."""
    define(deployed, *CERTIFICATES)
    with kubelet(deployed):
        done = make("deploy", CA_TRIES="2")
        assert done.returncode == 2
        assert "make: the API server did not get InstaSlice's CA in time" in done.stderr
        assert deployed.find(*WEBHOOK) is None
        kinds = "certificates.cert-manager.io,issuers.cert-manager.io"
        assert len(names(deployed, kinds)) == 4
        assert make("deploy", COMPONENTS="own-certificates").returncode == 0
    assert names(deployed, kinds) == set()
    assert deployed.find(*WEBHOOK)


def test_undeploy_deletes_everything(deployed: Cluster, make: Make) -> None:
    assert make("undeploy").returncode == 0
    assert deployed.find(*WEBHOOK) is None
    assert names(deployed, ROLES) == set()
    assert deployed.find("Namespace", NAMESPACE) is None
    assert make("undeploy").returncode == 0, "nothing to delete is not an error"


def test_undeploy_keeps_a_namespace_of_the_user(cluster: Cluster, make: Make) -> None:
    """It may be older than InstaSlice, and have other objects."""
    gpu = cluster.within("gpu")
    cluster.make("Namespace", "gpu")
    gpu.make("ConfigMap", "others")
    assert make("own-certificates", NAMESPACE="gpu").returncode == 0
    with kubelet(gpu):
        done = make("deploy", NAMESPACE="gpu", COMPONENTS="own-certificates")
    assert done.returncode == 0, done.stderr
    assert gpu.get(*WEBHOOK)["webhooks"][0]["clientConfig"]["service"]["namespace"] == "gpu"
    assert gpu.get("Deployment", "instaslice")["status"]["availableReplicas"] == 2
    assert make("undeploy", NAMESPACE="gpu").returncode == 0
    assert gpu.find(*WEBHOOK) is None
    assert gpu.find("Deployment", "instaslice") is None
    assert gpu.find("ConfigMap", "others")
    assert "app.kubernetes.io/part-of" not in gpu.get("Namespace", "gpu")["metadata"]["labels"]


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Cluster]:
    """A cluster in a separate network, in which InstaSlice can have its Service's address."""
    lacks = cert_manager.missing() or ", ".join(machine.missing_tools(machine.TOOLS))
    if lacks or os.geteuid():
        pytest.skip(lacks or "needs root")
    assets = Path(os.environ["KUBEBUILDER_ASSETS"])
    with (
        machine.machine(tmp_path / "machine") as own,
        own.network(),
        control_plane(assets, tmp_path / "plane") as plane,
    ):
        cluster = Cluster(plane, tmp_path / "discovery")
        if plane.resource_api == "v1alpha2":
            define_parameters(cluster)  # in place of the driver
        with cert_manager.cert_manager(cluster, tmp_path):
            yield cluster


@contextmanager
def behind_its_service(deployed: Cluster, folder: Path) -> Iterator[None]:
    """Run InstaSlice at its Service's address, with its Secret and account, as in a pod."""
    address = deployed.send("get", "Service", "v1", name="instaslice").body["spec"]["clusterIP"]
    subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    kubeconfig = kubeconfig_of(deployed, "instaslice", folder)
    for name, data in cert_manager.secret(deployed, "instaslice-tls").items():
        (folder / name).write_bytes(data)
    serve = [sys.executable, "-m", "instaslice", "serve", "--provision-templates"]
    serve += [f"--bind={address}:443", f"--cert-dir={folder}", f"--kubeconfig={kubeconfig}"]

    def answers() -> bool:
        with suppress(Refused):  # it does not listen yet, and fails closed from 1.28 on
            return is_rewriting(deployed.within("default"))
        return False

    with running(serve, folder / "log") as process:
        until(answers, "InstaSlice is called", process.check)
        yield


def test_all_commands_of_the_page(alone: Cluster, tmp_path: Path) -> None:
    """docs/install.md for 1.27 to 1.30; later versions differ only in the parameters."""
    lines = commands("docs/install.md", "On Kubernetes 1.27 to 1.30")
    deploy, profiles, sample, delete, undeploy = lines
    (folder := tmp_path / "checkout").mkdir()
    reader = Reader(alone, Checkout(alone.plane, folder, ""))
    with kubelet(alone.within(NAMESPACE)):
        reader.follow(deploy)
        before = alone.get(*WEBHOOK)
        assert before["webhooks"][0]["clientConfig"]["caBundle"]
        reader.follow(deploy)
    again = alone.get(*WEBHOOK)
    for each in (before, again):
        each["metadata"] = {key: each["metadata"][key] for key in ("uid", "generation")}
    assert again == before, "it keeps the CA, even for a moment"
    with behind_its_service(alone.within(NAMESPACE), tmp_path / "own"):
        if alone.plane.resource_api == "v1alpha2":
            reader.follow(profiles)
        reader.follow(sample)
        assert slices(alone.get("Pod", "sample")) == {"busybox": ["mig-1g.5gb"]}
        (claim,) = until(lambda: alone.list("ResourceClaim"), "the claim exists")
        assert claim["metadata"]["ownerReferences"][0]["name"] == "sample"
        reader.follow(delete)
        until(lambda: not alone.list("ResourceClaim"), "the claim is gone")
    reader.follow(undeploy)
    assert alone.find(*WEBHOOK) is None
    assert alone.find("Namespace", NAMESPACE) is None
    reader.follow(sample)
    assert alone.get("Pod", "sample")["spec"]["containers"][0]["resources"]["limits"]
