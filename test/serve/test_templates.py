import json
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instaslice.cluster.client import MAX_ANSWER, Answer, Caller, Cluster, ClusterError
from instaslice.containers import MAX_DEVICES
from instaslice.invalid import MAX_MESSAGES
from instaslice.patch import Json
from instaslice.profiles import from_attribute, known_profiles
from instaslice.resource_api import VERSIONS, ResourceAPI
from instaslice.resources import MIG, read_mapping
from instaslice.serve.app import MustWait, Webhook
from instaslice.serve.limits import Limits
from instaslice.serve.metrics import Metrics
from instaslice.serve.templates import TemplateMaker
from instaslice.templates import DeviceClaim, DeviceRequest, claim_of, device_class, from_template
from test.support.apiserver import FAULTS, APIServer, error
from test.support.process import PATIENCE, until
from test.support.reviews import load
from test.support.serving import SAMPLE, Logged, Serving
from test.support.wsgi import call

V1 = VERSIONS["v1"]
#: Admissions wait for attempts, even on a busy machine; known objects are not checked again.
PATIENT = Limits(template_patience=PATIENCE, template_recheck=600.0, template_spacing=0.0)
#: Known objects are checked again with every admission.
EAGER = replace(PATIENT, template_recheck=0.0)
#: Failed creations are not retried by themselves.
ONCE = replace(PATIENT, first_pause=3600.0)

TEMPLATES = "/apis/resource.k8s.io/v1/namespaces/{}/resourceclaimtemplates"
CLASSES = "/apis/resource.k8s.io/v1/deviceclasses"


def claims(*names: str) -> list[DeviceClaim]:
    return [claim_of(found) for found in map(from_attribute, names) if found]


def placed(names: list[str], alternatives: int = 1) -> DeviceClaim:
    """A claim for devices of one GPU, with `alternatives` choices in each request."""
    choices = [claim.requests[0].resource for claim in claims(*names)]
    each = [tuple(choices[i : i + alternatives]) for i in range(0, len(choices), alternatives)]
    return DeviceClaim(tuple(map(DeviceRequest, each)), "same-gpu")


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


#: Starts a maker, which ends with the test.
Start = Callable[..., TemplateMaker]


@pytest.fixture
def start(cluster: Cluster, metrics: Metrics) -> Iterator[Start]:
    made: list[TemplateMaker] = []

    def begin(limits: Limits = PATIENT, caller: Caller = cluster) -> TemplateMaker:
        made.append(TemplateMaker(caller, metrics, MIG, limits))
        made[-1].start()
        return made[-1]

    yield begin
    for each in made:
        each.stop()


QUOTA = Answer(403, {"message": "exceeded quota: none"})


class Denying:
    """A cluster that refuses the calls, by method and path, for which `is_denied` is true."""

    def __init__(
        self, cluster: Cluster, is_denied: Callable[[str, str], bool], answer: Answer = QUOTA
    ) -> None:
        self.cluster = cluster
        self.is_denied = is_denied
        self.answer = answer

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        if self.is_denied(method, path):
            return self.answer
        return self.cluster.call(method, path, body)


def ensure(
    maker: TemplateMaker, namespace: str, *names: str, api: ResourceAPI = V1, may_wait: bool = True
) -> list[str]:
    return maker.ensure(namespace, claims(*names), api, may_wait)


def counted(metrics: Metrics, outcome: str, kind: str = "template") -> float:
    name = f"instaslice_{kind}_creations_total"
    return metrics.registry.get_sample_value(name, {"outcome": outcome}) or 0.0


# -- creation ------------------------------------------------------------------------------------


def test_missing_templates_are_created(
    start: Start, api_server: APIServer, metrics: Metrics
) -> None:
    assert ensure(start(), "ml", "1g.5gb", "1g.5gb+me") == []
    assert api_server.created("ResourceClaimTemplate") == ["ml/mig-1g.5gb", "ml/mig-1g.5gb.me"]
    classes = ["mig-1g.5gb.nvidia.com", "mig-1g.5gb.me.nvidia.com"]
    assert api_server.created("DeviceClass") == classes
    assert counted(metrics, "created") == counted(metrics, "created", "device_class") == 2
    for made in api_server.objects.values():
        assert made["metadata"]["labels"] == {"app.kubernetes.io/managed-by": "instaslice"}


