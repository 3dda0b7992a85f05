"""Controllers whose pods run: a Job, a Deployment that rolls over, a StatefulSet."""

import pytest

from test.e2e.cluster import Cluster, Json
from test.e2e.node import Node
from test.e2e.nvidia import wanted
from test.e2e.pods import job, pod, wishing, workload
from test.e2e.runs import PATIENCE, ends, gpu, profile, seen, stays
from test.support.process import until

pytestmark = pytest.mark.usefixtures("webhook")


def running(cluster: Cluster, number: int) -> list[str]:
    """The names of the namespace's pods, once so many run and no other is left."""

    def found() -> list[str]:
        pods = cluster.list("Pod")
        names = [
            each["metadata"]["name"]
            for each in pods
            if each["status"].get("phase") == "Running"
            and "deletionTimestamp" not in each["metadata"]
        ]
        return names if len(names) == len(pods) == number else []

    return sorted(until(found, f"{number} pods run", seconds=PATIENCE))


def test_a_job_completes(namespace: Cluster) -> None:
    manifest = job("j")
    spec = pod("", ends(limits={"mig-1g.5gb": 1}), restartPolicy="Never")["spec"]
    manifest["spec"] = {"completions": 3, "parallelism": 2, "template": {"spec": spec}}
    namespace.create(manifest)

    def completed() -> bool:
        return bool(namespace.get("Job", "j")["status"].get("succeeded") == 3)

    until(completed, "the job completes", seconds=PATIENCE)
    for each in namespace.list("Pod"):
        assert [profile(device) for device in seen(namespace, each["metadata"]["name"])] == [
            "1g5gb"
        ]
    # Pods that have ended hold nothing, though they are still there.
    until(
        lambda: not [each for each in namespace.list("ResourceClaim") if held(each)],
        "their claims are given back",
    )


def held(claim: Json) -> bool:
    """Whether a claim has devices."""
    return bool(claim.get("status", {}).get("allocation"))


@pytest.mark.parametrize(
    "rolling",
    [{"maxSurge": 1, "maxUnavailable": 0}, {"maxSurge": 0, "maxUnavailable": 1}],
    ids=["one more at a time", "one less at a time"],
)
def test_a_deployment_rolls_over(namespace: Cluster, rolling: Json) -> None:
    """Its two pods take half of each GPU, and the new one gets what is left or given back."""
    template = pod("", stays(limits={"mig-3g.20gb": 1}))
    strategy = {"type": "RollingUpdate", "rollingUpdate": rolling}
    namespace.create(workload("Deployment", "d", replicas=2, template=template, strategy=strategy))
    before = running(namespace, 2)
    restarted = namespace.kubectl("rollout", "restart", "deployment/d")
    assert restarted.returncode == 0, restarted.stderr
    rolled = namespace.kubectl("rollout", "status", "deployment/d", "--timeout=50s")
    assert rolled.returncode == 0, rolled.stdout + rolled.stderr
    after = running(namespace, 2)
    assert {*before}.isdisjoint(after)
    devices = [device for name in after for device in seen(namespace, name)]
    assert len(set(devices)) == 2
    assert {profile(device) for device in devices} == {"3g20gb"}


def test_a_deployment_runs_on_every_kind_of_gpu(real_node: Node, namespace: Cluster) -> None:
    """Written for 1g.5gb, of which an A100 has seven: the others of nine run on an H100."""
    models = "ah"
    mig = [] if wanted() is Node else ["FAKE_NVML_MIG=11"]
    real_node.other_gpus(*mig, models=models)
    try:
        one = pod("", stays(limits={"mig-1g.5gb": 1}), terminationGracePeriodSeconds=1)
        template = wishing(one, alternatives="1g.5gb or bigger")
        namespace.create(workload("Deployment", "d", replicas=9, template=template))
        names = running(namespace, 9)
        devices = {each for name in names for each in seen(namespace, name, models=models)}
        assert sorted((gpu(each), profile(each)) for each in devices) == [
            *[("gpu-0", "1g5gb")] * 7,
            *[("gpu-1", "1g10gb")] * 2,
        ]
    finally:
        namespace.kubectl("delete", "deployment,pods", "--all", "--timeout=50s").check_returncode()
        real_node.other_gpus()


def test_a_pod_of_a_stateful_set_comes_back_with_a_slice(namespace: Cluster) -> None:
    template = pod("", stays(limits={"mig-2g.10gb": 1}))
    namespace.create(workload("StatefulSet", "s", replicas=2, template=template))
    assert running(namespace, 2) == ["s-0", "s-1"]
    kept = seen(namespace, "s-0")
    uid = namespace.get("Pod", "s-1")["metadata"]["uid"]
    namespace.delete("Pod", "s-1")

    def another() -> bool:
        found = namespace.find("Pod", "s-1")
        return found is not None and found["metadata"]["uid"] != uid

    until(another, "s-1 is made anew", seconds=PATIENCE)
    assert running(namespace, 2) == ["s-0", "s-1"]
    (device,) = seen(namespace, "s-1")
    assert profile(device) == "2g10gb"
    assert [device] != kept
