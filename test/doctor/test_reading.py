"""Taking a snapshot: a dict of paths replaces the API server; e2e has a real one."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from instaslice.cluster.client import Answer, ClusterError
from instaslice.cluster.gates import GATES
from instaslice.doctor import reading
from instaslice.doctor.checks import examine
from instaslice.doctor.explain import explain
from instaslice.doctor.reading import Reader
from instaslice.resource_api import VERSIONS, Unavailable
from instaslice.resources import read_mapping
from instaslice.webhook_configuration import BESIDE
from test.support.snapshots import Json, named, pod, webhook

CORE = "/api/v1"
DRA = "/apis/resource.k8s.io"
WEBHOOKS = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
SYSTEM = f"{CORE}/namespaces/instaslice-system"
ENDPOINTS = "/apis/discovery.k8s.io/v1/namespaces/instaslice-system/endpointslices"
KUEUE_CONFIGURATION = f"{CORE}/namespaces/kueue-system/configmaps/kueue-manager-config"
FORBIDDEN = Answer(403, {"message": "no"})


def group(name: str, *versions: str) -> Json:
    served = [{"version": version} for version in versions]
    return {"name": name, "versions": served, "preferredVersion": served[0]}


class Cluster:
    """Answers GETs from a dict, POSTs of pods with a pod, and records every request."""

    def __init__(self, version: str = "v1") -> None:
        self.asked: list[tuple[str, str, Json | None]] = []
        self.silent: tuple[str, ...] = ()
        self.found: dict[str, Any] = {
            "/version": {"gitVersion": "v1.36.3"},
            "/apis": {"groups": [group("resource.k8s.io", version)]},
            DRA: {"versions": [{"version": version}]},
            f"{DRA}/{version}": {"resources": [{"name": "resourceclaimtemplates"}]},
        }
        self.made = Answer(201, pod(template="mig-1g.5gb"))

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        self.asked.append((method, path, body))
        if path in self.silent:
            raise ClusterError("no answer within 10 s")
        if method == "POST":
            return self.made if "/pods" in path else FORBIDDEN
        url = urlsplit(path)
        found = self.found.get(url.path, Answer(404, {"message": "not found"}))
        if isinstance(found, Answer):
            return found
        if isinstance(found, dict):
            return Answer(200, found)
        query = parse_qs(url.query)
        start, size = int(query.get("continue", ["0"])[0]), int(query["limit"][0])
        more = str(start + size) if start + size < len(found) else None
        metadata = {"continue": more} if more else {}
        return Answer(200, {"items": found[start : start + size], "metadata": metadata})


def installed() -> Cluster:
    """A cluster with InstaSlice."""
    own = pod("instaslice-1")
    own["metadata"]["namespace"] = "instaslice-system"
    cluster = Cluster()
    cluster.found |= {
        WEBHOOKS: [webhook()],
        f"{CORE}/pods": [pod("other"), own],
        f"{DRA}/v1/deviceclasses": [named("mig.nvidia.com", "")],
        ENDPOINTS: [{"endpoints": [{"addresses": ["10.0.0.1"]}]}],
        f"{SYSTEM}/services/instaslice": {"spec": {"selector": {"app": "instaslice"}}},
        f"{SYSTEM}/pods": [own],
    }
    return cluster


def signs(cluster: Cluster) -> dict[str, str]:
    """The worst sign of each check."""
    found: dict[str, str] = {}
    for finding in examine(reading.take(cluster, "default")):
        both = found.get(finding.check, ""), finding.state.value
        found[finding.check] = max(both, key=["", "✓", "!", "✗"].index)
    return found


def test_a_cluster_with_instaslice() -> None:
    assert {name for name, sign in signs(installed()).items() if sign == "✓"} == {
        *("DRA", "webhook", "mode", "endpoints", "dry run", "driver", "profiles", "templates"),
    }


def test_a_snapshot_changes_nothing() -> None:
    cluster = installed()
    reading.take(cluster, "ml")
    others = [(method, path) for method, path, _ in cluster.asked if method != "GET"]
    assert others[0] == ("POST", "/api/v1/namespaces/ml/pods?dryRun=All")
    assert len(others) == 1 + len(GATES)
    assert all(method == "POST" and path.endswith("?dryRun=All") for method, path in others)
    cluster.asked.clear()
    reading.take(cluster, "ml", tries_pods=False)
    assert not [path for _, path, _ in cluster.asked if "/namespaces/ml/pods" in path]


def test_refusals() -> None:
    cluster = installed()
    paths = (f"{SYSTEM}/services/instaslice", f"{CORE}/resourcequotas")
    cluster.found |= dict.fromkeys(paths, FORBIDDEN)
    cluster.made = Answer(500, {"message": "failed calling webhook"})
    found = signs(cluster)
    assert (found["mapped"], found["not checked"], found["webhook"]) == ("!", "!", "✓")
    (probe,) = reading.take(cluster, "ml").probes
    assert probe.answer == cluster.made


def test_versions() -> None:
    old = Cluster("v1alpha2")
    old.found[f"{DRA}/v1alpha2/resourceclasses"] = [named("gpu.nvidia.com", "")]
    classic = reading.take(old, "default")
    assert classic.api == VERSIONS["v1alpha2"]
    assert list(classic.named("classes")) == ["gpu.nvidia.com"]
    without = Cluster()
    del without.found[DRA]
    assert isinstance(reading.take(without, "default").api, Unavailable)
    assert signs(without)["DRA"] == "✗"


def test_one_pod_is_explained_with_the_mapping_and_the_gates() -> None:
    cluster = installed()
    waiting = pod("p", limit="gpu")
    waiting["metadata"]["uid"] = "u-1"
    cluster.found[f"{CORE}/namespaces/ml/pods/p"] = waiting
    cluster.found[f"{CORE}/namespaces/ml/events"] = [{"reason": "x"}]
    (own,) = cluster.found[f"{SYSTEM}/pods"]
    own["spec"]["containers"] = [{"args": ["--resource=nvidia.com/gpu=gpu.nvidia.com"]}]
    snapshot, pod_, events = reading.take_for_pod(cluster, "ml", "p")
    assert (pod_, events) == (waiting, [{"reason": "x"}])
    assert any("involvedObject.uid%3Du-1" in path for _, path, _ in cluster.asked)
    assert explain(snapshot, pod_, [])[0].text == "nvidia.com/gpu: 1"
    assert snapshot.gates.keys() == GATES.keys()
    with pytest.raises(ClusterError, match="404 not found"):
        reading.take_for_pod(cluster, "ml", "q")


def test_the_mapping_is_read_from_instaslices_pods() -> None:
    cluster = installed()
    (own,) = cluster.found[f"{SYSTEM}/pods"]
    own["spec"]["containers"] = [
        {
            "name": "instaslice",
            "args": ["serve", "--resource", "amd.com/gpu=gpu.amd.com", "--resource=a.com/b=c"],
            "env": [{"name": "INSTASLICE_RESOURCES", "value": "nvidia.com/gpu=gpu.nvidia.com,"}],
        }
    ]
    snapshot = reading.take(cluster, "ml")
    assert any("labelSelector=app%3Dinstaslice" in path for _, path, _ in cluster.asked)
    names = ["amd.com/gpu", "a.com/b", "nvidia.com/gpu"]
    assert list(snapshot.resources.mapped) == names
    assert [probe.resource for probe in snapshot.probes] == ["nvidia.com/mig-1g.5gb", *names]
    own["spec"]["containers"][0]["args"] = ["--resource", "cpu=x"]
    assert "'cpu' is not an extended" in str(reading.take(cluster, "ml").failures["mapping"])


def test_beside_the_scheduler_the_dry_run_has_an_annotation() -> None:
    cluster = installed()
    cluster.found[WEBHOOKS] = [webhook(BESIDE)]
    reading.take(cluster, "ml", read_mapping(["amd.com/gpu=gpu.amd.com"]))
    (tried,) = (body for _, path, body in cluster.asked if "/pods" in path and body)
    assert "instaslice.io/alternatives" in tried["metadata"]["annotations"]


def test_lists_that_few_clusters_serve() -> None:
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
    cluster.found |= {KUEUE_CONFIGURATION: FORBIDDEN, f"{DRA}/v1/devicetaintrules": FORBIDDEN}
    failures = reading.take(cluster, "ml").failures
    assert {name: error.status for name, error in failures.items()} == {"kueue": 403, "rules": 403}


def test_the_reader_gives_up_after_two_consecutive_timeouts() -> None:
    cluster = Cluster()
    cluster.found |= {"/0": {}, "/2": {}}
    cluster.silent = ("/1", "/3", "/4")
    reader, messages = Reader(cluster), []
    for number in range(7):
        try:
            reader.get(f"/{number}")
        except ClusterError as error:
            messages.append(f"{number}: {error}")
    no_more = "not requested, since the API server has stopped answering"
    silent = [f"{number}: no answer within 10 s" for number in (1, 3, 4)]
    assert messages == [*silent, f"5: {no_more}", f"6: {no_more}"]
    assert len(cluster.asked) == 5


def test_long_lists_are_read_page_by_page() -> None:
    cluster = Cluster()
    cluster.found["/x"] = [{"n": n} for n in range(reading.PAGE + 1)]
    assert list(Reader(cluster).every("/x", a="b")) == cluster.found["/x"]
    first = f"/x?a=b&limit={reading.PAGE}"
    assert [path for _, path, _ in cluster.asked] == [first, f"{first}&continue={reading.PAGE}"]
