import copy
import json
import re
from collections import Counter
from typing import Any

import pytest

from instaslice import review
from instaslice.resource_api import VERSIONS, ResourceAPI, Unavailable
from test.support.reviews import CREATE, UPDATE, Json, apply, load, patch_of, pod_review

UUID4 = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


def answer(
    recorded: Json, api: ResourceAPI | Unavailable = VERSIONS["v1"]
) -> tuple[review.Verdict, Json]:
    request = review.read(recorded)
    verdict = review.judge(request, api)
    return verdict, json.loads(review.respond(request, verdict, []))


def numbered(value: Any, names: dict[str, str]) -> Any:
    """Replace each claim's UUID in a value by its number, in order of appearance."""
    if isinstance(value, dict):
        return {key: numbered(member, names) for key, member in value.items()}
    if isinstance(value, list):
        return [numbered(member, names) for member in value]
    if isinstance(value, str) and re.fullmatch(UUID4, value):
        return names.setdefault(value, f"#{len(names) + 1}")
    return value


#: The templates of the claims of each recorded pod that is rewritten.
REWRITTEN: dict[str, list[str]] = {
    **{name: ["mig-1g.5gb"] for name in ("sample", "dry", "one", "notebook-0")},
    "job": ["mig-2g.10gb"],
    "me": ["mig-1g.5gb.me"],
    "deployment": ["mig-3g.20gb"],
    "two-containers": ["mig-1g.5gb", "mig-3g.20gb"],
    "two-profiles": ["mig-1g.5gb", "mig-2g.10gb"],
    "many": ["mig-1g.5gb"] * 20,
}


def rewritten(pod: Json, templates: list[str]) -> Json:
    """Replace the limits of the containers by claims, in order."""
    wanted = copy.deepcopy(pod)
    names = [f"#{i}" for i in range(1, len(templates) + 1)]
    wanted["spec"]["resourceClaims"] = [
        {"name": name, "resourceClaimTemplateName": template}
        for name, template in zip(names, templates, strict=True)
    ]
    said = []
    for container in wanted["spec"]["containers"]:
        resources, limits = {}, container["resources"].get("limits") or {}
        mig = [name for name in limits if name.startswith("nvidia.com/mig-")]
        for key in ("limits", "requests"):
            amounts = container["resources"].get(key) or {}
            resources[key] = {name: n for name, n in amounts.items() if name not in mig}
        container["resources"] = {key: amounts for key, amounts in resources.items() if amounts}
        if mig:
            said.append(f"{container['name']}: {', '.join(f'{k}={limits[k]}' for k in mig)}")
            container["resources"]["claims"] = [{"name": names.pop(0)} for _ in mig]
    annotations = wanted["metadata"].setdefault("annotations", {})
    annotations["instaslice.io/requested"] = "; ".join(said)
    return wanted


CAUSE = {
    "reason": "FieldValueInvalid",
    "message": 'Invalid value: "500m": must be an integer',
    "field": "spec.containers[0].resources.limits[nvidia.com/mig-1g.5gb]",
}
#: The other fields of the response, beside the uid and the patch.
RESPONSES: dict[str, Json] = {
    "fraction": {
        "allowed": False,
        "status": {
            "status": "Failure",
            "code": 422,
            "reason": "Invalid",
            "message": f"{CAUSE['field']}: {CAUSE['message']}",
            "details": {"kind": "Pod", "name": "fraction", "causes": [CAUSE]},
        },
    },
    "not-a-profile": {
        "allowed": True,
        "warnings": [
            "nvidia.com/mig-banana is left as it is: it is not a MIG profile such as mig-1g.5gb"
        ],
    },
    "zero": {"allowed": True},
    "many": {
        "allowed": True,
        "patchType": "JSONPatch",
        "auditAnnotations": {"rewritten": "mig-1g.5gb=20"},
    },
}


