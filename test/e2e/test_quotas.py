"""ResourceQuotas go on counting: what is rewritten and what the scheduler serves share them."""

from typing import Any

import pytest

from test.e2e import gpus
from test.e2e.cluster import Cluster, Refused
from test.e2e.pods import PREFIX, container, pod
from test.support.command import instaslice
from test.support.process import until

Json = dict[str, Any]

#: By the first version that counts it: a resource of a quota that bounds slices of 1g.5gb.
EXTENDED = f"requests.{PREFIX}mig-1g.5gb"
OF_CLASS = "mig-1g.5gb.nvidia.com.deviceclass.resource.k8s.io/devices"


@pytest.fixture(params=[OF_CLASS, EXTENDED], ids=["of the class", "of the resource"])
def counted(team: Cluster, request: pytest.FixtureRequest) -> str:
    """A quota of 1 in the namespace; returns what it counts."""
    resource: str = request.param
    minor = team.plane.version.minor
    if resource == EXTENDED and minor < gpus.FIRST_WITH_EXTENDED_RESOURCES:
        pytest.skip("claims count towards the extended resource from Kubernetes 1.36 on")
    # The class is made with the first template, and a quota counts by it.
    team.create(asking("first-of-all"))
    until(lambda: team.find("DeviceClass", "mig-1g.5gb.nvidia.com"), "the class")
    team.delete("Pod", "first-of-all")
    until(lambda: not team.list("ResourceClaim"), "no claim")
    hard = {resource: "1"}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}}
    team.create({**quota, "spec": {"hard": hard}})
    until(lambda: used(team, resource) == "0", "the quota counts")
    return resource


def used(team: Cluster, resource: str) -> str:
    return str(team.get("ResourceQuota", "q").get("status", {}).get("used", {}).get(resource))


def asking(name: str, *, native: bool = False) -> Json:
    found = gpus.tolerating(pod(name, container(limits={"mig-1g.5gb": 1})))
    if native:
        found["metadata"]["labels"] = {"instaslice.io/rewrite": "disabled"}
    return found


def held_back(team: Cluster, name: str) -> str:
    """Why a pod's claim is not made, as an event says it."""
    selector = f"involvedObject.name={name},reason=FailedResourceClaimCreation"
    events = team.send("get", "Event", "v1", field_selector=selector).body["items"]
    return str(events[0]["message"]) if events else ""


def test_a_quota_of_one_admits_one_and_holds_back_the_second(team: Cluster, counted: str) -> None:
    team.create(asking("one"))
    gpus.bound(team, "one")
    until(lambda: used(team, counted) == "1", "the quota has counted")
    team.create(asking("two"))
    said = until(lambda: held_back(team, "two"), "the event")
    assert "exceeded quota: q" in said
    assert counted in said
    where = f"--kubeconfig={team.plane.kubeconfig}", f"--namespace={team.namespace}"
    explained = instaslice("doctor", "two", *where)
    assert "exceeded quota" in explained.out
    team.delete("Pod", "one")
    gpus.bound(team, "two")


def test_native_pods_share_the_quota(team: Cluster, counted: str) -> None:
    if counted != EXTENDED:
        pytest.skip("a quota of the class counts claims only")
    team.create(asking("one"))
    gpus.bound(team, "one")
    until(lambda: used(team, counted) == "1", "the quota has counted")
    with pytest.raises(Refused, match="exceeded quota: q"):
        team.create(asking("native", native=True))
    team.delete("Pod", "one")

    def takes_its_place() -> bool:
        try:
            team.create(asking("native", native=True))
        except Refused as refused:
            return "exceeded quota" not in str(refused)
        return True

    until(takes_its_place, "the quota is free again")
    gpus.bound(team, "native")
    team.create(asking("two"))
    assert "exceeded quota: q" in until(lambda: held_back(team, "two"), "the event")
