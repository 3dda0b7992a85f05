"""Failures of the driver, InstaSlice and the kubelet while pods have slices."""

import pytest

from test.e2e.cluster import Cluster
from test.e2e.node import Node
from test.e2e.nvidia import wanted
from test.e2e.pods import pod
from test.e2e.runs import PATIENCE, ends, restarts, seen, stays, wait_gone, wait_phase
from test.e2e.webhook import Webhook
from test.support.command import instaslice
from test.support.process import until

pytestmark = pytest.mark.usefixtures("webhook")


def claims_of(cluster: Cluster) -> set[str]:
    """The UIDs of the namespace's claims."""
    return {claim["metadata"]["uid"] for claim in cluster.list("ResourceClaim")}


def events(cluster: Cluster, name: str, reason: str) -> list[str]:
    """The messages of a pod's events with a reason."""
    selector = f"--field-selector=involvedObject.name={name},reason={reason}"
    listed = cluster.kubectl("get", "events", selector, "-o=jsonpath={.items[*].message}")
    return [listed.stdout] if listed.stdout else []


def test_pod_shows_driver_failure_and_runs_after_recovery(
    namespace: Cluster, real_node: Node
) -> None:
    if wanted() is not Node:
        pytest.skip("NVIDIA's driver never prepares a claim after a failure to create its slice")
    with real_node.failing_driver() as words:
        namespace.create(pod("p", stays(limits={"mig-1g.5gb": 1})))
        told = until(
            lambda: events(namespace, "p", "FailedPrepareDynamicResources"),
            "an event reports the failure",
            seconds=PATIENCE,
        )
        assert words in told[0]
        assert namespace.get("Pod", "p")["status"]["phase"] == "Pending"
        explained = instaslice("doctor", *namespace.where, "p")
        assert explained.code == 1
        assert words in explained.out
        assert "FailedPrepareDynamicResources" in explained.out
    wait_phase(namespace, "p", "Running")
    assert len(seen(namespace, "p")) == 1


def test_pods_run_and_end_without_instaslice(
    namespace: Cluster, webhook: Webhook, real_node: Node
) -> None:
    """The API server calls it only when a pod is created or its spec changes."""
    namespace.create(pod("stays", stays(limits={"mig-1g.5gb": 1})))
    waits = "until [ -e /kept/end ]; do sleep 0.1; done"
    ending = {**ends(limits={"mig-1g.5gb": 1}), "command": ["sh", "-c", waits]}
    ending["volumeMounts"] = [{"name": "kept", "mountPath": "/kept"}]
    kept = [{"name": "kept", "emptyDir": {}}]
    namespace.create(pod("ends", ending, volumes=kept, restartPolicy="Never"))
    for name in ("stays", "ends"):
        wait_phase(namespace, name, "Running")
    prepared = claims_of(namespace)
    assert prepared <= real_node.prepared()

    webhook.stop()
    try:
        namespace.kubectl("exec", "ends", "--", "touch", "/kept/end").check_returncode()
        wait_phase(namespace, "ends", "Succeeded")
        namespace.kubectl("label", "pod", "stays", "a=b").check_returncode()
        assert wait_phase(namespace, "stays", "Running")["metadata"]["labels"] == {"a": "b"}
        namespace.kubectl("delete", "pod", "stays", "ends", "--wait=false").check_returncode()
        for name in ("stays", "ends"):
            wait_gone(namespace, name)
        until(lambda: not namespace.list("ResourceClaim"), "the claims are gone")
        assert prepared.isdisjoint(real_node.prepared())
    finally:
        webhook.start()


def test_pods_survive_a_kubelet_restart(namespace: Cluster, real_node: Node) -> None:
    namespace.create(pod("p", stays(limits={"mig-1g.5gb": 2})))
    before = wait_phase(namespace, "p", "Running")
    devices = seen(namespace, "p")
    real_node.end("kubelet")
    namespace.create(pod("meanwhile", ends(limits={"mig-1g.5gb": 1}), restartPolicy="Never"))
    real_node.start_kubelet()
    wait_phase(namespace, "meanwhile", "Succeeded")
    after = wait_phase(namespace, "p", "Running")
    (one,), (other,) = (each["status"]["containerStatuses"] for each in (before, after))
    assert one["containerID"] == other["containerID"]
    assert restarts(namespace, "p") == 0
    assert seen(namespace, "p") == devices
    claims = claims_of(namespace)
    for name in ("p", "meanwhile"):
        namespace.kubectl("delete", "pod", name, "--wait=false")
        wait_gone(namespace, name)
    assert claims.isdisjoint(real_node.prepared()), "the kubelet still knows its claims"
