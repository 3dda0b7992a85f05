import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instaslice.cli.main import main
from instaslice.cluster import client as cluster_module
from instaslice.cluster.client import Answer, Cluster, ClusterError
from instaslice.patch import Json
from instaslice.profiles import from_attribute
from instaslice.resource_api import VERSIONS, ResourceAPI
from instaslice.resources import of_profile, read_mapping
from instaslice.serve import backlog
from instaslice.serve.app import MustWait, Webhook
from instaslice.serve.metrics import Metrics
from instaslice.serve.provision import TemplateMaker
from instaslice.templates import DeviceClaim, claim_of
from test.support.apiserver import FAULTS, APIServer, error, reaching
from test.support.certs import Authority
from test.support.process import PATIENCE, until
from test.support.reviews import load
from test.support.serving import SAMPLE, serve
from test.support.wsgi import call

V1 = VERSIONS["v1"]


def claims(*names: str) -> list[DeviceClaim]:
    return [claim_of(of_profile(found)) for found in map(from_attribute, names) if found]


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt is waited for, however busy the machine is."""
    monkeypatch.setattr(backlog, "PATIENCE", PATIENCE)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def maker(cluster: Cluster, metrics: Metrics) -> Iterator[TemplateMaker]:
    made = TemplateMaker(cluster, metrics)
    made.start()
    yield made
    made.stop()


def ensure(
    maker: TemplateMaker, namespace: str, *names: str, api: ResourceAPI = V1, may_wait: bool = True
) -> list[str]:
    return maker.ensure(namespace, claims(*names), api, may_wait)


def creations(metrics: Metrics, outcome: str) -> float:
    name = "instaslice_template_creations_total"
    return metrics.registry.get_sample_value(name, {"outcome": outcome}) or 0.0


def test_what_is_missing_is_made(
    maker: TemplateMaker, api_server: APIServer, metrics: Metrics
) -> None:
    assert ensure(maker, "ml", "1g.5gb", "1g.5gb+me") == []
    assert api_server.created("ResourceClaimTemplate") == ["ml/mig-1g.5gb", "ml/mig-1g.5gb.me"]
    assert creations(metrics, "created") == 2
    assert api_server.created("DeviceClass") == [
        "mig-1g.5gb.nvidia.com",
        "mig-1g.5gb.me.nvidia.com",
    ]
    for made in api_server.objects.values():
        assert made["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "instaslice"}


def test_v1alpha2_has_parameters_too(maker: TemplateMaker, api_server: APIServer) -> None:
    assert ensure(maker, "ml", "1g.5gb", api=VERSIONS["v1alpha2"]) == []
    assert [path for _, path in api_server.requests] == [
        "/apis/gpu.resource.nvidia.com/v1alpha1/namespaces/ml/migdeviceclaimparameters",
        "/apis/resource.k8s.io/v1alpha2/namespaces/ml/resourceclaimtemplates",
    ]


def test_every_kind_of_object_has_a_path(maker: TemplateMaker, api_server: APIServer) -> None:
    gpu = read_mapping(["nvidia.com/gpu=gpu.nvidia.com"]).find("nvidia.com/gpu")
    assert gpu
    for api in VERSIONS.values():
        for resource in (gpu, *(each.requests[0].resource for each in claims("1g.5gb"))):
            assert maker.ensure("ml", [claim_of(resource)], api, may_wait=True) == []
    paths = {path for _, path in api_server.requests}
    assert "/apis/gpu.resource.nvidia.com/v1alpha1/namespaces/ml/gpuclaimparameters" in paths


def test_what_is_there_is_not_made_again_for_ten_minutes(
    maker: TemplateMaker, api_server: APIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        assert ensure(maker, "ml", "1g.5gb") == []
    assert len(api_server.requests) == 2
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 601)
    assert ensure(maker, "ml", "1g.5gb") == []
    assert len(api_server.requests) == 4


def test_a_device_class_is_made_once_for_the_cluster(
    maker: TemplateMaker, api_server: APIServer
) -> None:
    for namespace in ("ml", "default"):
        assert ensure(maker, namespace, "1g.5gb") == []
    paths = [path for _, path in api_server.requests]
    assert paths == [
        "/apis/resource.k8s.io/v1/deviceclasses",
        "/apis/resource.k8s.io/v1/namespaces/ml/resourceclaimtemplates",
        "/apis/resource.k8s.io/v1/namespaces/default/resourceclaimtemplates",
    ]


def test_a_namespace_that_was_made_anew_gets_its_templates_again(
    maker: TemplateMaker, api_server: APIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ensure(maker, "ml", "1g.5gb") == []
    api_server.objects.clear()
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + backlog.RECHECK + 1)
    assert ensure(maker, "ml", "1g.5gb", may_wait=False) == []
    until(lambda: api_server.created("ResourceClaimTemplate") == ["ml/mig-1g.5gb"])
    assert ensure(maker, "ml", "1g.5gb") == []
    assert len(api_server.requests) == 3


def test_what_someone_else_made_is_as_good(
    maker: TemplateMaker, api_server: APIServer, metrics: Metrics
) -> None:
    path = "/apis/resource.k8s.io/v1/namespaces/ml/resourceclaimtemplates/mig-1g.5gb"
    api_server.objects[path] = {"kind": "theirs"}
    assert ensure(maker, "ml", "1g.5gb") == []
    assert creations(metrics, "existed") == 1


def test_a_device_class_that_someone_else_made_is_asked_for_once(
    maker: TemplateMaker, api_server: APIServer
) -> None:
    path = "/apis/resource.k8s.io/v1/deviceclasses"
    api_server.objects[f"{path}/mig-1g.5gb.nvidia.com"] = {"kind": "theirs"}
    for namespace in ("ml", "default"):
        assert ensure(maker, namespace, "1g.5gb") == []
    assert [asked for _, asked in api_server.requests].count(path) == 1


def fields(caplog: pytest.LogCaptureFixture) -> list[tuple[str, Json]]:
    """Each line of the log, and what it is about."""
    return [(each.getMessage(), each.__dict__["fields"]) for each in caplog.records]


def test_what_was_made_is_told_and_what_was_known_to_be_there_is_not_told_again(
    metrics: Metrics, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("instaslice"), "propagate", True)
    caplog.set_level(logging.INFO, "instaslice")
    monkeypatch.setattr(backlog, "RECHECK", 0.0)  # it is looked at again beside each admission
    maker = making(Answering(Answer(201, {}), Answer(409, {}), Answer(409, {})), metrics)
    for made in range(3):
        assert ensure(maker, "ml", "1g.5gb") == []
        until(lambda n=made: creations(metrics, "created") + creations(metrics, "existed") == n + 1)
    maker.stop()
    about = {"namespace": "ml", "template": "mig-1g.5gb"}
    assert fields(caplog) == [("template created", about)]


def test_what_was_there_already_is_told_once(
    metrics: Metrics, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("instaslice"), "propagate", True)
    caplog.set_level(logging.INFO, "instaslice")
    monkeypatch.setattr(backlog, "RECHECK", 0.0)
    maker = making(Answering(Answer(409, {}), Answer(409, {})), metrics)
    for existed in (1, 2):
        assert ensure(maker, "ml", "1g.5gb") == []
        until(lambda n=existed: creations(metrics, "existed") == n)
    maker.stop()
    assert [message for message, _ in fields(caplog)] == ["template existed"]


def test_a_failure_is_told_with_its_reason_and_the_pause_after_it(
    metrics: Metrics, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("instaslice"), "propagate", True)
    monkeypatch.setattr(backlog, "FIRST_PAUSE", 1234.5)
    maker = making(Answering(ClusterError("timed out")), metrics)
    assert len(ensure(maker, "ml", "1g.5gb")) == 1
    maker.stop()
    [(message, told)] = fields(caplog)
    assert message == "a template was not made"
    assert (told["reason"], told["seconds"]) == ("timed out", 1234.5)


def test_what_the_log_says_does_not_grow_with_what_was_typed_or_answered(
    metrics: Metrics, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("instaslice"), "propagate", True)

    class Verbose:
        def call(self, method: str, path: str, body: Json | None = None) -> Answer:
            return Answer(422 if "templates" in path else 201, {"message": "no" * 5000})

    maker = TemplateMaker(Verbose(), metrics)
    maker.start()
    assert len(ensure(maker, "n" * 1000, "1g.5gb")) == 1
    maker.stop()
    [(message, told)] = fields(caplog)
    assert message == "a template cannot be made"
    assert len(told["namespace"]) == 63
    assert len(told["reason"]) <= 300


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
    monkeypatch.setattr(backlog, "FIRST_PAUSE", 0.05)
    if fault in ("hang", "drip"):  # the attempt outlasts the admission
        monkeypatch.setattr(backlog, "PATIENCE", 0.1)
        monkeypatch.setattr(cluster_module, "DEADLINE", 0.5)
    api_server.fault = FAULTS[fault]
    assert ensure(maker, "ml", "1g.5gb+me") == [WARNING]
    api_server.fault = None
    until(lambda: api_server.created("ResourceClaimTemplate") == ["ml/mig-1g.5gb.me"])
    until(lambda: creations(metrics, "created") == 1)
    assert ensure(maker, "ml", "1g.5gb+me") == []


def test_what_failed_has_a_pause_in_which_others_are_made(
    maker: TemplateMaker, api_server: APIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "FIRST_PAUSE", 600.0)
    api_server.fault = error(500, "InternalError")
    assert ensure(maker, "ml", "1g.5gb") != []
    api_server.fault = None
    assert ensure(maker, "default", "1g.5gb") == []
    assert api_server.created("ResourceClaimTemplate") == ["default/mig-1g.5gb"]


def test_a_device_class_that_may_not_be_made_is_left_to_an_administrator(
    cluster: Cluster, metrics: Metrics, api_server: APIServer
) -> None:
    asked: list[str] = []

    class Refusing:
        """An API server whose administrator gave InstaSlice no right to make classes."""

        def call(self, method: str, path: str, body: Json | None = None) -> Answer:
            asked.append(path.rpartition("/")[2])
            refused = Answer(403, {"message": "deviceclasses is forbidden"})
            return refused if asked[-1] == "deviceclasses" else cluster.call(method, path, body)

    maker = TemplateMaker(Refusing(), metrics)
    maker.start()
    try:
        for namespace in ("ml", "default"):
            assert ensure(maker, namespace, "1g.5gb") == []
    finally:
        maker.stop()
    assert api_server.created("ResourceClaimTemplate") == ["ml/mig-1g.5gb", "default/mig-1g.5gb"]
    assert asked == ["deviceclasses", *["resourceclaimtemplates"] * 2], "once, and not each time"


class Hanging:
    """An API server that takes a call and does not answer before the block ends."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = threading.Event()

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        self.asked += 1
        assert self.answer.wait(PATIENCE)
        return Answer(500, {})