def test_every_kind_of_object_has_a_path(start: Start, api_server: APIServer) -> None:
    gpu = read_mapping(["nvidia.com/gpu=gpu.nvidia.com"]).find("nvidia.com/gpu")
    assert gpu
    for name, api in VERSIONS.items():
        for resource in (gpu, *(each.requests[0].resource for each in claims("1g.5gb"))):
            assert start().ensure("ml", [claim_of(resource)], api, may_wait=True) == []
        if name == "v1alpha2":
            where = "/apis/{}/v1alpha{}/namespaces/ml/{}"
            assert [path for _, path in api_server.requests] == [
                where.format("gpu.resource.nvidia.com", 1, "gpuclaimparameters"),
                where.format("resource.k8s.io", 2, "resourceclaimtemplates"),
                where.format("gpu.resource.nvidia.com", 1, "migdeviceclaimparameters"),
                where.format("resource.k8s.io", 2, "resourceclaimtemplates"),
            ]


def test_an_empty_file_of_authorities_loses_no_template(
    start: Start, api_server: APIServer, account: Path
) -> None:
    """The file is empty while it is being written."""
    authorities = (account / "ca.crt").read_bytes()
    (account / "ca.crt").write_bytes(b"")
    [warning] = ensure(start(replace(PATIENT, first_pause=0.05)), "ml", "1g.5gb")
    assert "does not exist yet" in warning
    (account / "ca.crt").write_bytes(authorities)
    until(lambda: api_server.created("ResourceClaimTemplate") == ["ml/mig-1g.5gb"])


def test_a_template_is_created_even_if_its_name_does_not_say_everything(
    start: Start, api_server: APIServer
) -> None:
    claim = placed([f"{n % 9 + 1}g.{n}gb" for n in range(1, 31)])
    assert from_template(claim.template, MIG) is None
    maker = start(EAGER)
    for _ in range(3):  # created, then checked
        assert maker.ensure("ml", [claim], V1, may_wait=True) == []
    made = api_server.objects[f"{TEMPLATES.format('ml')}/{claim.template}"]
    assert len(made["spec"]["spec"]["devices"]["requests"]) == 30


def test_known_templates_cost_no_call_for_ten_minutes(
    start: Start, api_server: APIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = start()
    for _ in range(3):
        assert ensure(maker, "ml", "1g.5gb") == []
    assert ensure(maker, "ml", "1g.5gb", may_wait=False) == []
    assert len(api_server.requests) == 2
    now = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: now() + 601)
    with pytest.raises(MustWait):
        ensure(maker, "ml", "1g.5gb", may_wait=False)
    assert ensure(maker, "ml", "1g.5gb") == []
    assert len(api_server.requests) == 4


def test_ensure_does_not_wait_in_the_loop(start: Start, api_server: APIServer) -> None:
    maker = start()
    for _ in range(3):
        with pytest.raises(MustWait):
            ensure(maker, "ml", "1g.5gb", may_wait=False)
    assert api_server.requests == [], "a call that may not wait requests nothing"
    ensure(maker, "ml", "1g.5gb")
    assert ensure(maker, "ml", "1g.5gb", may_wait=False) == []
    with pytest.raises(MustWait):
        ensure(maker, "ml", "1g.5gb", "2g.10gb", may_wait=False)


def test_a_device_class_is_created_once(start: Start, api_server: APIServer) -> None:
    maker = start()
    for namespace in ("ml", "default"):
        assert ensure(maker, namespace, "1g.5gb") == []
    paths = [path for _, path in api_server.requests]
    assert paths == [CLASSES, TEMPLATES.format("ml"), TEMPLATES.format("default")]


# -- checks of known objects ---------------------------------------------------------------------


