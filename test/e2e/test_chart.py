"""The chart on an API server of its own, by Helm's own code: in which order, and what stays."""

import base64
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from test.e2e.cluster import Cluster
from test.e2e.controlplane import Version
from test.e2e.installation import FIRST_WITH_MATCH_CONDITIONS
from test.e2e.kubelet import kubelet
from test.e2e.pods import pod
from test.e2e.webhook import Webhook
from test.support.manifests import CUSTOM
from test.support.process import HOST

Json = dict[str, Any]

CHART = Path(__file__).parents[2] / "charts" / "instaslice"
NAMESPACE = "instaslice-system"
WEBHOOK = ("MutatingWebhookConfiguration", "instaslice")
#: Nobody here acts by cert-manager's objects.
VALUES: Json = {
    "image": {"repository": "registry.example.com/instaslice"},
    "tls": {"source": "generated"},
}
#: Seconds for a release. Nothing here needs as many.
TIMEOUT = 60

helm = pytest.importorskip("helm_python", reason="needs the extra `chart`")


@pytest.fixture(scope="module")
def release(empty_cluster: Cluster) -> Iterator[Any]:
    """Helm, for one namespace, which it made itself."""
    config = helm.Config(kubeconfig_path=empty_cluster.plane.kubeconfig, namespace=NAMESPACE)
    with closing(config):
        yield config


@pytest.fixture(scope="module")
def here(empty_cluster: Cluster) -> Cluster:
    return empty_cluster.within(NAMESPACE)


@pytest.fixture(scope="module")
def installed(here: Cluster, release: Any) -> Cluster:
    """The release, installed where pods run."""
    with kubelet(here):
        release.install(CHART, "i", VALUES, create_namespace=True, timeout=TIMEOUT)
    return here


def webhooks(cluster: Cluster) -> list[Json]:
    found = cluster.get(*WEBHOOK).get("webhooks") or []
    assert isinstance(found, list)
    return found


def test_pods_that_never_run_leave_nobody_locked_out(here: Cluster, release: Any) -> None:
    """An image that cannot be pulled looks like this; it comes first, on a fresh cluster."""
    with pytest.raises(helm.HelmError, match="post-install"):
        release.install(CHART, "i", VALUES, create_namespace=True, timeout=3)
    assert here.find("Deployment", "instaslice")
    assert webhooks(here) == []
    here.within("default").create(pod("p"), dry_run=True)

    # Nor does an upgrade that brings no better image.
    with pytest.raises(helm.HelmError, match="post-upgrade"):
        release.upgrade(CHART, "i", VALUES, timeout=3)
    assert webhooks(here) == []
    release.uninstall("i")
    assert here.find(*WEBHOOK) is None
    here.kubectl("delete", "job", "--all").check_returncode()


def test_it_is_registered_once_it_is_ready(installed: Cluster) -> None:
    (webhook,) = webhooks(installed)
    fails_open = installed.plane.version < FIRST_WITH_MATCH_CONDITIONS
    assert webhook["failurePolicy"] == ("Ignore" if fails_open else "Fail")
    secret = installed.send("get", "Secret", "v1", name="instaslice-tls").body
    assert webhook["clientConfig"]["caBundle"] == secret["data"]["ca.crt"]
    assert base64.b64decode(secret["data"]["tls.crt"]).startswith(b"-----BEGIN CERTIFICATE-----")
    assert installed.list("Job") == [], "the hook's is gone"


def test_an_upgrade_changes_it_in_place(installed: Cluster, release: Any) -> None:
    """There is no moment without it, and the certificate is the same."""
    before = installed.get(*WEBHOOK)
    values = {**VALUES, "webhook": {"mode": "opt-in"}}
    release.upgrade(CHART, "i", values, timeout=TIMEOUT)  # no hook, so no pod has to run
    after = installed.get(*WEBHOOK)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    (was,), (is_now,) = before["webhooks"], after["webhooks"]
    assert is_now["clientConfig"] == was["clientConfig"]
    assert is_now["namespaceSelector"] != was["namespaceSelector"]


def test_a_rollback_to_the_first_revision_registers_it_again(
    installed: Cluster, release: Any
) -> None:
    with kubelet(installed):
        release.rollback("i", version=1, timeout=TIMEOUT)
    (webhook,) = webhooks(installed)
    assert webhook["namespaceSelector"]["matchExpressions"][1]["operator"] == "NotIn"


def test_uninstalling_takes_it_all(installed: Cluster, release: Any) -> None:
    release.uninstall("i")
    assert installed.find(*WEBHOOK) is None
    left = installed.kubectl(
        *("get", "deployments,services,clusterroles,clusterrolebindings,networkpolicies,jobs"),
        *("--selector=app.kubernetes.io/part-of=instaslice", "--output=name"),
    )
    assert left.stdout == ""


