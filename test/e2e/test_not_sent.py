"""matchConditions keep InstaSlice away from pods that are none of its business."""

from typing import Any

import pytest

from test.e2e.cluster import Cluster, Refused
from test.e2e.installation import FIRST_WITH_MATCH_CONDITIONS, let_in
from test.e2e.pods import all_containers, container, extended, limits_left, pod, slices
from test.e2e.webhook import Webhook

Json = dict[str, Any]


@pytest.fixture
def conditional(namespace: Cluster) -> Cluster:
    """A namespace, where the API server knows matchConditions."""
    version = namespace.plane.version
    if version < FIRST_WITH_MATCH_CONDITIONS:
        pytest.skip(f"Kubernetes {version} drops matchConditions, and sends every pod")
    return namespace


OTHER_PODS: dict[str, Json] = {
    "plain": pod("p", container()),
    "other resources": pod(
        "p", container(resources={"limits": {"cpu": "1", "example.com/gpu": "1"}})
    ),
    "null resources": pod("p", container(resources=None)),
    "null limits": pod("p", container(resources={"limits": None, "requests": None})),
    "empty limits": pod("p", container(resources={"limits": {}})),
    "null init containers": pod("p", container(), initContainers=None),
    "init containers": pod("p", container(), initContainers=[container("i")]),
    "a name that only contains it": pod(
        "p", container(resources={"limits": {"example.com/nvidia.com-mig-1g.5gb": "1"}})
    ),
    "many containers": pod(
        "p",
        *(
            container(f"c{n}", resources={"limits": {f"example.com/r{i}": "1" for i in range(20)}})
            for n in range(200)
        ),
    ),
}


@pytest.mark.parametrize("case", OTHER_PODS)
def test_a_pod_without_mig_is_created_as_ever(
    namespace: Cluster, bare_namespace: Cluster, case: str
) -> None:
    with_it = namespace.create(OTHER_PODS[case], dry_run=True)
    without_it = bare_namespace.create(OTHER_PODS[case], dry_run=True)
    assert portable(with_it) == portable(without_it)


def portable(pod: Json) -> Json:
    """A pod's spec, without the volume of its token, which has a random name."""
    spec: Json = {**pod["spec"], "volumes": None}
    containers = [{**each, "volumeMounts": None} for each in all_containers(pod)]
    return {**spec, "containers": containers, "initContainers": None}


@pytest.mark.parametrize("case", OTHER_PODS)
def test_a_pod_without_mig_is_not_sent(conditional: Cluster, webhook: Webhook, case: str) -> None:
    before = webhook.admissions()
    conditional.create(OTHER_PODS[case])
    conditional.patch("Pod", "p", {"metadata": {"labels": {"a": "b"}}})
    conditional.delete("Pod", "p")
    assert webhook.admissions() == before
    conditional.create(pod("p"))
    assert webhook.admissions() > before, "the counter counts"


@pytest.mark.parametrize("containers", [None, []])
def test_a_pod_without_containers_has_the_api_servers_refusal(
    namespace: Cluster, containers: object
) -> None:
    manifest = pod("p")
    manifest["spec"]["containers"] = containers
    with pytest.raises(Refused, match=r"spec\.containers: Required value"):
        namespace.create(manifest)


def test_a_large_pod_is_within_what_the_api_server_lets_conditions_cost(
    namespace: Cluster,
) -> None:
    """An expression that costs too much is an error, and with failurePolicy Fail a refusal."""
    others = {f"example.com/{'r' * 40}-{i}": "1" for i in range(30)}
    containers = [container(f"c{n}", resources={"limits": others}) for n in range(199)]
    last = container("last", resources={"limits": {**others, **extended({"mig-1g.5gb": 1})}})
    created = namespace.create(pod("p", *containers, last))
    assert slices(created)["last"] == ["mig-1g.5gb"]
    # An update compares the whole of both specs, too.
    namespace.patch("Pod", "p", {"metadata": {"labels": {"a": "b"}}})


def test_labels_of_a_pod_with_limits(
    conditional: Cluster, bare_namespace: Cluster, webhook: Webhook
) -> None:
    """Of a pod that was there before InstaSlice, only a change of the spec is sent."""
    bare_namespace.create(pod("p"))
    let_in(bare_namespace)
    before = webhook.admissions()
    bare_namespace.patch("Pod", "p", {"metadata": {"labels": {"a": "b"}}})
    assert webhook.admissions() == before
    bare_namespace.patch("Pod", "p", {"spec": {"activeDeadlineSeconds": 600}})
    # Twice, where the scheduler's note on the pod came in between and the API server tries again.
    assert webhook.admissions() > before
    assert limits_left(bare_namespace.get("Pod", "p"))
