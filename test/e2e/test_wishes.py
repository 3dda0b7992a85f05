"""What pods ask for by annotation (R13), and what a real scheduler gives them of two A100s."""

from typing import Any

import pytest

from test.e2e import gpus, pods
from test.e2e.cluster import Cluster, Json, Refused
from test.e2e.gpus import bound, given, gpu_of, profile_of, start, waits
from test.e2e.pods import container, pod
from test.support.process import until


def wishing(manifest: Json, **annotations: str) -> Json:
    """A pod with annotations of InstaSlice, for the node of the A100s."""
    return gpus.tolerating(pods.wishing(manifest, **annotations))


def slices_of(name: str, *amounts: Json, **spec: Any) -> Json:
    """A pod whose containers c0, c1, ... have these limits."""
    return pod(name, *(container(f"c{i}", limits) for i, limits in enumerate(amounts)), **spec)


EITHER = "3g.20gb or 4g.20gb"


def test_the_first_choice_while_it_lasts_and_then_the_second(team: Cluster) -> None:
    """Two A100s have room for two slices of 3g.20gb on each, and for one of 4g.20gb beside one."""
    start(team, wishing(slices_of("big", {"mig-4g.20gb": 1})))
    profiles = []
    for n in range(3):
        one = slices_of(f"p{n}", {"mig-3g.20gb": 1})
        [[device]] = given(team, start(team, wishing(one, alternatives=EITHER))).values()
        profiles.append(profile_of(device))
    assert profiles == ["3g20gb"] * 3
    last = wishing(slices_of("last", {"mig-1g.10gb": 1}), alternatives="1g.10gb or 1g.5gb")
    team.create(last)
    waits(team, "last")


def test_the_second_choice_is_given_where_the_first_is_taken(team: Cluster) -> None:
    for n in range(2):  # seven compute slices: 4 of them gone on each GPU, and 4 of 8 of memory
        start(team, wishing(slices_of(f"taken{n}", {"mig-4g.20gb": 1})))
    wish = "4g.20gb or 3g.20gb"
    asks = wishing(slices_of("p", {"mig-4g.20gb": 1}), alternatives=wish)
    [[device]] = given(team, start(team, asks)).values()
    assert profile_of(device) == "3g20gb"
    [claim] = [c for c in team.list("ResourceClaim") if "p-" in c["metadata"]["name"]]
    [request] = claim["spec"]["devices"]["requests"]
    assert [choice["deviceClassName"] for choice in request["firstAvailable"]] == [
        "mig-4g.20gb.nvidia.com",
        "mig-3g.20gb.nvidia.com",
    ]


def test_two_pods_of_three_on_one_gpu_end_up_on_a_gpu_each(team: Cluster) -> None:
    used = []
    for n in range(2):
        manifest = wishing(slices_of(f"p{n}", {"mig-2g.10gb": 3}), placement="same-gpu")
        [devices] = given(team, start(team, manifest)).values()
        assert len(set(devices)) == 3
        [gpu] = set(map(gpu_of, devices))
        used.append(gpu)
    assert sorted(used) == ["gpu-0", "gpu-1"]


def test_what_one_gpu_does_not_have_stays_pending(team: Cluster) -> None:
    start(team, wishing(slices_of("one", {"mig-3g.20gb": 2}), placement="same-gpu"))
    team.create(wishing(slices_of("p", {"mig-1g.5gb": 7}, {"mig-1g.5gb": 1}), placement="same-gpu"))
    waits(team, "p")
    assert team.get("Pod", "p")["status"]["phase"] == "Pending"


def test_several_containers_and_profiles_share_a_gpu(team: Cluster) -> None:
    manifest = slices_of(
        "p",
        {"mig-1g.5gb": 2, "mig-2g.10gb": 1},
        {"mig-1g.5gb": 1},
        initContainers=[container("i", {"mig-1g.5gb": 1})],
    )
    devices = given(team, start(team, wishing(manifest, placement="same-gpu")))
    assert {name: len(own) for name, own in devices.items()} == {"c0": 3, "c1": 1, "i": 1}
    assert sorted(map(profile_of, devices["c0"])) == ["1g5gb", "1g5gb", "2g10gb"]
    assert set(devices["i"]) < set(devices["c0"])
    assert not set(devices["c0"]) & set(devices["c1"])
    assert len({gpu_of(device) for own in devices.values() for device in own}) == 1
    assert len(team.list("ResourceClaim")) == 1


