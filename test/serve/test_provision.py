import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instaslice.cli.main import main
from instaslice.cluster import client as cluster_module
from instaslice.cluster.client import Cluster
from instaslice.profiles import from_attribute
from instaslice.resource_api import VERSIONS
from instaslice.resources import of_profile
from instaslice.serve import provision
from instaslice.serve.app import Webhook
from instaslice.serve.metrics import Metrics
from instaslice.serve.provision import TemplateMaker
from instaslice.templates import DeviceClaim, claim_of
from test.support.apiserver import FAULTS, APIServer, error, reaching
from test.support.certs import Authority
from test.support.process import until
from test.support.reviews import load
from test.support.serving import SAMPLE, serve
from test.support.wsgi import call

V1 = VERSIONS["v1"]


def claims(*names: str) -> list[DeviceClaim]:
    return [claim_of(of_profile(found)) for found in map(from_attribute, names) if found]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def maker(cluster: Cluster, metrics: Metrics) -> Iterator[TemplateMaker]:
    made = TemplateMaker(cluster, metrics)
    made.start()
    yield made
    made.stop()


def creations(metrics: Metrics, outcome: str) -> float:
    name = "instaslice_template_creations_total"
    return metrics.registry.get_sample_value(name, {"outcome": outcome}) or 0.0


