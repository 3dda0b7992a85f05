"""Running pods of controllers: a Job and Deployments."""

import pytest

from test.e2e.cluster import Cluster, Json
from test.e2e.gpus import gpu_of, profile_of
from test.e2e.node import Node
from test.e2e.nvidia import wanted
from test.e2e.pods import job, pod, wishing, workload
from test.e2e.runs import PATIENCE, ends, running, seen, stays
from test.support.process import until

pytestmark = pytest.mark.usefixtures("webhook")


def test_a_job_completes(namespace: Cluster) -> None:
    manifest = job("j")
    spec = pod("", ends(limits={"mig-1g.5gb": 1}), restartPolicy="Never")["spec"]
    manifest["spec"] = {"completions": 3, "parallelism": 2, "template": {"spec": spec}}
    namespace.create(manifest)

    def completed() -> bool:
        return bool(namespace.get("Job", "j")["status"].get("succeeded") == 3)

    until(completed, "the job completes", seconds=PATIENCE)
    for each in namespace.list("Pod"):
        [device] = seen(namespace, each["metadata"]["name"])
        assert profile_of(device) == "1g5gb"

    def held() -> list[Json]:
        claims = namespace.list("ResourceClaim")
        return [each for each in claims if each.get("status", {}).get("allocation")]

    # Pods that have ended hold no claims, although they still exist.
    until(lambda: not held(), "their claims are released")


@pytest.mark.parametrize(
    "rolling",
    [{"maxSurge": 1, "maxUnavailable": 0}, {"maxSurge": 0, "maxUnavailable": 1}],
    ids=["one more at a time", "one less at a time"],
)
def test_a_deployment_rolls_over(namespace: Cluster, rolling: Json) -> None:
    """Its two pods take half of each GPU, and new ones get the free or released slices."""
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
    assert {profile_of(device) for device in devices} == {"3g20gb"}


def test_a_deployment_runs_on_every_kind_of_gpu(real_node: Node, namespace: Cluster) -> None:
    """Seven of nine pods for 1g.5gb fit on an A100, and the other two run on an H100."""
    models = "ah"
    mig = [] if wanted() is Node else ["FAKE_NVML_MIG=11"]
    real_node.other_gpus(*mig, models=models)
    try:
        one = pod("", stays(limits={"mig-1g.5gb": 1}), terminationGracePeriodSeconds=1)
        template = wishing(one, alternatives="1g.5gb or bigger")
        namespace.create(workload("Deployment", "d", replicas=9, template=template))
        names = running(namespace, 9)
        devices = {each for name in names for each in seen(namespace, name, models=models)}
        assert sorted((gpu_of(each), profile_of(each)) for each in devices) == [
            *[("gpu-0", "1g5gb")] * 7,
            *[("gpu-1", "1g10gb")] * 2,
        ]
    finally:
        namespace.kubectl("delete", "deployment,pods", "--all", "--timeout=50s").check_returncode()
        real_node.other_gpus()