@pytest.fixture
def hanging() -> Hanging:
    return Hanging()


@pytest.fixture
def hung(hanging: Hanging, metrics: Metrics) -> Iterator[TemplateMaker]:
    maker = TemplateMaker(hanging, metrics)
    maker.start()
    yield maker
    hanging.answer.set()
    maker.stop()


def test_a_hung_api_server_costs_an_admission_no_more_for_many_templates(
    hung: TemplateMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "PATIENCE", 0.3)
    profiles = [f"1g.{n}gb" for n in range(1, 101)]
    start = time.monotonic()
    assert len(ensure(hung, "ml", *profiles)) == len(profiles)
    assert 0.3 <= time.monotonic() - start < 0.3 * len(profiles) / 2


def test_while_an_attempt_hangs_others_do_not_wait(
    hung: TemplateMaker, hanging: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "PATIENCE", 0.3)
    ensure(hung, "ml", "1g.5gb+me")
    until(lambda: hanging.asked)
    start = time.monotonic()
    for _ in range(100):
        assert ensure(hung, "ml", "1g.5gb+me") == [WARNING]
    assert time.monotonic() - start < 0.3 * 100 / 2
    assert hanging.asked == 1


def test_what_failed_is_tried_again_at_once_when_another_pod_asks(
    maker: TemplateMaker, api_server: APIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "FIRST_PAUSE", 3600.0)
    api_server.fault = error(500, "InternalError")
    for attempts in (1, 2, 3):
        assert ensure(maker, "ml", "1g.5gb+me") == [WARNING]
        assert len(api_server.requests) == attempts
    api_server.fault = None
    assert ensure(maker, "ml", "1g.5gb+me") == []


