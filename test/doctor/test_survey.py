"""The snapshot of a cluster: a dict of paths stands for the API server, e2e has a real one."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from instaslice.cluster.client import Answer, ClusterError
from instaslice.cluster.gates import GATES
from instaslice.doctor import survey
from instaslice.doctor.checks import examine
from instaslice.doctor.snapshot import Unreadable
from instaslice.resource_api import VERSIONS, Unavailable
from instaslice.resources import read_mapping
from instaslice.webhook_configuration import BESIDE
from test.support.snapshots import named, pod, webhook

Json = dict[str, Any]

DRA = "/apis/resource.k8s.io"
SYSTEM = "/namespaces/instaslice-system"


def group(name: str, *versions: str) -> Json:
    served = [{"version": version} for version in versions]
    return {"name": name, "versions": served, "preferredVersion": served[0]}


class Cluster:
    """Answers GETs of the paths it has, and makes a pod of any POST; keeps what it was asked."""

    def __init__(self, version: str = "v1", /, **lists: list[Json]) -> None:
        self.asked: list[tuple[str, str]] = []
        kinds = [{"name": "resourceclaimtemplates"}]
        self.found: dict[str, Any] = {
            "/version": {"gitVersion": "v1.36.3"},
            "/apis": {"groups": [group("resource.k8s.io", version)]},
            DRA: {"versions": [{"version": version}]},
            f"{DRA}/{version}": {"resources": kinds},
        }
        for name, path in survey.LISTS.items():
            self.found[path] = lists.get(name, [])
        for name, kind in (*survey.DRA_LISTS.items(), *survey.CLASSIC_DRA_LISTS.items()):
            self.found[f"{DRA}/{version}/{kind}"] = lists.get(name, [])
        self.made: Answer = Answer(201, pod(template="mig-1g.5gb"))

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        self.asked.append((method, path))
        if method == "POST":
            return self.made if "/pods" in path else Answer(403, {"message": "no"})
        url = urlsplit(path)
        found = self.found.get(url.path)
        if isinstance(found, Answer):
            return found
        if found is None:
            return Answer(404, {"message": "not found"})
        if isinstance(found, dict):
            return Answer(200, found)
        query = parse_qs(url.query)
        start, size = int(query.get("continue", ["0"])[0]), int(query["limit"][0])
        more = str(start + size) if start + size < len(found) else None
        metadata = {"continue": more} if more else {}
        return Answer(200, {"items": found[start : start + size], "metadata": metadata})


def installed(**lists: list[Json]) -> Cluster:
    """A cluster with InstaSlice in it."""
    labels = {"app.kubernetes.io/name": "instaslice", "pod-template-hash": "x"}
    own = pod("instaslice-1")
    own["metadata"] |= {"namespace": "instaslice-system", "labels": labels}
    own["spec"]["volumes"] = [{"emptyDir": {}}, {"secret": {"secretName": "instaslice-tls"}}]
    cluster = Cluster(webhooks=[webhook()], pods=[pod("other"), own], **lists)
    selector = {"app.kubernetes.io/name": "instaslice"}
    cluster.found |= {
        f"/apis/discovery.k8s.io/v1{SYSTEM}/endpointslices": [
            {"endpoints": [{"addresses": ["10.0.0.1"]}]}
        ],
        f"/api/v1{SYSTEM}/services/instaslice": {"spec": {"selector": selector}},
    }
    return cluster


def checks(cluster: Cluster, namespace: str = "default") -> dict[str, str]:
    """The sign of each check; the worst where there are several."""
    found: dict[str, str] = {}
    for finding in examine(survey.take(cluster, namespace)):
        sign = finding.state.value
        found[finding.check] = max(
            found.get(finding.check, ""), sign, key=["", "✓", "!", "✗"].index
        )
    return found


def test_a_cluster_with_instaslice() -> None:
    signs = checks(installed(classes=[named("mig.nvidia.com")]))
    assert {name for name, sign in signs.items() if sign == "✓"} == {
        *("DRA", "webhook", "mode", "endpoints", "dry run", "driver", "templates"),
    }


def test_nothing_is_changed() -> None:
    cluster = installed()
    survey.take(cluster, "ml")
    others = [(method, path) for method, path in cluster.asked if method != "GET"]
    assert others[0] == ("POST", "/api/v1/namespaces/ml/pods?dryRun=All")
    assert len(others) == 1 + len(GATES)
    assert all(method == "POST" and path.endswith("?dryRun=All") for method, path in others)


def test_what_may_not_be_read() -> None:
    cluster = installed()
    forbidden = Answer(403, {"message": "it is forbidden"})
    cluster.found[f"/api/v1{SYSTEM}/services/instaslice"] = forbidden
    cluster.found["/api/v1/resourcequotas"] = forbidden
    signs = checks(cluster)
    assert (signs["mapped"], signs["quotas"], signs["webhook"]) == ("!", "!", "✓")


def test_a_pod_that_is_refused() -> None:
    cluster = installed()
    cluster.made = Answer(500, {"message": "failed calling webhook"})
    snapshot = survey.take(cluster, "ml")
    (probe,) = snapshot.probes
    assert (probe.error, probe.status) == ("500 failed calling webhook", 500)


def test_versions() -> None:
    classic = survey.take(Cluster("v1alpha2", classes=[named("gpu.nvidia.com")]), "default")
    assert classic.api == VERSIONS["v1alpha2"]
    assert [found["metadata"]["name"] for found in classic.all("classes")] == ["gpu.nvidia.com"]
    without = Cluster()
    del without.found[DRA]
    assert isinstance(survey.take(without, "default").api, Unavailable)
    assert checks(without)["DRA"] == "✗"


def test_one_pod() -> None:
    cluster = Cluster()
    found = pod("p")
    found["metadata"]["uid"] = "u-1"
    cluster.found["/api/v1/namespaces/ml/pods/p"] = found
    cluster.found["/api/v1/namespaces/ml/events"] = [{"reason": "x"}]
    _, pod_, events = survey.take_for_pod(cluster, "ml", "p")
    assert (pod_, events) == (found, [{"reason": "x"}])
    assert any("involvedObject.uid%3Du-1" in path for _, path in cluster.asked)
    with pytest.raises(Unreadable, match="404 not found"):
        survey.take_for_pod(cluster, "ml", "q")


def test_no_api_server() -> None:
    class Away:
        def call(self, method: str, path: str, body: Json | None = None) -> Answer:
            raise ClusterError("connection refused")

    with pytest.raises(Unreadable, match="connection refused"):
        survey.take(Away(), "default")


def test_an_api_server_that_stops_answering() -> None:
    """What was found is told, and nobody waits for the rest."""
    cluster = installed()

    class Silent:
        def __init__(self) -> None:
            self.silent = 0

        def call(self, method: str, path: str, body: Json | None = None) -> Answer:
            if len(cluster.asked) >= 5:
                self.silent += 1
                raise ClusterError("no answer within 10 s")
            return cluster.call(method, path, body)

    silent = Silent()
    findings = examine(survey.take(silent, "default"))
    assert silent.silent == 2
    assert ("DRA", "✓") in [(finding.check, finding.state.value) for finding in findings]
    texts = [finding.text for finding in findings]
    assert any(text.endswith("the API server has stopped answering") for text in texts)


def test_what_the_pods_were_told_to_map() -> None:
    cluster = installed()
    own = cluster.found["/api/v1/pods"][1]
    own["spec"]["containers"] = [
        {
            "name": "instaslice",
            "args": ["serve", "--resource", "amd.com/gpu=gpu.amd.com", "--resource=a.com/b=c"],
            "env": [{"name": "INSTASLICE_RESOURCES", "value": "nvidia.com/gpu=gpu.nvidia.com,"}],
        }
    ]
    snapshot = survey.take(cluster, "ml")
    names = ["amd.com/gpu", "a.com/b", "nvidia.com/gpu"]
    assert list(snapshot.resources.mapped) == names
    assert [probe.resource for probe in snapshot.probes] == ["nvidia.com/mig-1g.5gb", *names]
    own["spec"]["containers"][0]["args"] = ["--resource", "cpu=x"]
    assert "'cpu' is not an extended" in str(survey.take(cluster, "ml").failures["mapping"])


def test_beside_the_scheduler_a_pod_is_tried_that_is_instaslices() -> None:
    cluster = installed()
    cluster.found[survey.LISTS["webhooks"]] = [webhook(BESIDE)]
    bodies: list[Json] = []
    answer = cluster.call

    def call(method: str, path: str, body: Json | None = None) -> Answer:
        if "/pods" in path and body:
            bodies.append(body)
        return answer(method, path, body)

    cluster.call = call  # type: ignore[method-assign]
    survey.take(cluster, "ml", read_mapping(["amd.com/gpu=gpu.amd.com"]))
    (tried,) = bodies
    assert "instaslice.io/alternatives" in tried["metadata"]["annotations"]


def test_what_is_not_in_every_cluster() -> None:
    cluster = installed()
    groups = [
        group("resource.k8s.io", "v1", "v1beta2", "v1alpha3"),
        group("kueue.x-k8s.io", "v1beta2", "v1beta1"),
        {"name": "without", "versions": [{"version": "v1"}, {}]},
        {"name": "empty", "preferredVersion": None},
    ]
    cluster.found["/apis"] = {"groups": groups}
    cluster.found["/apis/kueue.x-k8s.io/v1beta2/clusterqueues"] = [named("queue")]
    cluster.found[survey.KUEUE_CONFIGURATION] = {"data": {"x": "y"}}
    snapshot = survey.take(cluster, "ml")
    assert snapshot.failures == {}
    assert snapshot.all("rules") == [], "the version is served without the kind"
    assert snapshot.all("queues") == [named("queue")]
    assert snapshot.all("kueue") == [{"data": {"x": "y"}}]
    assert (snapshot.groups["without"], snapshot.groups["empty"]) == (("v1",), ())
    assert snapshot.groups["kueue.x-k8s.io"] == ("v1beta2", "v1beta1")
    cluster.found[survey.KUEUE_CONFIGURATION] = Answer(403, {"message": "no"})
    rules = f"{DRA}/v1/devicetaintrules"
    cluster.found[rules] = Answer(403, {"message": "no"})
    failures = survey.take(cluster, "ml").failures
    assert {name: error.status for name, error in failures.items()} == {"kueue": 403, "rules": 403}