@pytest.mark.parametrize("name", CREATE)
def test_the_whole_response_to_each_recorded_creation(name: str) -> None:
    recorded = load("create", name)
    pod = copy.deepcopy(recorded["request"]["object"])
    _, answered = answer(recorded)

    assert set(answered) == {"apiVersion", "kind", "response"}
    assert answered["apiVersion"] == "admission.k8s.io/v1"
    assert answered["kind"] == "AdmissionReview"
    response = answered["response"]
    operations = patch_of(answered)
    wanted = rewritten(pod, REWRITTEN[name]) if name in REWRITTEN else pod
    names: dict[str, str] = {}
    patched = apply(operations, pod)
    numbered(patched["spec"].get("resourceClaims"), names)
    assert {**patched, "spec": numbered(patched["spec"], names)} == wanted
    assert response.pop("uid") == recorded["request"]["uid"]
    assert bool(response.pop("patch", None)) == bool(operations)
    counts = Counter(REWRITTEN.get(name, []))
    summary = ",".join(f"{template}={n}" for template, n in counts.items())
    usual: Json = {
        "allowed": True,
        "patchType": "JSONPatch",
        "auditAnnotations": {"rewritten": summary},
    }
    assert response == RESPONSES.get(name, usual)


@pytest.mark.parametrize("name", UPDATE)
def test_each_recorded_apply_gets_the_old_spec_back(name: str) -> None:
    recorded = load("update", name)
    request = recorded["request"]
    verdict, answered = answer(recorded)
    patched = apply(patch_of(answered), request["object"])
    assert patched["spec"] == request["oldObject"]["spec"]
    assert {**patched, "spec": None} == {**request["object"], "spec": None}
    assert verdict.outcome == "restored"
    assert {k: v for k, v in answered["response"].items() if k != "patch"} == {
        "uid": request["uid"],
        "allowed": True,
        "patchType": "JSONPatch",
        "auditAnnotations": {"restored": ""},
    }


def test_without_an_api_mig_pods_are_refused_and_others_pass() -> None:
    away = Unavailable("resource.k8s.io is not served")
    verdict, answered = answer(load("create", "sample"), away)
    assert verdict.outcome == "unavailable"
    assert answered["response"]["status"] == {
        "status": "Failure",
        "code": 503,
        "reason": "ServiceUnavailable",
        "message": "the pod's devices cannot be claimed: resource.k8s.io is not served",
    }
    assert not answered["response"]["allowed"]
    for name in ("not-a-profile", "zero"):
        assert answer(load("create", name), away)[1]["response"]["allowed"]
    for name in UPDATE:
        assert answer(load("update", name), away)[0].outcome == "restored"


MIG_POD: Json = {
    "spec": {"containers": [{"name": "a", "resources": {"limits": {"nvidia.com/mig-1g.5gb": "1"}}}]}
}


@pytest.mark.parametrize(
    "request_",
    [
        {"operation": "DELETE", "object": None, "oldObject": MIG_POD},
        {"operation": "CONNECT", "object": {"kind": "PodExecOptions"}},
        {"subResource": "ephemeralcontainers"},
        {"kind": {"group": "apps", "version": "v1", "kind": "Deployment"}},
        {"kind": {"group": "metrics.k8s.io", "version": "v1", "kind": "Pod"}},
    ],
)
def test_other_operations_and_objects_are_allowed(request_: Json) -> None:
    verdict, answered = answer(pod_review(MIG_POD, **request_))
    assert verdict.outcome == "unchanged"
    uid = "705ab4f5-6393-11e8-b7cc-42010a800002"
    assert answered["response"] == {"uid": uid, "allowed": True}


def test_the_name_is_the_pods_or_its_generate_name() -> None:
    pod = {**MIG_POD, "metadata": {"name": "web-0", "generateName": "web-"}}
    assert review.read(pod_review(pod, name="web-0")).name == "web-0"
    assert review.read(load("create", "deployment")).name == "vllm-7dd6ccdd8d-"