def test_in_the_loop_it_never_waits(
    maker: TemplateMaker, api_server: APIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        with pytest.raises(MustWait):
            ensure(maker, "ml", "1g.5gb", may_wait=False)
    assert api_server.requests == [], "who may not wait asks for nothing"
    ensure(maker, "ml", "1g.5gb")
    assert ensure(maker, "ml", "1g.5gb", may_wait=False) == []
    with pytest.raises(MustWait):
        ensure(maker, "ml", "1g.5gb", "2g.10gb", may_wait=False)
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + backlog.MEMORY)
    with pytest.raises(MustWait):
        ensure(maker, "ml", "1g.5gb", may_wait=False)


class Answering:
    """A cluster that answers calls for the namespace ml by a list, and makes anything else."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0  #: for ml

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        if "/ml/" not in path:
            return Answer(201, {})
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else Answer(201, {})
        if isinstance(answer, Exception):
            raise answer
        return answer


def making(cluster: Answering, metrics: Metrics) -> TemplateMaker:
    maker = TemplateMaker(cluster, metrics)
    maker.start()
    return maker


NAMESPACE = {"kind": "namespaces", "name": "ml"}
TERMINATING = [{"reason": "NamespaceTerminating", "message": "ml is being terminated"}]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, {}),
        Answer(404, {"details": "none"}),
        Answer(404, {"message": "the server could not find the requested resource", "details": {}}),
        Answer(404, {"details": {"kind": "resourceclaimtemplates", "name": "mig-1g.5gb"}}),
        Answer(403, {"details": {"kind": "namespaces"}}),
        Answer(403, {"details": {"causes": [{"reason": "Quota"}, "none"]}}),
        Answer(429, {}),
        Answer(500, {"details": NAMESPACE}),
        Answer(503, {"details": {"causes": TERMINATING}}),
        Answer(200, {}),
        ClusterError("timed out"),
    ],
    ids=str,
)
def test_what_may_be_over_is_tried_again(
    answer: Answer | Exception, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "FIRST_PAUSE", 0.0)
    cluster = Answering(answer, answer)
    maker = making(cluster, metrics)
    ensure(maker, "ml", "1g.5gb")
    until(lambda: creations(metrics, "created") == 1)
    assert cluster.asked == 3
    assert creations(metrics, "failed") == 2
    maker.stop()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, {"details": NAMESPACE}),
        Answer(403, {"details": {"causes": ["none", *TERMINATING]}}),
        Answer(400, {"message": "the namespace is not a name"}),
        Answer(422, {"message": "ResourceClaimTemplate is invalid"}),
        ZeroDivisionError("a fault of ours"),
    ],
    ids=str,
)
def test_what_stays_as_it_is_is_not_tried_again(
    answer: Answer | Exception, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "FIRST_PAUSE", 0.0)
    cluster = Answering(answer)
    maker = making(cluster, metrics)
    assert len(ensure(maker, "ml", "1g.5gb")) == 1
    assert creations(metrics, "failed") == 1
    # A second attempt would be due before this one.
    assert ensure(maker, "default", "1g.5gb") == []
    assert cluster.asked == 1
    assert ensure(maker, "ml", "1g.5gb") == [], "who asks anew has it tried anew"
    maker.stop()


def test_a_namespace_that_was_deleted_is_forgotten(
    maker: TemplateMaker, api_server: APIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was known to be there is not known any more, and the next pod waits again."""
    assert ensure(maker, "ml", "1g.5gb") == []
    api_server.namespaces.remove("ml")
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + backlog.RECHECK + 1)
    assert ensure(maker, "ml", "1g.5gb", may_wait=False) == []
    until(lambda: len(api_server.requests) == 2)
    assert ensure(maker, "default", "1g.5gb") == []
    with pytest.raises(MustWait):
        ensure(maker, "ml", "1g.5gb", may_wait=False)


