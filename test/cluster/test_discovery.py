import logging

import pytest

from instaslice.cluster import discovery
from instaslice.cluster.client import Answer, Cluster
from instaslice.cluster.discovery import Discovery, Served, Unknown
from instaslice.patch import Json
from instaslice.resource_api import ALTERNATIVES, VERSIONS, ResourceAPI, Unavailable
from test.support.apiserver import FAULTS, APIServer, error
from test.support.process import until


@pytest.mark.parametrize(
    ("served", "newest"),
    [
        (["v1alpha2"], "v1alpha2"),
        (["v1alpha3"], "v1alpha3"),
        (["v1beta1", "v1alpha3"], "v1beta1"),
        (["v1beta1", "v1beta2"], "v1beta2"),
        (["v1", "v1beta1", "v1beta2"], "v1"),
        (["v2", "v1"], "v1"),
    ],
)
def test_the_newest_known_version_is_chosen(
    served: list[str], newest: str, cluster: Cluster, api_server: APIServer
) -> None:
    api_server.versions = served
    assert discovery.ask(cluster) is VERSIONS[newest]


def test_a_version_without_templates_is_skipped(cluster: Cluster, api_server: APIServer) -> None:
    api_server.versions, api_server.hollow = ["v1beta1", "v1alpha3", "v1"], {"v1"}
    assert discovery.ask(cluster) is VERSIONS["v1beta1"]
    api_server.versions = ["v1"]
    served = discovery.ask(cluster)
    assert isinstance(served, Unavailable)
    assert served.reason.startswith(
        "the cluster serves resource.k8s.io as v1, and InstaSlice knows"
    )


def test_pods_wait_while_the_first_questions_fail(cluster: Cluster, api_server: APIServer) -> None:
    api_server.fault = FAULTS["500"]
    asking = Discovery(cluster, lambda served: None, pauses=(3600.0, 3600.0, 0.01))
    asking.start()
    until(lambda: "500" in getattr(asking.current(), "reason", ""))
    waiting = asking.current()
    assert isinstance(waiting, Unknown)
    assert waiting.is_expected()
    api_server.fault = None
    waiting.wait()
    assert asking.current() is VERSIONS["v1"]
    asking.stop()


def test_discovery_asks_again_and_reports_changes(cluster: Cluster, api_server: APIServer) -> None:
    told: list[Served] = []
    asking = Discovery(cluster, told.append, pauses=(0.01, 0.01, 0.01))
    assert isinstance(asking.current(), Unknown), "nothing is known before the first answer"
    asking.start()
    until(lambda: asking.current() is VERSIONS["v1"])
    api_server.versions = ["v1beta2"]
    until(lambda: asking.current() is VERSIONS["v1beta2"])
    api_server.versions = []
    until(lambda: isinstance(asking.current(), Unavailable))
    api_server.versions = ["v1"]
    until(lambda: asking.current() is VERSIONS["v1"])
    asking.stop()
    assert [api.version if isinstance(api, ResourceAPI) else None for api in told] == (
        [None, "v1", "v1beta2", None, "v1"]
    )


def test_discovery_asks_more_often_while_pods_are_refused(
    cluster: Cluster, api_server: APIServer
) -> None:
    api_server.versions = []
    asking = Discovery(cluster, lambda served: None, pauses=(3600.0, 0.01, 0.01))
    asking.start()
    until(lambda: not isinstance(asking.current(), Unknown))
    api_server.versions = ["v1"]
    until(lambda: asking.current() is VERSIONS["v1"])
    asking.stop()


class Broken:
    """A cluster whose first call raises an internal error."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.calls = 0

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        self.calls += 1
        if self.calls == 1:
            raise ZeroDivisionError
        return self.cluster.call(method, path, body)


def test_the_thread_survives_an_internal_error(cluster: Cluster) -> None:
    asking = Discovery(Broken(cluster), lambda served: None, pauses=(0.01, 0.01, 0.01))
    asking.start()
    until(lambda: asking.current() is VERSIONS["v1"])
    asking.stop()


def test_discovery_detects_features(cluster: Cluster, api_server: APIServer) -> None:
    told: list[Served] = []
    asking = Discovery(cluster, told.append, "ml")
    asking.ask()
    assert asking.current() is VERSIONS["v1"]
    api_server.dropped = {"firstAvailable"}
    asking.ask()
    fewer = asking.current()
    assert isinstance(fewer, ResourceAPI)
    assert fewer.features == VERSIONS["v1"].features - {ALTERNATIVES}
    assert told == [VERSIONS["v1"], fewer]
    api_server.namespaces = set()
    api_server.dropped = set()
    asking.ask()
    assert asking.current() == fewer, "known features stay until there is an answer"
    api_server.versions = ["v1beta2"]
    asking.ask()
    api_server.versions = ["v1"]
    asking.ask()
    assert asking.current() == VERSIONS["v1"].without_proof, (
        "features known from before do not stay"
    )


@pytest.mark.parametrize("fault", [name for name in FAULTS if name not in ("hang", "drip")])
def test_an_api_server_that_does_not_answer_changes_nothing(
    fault: str,
    cluster: Cluster,
    api_server: APIServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("instaslice"), "propagate", True)
    asking = Discovery(cluster, lambda served: None, pauses=(3600.0, 0.01, 0.01))
    api_server.fault = FAULTS[fault]
    asking.ask()
    first = asking.current()
    assert isinstance(first, Unknown)
    assert first.reason.startswith("the API server was not reached: ")
    assert "\n" not in first.reason
    for versions in ([], ["v1"]):
        api_server.fault, api_server.versions = None, versions
        asking.ask()
        known = asking.current()
        assert not isinstance(known, Unknown)
        assert isinstance(known, ResourceAPI) == bool(versions)
        api_server.fault = FAULTS[fault]
        asking.ask()
        assert asking.current() is known
    assert caplog.records[-1].message == "the API server was not reached"
    assert not any(record.exc_info for record in caplog.records)


def test_a_403_does_not_mean_that_dra_is_not_served(
    cluster: Cluster, api_server: APIServer
) -> None:
    api_server.fault = error(403, 'forbidden: User "x" cannot get path')
    asking = Discovery(cluster, lambda served: None, pauses=(3600.0, 0.01, 0.01))
    asking.ask()
    served = asking.current()
    assert isinstance(served, Unknown)
    assert "403 forbidden: User" in served.reason
