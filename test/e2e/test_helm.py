"""The chart by Helm's own programs, 3 and 4, as a user types them: a release from first to last."""

import pytest

from test.e2e.cluster import Cluster, Json
from test.e2e.kubelet import kubelet
from test.e2e.pods import pod
from test.support.helm import NONE, Helm, programs
from test.support.process import ROOT

NAMESPACE = "instaslice-system"
CHART = ROOT / "charts/instaslice"
WEBHOOK = ("MutatingWebhookConfiguration", "instaslice")
VALUES: Json = {
    "image": {"repository": "registry.example.com/instaslice"},
    "tls": {"source": "generated"},
    # The test's pod asks InstaSlice, which runs in no pod here.
    "helmTest": {"namespace": "default"},
}

pytestmark = pytest.mark.skipif(not programs(), reason=NONE)


@pytest.fixture(scope="module", params=programs(), ids=lambda path: path.name)
def helm(
    request: pytest.FixtureRequest,
    empty_cluster: Cluster,
    tmp_path_factory: pytest.TempPathFactory,
) -> Helm:
    folder = tmp_path_factory.mktemp("helm")
    return Helm(request.param, folder, empty_cluster.plane.kubeconfig)


@pytest.fixture(scope="module")
def here(empty_cluster: Cluster) -> Cluster:
    """The release's namespace."""
    return empty_cluster.within(NAMESPACE)


def run(helm: Helm, *arguments: str, values: Json | None = None) -> str:
    """What Helm prints of a release in the namespace; it must succeed."""
    done = helm.run(*arguments, f"--namespace={NAMESPACE}", values=values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_release_from_install_to_uninstall(helm: Helm, here: Cluster) -> None:
    install = ("upgrade", "--install", "i", str(CHART), "--create-namespace", "--wait")
    with kubelet(here):
        run(helm, *install, "--timeout=60s", values=VALUES)
        (webhook,) = here.get(*WEBHOOK)["webhooks"]
        assert webhook["clientConfig"]["caBundle"]
        assert "Phase:" in run(helm, "test", "i", "--timeout=60s")
        run(helm, "upgrade", "i", str(CHART), "--wait", values={**VALUES, "replicas": 3})
    assert here.get("Deployment", "instaslice")["spec"]["replicas"] == 3

    # An image that cannot be pulled: its pods do not become ready.
    worse = {**VALUES, "image": {"repository": "registry.example.com/none"}}
    failed = helm.run(
        *("upgrade", "i", CHART, "--wait", "--timeout=5s", f"--namespace={NAMESPACE}"),
        values=worse,
    )
    assert failed.returncode == 1
    assert "failed" in run(helm, "history", "i")
    assert here.get(*WEBHOOK)["webhooks"] == [webhook], "it is registered as it was"

    with kubelet(here):
        run(helm, "rollback", "i", "1", "--wait", "--timeout=60s")
    deployment = here.get("Deployment", "instaslice")["spec"]
    assert deployment["replicas"] == 2
    assert "/instaslice:" in deployment["template"]["spec"]["containers"][0]["image"]
    assert here.get(*WEBHOOK)["webhooks"] == [webhook]

    run(helm, "uninstall", "i", "--wait", "--timeout=60s")
    assert here.find(*WEBHOOK) is None
    assert here.find("Deployment", "instaslice") is None
    here.within("default").create(pod("p"), dry_run=True)


def test_pods_that_never_run_fail_the_install_and_lock_nobody_out(
    helm: Helm, here: Cluster
) -> None:
    name = f"--namespace={NAMESPACE}"
    install = ("install", "i", CHART, "--create-namespace", "--timeout=5s", name)
    failed = helm.run(*install, values=VALUES)
    assert failed.returncode == 1
    assert "post-install" in failed.stderr
    here.within("default").create(pod("p"), dry_run=True)
    run(helm, "uninstall", "i")
    here.kubectl("delete", "job", "--all").check_returncode()
