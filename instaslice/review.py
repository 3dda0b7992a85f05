"""Reads an AdmissionReview request, judges its pod, and formats the response.

Source: `k8s.io/api/admission/v1` and "Dynamic Admission Control" in Kubernetes' documentation. The
caller creates templates, which needs I/O, between the last two steps.
"""

from binascii import b2a_base64
from collections.abc import Iterator
from json import JSONEncoder
from typing import Final, NamedTuple

from instaslice import node_labels
from instaslice.annotations import annotate
from instaslice.invalid import InvalidPod, Notice, invalid, printable, shorten
from instaslice.own_claims import restore
from instaslice.patch import Json
from instaslice.resource_api import NEWEST, ResourceAPI, Unavailable
from instaslice.resources import MAX_NAME, MIG, Resources, is_label
from instaslice.rewrite import Rewrite, rewrite

API_VERSION: Final = "admission.k8s.io/v1"

#: The output is ASCII, so that user input cannot break a line of the answer or the log.
_encode: Final = JSONEncoder(separators=(",", ":"), check_circular=False).encode
_HEAD: Final = f'{{"apiVersion":"{API_VERSION}","kind":"AdmissionReview","response":'

#: The API server sets a review's uid to a UUID, which is shorter.
MAX_UID: Final = 63

#: The operations in which pods are judged; others are allowed.
_JUDGED: Final = ("CREATE", "UPDATE")


class BadReview(ValueError):
    """The call has no AdmissionReview that can be answered; `str()` says why."""


class Request(NamedTuple):
    """The fields of an AdmissionReview's request that InstaSlice reads."""

    uid: str
    operation: str  #: "CREATE", "UPDATE", or another, which is allowed
    namespace: str  #: may be user input, like the name
    name: str  #: the pod's name, or its generateName
    dry_run: bool
    is_pod: bool  #: a v1 Pod, and not one of its subresources
    pod: Json
    old_pod: Json


#: The outcomes of an admission, as the metrics count them.
OUTCOMES: Final = (
    "rewritten",  # limits became claims
    "restored",  # limits that an update brought back were removed
    "unchanged",  # nothing to do
    "denied",  # the pod is invalid
    "unavailable",  # the cluster serves no usable resource.k8s.io
    "failed",  # InstaSlice hit an internal error
)


class Verdict(NamedTuple):
    """The decision on a pod."""

    outcome: str  #: one of OUTCOMES
    rewrite: Rewrite = Rewrite([], {}, [], [])
    status: Json | None = None  #: metav1.Status of a refusal


def read(review: object) -> Request:
    """Read a decoded AdmissionReview. Raises BadReview."""
    if not isinstance(review, dict) or review.get("kind") != "AdmissionReview":
        raise BadReview("the body is not an AdmissionReview")
    if review.get("apiVersion") != API_VERSION:
        raise BadReview(f"the AdmissionReview's apiVersion is not {API_VERSION}")
    request = _object(review, "request", "request")
    uid, operation = _text(request.get("uid")), _text(request.get("operation"))
    if not uid:
        raise BadReview("request.uid is missing")
    if len(uid) > MAX_UID:
        raise BadReview(f"request.uid is longer than {MAX_UID} characters")
    if not operation:
        raise BadReview("request.operation is missing")
    kind = _object(request, "kind", "request.kind")
    is_pod = kind.get("kind") == "Pod" and not kind.get("group") and not request.get("subResource")
    pod = _object(request, "object", "request.object") if operation in _JUDGED else {}
    old_pod = _object(request, "oldObject", "request.oldObject") if operation == "UPDATE" else {}
    name = _text(request.get("name"))
    if not name and isinstance(metadata := pod.get("metadata"), dict):
        name = _text(metadata.get("generateName"))
    namespace, dry_run = _text(request.get("namespace")), request.get("dryRun") is True
    return Request(uid, operation, namespace, name, dry_run, is_pod, pod, old_pod)


