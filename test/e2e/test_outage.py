"""Outages of InstaSlice."""

import pytest

from test.e2e.background import NOT_REWRITTEN, load
from test.e2e.cluster import Cluster, Refused
from test.e2e.installation import FIRST_WITH_MATCH_CONDITIONS
from test.e2e.pods import container, extended, limits_left, pod
from test.e2e.webhook import Webhook

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
