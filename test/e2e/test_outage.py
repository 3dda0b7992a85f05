"""InstaSlice away, and coming back."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from threading import Event
from typing import Any

import pytest

from test.e2e.cluster import Cluster, Refused
from test.e2e.installation import FIRST_WITH_MATCH_CONDITIONS
from test.e2e.pods import container, extended, limits_left, pod, slices, workload
from test.e2e.webhook import Webhook
from test.support.process import until

Json = dict[str, Any]

NOT_CALLED = 'failed calling webhook "rewrite.instaslice.io"'
#: It listens and is not ready; a Service would send it nothing yet.
NOT_READY = "the pod's devices cannot be claimed: the API server has not been asked yet"


@pytest.fixture
def away(namespace: Cluster, webhook: Webhook) -> Iterator[Cluster]:
    """A namespace that InstaSlice would serve, if it were there."""
    webhook.stop()
    try:
        yield namespace
    finally:
        webhook.start()


def fails_open(cluster: Cluster) -> bool:
    """Whether pods with limits are let through without InstaSlice, as on Kubernetes 1.27."""
    return cluster.plane.version < FIRST_WITH_MATCH_CONDITIONS


def test_pods_without_mig_are_created_as_ever(away: Cluster) -> None:
    away.create(pod("p", container()))
    away.patch("Pod", "p", {"metadata": {"labels": {"a": "b"}}})
    away.delete("Pod", "p")
    assert away.find("Pod", "p") is None


def test_a_pod_with_mig_is_refused_and_says_why(away: Cluster) -> None:
    if fails_open(away):
        pytest.skip("Kubernetes 1.27 has no matchConditions, so InstaSlice fails open there")
    with pytest.raises(Refused, match=NOT_CALLED) as refused:
        away.create(pod("p"))
    assert refused.value.code == 500
    assert away.find("Pod", "p") is None


def test_where_it_fails_open_a_pod_keeps_its_limits(away: Cluster) -> None:
    if not fails_open(away):
        pytest.skip("InstaSlice fails closed")
    assert limits_left(away.create(pod("p"))) == {"main": extended({"mig-1g.5gb": "1"})}


def test_pods_that_were_rewritten_can_be_changed_and_deleted(
    namespace: Cluster, webhook: Webhook
) -> None:
    namespace.create(pod("p"))
    webhook.stop()
    try:
        namespace.patch("Pod", "p", {"metadata": {"labels": {"a": "b"}}})
        namespace.patch("Pod", "p", {"spec": {"activeDeadlineSeconds": 600}})
        namespace.delete("Pod", "p")
    finally:
        webhook.start()
    assert namespace.find("Pod", "p") is None


def test_a_deployment_recovers_by_itself(namespace: Cluster, webhook: Webhook) -> None:
    if not namespace.plane.has_controllers or fails_open(namespace):
        pytest.skip("needs kube-controller-manager, and InstaSlice to fail closed")
    webhook.stop()
    try:
        namespace.create(workload("Deployment", "d"))

        def failure() -> str:
            status = namespace.get("Deployment", "d").get("status", {})
            conditions = {each["type"]: each["message"] for each in status.get("conditions", [])}
            return str(conditions.get("ReplicaFailure", ""))

        assert NOT_CALLED in until(failure, "the reason")
    finally:
        webhook.start()
    (recovered,) = until(lambda: namespace.list("Pod"), "its pod", seconds=60)
    assert slices(recovered) == {"main": ["mig-1g.5gb"]}


def test_no_pod_slips_through_while_it_is_killed_and_comes_back(
    namespace: Cluster, webhook: Webhook
) -> None:
    numbers, enough = count(), Event()
    accepted: list[str] = []
    refused: dict[str, Refused] = {}

    def create_pods() -> None:
        while not enough.is_set():
            name = f"p{next(numbers)}"
            try:
                namespace.create(pod(name))
                accepted.append(name)
            except Refused as refusal:
                refused[name] = refusal

    def more(results: list[str] | dict[str, Refused]) -> None:
        """Wait until there are ten more of them."""
        target = len(results) + 10
        until(lambda: len(results) >= target, "more of them", every=0.01)

    with ThreadPoolExecutor(4) as threads:
        creators = [threads.submit(create_pods) for _ in range(4)]
        try:
            for _ in range(3):
                more(accepted)
                webhook.kill()
                more(accepted if fails_open(namespace) else refused)
                webhook.start()
            more(accepted)
        finally:
            enough.set()
    for creator in creators:
        creator.result()

    pods = {each["metadata"]["name"]: each for each in namespace.list("Pod")}
    assert pods.keys() == set(accepted)
    for refusal in refused.values():
        assert NOT_CALLED in str(refusal) or NOT_READY in str(refusal)
    whole = {"main": extended({"mig-1g.5gb": "1"})}
    for each in pods.values():
        if fails_open(namespace) and limits_left(each):
            assert limits_left(each) == whole
        else:
            assert slices(each) == {"main": ["mig-1g.5gb"]}