def test_deleted_objects_are_created_again_within_two_seconds(
    start: Start, api_server: APIServer
) -> None:
    """A namespace is deleted and created again at once, and a class is deleted."""
    maker = start(Limits(template_patience=PATIENCE))
    assert ensure(maker, "ml", "1g.5gb") == []
    api_server.objects.clear()
    began = time.monotonic()
    assert ensure(maker, "ml", "1g.5gb", may_wait=False) == [], "the admission does not wait"
    until(lambda: len(api_server.objects) == 2)
    assert time.monotonic() - began < 2 + 1, "two seconds, and one for a busy machine"


def test_known_templates_are_checked_at_most_once_a_second(
    start: Start, api_server: APIServer
) -> None:
    """Here it is half a second."""
    assert Limits().template_recheck == 1.0
    maker = start(Limits(template_patience=PATIENCE, template_recheck=0.5))
    assert ensure(maker, "ml", "1g.5gb") == []
    began = time.monotonic()
    while time.monotonic() < began + 1.25:
        assert ensure(maker, "ml", "1g.5gb", may_wait=False) == []
        time.sleep(0.001)
    looks = [path for method, path in api_server.requests if method == "GET"]
    assert looks.count(f"{TEMPLATES.format('ml')}/mig-1g.5gb") in (2, 3)
    assert looks.count(f"{CLASSES}/mig-1g.5gb.nvidia.com") in (1, 2, 3)


def test_a_namespace_that_is_gone_is_forgotten(start: Start, api_server: APIServer) -> None:
    """Its objects are not known any more, so the next pod waits again."""
    maker = start(EAGER)
    assert ensure(maker, "ml", "1g.5gb", "2g.10gb") == []
    api_server.namespaces.remove("ml")
    api_server.objects.clear()
    assert ensure(maker, "ml", "1g.5gb", may_wait=False) == []

    def is_forgotten() -> bool:
        try:
            return ensure(maker, "ml", "2g.10gb", may_wait=False) != []
        except MustWait:
            return True

    until(is_forgotten)


# -- existing objects that differ ----------------------------------------------------------------


def template(claim: DeviceClaim, **fields: object) -> Json:
    """A template with the claim's name that asks for something else."""
    exactly = {"deviceClassName": claim.requests[0].resource.device_class, **fields}
    request = {"name": claim.requests[0].resource.request, "exactly": exactly}
    return {"kind": "theirs", "spec": {"spec": {"devices": {"requests": [request]}}}}


@pytest.mark.parametrize("look", ["at first", "later"])
def test_a_template_that_differs_is_warned_about_logged_and_counted(
    look: str, start: Start, api_server: APIServer, metrics: Metrics, logged: Logged
) -> None:
    maker = start(EAGER)
    if look == "later":
        assert ensure(maker, "ml", "1g.5gb") == []
    path = f"{TEMPLATES.format('ml')}/mig-1g.5gb"
    api_server.objects[path] = template(claims("1g.5gb")[0], allocationMode="All")
    warning = (
        "ResourceClaimTemplate mig-1g.5gb differs from what InstaSlice creates, and the pod gets "
        "what it asks for: requests[0].exactly.allocationMode is All"
    )
    until(lambda: ensure(maker, "ml", "1g.5gb") == [warning])
    assert counted(metrics, "differs") >= 1
    told = [fields for message, fields in logged() if message == "template differs"]
    assert [each["reason"] for each in told] == ["requests[0].exactly.allocationMode is All"]
    assert ensure(maker, "default", "1g.5gb") == []
    del api_server.objects[path]  # an administrator deletes it
    until(lambda: ensure(maker, "ml", "1g.5gb") == [])


def test_an_object_that_cannot_be_compared_counts_as_different(
    start: Start, api_server: APIServer
) -> None:
    """Nobody hides a template by nesting it more deeply than JSON is read, or by its size."""
    hidden = template(claims("1g.5gb")[0], allocationMode="All", padding="x" * MAX_ANSWER)
    api_server.objects[f"{TEMPLATES.format('ml')}/mig-1g.5gb"] = hidden
    [warning] = ensure(start(EAGER), "ml", "1g.5gb")
    assert warning.endswith("it is too large or too deeply nested to compare")