@pytest.mark.parametrize(
    ("value", "is_dry"), [(True, True), (False, False), (None, False), ("false", False)]
)
def test_dry_run_must_be_true(value: object, is_dry: bool) -> None:
    assert review.read(pod_review({}, dryRun=value)).dry_run is is_dry


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *((body, "the body is not an AdmissionReview") for body in (None, [1], "AdmissionReview")),
        ({"kind": "Pod"}, "the body is not an AdmissionReview"),
        (
            {"apiVersion": "admission.k8s.io/v1beta1"},
            "the AdmissionReview's apiVersion is not admission.k8s.io/v1",
        ),
        ({"request": None}, "request is not an object"),
        ({"request": {"uid": ""}}, "request.uid is missing"),
        ({"request": {"uid": 1}}, "request.uid is missing"),
        ({"request": {"uid": "u"}}, "request.operation is missing"),
        ({"request": {"uid": "u", "operation": "CREATE"}}, "request.kind is not an object"),
        (
            {"request": {"uid": "u", "operation": "CREATE", "kind": {}}},
            "request.object is not an object",
        ),
        (
            {"request": {"uid": "u", "operation": "UPDATE", "kind": {}, "object": {}}},
            "request.oldObject is not an object",
        ),
    ],
)
def test_a_malformed_review_is_refused(change: object, message: str) -> None:
    body: object = {**pod_review(MIG_POD), **change} if isinstance(change, dict) else change
    with pytest.raises(review.BadReview) as caught:
        review.read(body)
    assert str(caught.value) == message


def request_of(**fields: object) -> review.Request:
    return review.read(pod_review(MIG_POD, **fields))


def test_a_uid_is_short_and_a_namespace_may_be_missing() -> None:
    assert [request_of(namespace=each).namespace for each in ("", None)] == ["", ""]
    assert request_of(uid="u" * 63).uid == "u" * 63
    with pytest.raises(review.BadReview, match="is longer than 63 characters"):
        request_of(uid="u" * 64)


@pytest.mark.parametrize(
    "namespace", ["../kube-system", "ml/pods", "ML", "-ml", "ml?x", "m l", "é", "n" * 64]
)
def test_an_invalid_namespace_is_denied(namespace: str) -> None:
    verdict, answered = answer(pod_review(MIG_POD, namespace=namespace))
    assert verdict.outcome == "denied"
    message = answered["response"]["status"]["message"]
    assert message.startswith("metadata.namespace: Invalid value:")
    assert message.endswith("is not the name of a namespace")


TYPED = "n\x1b[31m\n\u2028\u00e9\ud800" + "x" * 300


def with_metadata(**metadata: Json | str) -> Json:
    return {"object": {**MIG_POD, "metadata": metadata}}


ODD = [{"nvidia.com/mig-" + TYPED: 1}, {"nvidia.com/mig-1g.5gb": TYPED}]


@pytest.mark.parametrize(
    "change",
    [
        {"name": TYPED},
        {"name": None, **with_metadata(generateName=TYPED)},
        {"namespace": TYPED},
        with_metadata(annotations={"instaslice.io/placement": TYPED}, name=TYPED),
        with_metadata(annotations={"instaslice.io/alternatives": TYPED}),
        {
            "object": {"spec": {"containers": [{"resources": {"limits": each}} for each in ODD]}},
            "name": TYPED,
        },
    ],
)
def test_answers_show_user_input_in_printable_ascii(change: Json) -> None:
    request = review.read(pod_review(MIG_POD, **change))
    verdict = review.judge(request, VERSIONS["v1"])
    answered = json.loads(review.respond(request, verdict, [TYPED]))["response"]
    said = [*answered["warnings"], json.dumps(answered.get("status"), ensure_ascii=False)]
    assert all(text.isascii() and text.isprintable() for text in said)
    assert len(said[-1]) < 2_000