def test_what_is_missing_is_made(
    maker: TemplateMaker, api_server: APIServer, metrics: Metrics
) -> None:
    assert maker.ensure("ml", claims("1g.5gb", "1g.5gb+me"), V1) == []
    assert api_server.created("ResourceClaimTemplate") == ["ml/mig-1g.5gb", "ml/mig-1g.5gb.me"]
    assert creations(metrics, "created") == 2
    assert api_server.created("DeviceClass") == [
        "mig-1g.5gb.nvidia.com",
        "mig-1g.5gb.me.nvidia.com",
    ]
    for made in api_server.objects.values():
        assert made["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "instaslice"}


def test_v1alpha2_has_parameters_too(maker: TemplateMaker, api_server: APIServer) -> None:
    assert maker.ensure("ml", claims("1g.5gb"), VERSIONS["v1alpha2"]) == []
    assert [path for _, path in api_server.requests] == [
        "/apis/gpu.resource.nvidia.com/v1alpha1/namespaces/ml/migdeviceclaimparameters",
        "/apis/resource.k8s.io/v1alpha2/namespaces/ml/resourceclaimtemplates",
    ]


def test_what_is_there_is_not_made_again_for_ten_minutes(
    maker: TemplateMaker, api_server: APIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        assert maker.ensure("ml", claims("1g.5gb"), V1) == []
    assert len(api_server.requests) == 2
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 601)
    assert maker.ensure("ml", claims("1g.5gb"), V1) == []
    assert len(api_server.requests) == 4


def test_a_device_class_is_made_once_for_the_cluster(
    maker: TemplateMaker, api_server: APIServer
) -> None:
    for namespace in ("ml", "default"):
        assert maker.ensure(namespace, claims("1g.5gb"), V1) == []
    paths = [path for _, path in api_server.requests]
    assert paths == [
        "/apis/resource.k8s.io/v1/deviceclasses",
        "/apis/resource.k8s.io/v1/namespaces/ml/resourceclaimtemplates",
        "/apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates",
    ]


def test_a_namespace_that_was_made_anew_gets_its_templates_again(
    maker: TemplateMaker, api_server: APIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert maker.ensure("ml", claims("1g.5gb"), V1) == []
    api_server.objects.clear()
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + provision.RECHECK + 1)
    assert not maker.must_wait("ml", claims("1g.5gb"), V1)
    assert maker.ensure("ml", claims("1g.5gb"), V1) == []
    until(lambda: api_server.created("ResourceClaimTemplate") == ["ml/mig-1g.5gb"])
    assert maker.ensure("ml", claims("1g.5gb"), V1) == []
    assert len(api_server.requests) == 3


def test_what_someone_else_made_is_as_good(
    maker: TemplateMaker, api_server: APIServer, metrics: Metrics
) -> None:
    path = "/apis/resource.k8s.io/v1/namespaces/ml/resourceclaimtemplates/mig-1g.5gb"
    api_server.objects[path] = {"kind": "theirs"}
    assert maker.ensure("ml", claims("1g.5gb"), V1) == []
    assert creations(metrics, "existed") == 1


WARNING = (
    "ResourceClaimTemplate mig-1g.5gb.me is not there yet; to make it: "
    "instaslice templates --apply --namespace ml mig-1g.5gb.me"
)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_is_a_warning_and_mended_later(
    fault: str,
    maker: TemplateMaker,
    api_server: APIServer,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster_module, "DEADLINE", 1.5)
    monkeypatch.setattr(provision, "FIRST_PAUSE", 0.05)
    api_server.fault = FAULTS[fault]
    start = time.monotonic()
    assert maker.ensure("ml", claims("1g.5gb+me"), V1) == [WARNING]
    # The promised second, and what a busy machine takes to wake up.
    assert time.monotonic() - start < provision.PATIENCE + 1
    api_server.fault = None
    until(lambda: api_server.created("ResourceClaimTemplate") == ["ml/mig-1g.5gb.me"])
    until(lambda: creations(metrics, "created") == 1)
    assert maker.ensure("ml", claims("1g.5gb+me"), V1) == []


def test_a_hung_api_server_costs_an_admission_one_second_for_all_of_its_templates(
    maker: TemplateMaker, api_server: APIServer
) -> None:
    api_server.fault = FAULTS["hang"]
    start = time.monotonic()
    assert len(maker.ensure("ml", claims("1g.5gb", "2g.10gb", "3g.20gb"), V1)) == 3
    assert provision.PATIENCE <= time.monotonic() - start < provision.PATIENCE + 1


def test_while_it_backs_off_nobody_waits(maker: TemplateMaker, api_server: APIServer) -> None:
    api_server.fault = error(500, "InternalError")
    maker.ensure("ml", claims("1g.5gb+me"), V1)
    asked = len(api_server.requests)
    start = time.monotonic()
    for _ in range(100):
        assert maker.ensure("ml", claims("1g.5gb+me"), V1) == [WARNING]
    assert time.monotonic() - start < provision.PATIENCE
    assert len(api_server.requests) <= asked + 1


@pytest.mark.parametrize("gone", ["deleted", "terminating"])
def test_it_gives_up_on_a_namespace_that_is_gone(
    gone: str,
    maker: TemplateMaker,
    api_server: APIServer,
    metrics: Metrics,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(provision, "FIRST_PAUSE", 0.01)
    if gone == "deleted":
        api_server.namespaces.remove("ml")
    else:
        api_server.terminating.add("ml")
    assert maker.ensure("ml", claims("1g.5gb+me"), V1) == [WARNING]
    assert creations(metrics, "failed") == 1
    # The next template is made, so the thread is past the first and its pause.
    assert maker.ensure("default", claims("1g.5gb"), V1) == []
    assert [path for _, path in api_server.requests if "/ml/" in path][1:] == []
    assert not maker._pending


def test_a_namespace_is_a_name_and_no_path(maker: TemplateMaker, api_server: APIServer) -> None:
    maker.ensure("a/../../b?x=", claims("1g.5gb"), V1)
    *_, (_, path) = api_server.requests
    assert path == (
        "/apis/resource.k8s.io/v1/namespaces/a%2F..%2F..%2Fb%3Fx%3D/resourceclaimtemplates"
    )


def test_memory_is_bounded(
    maker: TemplateMaker, api_server: APIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provision, "MOST_KNOWN", 3)
    api_server.namespaces |= {f"n{i}" for i in range(6)}
    for i in range(6):
        assert maker.ensure(f"n{i}", claims("1g.5gb"), V1) == []
    assert len(maker._known) == 3
    monkeypatch.setattr(provision, "MOST_PENDING", 2)
    api_server.fault = error(500, "InternalError")
    for i in range(6, 12):
        assert len(maker.ensure(f"n{i}", claims("1g.5gb"), V1)) == 1
    assert len(maker._pending) == 2
    api_server.fault = None
    assert maker.ensure("ml", claims("1g.5gb"), V1) == [], "what fails does not keep others out"


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.property
@given(
    st.lists(st.sampled_from([None, *sorted(set(FAULTS) - {"hang", "drip"})]), max_size=4),
    st.sampled_from(["sample", "two-profiles", "many", "me"]),
)
def test_whatever_the_api_server_does_an_admission_is_answered(
    cluster: Cluster, api_server: APIServer, faults: list[str | None], name: str
) -> None:
    api_server.objects.clear()  # the server is that of all examples
    metrics = Metrics()
    maker = TemplateMaker(cluster, metrics)
    maker.start()
    app = Webhook(lambda: V1, metrics, maker)
    body = json.dumps(load("create", name)).encode()
    for fault in [*faults, None]:
        api_server.fault = FAULTS[fault] if fault else None
        answer = call(app, "POST", "/mutate", body).json()
        assert answer["response"]["allowed"]
        assert answer["response"]["patch"]
    maker.stop()


# -- as a process --------------------------------------------------------------------------------


def test_in_a_cluster_the_version_is_found_and_templates_are_made(
    cert_dir: Path, authority: Authority, api_server: APIServer, account: Path
) -> None:
    api_server.versions = []
    options = ["--resource-api", "auto", "--provision-templates", *reaching(api_server, account)]
    with serve(cert_dir, authority.trusting(), *options) as process:
        until(lambda: b"does not serve" in process.call("GET", "/readyz")[1])
        assert process.call("GET", "/readyz")[0] == 503
        status, body = process.call("POST", "/mutate", SAMPLE)
        assert (status, json.loads(body)["response"]["allowed"]) == (200, False)
        api_server.versions = ["v1"]
        until(lambda: process.call("GET", "/readyz")[0] == 200)
        response = json.loads(process.call("POST", "/mutate", SAMPLE)[1])["response"]
        assert response["allowed"]
        assert "warnings" not in response
        assert api_server.created("ResourceClaimTemplate") == ["default/mig-1g.5gb"]
        assert process.metric('instaslice_template_creations_total{outcome="created"}') == 1


def test_outside_a_cluster_it_says_what_is_needed(
    cert_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    for options, need in (
        ([], "--resource-api auto"),
        (["--resource-api", "v1", "--provision-templates"], "--provision-templates"),
    ):
        assert main(["serve", "--cert-dir", str(cert_dir), *options]) == 2
        assert capsys.readouterr().err == (
            f"instaslice: {need} asks the API server, and this is no pod of a cluster: "
            "give --kubeconfig, or --resource-api with a version "
            "(v1alpha2, v1alpha3, v1beta1, v1beta2, v1)\n"
        )