def test_a_class_that_differs_is_warned_about_in_every_namespace(
    start: Start, api_server: APIServer, metrics: Metrics
) -> None:
    spec = {"selectors": [{"cel": {"expression": "false"}}]}
    path = f"{CLASSES}/mig-1g.5gb.nvidia.com"
    api_server.objects[path] = {"kind": "theirs", "spec": spec}
    maker = start(EAGER)
    for namespace in ("ml", "default"):
        [warning] = ensure(maker, namespace, "1g.5gb")
        said = "DeviceClass mig-1g.5gb.nvidia.com differs from what InstaSlice creates: "
        assert warning.startswith(said)
    assert counted(metrics, "differs", "device_class") >= 1
    assert ensure(maker, "ml", "2g.10gb") == []
    del api_server.objects[path]
    until(lambda: ensure(maker, "ml", "1g.5gb") == [])


def test_a_class_without_its_extended_resource_gives_no_warning(
    start: Start, api_server: APIServer
) -> None:
    """An API server whose gate is off drops the name."""
    resource = claims("1g.5gb")[0].requests[0].resource
    kept = device_class(V1, resource)
    assert kept["spec"].pop("extendedResourceName")
    api_server.objects[f"{CLASSES}/mig-1g.5gb.nvidia.com"] = kept
    maker = start(EAGER)
    for namespace in ("ml", "default"):
        assert ensure(maker, namespace, "1g.5gb") == []


@pytest.mark.parametrize("what", ["exists", "is missing", "cannot be read"])
def test_a_class_that_cannot_be_created_is_warned_about_and_counted(
    what: str, start: Start, cluster: Cluster, api_server: APIServer, metrics: Metrics
) -> None:
    if what == "exists":
        resource = claims("1g.5gb")[0].requests[0].resource
        cluster.call("POST", CLASSES, device_class(V1, resource))

    def is_denied(method: str, path: str) -> bool:
        return "deviceclasses" in path and (method == "POST" or what == "cannot be read")

    maker = start(PATIENT, Denying(cluster, is_denied))
    expected = [
        "DeviceClass mig-1g.5gb.nvidia.com cannot be created; to create it: "
        "instaslice deviceclasses mig-1g.5gb --resource-api v1 | kubectl apply -f -"
    ]
    for namespace in ("ml", "default"):
        assert ensure(maker, namespace, "1g.5gb") == ([] if what == "exists" else expected)
    assert counted(metrics, "failed", "device_class") == (what != "exists")
    assert api_server.created("ResourceClaimTemplate") == ["ml/mig-1g.5gb", "default/mig-1g.5gb"]


def test_a_class_that_fails_keeps_no_template_from_being_created(
    start: Start, cluster: Cluster, api_server: APIServer
) -> None:
    maker = start(ONCE, Denying(cluster, lambda method, path: path == CLASSES, Answer(500, {})))
    assert ensure(maker, "ml", "1g.5gb") == [
        "DeviceClass mig-1g.5gb.nvidia.com does not exist yet; to create it: "
        "instaslice deviceclasses mig-1g.5gb --resource-api v1 | kubectl apply -f -"
    ]
    assert api_server.created("ResourceClaimTemplate") == ["ml/mig-1g.5gb"]


def test_a_class_is_retried_without_another_pod(
    start: Start, cluster: Cluster, api_server: APIServer
) -> None:
    denied = [True]

    denying = Denying(cluster, lambda method, path: path == CLASSES and denied[0])
    maker = start(replace(PATIENT, first_pause=0.1, template_recheck=0.05), denying)
    assert len(ensure(maker, "ml", "1g.5gb")) == 1
    denied[0] = False
    until(lambda: api_server.created("DeviceClass"))
    until(lambda: ensure(maker, "ml", "1g.5gb") == [])


def test_a_deleted_class_is_created_again_for_another_namespace(
    start: Start, api_server: APIServer
) -> None:
    maker = start(replace(PATIENT, template_recheck=0.2))
    for namespace in ("ml", "default"):
        assert ensure(maker, namespace, "1g.5gb") == []
    until(lambda: len(api_server.requests) >= 4)
    for first, second in (("ml", "default"), ("default", "ml")):
        ensure(maker, first, "1g.5gb")
        del api_server.objects[f"{CLASSES}/mig-1g.5gb.nvidia.com"]
        ensure(maker, second, "1g.5gb")
        until(lambda: api_server.created("DeviceClass"))


