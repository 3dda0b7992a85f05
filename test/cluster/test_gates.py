import copy
from dataclasses import replace

import pytest

from instaslice.cluster.client import Answer, Cluster
from instaslice.cluster.gates import GATES, PRIORITIZED, ask, find_out, judge
from instaslice.resource_api import ALTERNATIVES, DIFFERENT_GPUS, VERSIONS
from test.support.apiserver import FAULTS, APIServer, error

V1 = VERSIONS["v1"]
SPEC = GATES[PRIORITIZED].spec
DEFAULTED = copy.deepcopy(SPEC)
DEFAULTED["spec"]["devices"]["requests"][0]["firstAvailable"][0].update(count=1, allocationMode="x")


def refused(*causes: object) -> Answer:
    return Answer(422, {"details": {"causes": list(causes)}})


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Answer(201, {"spec": SPEC}), True),
        (Answer(201, {"spec": DEFAULTED}), True),
        (Answer(201, {"spec": {"spec": {"devices": {"requests": [{"name": "any"}]}}}}), False),
        (Answer(201, {"spec": {"spec": {"devices": {"requests": []}}}}), False),
        (Answer(201, {"spec": {"spec": {}}}), False),
        (Answer(201, {}), False),
        (Answer(201, {"spec": [1]}), False),
        (refused({"field": "spec.spec.devices.requests[0]"}), False),
        (refused("none", {"field": "metadata.name"}, {"field": "spec.spec.devices"}), False),
        (refused({"message": "by a ValidatingAdmissionPolicy"}), None),
        (refused({"field": "metadata.labels"}), None),
        (refused(), None),
        (Answer(422, {"details": "none"}), None),
        (Answer(422, {"details": {"causes": "none"}}), None),
        (Answer(422, {}), None),
        (Answer(403, {"details": {"causes": [{"field": "spec.spec.devices"}]}}), None),
        (Answer(404, {}), None),
        (Answer(500, {"spec": SPEC}), None),
    ],
)
def test_the_answer_to_a_dry_run_gives_the_state_of_a_gate(
    answer: Answer, verdict: bool | None
) -> None:
    assert judge(SPEC, answer).on is verdict


def find(cluster: Cluster, known: frozenset[str] = V1.features) -> frozenset[str]:
    return find_out(cluster, V1, replace(V1, features=known), "ml").features


def test_features_are_detected_by_dry_runs(cluster: Cluster, api_server: APIServer) -> None:
    assert find_out(cluster, V1, V1, "ml") is V1
    assert api_server.objects == {}
    path = "/apis/resource.k8s.io/v1/namespaces/ml/resourceclaimtemplates?dryRun=All"
    assert api_server.requests == [("POST", path)] * 2


@pytest.mark.parametrize(
    ("dropped", "feature"),
    [
        ("firstAvailable", ALTERNATIVES),
        ("distinctAttribute", DIFFERENT_GPUS),
        ("capacity", DIFFERENT_GPUS),  # like 1.34, whose scheduler ignores distinctAttribute
    ],
)
def test_a_dropped_field_removes_its_feature(
    dropped: str, feature: str, cluster: Cluster, api_server: APIServer
) -> None:
    api_server.dropped = {dropped}
    assert find(cluster) == V1.features - {feature}


@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in ("hang", "drip")])
def test_without_an_answer_the_known_features_stay(
    fault: str, cluster: Cluster, api_server: APIServer
) -> None:
    api_server.fault = FAULTS[fault]
    assert find(cluster) == V1.features
    assert find(cluster, V1.features - {ALTERNATIVES}) == V1.features - {ALTERNATIVES}


def test_a_missing_namespace_changes_no_features(cluster: Cluster, api_server: APIServer) -> None:
    assert find_out(cluster, V1, V1, "gone/../x?") is V1
    assert "/namespaces/gone%2F..%2Fx%3F/" in api_server.requests[0][1]


@pytest.mark.parametrize("version", [name for name in VERSIONS if name != "v1"])
def test_a_version_without_gated_features_needs_no_dry_runs(
    version: str, cluster: Cluster, api_server: APIServer
) -> None:
    api = VERSIONS[version]
    assert find_out(cluster, api, api, "ml") is api
    assert api_server.requests == []


@pytest.mark.parametrize("name", GATES)
def test_each_gate_is_detected(name: str, cluster: Cluster, api_server: APIServer) -> None:
    assert ask(cluster, V1, name, "ml").on is True
    api_server.dropped = {
        "sharedCounters",
        "extendedResourceName",
        "firstAvailable",
        "distinctAttribute",
    }
    assert ask(cluster, V1, name, "ml").on is False
    api_server.fault = error(403, "forbidden")
    assert ask(cluster, V1, name, "ml") == (None, "403 forbidden", 403)
    assert api_server.objects == {}