def test_a_sidecar_is_placed_with_the_rest(team: Cluster) -> None:
    sidecar = container("s", {"mig-1g.5gb": 1}, restartPolicy="Always")
    manifest = slices_of("p", {"mig-1g.5gb": 2}, initContainers=[sidecar])
    devices = given(team, start(team, wishing(manifest, placement="same-gpu")))
    assert len({gpu_of(device) for own in devices.values() for device in own}) == 1
    assert not set(devices["s"]) & set(devices["c0"])


def test_both_wishes_together(team: Cluster) -> None:
    for n in range(2):
        start(team, wishing(slices_of(f"taken{n}", {"mig-4g.20gb": 1})))
    manifest = slices_of("p", {"mig-4g.20gb": 1}, {"mig-1g.5gb": 1})
    wishes = {"alternatives": "4g.20gb or 2g.10gb", "placement": "same-gpu"}
    start(team, wishing(manifest, **wishes))
    devices = given(team, team.get("Pod", "p"))
    assert list(map(profile_of, devices["c0"])) == ["2g10gb"]
    assert len({gpu_of(device) for own in devices.values() for device in own}) == 1


def test_slices_on_different_gpus(team: Cluster) -> None:
    two = slices_of("p", {"mig-1g.5gb": 1}, {"mig-1g.5gb": 1})
    manifest = wishing(two, placement="different-gpus")
    if team.plane.version.minor < gpus.FIRST_WITH_DISTINCT:
        with pytest.raises(Refused, match="cannot promise different-gpus"):
            team.create(manifest)
        return
    devices = given(team, start(team, manifest))
    assert {gpu_of(device) for own in devices.values() for device in own} == {"gpu-0", "gpu-1"}
    three = wishing(slices_of("three", {"mig-1g.5gb": 3}), placement="different-gpus")
    team.create(three)
    waits(team, "three")


@pytest.mark.parametrize("side", ["false", "true"])
def test_a_manifest_with_wishes_can_be_applied_again(team: Cluster, side: str) -> None:
    manifest = wishing(
        slices_of("p", {"mig-1g.5gb": 2}, {"mig-3g.20gb": 1}),
        alternatives=EITHER,
        placement="same-gpu",
    )
    for _ in range(2):
        done = team.kubectl("apply", f"--server-side={side}", "-f-", stdin=manifest)
        assert (done.returncode, done.stderr) == (0, "")
        created = team.get("Pod", "p")
    assert len(created["spec"]["resourceClaims"]) == 1
    [template] = {c["resourceClaimTemplateName"] for c in created["spec"]["resourceClaims"]}
    assert template == "same-gpu-mig-1g.5gb.x2-and-mig-3g.20gb-or-4g.20gb"


def test_a_native_pod_takes_what_is_left_and_no_more(team: Cluster) -> None:
    if team.plane.version.minor < gpus.FIRST_WITH_EXTENDED_RESOURCES:
        pytest.skip("the scheduler serves extended resources from Kubernetes 1.36 on")
    ours = start(team, wishing(slices_of("ours", {"mig-3g.20gb": 2}), placement="same-gpu"))
    native = []
    for n in range(3):
        team.create(pods.native(wishing(slices_of(f"native{n}", {"mig-3g.20gb": 1}))))
        if n < 2:
            native += gpus.held(team, bound(team, f"native{n}"))
    said = until(lambda: gpus.verdict(team, "native2"), "the scheduler's verdict")
    assert said != "True"
    assert len({*gpus.held(team, ours), *native}) == 4


def test_an_annotation_that_cannot_be_read_is_denied(namespace: Cluster) -> None:
    with pytest.raises(Refused, match='placement]: Invalid value: "near": must be same-') as caught:
        namespace.create(wishing(slices_of("p", {"mig-1g.5gb": 2}), placement="near"))
    assert caught.value.causes


def test_where_a_version_lacks_a_wish_it_says_so(namespace: Cluster) -> None:
    if namespace.plane.resource_api == "v1":
        pytest.skip("v1 has them")
    asks = wishing(slices_of("p", {"mig-3g.20gb": 1}), alternatives=EITHER)
    created, [warning] = namespace.create_aloud(asks)
    assert "has no alternatives; only the first is asked for" in warning
    [claim] = created["spec"]["resourceClaims"]
    assert claim.get("source", claim)["resourceClaimTemplateName"] == "mig-3g.20gb"
    if namespace.plane.resource_api == "v1alpha2":
        with pytest.raises(Refused, match="cannot promise same-gpu"):
            namespace.create(wishing(slices_of("q", {"mig-1g.5gb": 2}), placement="same-gpu"))
