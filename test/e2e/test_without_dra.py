"""A cluster without Dynamic Resource Allocation: users read why, and not that nobody answered."""

from pathlib import Path

import pytest

from instaslice.webhook_configuration import ALL, webhook_configuration
from test.e2e.cluster import Cluster, Refused
from test.e2e.installation import install
from test.e2e.pods import container, pod
from test.e2e.webhook import Webhook
from test.support.process import until
from test.support.service import Service

REASON = "the pod's devices cannot be claimed: the cluster does not serve resource.k8s.io"


def refusal(cluster: Cluster) -> str:
    """Why a pod with a slice is not created; empty where it is."""
    try:
        cluster.create(pod("p"), dry_run=True)
    except Refused as refused:
        return str(refused)
    return ""


def test_the_reason_comes_through_a_service(cluster_without_dra: Cluster, tmp_path: Path) -> None:
    """Only ready pods are behind a Service, so InstaSlice has to be one."""
    cluster = cluster_without_dra
    kubeconfig = install(cluster, tmp_path / "webhook")
    webhook = Webhook(tmp_path / "webhook", kubeconfig)
    with Service(webhook.port, lambda: webhook.readiness() != "") as service:
        configuration = webhook_configuration(ALL)
        for each in configuration["webhooks"]:
            url = f"https://127.0.0.1:{service.port}/mutate"
            each["clientConfig"] = {**webhook.client_config, "url": url}
        cluster.create(configuration)
        until(lambda: "failed calling webhook" in refusal(cluster), "nobody is ready")
        try:
            webhook.start()
            service.wait()
            until(lambda: REASON in refusal(cluster), "the reason is told")
            with pytest.raises(Refused, match=REASON) as refused:
                cluster.create(pod("p"))
            assert refused.value.code == 503
            cluster.create(pod("q", container()))
            assert "pods that ask for devices are refused" in webhook.readiness()
        finally:
            webhook.stop()
