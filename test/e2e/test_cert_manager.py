"""cert-manager's own programs give InstaSlice its Secret, and the API server its CA."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from test.e2e import cert_manager
from test.e2e.checkout import Checkout
from test.e2e.cluster import Cluster, Json
from test.e2e.installation import NAMESPACE
from test.e2e.kubelet import kubelet
from test.support.helm import NONE, Helm, programs
from test.support.process import ROOT, until

WEBHOOK = ("MutatingWebhookConfiguration", "instaslice")
IMAGE = "registry.example.com/instaslice"

pytestmark = pytest.mark.skipif(bool(cert_manager.missing()), reason=cert_manager.missing())


@pytest.fixture(scope="module")
def here(empty_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """InstaSlice's namespace in a cluster where cert-manager works."""
    with cert_manager.cert_manager(empty_cluster, tmp_path_factory.mktemp("cert-manager")):
        yield empty_cluster.within(NAMESPACE)


def check(here: Cluster) -> None:
    """The Secret is complete, and the API server trusts who has signed it."""
    keys = {"ca.crt", "tls.crt", "tls.key"}
    until(lambda: cert_manager.secret(here, "instaslice-tls").keys() == keys, "the Secret is there")

    def trusted() -> Json | None:
        (webhook,) = here.get(*WEBHOOK)["webhooks"] or [{}]
        bundle = webhook.get("clientConfig", {}).get("caBundle")
        return webhook if bundle else None

    webhook = until(trusted, "cainjector has given the CA")
    given = here.send("get", "Secret", "v1", name="instaslice-tls").body["data"]["ca.crt"]
    assert webhook["clientConfig"]["caBundle"] == given


def test_make_deploy(here: Cluster, tmp_path: Path) -> None:
    checkout = Checkout(here.plane, tmp_path, f"{IMAGE}:1")
    with kubelet(here):
        done = checkout.make("deploy")
    assert done.returncode == 0, done.stderr
    check(here)
    assert checkout.make("undeploy").returncode == 0


@pytest.mark.skipif(not programs(), reason=NONE)
def test_the_chart(here: Cluster, tmp_path: Path) -> None:
    helm = Helm(programs()[-1], tmp_path, here.plane.kubeconfig)
    name = f"--namespace={NAMESPACE}"
    chart = ROOT / "charts/instaslice"
    values = {"image": {"repository": IMAGE}}
    with kubelet(here):
        done = helm.run("install", "i", chart, "--create-namespace", name, values=values)
    assert done.returncode == 0, done.stderr
    check(here)
    assert helm.run("uninstall", "i", name).returncode == 0
