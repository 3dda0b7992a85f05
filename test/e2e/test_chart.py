"""The chart with Helm 3 and 4: the order of installation, upgrades, and what uninstalling keeps."""

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from test.e2e import cert_manager
from test.e2e.background import kubelet
from test.e2e.cluster import Cluster, Json
from test.e2e.controlplane import Version
from test.e2e.installation import FIRST_WITH_MATCH_CONDITIONS, NAMESPACE
from test.e2e.pods import pod
from test.e2e.webhook import Webhook
from test.support.helm import NONE, Helm, programs
from test.support.process import HOST, ROOT, until

CHART = ROOT / "charts" / "instaslice"
WEBHOOK = ("MutatingWebhookConfiguration", "instaslice")
#: cert-manager does not run here.
VALUES: Json = {
    "image": {"repository": "registry.example.com/instaslice"},
    "tls": {"source": "generated"},
    # The pod of `helm test` would ask InstaSlice's Service, which has no pods here.
    "helmTest": {"namespace": "default"},
}
SOON = "--timeout=60s"

needs_helm = pytest.mark.skipif(not programs(), reason=NONE)


@pytest.fixture(params=programs(), ids=lambda path: path.name)
def helm(
    request: pytest.FixtureRequest, empty_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Helm:
    folder = tmp_path_factory.mktemp("helm")
    return Helm(request.param, folder, empty_cluster.plane.kubeconfig)


@pytest.fixture
def here(empty_cluster: Cluster) -> Iterator[Cluster]:
    """The release's namespace."""
    yield empty_cluster.within(NAMESPACE)
    # A failed hook leaves its Job for inspection.
    empty_cluster.within(NAMESPACE).kubectl("delete", "job", "--all").check_returncode()


def run(helm: Helm, verb: str, *arguments: str, values: Json | None = None) -> str:
    """Run Helm on a release in the namespace, which must succeed; returns its output."""
    done = helm.run(verb, *arguments, f"--namespace={NAMESPACE}", values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fails(helm: Helm, verb: str, *arguments: str, values: Json) -> str:
    """Run Helm with a short timeout, which must fail; returns its message."""
    options = (str(CHART), *arguments, "--timeout=5s", f"--namespace={NAMESPACE}")
    done = helm.run(verb, "i", *options, values=values)
    assert done.returncode == 1
    return done.stderr


def webhooks(cluster: Cluster) -> list[Json]:
    found = cluster.get(*WEBHOOK).get("webhooks") or []
    assert isinstance(found, list)
    return found


@needs_helm
def test_failed_install_locks_nobody_out(helm: Helm, here: Cluster) -> None:
    """As with an image that cannot be pulled. An upgrade with the same fault locks nobody out."""
    assert "post-install" in fails(helm, "install", "--create-namespace", values=VALUES)
    assert here.find("Deployment", "instaslice")
    assert webhooks(here) == []
    here.within("default").create(pod("p"), dry_run=True)
    assert "post-upgrade" in fails(helm, "upgrade", values=VALUES)
    assert webhooks(here) == []
    run(helm, "uninstall", "i")
    assert here.find(*WEBHOOK) is None


@needs_helm
def test_release_from_install_to_uninstall(helm: Helm, here: Cluster) -> None:
    chart = str(CHART)
    install = ("--install", "i", chart, "--create-namespace", "--wait", SOON)
    with kubelet(here):
        run(helm, "upgrade", *install, values=VALUES)
        assert "Phase:" in run(helm, "test", "i", SOON)
    (webhook,) = webhooks(here)
    fails_open = here.plane.version < FIRST_WITH_MATCH_CONDITIONS
    assert webhook["failurePolicy"] == ("Ignore" if fails_open else "Fail")
    secret = here.send("get", "Secret", "v1", name="instaslice-tls").body["data"]
    assert webhook["clientConfig"]["caBundle"] == secret["ca.crt"]
    assert base64.b64decode(secret["tls.crt"]).startswith(b"-----BEGIN CERTIFICATE-----")
    assert here.list("Job") == [], "the hook's is gone"

    # An upgrade changes it in place, so it is never missing, nor is its certificate.
    before = here.get(*WEBHOOK)
    changed = {**VALUES, "replicas": 3, "webhook": {"mode": "opt-in"}}
    with kubelet(here):
        run(helm, "upgrade", "i", chart, "--wait", values=changed)
    assert here.get("Deployment", "instaslice")["spec"]["replicas"] == 3
    after = here.get(*WEBHOOK)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    (opted_in,) = after["webhooks"]
    assert opted_in["clientConfig"] == webhook["clientConfig"]
    assert opted_in["namespaceSelector"] != webhook["namespaceSelector"]

    worse = {**changed, "image": {"repository": "registry.example.com/none"}}
    fails(helm, "upgrade", "--wait", values=worse)
    assert "failed" in run(helm, "history", "i")
    assert webhooks(here) == [opted_in], "it is registered as it was"

    with kubelet(here):
        run(helm, "rollback", "i", "1", "--wait", SOON)
    deployment = here.get("Deployment", "instaslice")["spec"]
    assert deployment["replicas"] == 2
    assert "/instaslice:" in deployment["template"]["spec"]["containers"][0]["image"]
    assert webhooks(here) == [webhook]

    run(helm, "uninstall", "i", "--wait", SOON)
    assert here.find(*WEBHOOK) is None
    left = here.kubectl(
        *("get", "deployments,services,clusterroles,clusterrolebindings,networkpolicies,jobs"),
        *("--selector=app.kubernetes.io/part-of=instaslice", "--output=name"),
    )
    assert left.stdout == ""
    here.within("default").create(pod("p"), dry_run=True)


FIRST_BESIDE = Version(1, 36)


@needs_helm
def test_existing_device_classes_are_kept(helm: Helm, here: Cluster) -> None:
    """InstaSlice may have created some in another mode, and claims rely on them."""
    if here.plane.version < FIRST_BESIDE:
        pytest.skip(f"the scheduler of Kubernetes {here.plane.version} has no such mode")
    ours = ROOT / "config/components/beside-the-scheduler/deviceclasses.yaml"
    classes = list(yaml.safe_load_all(ours.read_text()))
    name = classes[0]["metadata"]["name"]
    there = here.find("DeviceClass", name) or here.create(classes[0])
    values = {**VALUES, "webhook": {"mode": "beside-the-scheduler"}}
    with kubelet(here):
        run(helm, "install", "i", str(CHART), "--create-namespace", SOON, values=values)
    assert len(webhooks(here)[0]["matchConditions"]) == 3

    def names() -> set[str]:
        return {each["metadata"]["name"] for each in here.list("DeviceClass")}

    expected = {each["metadata"]["name"] for each in classes}
    assert names() >= expected
    found = here.get("DeviceClass", name)
    assert found["metadata"]["resourceVersion"] == there["metadata"]["resourceVersion"]
    run(helm, "upgrade", "i", str(CHART), SOON, values=values)
    run(helm, "uninstall", "i")
    assert names() >= expected


@needs_helm
def test_cert_manager_provides_secret_and_ca(here: Cluster, tmp_path: Path) -> None:
    if lacks := cert_manager.missing():
        pytest.skip(lacks)
    helm = Helm(programs()[-1], tmp_path, here.plane.kubeconfig)
    values = {**VALUES, "tls": {"source": "cert-manager"}}
    with cert_manager.cert_manager(here, tmp_path), kubelet(here):
        run(helm, "install", "i", str(CHART), "--create-namespace", SOON, values=values)

        def secret() -> dict[str, bytes] | None:
            found = cert_manager.secret(here, "instaslice-tls")
            return found if found.keys() == {"ca.crt", "tls.crt", "tls.key"} else None

        ca = base64.b64encode(until(secret, "the Secret exists")["ca.crt"]).decode()
        until(lambda: webhooks(here)[0]["clientConfig"].get("caBundle") == ca, "the CA is set")
        run(helm, "uninstall", "i")


# The scripts in the pods of the hook and of `helm test`


def script(name: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a script of the chart as its pod does."""
    text = (CHART / "files" / name).read_text()
    command = [sys.executable, "-c", text, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)


def test_helm_test_succeeds_with_a_rewritten_pod(namespace: Cluster) -> None:
    kubeconfig = str(namespace.plane.kubeconfig)
    done = script("dry_run.py", namespace.namespace, "all", KUBECONFIG=kubeconfig)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("rewritten: [{'name': ")


def test_helm_test_fails_without_rewriting(bare_namespace: Cluster) -> None:
    kubeconfig = str(bare_namespace.plane.kubeconfig)
    done = script("dry_run.py", bare_namespace.namespace, "opt-in", KUBECONFIG=kubeconfig)
    assert done.returncode == 1
    assert "InstaSlice was not called, or namespace" in done.stderr


def test_hook_waits_until_the_webhook_is_ready(webhook: Webhook) -> None:
    """The kubelet sets environment variables with the Service's address."""
    url = webhook.client_config["url"].removesuffix("/mutate") + "/readyz"
    address = {"MY_SLICES_SERVICE_HOST": HOST, "MY_SLICES_SERVICE_PORT": str(webhook.port)}
    done = script("await_ready.py", "/readyz", "my-slices", **address)
    assert (done.returncode, done.stdout) == (0, f"{url}: 200\n")