def judge(request: Request, api: ResourceAPI | Unavailable, resources: Resources = MIG) -> Verdict:
    """Decide what to do with the pod."""
    if request.operation not in _JUDGED or not request.is_pod:
        return Verdict("unchanged")
    if request.operation == "UPDATE":
        operations = restore(request.pod, request.old_pod, resources)
        outcome = "restored" if operations else "unchanged"
        return Verdict(outcome, Rewrite(operations, {}, [], []))
    try:
        return _judge_create(request, api, resources)
    except InvalidPod as refusal:
        causes = [
            {"reason": e.reason, "message": printable(e.message), "field": printable(e.field)}
            for e in refusal.errors
        ]
        status = failure(422, "Invalid", str(refusal))
        name = printable(request.name[:MAX_NAME])
        status["details"] = {"kind": "Pod", "name": name, "causes": causes}
        return Verdict("denied", status=status)


def respond(request: Request, verdict: Verdict, warnings: list[str]) -> bytes:
    """Format the AdmissionReview that answers a request, as JSON.

    warnings: more lines for kubectl to show, after those of the verdict.
    """
    # The encoder is slow to start, so it gets only what may need escaping.
    members = [
        f'"uid":{_encode(request.uid)}',
        f'"allowed":{"true" if verdict.status is None else "false"}',
    ]
    if verdict.status is not None:
        members.append(f'"status":{_encode(verdict.status)}')
    if said := [*verdict.rewrite.warnings, *warnings]:
        members.append(f'"warnings":{_encode(list(map(printable, said)))}')
    if verdict.rewrite.operations:
        patch = b2a_base64(_encode(verdict.rewrite.operations).encode(), newline=False).decode()
        members.append(f'"patchType":"JSONPatch","patch":"{patch}"')
        # The audit log counts new claims by template: "mig-1g.5gb=2,mig-3g.20gb.x2=1".
        claims = verdict.rewrite.claims.items()
        summary = _encode(",".join([f"{claim.template}={n}" for claim, n in claims]))
        members.append(f'"auditAnnotations":{{"{verdict.outcome}":{summary}}}')
    return f"{_HEAD}{{{','.join(members)}}}}}".encode()


def failure(code: int, reason: str, message: str) -> Json:
    """Make a metav1.Status that refuses the request."""
    return {"status": "Failure", "code": code, "reason": reason, "message": printable(message)}


def _judge_create(
    request: Request, api: ResourceAPI | Unavailable, resources: Resources
) -> Verdict:
    if request.namespace and not is_label(request.namespace):  # it becomes part of URL paths
        detail = "is not the name of a namespace"
        raise InvalidPod(invalid(("metadata", "namespace"), request.namespace, detail))
    usable = api if isinstance(api, ResourceAPI) else NEWEST
    result = rewrite(request.pod, usable, resources)
    if result.claims and isinstance(api, Unavailable):
        message = f"the pod's devices cannot be claimed: {api.reason}"
        return Verdict("unavailable", status=failure(503, "ServiceUnavailable", message))
    if result.requested:
        result.operations.extend(annotate(request.pod, result.requested))
        result.notices.extend(_chosen_nodes(request.pod["spec"], usable))
    return Verdict("rewritten" if result.operations else "unchanged", result)


def _chosen_nodes(spec: Json, api: ResourceAPI) -> Iterator[Notice]:
    """Notices for a pod that sets nodeName, or selects nodes by the device plugin's labels."""
    if spec.get("nodeName") and not api.is_classic:  # in v1alpha2 the driver's controller allocates
        yield Notice("spec.nodeName", node_labels.PAST_SCHEDULER)
    chooses = spec.get("nodeSelector") or spec.get("affinity")
    for each in node_labels.selected(spec) if chooses else ():
        then = "the pod may fit none" if each.is_required else "the preference may fit none"
        label = shorten(str(each))
        yield Notice(f"spec.{each.path}", f"nodes with the DRA driver may lack {label}; {then}")


def _object(holder: Json, key: str, path: str) -> Json:
    value = holder.get(key)
    if not isinstance(value, dict):
        raise BadReview(f"{path} is not an object")
    return value


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
