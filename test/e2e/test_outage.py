"""Outages of InstaSlice, and a cluster without Dynamic Resource Allocation."""

from pathlib import Path

import pytest

from instaslice.webhook_configuration import ALL, webhook_configuration
from test.e2e.background import NOT_REWRITTEN, load
from test.e2e.cluster import Cluster, Refused
from test.e2e.installation import FIRST_WITH_MATCH_CONDITIONS, install
from test.e2e.pods import container, extended, limits_left, pod
from test.e2e.webhook import Webhook
from test.support.process import until

NOT_CALLED = 'failed calling webhook "rewrite.instaslice.io"'
WHOLE = {"main": extended({"mig-1g.5gb": "1"})}
#: Its message when it listens but is not ready; a Service would send it no requests yet.
NOT_READY = "the pod's devices cannot be claimed: the API server has not been asked yet"


def fails_open(cluster: Cluster) -> bool:
    """Whether pods with limits are accepted without InstaSlice, as on Kubernetes 1.27."""
    return cluster.plane.version < FIRST_WITH_MATCH_CONDITIONS


def test_other_pods_work_during_an_outage(namespace: Cluster, webhook: Webhook) -> None:
    """Pods without slices and pods rewritten before; pods with slices only on 1.27."""
    namespace.create(pod("rewritten"))
    webhook.stop()
    try:
        namespace.create(pod("plain", container()))
        for name in ("plain", "rewritten"):
            namespace.patch("Pod", name, {"metadata": {"labels": {"a": "b"}}})
            namespace.patch("Pod", name, {"spec": {"activeDeadlineSeconds": 600}})
            namespace.delete("Pod", name)
            assert namespace.find("Pod", name) is None
        if fails_open(namespace):
            assert limits_left(namespace.create(pod("p"))) == WHOLE
        else:
            with pytest.raises(Refused, match=NOT_CALLED) as refused:
                namespace.create(pod("p"))
            assert refused.value.code == 500
    finally:
        webhook.start()


def test_no_pod_keeps_its_limits_during_restarts(namespace: Cluster, webhook: Webhook) -> None:
    with load(namespace, pod("p")) as seen:
        for _ in range(3):
            seen.goes_on()
            webhook.kill()
            seen.stops()
            webhook.start()
        seen.goes_on()
    said = (NOT_CALLED, NOT_READY, *([NOT_REWRITTEN] if fails_open(namespace) else []))
    assert [each for each in seen.failures if not any(text in each for text in said)] == []


def test_refusal_says_that_dra_is_missing(cluster_without_dra: Cluster, tmp_path: Path) -> None:
    """It is ready nevertheless, since a Service only reaches ready pods."""
    cluster = cluster_without_dra
    webhook = Webhook(tmp_path / "webhook", install(cluster, tmp_path / "webhook"))
    configuration = webhook_configuration(ALL)
    for each in configuration["webhooks"]:
        each["clientConfig"] = webhook.client_config
    cluster.create(configuration)
    webhook.start()
    try:
        assert "pods that ask for devices are refused" in webhook.readiness()
        reason = "the pod's devices cannot be claimed: the cluster does not serve resource.k8s.io"
        with pytest.raises(Refused, match=reason) as refused:
            until(lambda: limits_left(cluster.create(pod("p"), dry_run=True)) == {}, "it is called")
        assert refused.value.code == 503
        cluster.create(pod("q", container()))
    finally:
        webhook.stop()
