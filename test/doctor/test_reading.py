"""The snapshot of a cluster: a dict of paths stands for the API server, e2e has a real one."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from instaslice.cluster.client import Answer, ClusterError
from instaslice.cluster.gates import GATES
from instaslice.doctor import examine, reading
from instaslice.doctor.reading import Reader
from instaslice.doctor.snapshot import Unreadable
from instaslice.resource_api import VERSIONS, Unavailable
from instaslice.resources import read_mapping
from instaslice.webhook_configuration import BESIDE
from test.support.snapshots import named, pod, webhook

Json = dict[str, Any]

DRA = "/apis/resource.k8s.io"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"
SYSTEM = "/namespaces/instaslice-system"
KUEUE_CONFIGURATION = "/api/v1/namespaces/kueue-system/configmaps/kueue-manager-config"


def group(name: str, *versions: str) -> Json:
    served = [{"version": version} for version in versions]
    return {"name": name, "versions": served, "preferredVersion": served[0]}


def listed(name: str, version: str = "v1") -> str:
    """The path of a list."""
    base, _, rest = reading.LISTS[name].partition("/")
    if version == "v1alpha2":
        rest = rest.replace("deviceclasses", "resourceclasses")
    return {"core": "/api/v1", "admission": ADMISSION, "dra": f"{DRA}/{version}"}[base] + "/" + rest


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
        self.found |= {listed(name, version): found for name, found in lists.items()}
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
        f"/api/v1{SYSTEM}/pods": [own],
    }
    return cluster


def checks(cluster: Cluster, namespace: str = "default") -> dict[str, str]:
    """The sign of each check; the worst where there are several."""
    found: dict[str, str] = {}
    for finding in examine(reading.take(cluster, namespace)):
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
    reading.take(cluster, "ml")
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
    snapshot = reading.take(cluster, "ml")
    (probe,) = snapshot.probes
    assert (probe.error, probe.status) == ("500 failed calling webhook", 500)


def test_versions() -> None:
    classic = reading.take(Cluster("v1alpha2", classes=[named("gpu.nvidia.com")]), "default")
    assert classic.api == VERSIONS["v1alpha2"]
    assert [found["metadata"]["name"] for found in classic.all("classes")] == ["gpu.nvidia.com"]
    without = Cluster()
    del without.found[DRA]
    assert isinstance(reading.take(without, "default").api, Unavailable)
    assert checks(without)["DRA"] == "✗"


def test_one_pod() -> None:
    cluster = Cluster()
    found = pod("p")
    found["metadata"]["uid"] = "u-1"
    cluster.found["/api/v1/namespaces/ml/pods/p"] = found
    cluster.found["/api/v1/namespaces/ml/events"] = [{"reason": "x"}]
    _, pod_, events = reading.take_for_pod(cluster, "ml", "p")
    assert (pod_, events) == (found, [{"reason": "x"}])
    assert any("involvedObject.uid%3Du-1" in path for _, path in cluster.asked)
    with pytest.raises(Unreadable, match="404 not found"):
        reading.take_for_pod(cluster, "ml", "q")


def test_no_api_server() -> None:
    class Away:
        def call(self, method: str, path: str, body: Json | None = None) -> Answer:
            raise ClusterError("connection refused")

    with pytest.raises(ClusterError, match="connection refused"):
        reading.take(Away(), "default")


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
    findings = examine(reading.take(silent, "default"))
    assert silent.silent == 2
    assert ("DRA", "✓") in [(finding.check, finding.state.value) for finding in findings]
    texts = [finding.text for finding in findings]
    assert any(text.endswith("the API server has stopped answering") for text in texts)


def test_what_the_pods_were_told_to_map() -> None:
    cluster = installed()
    (own,) = cluster.found[f"/api/v1{SYSTEM}/pods"]
    own["spec"]["containers"] = [
        {
            "name": "instaslice",
            "args": ["serve", "--resource", "amd.com/gpu=gpu.amd.com", "--resource=a.com/b=c"],
            "env": [{"name": "INSTASLICE_RESOURCES", "value": "nvidia.com/gpu=gpu.nvidia.com,"}],
        }
    ]
    snapshot = reading.take(cluster, "ml")
    names = ["amd.com/gpu", "a.com/b", "nvidia.com/gpu"]
    assert list(snapshot.resources.mapped) == names
    assert [probe.resource for probe in snapshot.probes] == ["nvidia.com/mig-1g.5gb", *names]
    own["spec"]["containers"][0]["args"] = ["--resource", "cpu=x"]
    assert "'cpu' is not an extended" in str(reading.take(cluster, "ml").failures["mapping"])


def test_beside_the_scheduler_a_pod_is_tried_that_is_instaslices() -> None:
    cluster = installed()
    cluster.found[listed("webhooks")] = [webhook(BESIDE)]
    bodies: list[Json] = []
    answer = cluster.call

    def call(method: str, path: str, body: Json | None = None) -> Answer:
        if "/pods" in path and body:
            bodies.append(body)
        return answer(method, path, body)

    cluster.call = call  # type: ignore[method-assign]
    reading.take(cluster, "ml", read_mapping(["amd.com/gpu=gpu.amd.com"]))
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
    cluster.found[KUEUE_CONFIGURATION] = {"data": {"x": "y"}}
    snapshot = reading.take(cluster, "ml")
    assert snapshot.failures == {}
    assert snapshot.all("rules") == [], "the version is served without the kind"
    assert snapshot.all("queues") == [named("queue")]
    assert snapshot.all("kueue") == [{"data": {"x": "y"}}]
    cluster.found[KUEUE_CONFIGURATION] = Answer(403, {"message": "no"})
    rules = f"{DRA}/v1/devicetaintrules"
    cluster.found[rules] = Answer(403, {"message": "no"})
    failures = reading.take(cluster, "ml").failures
    assert {name: error.status for name, error in failures.items()} == {"kueue": 403, "rules": 403}


class Answering:
    """Gives its answers one after the other; an empty one is silence."""

    def __init__(self, *answers: Answer | None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        self.asked.append(path)
        answer = self.answers.pop(0)
        if answer is None:
            raise ClusterError("no answer within 10 s")
        return answer


GOOD = Answer(200, {"items": []})


def test_after_two_silences_no_more_is_asked() -> None:
    cluster = Answering(GOOD, None, GOOD, None, None, GOOD)
    asking = Reader(cluster)
    said = []
    for number in range(7):
        try:
            asking.get(f"/{number}")
        except Unreadable as error:
            said.append(f"{number}: {error}")
    assert said == [
        "1: no answer within 10 s",
        "3: no answer within 10 s",
        "4: no answer within 10 s",
        "5: not asked for, since the API server has stopped answering",
        "6: not asked for, since the API server has stopped answering",
    ]
    assert cluster.asked == ["/0", "/1", "/2", "/3", "/4"]


def test_long_lists_are_read_page_by_page() -> None:
    pages = [
        Answer(200, {"items": [{"n": 1}], "metadata": {"continue": "a b"}}),
        Answer(200, {"items": [{"n": 2}]}),
    ]
    cluster = Answering(*pages, *pages)
    assert list(Reader(cluster).every("/x")) == [{"n": 1}, {"n": 2}]
    assert cluster.asked == [f"/x?limit={reading.PAGE}", f"/x?limit={reading.PAGE}&continue=a+b"]
    list(Reader(cluster).every("/x?a=b"))
    assert cluster.asked[2] == f"/x?a=b&limit={reading.PAGE}"
