"""ResourceQuotas count both rewritten pods and pods that the scheduler serves."""

import pytest

from test.e2e import gpus
from test.e2e.cluster import Cluster, Json, Refused
from test.e2e.pods import container, native, pod
from test.e2e.webhook import Webhook
from test.support.command import instaslice
from test.support.process import until

#: A pod's resource, after nvidia.com/ -> the resource in a quota that bounds it.
OF_CLASS = {
    name: f"{each}.deviceclass.resource.k8s.io/devices"
    for name, each in {"mig-1g.5gb": "mig-1g.5gb.nvidia.com", "gpu": gpus.GPU_CLASS}.items()
}
OF_RESOURCE = {name: f"requests.nvidia.com/{name}" for name in OF_CLASS}


@pytest.fixture(scope="module", autouse=True)
def profile_class(devices: None, cluster: Cluster, webhook: Webhook) -> None:
    """Create the profile's class, which comes with the first template and which quotas count.

    The namespace has no quotas: a quota that was created right after a claim was deleted did not
    reach 0 within 30 s (seen once, on 1.36).
    """
    gpus.start(cluster, asking("first-of-all", "mig-1g.5gb"))
    gpus.clear(cluster)


def limit(team: Cluster, resource: str) -> None:
    """Create a quota of one in the namespace, and wait until it counts."""
    is_old = team.plane.version.minor < gpus.FIRST_WITH_EXTENDED_RESOURCES
    if is_old and resource in OF_RESOURCE.values():
        pytest.skip("claims count towards the extended resource from Kubernetes 1.36 on")
    team.make("ResourceQuota", "q", spec={"hard": {resource: "1"}})
    counts(team, resource, "0")


def counts(team: Cluster, resource: str, amount: str) -> None:
    def used() -> object:
        return team.get("ResourceQuota", "q").get("status", {}).get("used", {}).get(resource)

    until(lambda: used() == amount, f"the quota counts {amount}")


def asking(name: str, resource: str) -> Json:
    return gpus.tolerating(pod(name, container(limits={resource: 1})))


def held_back(team: Cluster, name: str) -> str:
    """The event's message that says why a pod's claim is not created."""
    selector = f"involvedObject.name={name},reason=FailedResourceClaimCreation"

    def event() -> str:
        events = team.send("get", "Event", "v1", field_selector=selector).body["items"]
        return str(events[0]["message"]) if events else ""

    return until(event, "the event")


@pytest.mark.parametrize(
    ("name", "resource"), [*OF_CLASS.items(), *OF_RESOURCE.items()], ids=lambda each: str(each)
)
def test_a_quota_of_one_admits_one_and_holds_back_the_second(
    team: Cluster, name: str, resource: str
) -> None:
    limit(team, resource)
    gpus.start(team, asking("one", name))
    counts(team, resource, "1")
    team.create(asking("two", name))
    said = held_back(team, "two")
    assert "exceeded quota: q" in said
    assert resource in said
    explained = instaslice("doctor", *team.where, f"--resource={gpus.MAPPING}", "two").out
    assert "exceeded quota" in explained
    assert f"q: {resource}: 1 of 1 used" in explained
    team.delete("Pod", "one")
    gpus.bound(team, "two")


@pytest.mark.parametrize(("name", "resource"), OF_RESOURCE.items(), ids=lambda each: str(each))
def test_native_pods_share_the_quota(team: Cluster, name: str, resource: str) -> None:
    limit(team, resource)
    gpus.start(team, asking("one", name))
    counts(team, resource, "1")
    theirs = native(asking("native", name))
    with pytest.raises(Refused, match="exceeded quota: q"):
        team.create(theirs)
    team.delete("Pod", "one")

    def takes_its_place() -> bool:
        try:
            team.create(theirs)
        except Refused as refused:
            return "exceeded quota" not in str(refused)
        return True

    until(takes_its_place, "the quota is released")
    gpus.bound(team, "native")
    counts(team, resource, "1")  # the scheduler's claim is not counted again
    team.create(asking("two", name))
    assert "exceeded quota: q" in held_back(team, "two")