def test_objects_that_may_not_be_read_count_as_existing(start: Start, cluster: Cluster) -> None:
    for _ in range(2):
        maker = start(EAGER, Denying(cluster, lambda method, path: method == "GET"))
        for _ in range(3):
            assert ensure(maker, "ml", "1g.5gb") == []


# -- failures ------------------------------------------------------------------------------------

WARNING = (
    "ResourceClaimTemplate mig-1g.5gb.me does not exist yet; to create it: "
    "instaslice templates --apply --namespace ml mig-1g.5gb.me"
)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_failure_is_a_warning_and_is_retried(
    fault: str, start: Start, cluster: Cluster, api_server: APIServer, metrics: Metrics
) -> None:
    limits = replace(PATIENT, first_pause=0.05)
    if fault in ("hang", "drip"):  # the attempt outlasts the admission
        limits = replace(limits, template_patience=0.1)
        cluster = replace(cluster, deadline=0.5)
    maker = start(limits, cluster)
    api_server.fault = FAULTS[fault]
    assert WARNING in ensure(maker, "ml", "1g.5gb+me")
    api_server.fault = None
    until(lambda: api_server.created("ResourceClaimTemplate") == ["ml/mig-1g.5gb.me"])
    until(lambda: counted(metrics, "created") == 1)
    assert ensure(start(PATIENT), "ml", "1g.5gb+me") == []


def test_a_failed_template_pauses_unless_a_pod_asks_for_it(
    start: Start, api_server: APIServer
) -> None:
    maker = start(ONCE)
    api_server.fault = error(500, "InternalError")
    for attempts in (1, 2, 3):
        assert ensure(maker, "ml", "1g.5gb+me") == [WARNING]
        assert len(api_server.requests) == 2 * attempts, "for the class and the template"
    api_server.fault = None
    assert ensure(maker, "default", "1g.5gb") == []
    assert api_server.created("ResourceClaimTemplate") == ["default/mig-1g.5gb"]
    assert ensure(maker, "ml", "1g.5gb+me") == []


def test_the_warning_names_an_exceeded_quota(start: Start, api_server: APIServer) -> None:
    said = "exceeded quota: none, requested: count/resourceclaimtemplates.resource.k8s.io=1"

    message = f'resourceclaimtemplates "mig-1g.5gb" is forbidden: {said}'
    cluster = Answering(Answer(403, {"message": message}))
    assert ensure(start(ONCE, cluster), "ml", "1g.5gb") == [
        f"ResourceClaimTemplate mig-1g.5gb cannot be created: {said}"
    ]


def test_an_existing_template_is_found_though_a_quota_is_full(
    start: Start, cluster: Cluster, api_server: APIServer
) -> None:
    assert ensure(start(), "ml", "1g.5gb") == []

    full = Denying(cluster, lambda method, path: method == "POST")
    assert ensure(start(ONCE, full), "ml", "1g.5gb") == []


NAMESPACE = {"kind": "namespaces", "name": "ml"}
TERMINATING = [{"reason": "NamespaceTerminating", "message": "ml is being terminated"}]


class Storing:
    """A cluster that creates everything, and has what it created."""

    def __init__(self) -> None:
        self.created: set[str] = set()

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        if method == "GET":
            return Answer(200 if path in self.created else 404, {})
        assert body
        self.created.add(f"{path}/{body['metadata']['name']}")
        return Answer(201, body)

    def templates(self) -> int:
        return sum("/resourceclaimtemplates/" in path for path in self.created)