def test_a_namespace_that_no_text_encodes_is_not_tried_again(
    maker: TemplateMaker, api_server: APIServer
) -> None:
    assert len(ensure(maker, "\ud800", "1g.5gb")) == 1
    assert ensure(maker, "ml", "1g.5gb") == []
    assert [path for _, path in api_server.requests if "/namespaces/" in path] == [
        "/apis/resource.k8s.io/v1/namespaces/ml/resourceclaimtemplates"
    ]


def test_a_namespace_is_a_name_and_no_path(maker: TemplateMaker, api_server: APIServer) -> None:
    ensure(maker, "a/../../b?x=", "1g.5gb")
    *_, (_, path) = api_server.requests
    assert path == (
        "/apis/resource.k8s.io/v1/namespaces/a%2F..%2F..%2Fb%3Fx%3D/resourceclaimtemplates"
    )


@settings(
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
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
    constants = {
        "instaslice.cluster.discovery": {"RETRY": 0.1},
        "instaslice.serve.backlog": {"PATIENCE": PATIENCE},
    }
    with serve(cert_dir, authority.trusting(), *options, constants=constants) as process:
        until(lambda: b"does not serve" in process.call("GET", "/readyz")[1])
        assert process.call("GET", "/readyz")[0] == 200
        assert process.metric('instaslice_resource_api_info{version="none"}') == 1
        api_server.versions = ["v1"]
        until(lambda: process.call("GET", "/readyz")[1] == b"ok, resource.k8s.io/v1\n")
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
            f"instaslice: {need} asks the API server, and this is not a pod of a cluster: "
            "give --kubeconfig, or --resource-api with a version "
            "(v1alpha2, v1alpha3, v1beta1, v1beta2, v1)\n"
        )