FIRST_BESIDE = Version(1, 36)


def test_device_classes_stay_and_those_that_are_there_are_left_alone(
    here: Cluster, release: Any
) -> None:
    """InstaSlice may have made some in another mode, and claims rely on them."""
    if here.plane.version < FIRST_BESIDE:
        pytest.skip(f"the scheduler of Kubernetes {here.plane.version} has no such mode")
    classes = list(yaml.safe_load_all((CHART / "files/deviceclasses.yaml").read_text()))
    there = here.create(classes[0])
    values = {**VALUES, "webhook": {"mode": "beside-the-scheduler"}}
    with kubelet(here):
        release.install(CHART, "i", values, create_namespace=True, timeout=TIMEOUT)
    (webhook,) = webhooks(here)
    assert len(webhook["matchConditions"]) == 3
    names = {each["metadata"]["name"] for each in classes}
    assert {each["metadata"]["name"] for each in here.list("DeviceClass")} >= names
    found = here.get("DeviceClass", there["metadata"]["name"])
    assert found["metadata"]["resourceVersion"] == there["metadata"]["resourceVersion"]
    release.upgrade(CHART, "i", values, timeout=TIMEOUT)
    release.uninstall("i")
    assert {each["metadata"]["name"] for each in here.list("DeviceClass")} >= names


EVERYTHING: Json = {
    "image": {"repository": "registry.example.com/instaslice", "pullSecrets": [{"name": "s"}]},
    "tls": {"source": "generated"},
    "mappedResources": {"nvidia.com/gpu": "gpu.nvidia.com"},
    "clientCA": {"pem": "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"},
    "networkPolicy": {"apiServer": {"cidrs": ["192.0.2.1/32", "2001:db8::1/128"]}},
    "grafanaDashboard": {"enabled": True},
    "webhook": {"namespaceSelector": {"matchLabels": {"team": "ml"}}},
}


@pytest.mark.parametrize("mode", ["all", "opt-in", "beside-the-scheduler"])
def test_the_api_server_takes_every_object(empty_cluster: Cluster, mode: str) -> None:
    if mode == "beside-the-scheduler" and empty_cluster.plane.version < FIRST_BESIDE:
        pytest.skip("device classes with extended resources are of resource.k8s.io/v1")
    values = {**EVERYTHING, "webhook": {**EVERYTHING["webhook"], "mode": mode}}
    with helm.Chart.load(CHART) as chart:
        texts = chart.render(values, name="i", namespace="default")
    manifests = [
        manifest
        for path, text in texts.items()
        if not path.endswith("NOTES.txt")
        for manifest in yaml.safe_load_all(text)
        if manifest and not manifest["apiVersion"].startswith(CUSTOM)
    ]
    # Pods are refused until their accounts are there.
    accounts = [each for each in manifests if each["kind"] == "ServiceAccount"]
    for items, dry in ((accounts, "none"), (manifests, "server")):
        applied = empty_cluster.kubectl(
            *("apply", "--server-side", "--force-conflicts", "--filename=-", f"--dry-run={dry}"),
            stdin={"apiVersion": "v1", "kind": "List", "items": items},
        )
        assert (applied.returncode, applied.stderr) == (0, "")


# What runs in the hook's pod and in the test's


def script(name: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a script of the chart's as its pod does."""
    text = (CHART / "files" / name).read_text()
    command = [sys.executable, "-c", text, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)


def test_helm_test_sees_a_pod_rewritten(namespace: Cluster) -> None:
    kubeconfig = str(namespace.plane.kubeconfig)
    done = script("dry_run.py", namespace.namespace, "all", KUBECONFIG=kubeconfig)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("rewritten: [{'name': ")


def test_helm_test_sees_a_pod_that_is_not(bare_namespace: Cluster) -> None:
    kubeconfig = str(bare_namespace.plane.kubeconfig)
    done = script("dry_run.py", bare_namespace.namespace, "opt-in", KUBECONFIG=kubeconfig)
    assert done.returncode == 1
    assert "InstaSlice was not called, or namespace" in done.stderr


def test_the_hook_waits_until_it_is_ready(webhook: Webhook) -> None:
    """Where its Service is, the kubelet says by environment variables."""
    url = webhook.client_config["url"].removesuffix("/mutate") + "/readyz"
    address = {"INSTASLICE_SERVICE_HOST": HOST, "INSTASLICE_SERVICE_PORT": str(webhook.port)}
    done = script("await_ready.py", "/readyz", **address)
    assert (done.returncode, done.stdout) == (0, f"{url}: 200\n")
