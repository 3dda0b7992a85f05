"""Pods that are refused, in the words that their author reads."""

import re

import pytest

from test.e2e.cluster import Cluster, Json, Refused
from test.e2e.pods import container, pod, workload
from test.support.process import until

LIMITS = "spec.containers[0].resources.limits"
REQUESTS = "spec.containers[0].resources.requests"
MIG = "nvidia.com/mig-1g.5gb"

#: Resources, and each line of the refusal.
REFUSED: dict[str, tuple[Json, list[str]]] = {
    "a fraction": (
        {"limits": {MIG: "500m"}},
        [f'{LIMITS}[{MIG}]: Invalid value: "500m": must be an integer'],
    ),
    "negative": (
        {"limits": {MIG: -1}},
        [f'{LIMITS}[{MIG}]: Invalid value: "-1": must be greater than or equal to 0'],
    ),
    "a negative fraction": (
        {"limits": {MIG: "-500m"}},
        [
            f'{LIMITS}[{MIG}]: Invalid value: "-500m": must be greater than or equal to 0',
            f'{LIMITS}[{MIG}]: Invalid value: "-500m": must be an integer',
        ],
    ),
    "another request": (
        {"limits": {MIG: 2}, "requests": {MIG: 1}},
        [f'{REQUESTS}: Invalid value: "1": must be equal to {MIG} limit of 2'],
    ),
    "a request, and a limit of none": (
        {"limits": {MIG: 0}, "requests": {MIG: 1}},
        [f'{REQUESTS}: Invalid value: "1": must be equal to {MIG} limit of 0'],
    ),
    "only a request": (
        {"requests": {MIG: 1}},
        [f"{LIMITS}: Required value: Limit must be set for non overcommitable resources"],
    ),
    "two mistakes": (
        {"limits": {MIG: "1500m"}, "requests": {MIG: 1}},
        [
            f'{LIMITS}[{MIG}]: Invalid value: "1500m": must be an integer',
            f'{REQUESTS}: Invalid value: "1": must be equal to {MIG} limit of 1500m',
        ],
    ),
}


def refusal(cluster: Cluster, manifest: Json) -> Refused:
    with pytest.raises(Refused) as caught:
        cluster.create(manifest)
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    return caught.value


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_api_server_refuses_is_refused_in_its_words(
    namespace: Cluster, bare_namespace: Cluster, case: str
) -> None:
    resources, lines = REFUSED[case]
    manifest = pod("p", container(resources=resources))
    assert lines_of(refusal(namespace, manifest)) == lines
    # It says the same of the requests that it has copied from the limits.
    of_api_server = lines_of(refusal(bare_namespace, manifest))
    assert [line for line in of_api_server if not line.startswith(REQUESTS + "[")] == lines


def lines_of(refused: Refused) -> list[str]:
    """The refusal, line by line."""
    return [f"{cause['field']}: {plain(cause['message'])}" for cause in refused.causes]


def plain(message: str) -> str:
    """A message with quantities as they were typed; old API servers print a structure of Go."""
    return re.sub(r'resource\.Quantity\{.*? s:("[^"]*").*?\}', r"\1", message)


def test_kubectl_prints_the_field_and_the_reason(namespace: Cluster) -> None:
    manifest = pod("p", container(limits={"mig-1g.5gb": "500m"}))
    printed = namespace.kubectl("create", "-f-", stdin=manifest)
    assert printed.returncode == 1
    assert printed.stderr == (
        f'The Pod "p" is invalid: {LIMITS}[{MIG}]: Invalid value: "500m": must be an integer\n'
    )


@pytest.mark.parametrize("quantity", [113, "1k", "1e18"])
def test_more_slices_than_a_machine_has(namespace: Cluster, quantity: object) -> None:
    refused = refusal(namespace, pod("p", container(limits={"mig-1g.5gb": quantity})))
    assert "must be less than or equal to 112, 16 GPUs of 7 slices" in str(refused)
    assert str(refused).startswith('admission webhook "rewrite.instaslice.io" denied the request: ')
    (cause,) = refused.causes
    assert cause["field"] == f"{LIMITS}[{MIG}]"


def test_more_slices_together_than_a_machine_has(namespace: Cluster) -> None:
    manifest = pod("p", *(container(f"c{n}", {"mig-1g.5gb": 60}) for n in range(2)))
    assert '"120 devices": InstaSlice lets a pod hold 112' in str(refusal(namespace, manifest))


@pytest.mark.parametrize("containers", [None, []])
def test_a_pod_without_containers_has_the_api_servers_refusal(
    namespace: Cluster, containers: object
) -> None:
    manifest = pod("p")
    manifest["spec"]["containers"] = containers
    with pytest.raises(Refused, match=r"spec\.containers: Required value"):
        namespace.create(manifest)


def test_a_deployment_says_why_it_has_no_pods(namespace: Cluster) -> None:
    if not namespace.plane.has_controllers:
        pytest.skip("needs kube-controller-manager, beside kube-apiserver")
    template = pod("p", container(limits={"mig-1g.5gb": 113}))
    namespace.create(workload("Deployment", "d", template=template))

    def failure() -> str:
        status = namespace.get("Deployment", "d").get("status", {})
        conditions = {each["type"]: each["message"] for each in status.get("conditions", [])}
        return str(conditions.get("ReplicaFailure", ""))

    reason = f'{LIMITS}[{MIG}]: Invalid value: "113": must be less than or equal to 112'
    assert reason in until(failure, "the reason")