class Answering:
    """A cluster with a list of answers to creations in ml; it creates everything elsewhere."""

    def __init__(self, *answers: Answer | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0  #: creations in ml

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        if "/ml/" not in path:
            return Answer(201, {})
        if method == "GET":
            return Answer(404, {})
        self.asked += 1
        answer = self.answers.pop(0) if self.answers else Answer(201, {})
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, {"details": "none"}),
        Answer(404, {"message": "the server could not find the requested resource", "details": {}}),
        Answer(404, {"details": {"kind": "resourceclaimtemplates", "name": "mig-1g.5gb"}}),
        Answer(403, {"details": {"kind": "namespaces"}}),
        Answer(403, {"details": {"causes": [{"reason": "Quota"}, "none"]}}),
        *(Answer(status, {}) for status in (400, 405, 406, 413, 414, 415, 422, 429)),
        Answer(500, {"details": NAMESPACE}),
        Answer(503, {"details": {"causes": TERMINATING}}),
        Answer(200, {}),
        ClusterError("timed out"),
    ],
    ids=str,
)
def test_transient_errors_are_retried(
    answer: Answer | Exception, start: Start, metrics: Metrics
) -> None:
    cluster = Answering(*[answer] * 5)
    ensure(start(replace(PATIENT, first_pause=0.0, longest_pause=0.0), cluster), "ml", "1g.5gb")
    until(lambda: counted(metrics, "created") == 1)
    assert cluster.asked == 6
    assert counted(metrics, "failed") == 5


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, {"details": NAMESPACE}),
        Answer(403, {"details": {"causes": ["none", *TERMINATING]}}),
        ZeroDivisionError("a fault of ours"),
    ],
    ids=str,
)
def test_permanent_failures_are_not_retried(
    answer: Answer | Exception, start: Start, metrics: Metrics
) -> None:
    cluster = Answering(answer)
    maker = start(replace(PATIENT, first_pause=0.0), cluster)
    assert len(ensure(maker, "ml", "1g.5gb")) == 1
    assert counted(metrics, "failed") == 1
    # A second attempt would be due before this one.
    assert ensure(maker, "default", "1g.5gb") == []
    assert cluster.asked == 1
    assert ensure(maker, "ml", "1g.5gb") == [], "the next request tries again"


def test_a_namespace_is_quoted_in_the_path(start: Start, api_server: APIServer) -> None:
    ensure(start(ONCE), "a/../../b?x=", "9g.999gb")
    paths = {path for _, path in api_server.requests}
    assert paths == {TEMPLATES.format("a%2F..%2F..%2Fb%3Fx%3D")}


def test_warnings_and_log_lines_are_bounded(start: Start, logged: Logged) -> None:
    answer = Answer(422, {"message": "no" * 5000})
    names = [f"9g.{n}gb" for n in range(1, 101)]
    told = ensure(start(ONCE, Answering(*[answer] * 100)), "ml", *names)
    assert len(told) == MAX_MESSAGES
    assert len(logged()) == len(names)
    assert all(len(str(fields)) < 1000 for _, fields in logged())


class Hanging:
    """An API server that does not answer before the test ends."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer = threading.Event()

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        self.asked += 1
        assert self.answer.wait(PATIENCE)
        return Answer(500, {})


@pytest.fixture
def hanging(start: Start) -> Iterator[Hanging]:
    api = Hanging()
    yield api
    api.answer.set()


def test_a_hung_api_server_costs_an_admission_no_more_for_many_templates(
    start: Start, hanging: Hanging
) -> None:
    maker = start(replace(ONCE, template_patience=0.3), hanging)
    began = time.monotonic()
    assert ensure(maker, "ml", *[f"1g.{n}gb" for n in range(1, 101)])
    assert 0.3 <= time.monotonic() - began < 0.3 * 50


@pytest.mark.parametrize("namespaces", [1, 100])
def test_while_an_attempt_hangs_others_do_not_wait(
    namespaces: int, start: Start, hanging: Hanging
) -> None:
    maker = start(replace(ONCE, template_patience=0.3), hanging)
    ensure(maker, "n0", "9g.999gb")
    until(lambda: hanging.asked)
    began = time.monotonic()
    for n in range(100):
        assert len(ensure(maker, f"n{n % namespaces}", "9g.999gb")) == 1
    assert time.monotonic() - began < 0.3 * 50
    assert hanging.asked == 1


# -- bounds on one author ------------------------------------------------------------------------


def hostile(number: int) -> list[DeviceClaim]:
    """The claims of a pod with 112 slices, each of a new profile."""
    return claims(*(f"{number + 1}g.{n}gb" for n in range(1000, 1000 + MAX_DEVICES)))


def by_selectors(manifest: Json) -> float:
    """Seconds of CEL: 2 ms for each selector."""
    return 0.002 * json.dumps(manifest).count('"cel"')


def test_namespaces_take_turns(start: Start, api_server: APIServer) -> None:
    """New namespaces compete with three refused pods a second, of 112 new profiles each."""
    api_server.cost = by_selectors
    maker = start(Limits())
    ended = threading.Event()

    def attack() -> None:
        number = 0
        while not ended.wait(0.33):
            maker.ensure("ml", hostile(number), V1, may_wait=True)
            number += 1

    attacker = threading.Thread(target=attack)
    attacker.start()
    try:
        time.sleep(1.0)
        victims = [f"n{n}" for n in range(20)]
        api_server.namespaces |= set(victims)
        for victim in victims:
            ensure(maker, victim, "1g.5gb")
            until(lambda v=victim: f"{v}/mig-1g.5gb" in api_server.created("ResourceClaimTemplate"))
    finally:
        ended.set()
        attacker.join()


def test_few_admissions_of_a_namespace_wait_at_the_same_time(
    start: Start, hanging: Hanging
) -> None:
    """The others leave the pool to other namespaces."""
    maker = start(ONCE, hanging)
    waiting = [threading.Thread(target=ensure, args=(maker, "ml", "9g.999gb")) for _ in range(2)]
    for each in waiting:
        each.start()
    until(lambda: maker._waiters["ml"] == 2)
    assert len(ensure(maker, "ml", "9g.999gb")) == 1
    assert all(each.is_alive() for each in waiting)
    hanging.answer.set()
    for each in waiting:
        each.join()


def test_one_namespaces_failures_drop_no_entry_of_others(start: Start) -> None:
    """The queue overflows because the API server is unavailable."""

    class Away:
        is_away = True

        def call(self, method: str, path: str, body: Json | None = None) -> Answer:
            if self.is_away:
                raise ClusterError("away")
            made.append(path.split("/")[5])
            return Answer(201, {})

    made: list[str] = []
    away = Away()
    maker = start(replace(PATIENT, template_patience=0.0, first_pause=0.0, longest_pause=0.0), away)
    for victim in ("a", "b"):
        ensure(maker, victim, "9g.999gb")
    for number in range(30):  # 3,360 names; 2,048 have room
        maker.ensure("ml", hostile(number), V1, may_wait=True)
    ensure(maker, "z", "9g.999gb")
    away.is_away = False
    until(lambda: {"a", "b", "z"} <= set(made))
    assert max(map(made.index, "abz")) < 9, "they do not wait for 2,000 others"


def test_templates_on_demand_are_bounded_per_namespace(start: Start, metrics: Metrics) -> None:
    limits, cluster = PATIENT, Storing()
    maker = start(limits, cluster)
    for number in range(3):
        told = maker.ensure("ml", hostile(number), V1, may_wait=True)
        assert all(len(each) < 256 for each in told)
    assert told[0] == (
        "ResourceClaimTemplate mig-3g.1000gb does not exist: InstaSlice creates at most 22 for "
        "profiles of no known GPU in a namespace; to create it: "
        "instaslice templates --apply --namespace ml mig-3g.1000gb"
    )
    assert cluster.templates() == limits.templates_unknown == 22
    assert counted(metrics, "beyond_bound") == 3 * MAX_DEVICES - limits.templates_unknown
    combined = [claim_of(each, n) for each in known_profiles() for n in (2, 3)]
    for index in range(0, len(combined), MAX_DEVICES):
        maker.ensure("ml", combined[index : index + MAX_DEVICES], V1, may_wait=True)
    assert cluster.templates() == limits.templates_unknown + limits.templates_counted
    every = [claim_of(each) for each in known_profiles()]
    assert maker.ensure("ml", every, V1, may_wait=True) == [], (
        "one slice of a known profile is free"
    )
    assert maker.ensure("default", [*combined[:9], *hostile(0)[:9]], V1, may_wait=True) == []


def test_templates_beyond_the_bound_are_used_if_an_administrator_creates_them(
    start: Start, cluster: Cluster, api_server: APIServer
) -> None:
    maker = start(replace(EAGER, templates_unknown=1))
    assert ensure(maker, "ml", "9g.1gb") == []
    assert len(ensure(maker, "ml", "9g.2gb")) == 1
    made = template(claims("9g.2gb")[0], selectors=[{"cel": {"expression": "true"}}])
    by_hand = {**made, "metadata": {"name": "mig-9g.2gb"}}
    cluster.call("POST", TEMPLATES.format("ml"), by_hand)
    [warning] = ensure(maker, "ml", "9g.2gb")
    assert "differs from what InstaSlice creates" in warning
    for _ in range(3):  # creating it again after a deletion does not count
        del api_server.objects[f"{TEMPLATES.format('ml')}/mig-9g.1gb"]
        assert ensure(maker, "ml", "9g.1gb") == []
        until(lambda: "ml/mig-9g.1gb" in api_server.created("ResourceClaimTemplate"))


def test_a_template_with_too_many_selectors_is_not_created(
    start: Start, api_server: APIServer, metrics: Metrics
) -> None:
    """A placed claim of 256 new profiles costs the API server half a second."""
    claim = placed([f"{n}g.1gb" for n in range(1, 257)], alternatives=8)
    [warning] = start().ensure("ml", [claim], V1, may_wait=True)
    assert warning.endswith(
        "does not exist: InstaSlice creates templates of at most 64 selectors; to create it: "
        "instaslice rewrite --with-templates FILE | kubectl apply --namespace ml -f -"
    )
    assert api_server.objects == {}
    assert counted(metrics, "beyond_bound") == 1


def test_only_names_are_remembered(start: Start) -> None:
    """The templates of 4,141 pods of 17 KB take more than 512 MiB."""
    maker = start(replace(ONCE, template_patience=0.0), Answering(*[Answer(500, {})] * 100_000))
    tail = "1" * 40
    for number in range(20):  # short names come first
        maker.ensure("ml", hostile(number), V1, may_wait=True)
    tracemalloc.start()
    for number in range(150):
        new = placed([f"{number + 1}{tail}g.{n + 1}gb" for n in range(64)], alternatives=8)
        maker.ensure("ml", [new], V1, may_wait=True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * 1024 * 1024


# -- with the webhook ----------------------------------------------------------------------------


@settings(
    max_examples=settings().max_examples // 8,
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
    api_server.objects.clear()  # all examples share the server
    metrics = Metrics()
    maker = TemplateMaker(cluster, metrics, MIG, Limits())
    maker.start()
    app = Webhook(lambda: V1, metrics, maker.ensure)
    body = json.dumps(load("create", name)).encode()
    for fault in [*faults, None]:
        api_server.fault = FAULTS[fault] if fault else None
        answer = call(app, "POST", "/mutate", body).json()
        assert answer["response"]["allowed"]
        assert answer["response"]["patch"]
    maker.stop()


def test_in_a_cluster_the_version_is_found_and_templates_are_created(
    serving: Serving, api_server: APIServer, reached: list[str]
) -> None:
    api_server.versions = []
    options = ["--resource-api", "auto", "--provision-templates", *reached]
    limits = {"discovery": (300.0, 0.1, 0.1)}
    with serving(*options, limits=limits) as process:
        until(lambda: b"does not serve" in process.call("GET", "/readyz")[1])
        assert process.call("GET", "/readyz")[0] == 200
        assert process.metric('instaslice_resource_api_info{version="none"}') == 1
        api_server.versions = ["v1"]
        until(lambda: process.call("GET", "/readyz")[1] == b"ok, resource.k8s.io/v1\n")
        response = json.loads(process.call("POST", "/mutate", SAMPLE)[1])["response"]
        assert response["allowed"]
        until(lambda: api_server.created("ResourceClaimTemplate") == ["default/mig-1g.5gb"])
        created = 'instaslice_template_creations_total{outcome="created"}'
        until(lambda: process.metric(created) == 1)
        response = json.loads(process.call("POST", "/mutate", SAMPLE)[1])["response"]
        assert "warnings" not in response
