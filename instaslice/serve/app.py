"""The WSGI application (PEP 3333): routes, limits, status codes.

What is wrong with a *call* is an HTTP status and a line of text; what is wrong with a *pod* is a
status of 200 and a denial inside the AdmissionReview. A fault of InstaSlice's own is a denial too,
never a 500: the webhook fails closed, and says so.
"""

import logging
import re
import traceback
from collections.abc import Callable, Iterable
from time import perf_counter
from typing import Any, Final, Protocol
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CONTENT_TYPE_LATEST

from instaslice import review
from instaslice.cluster.discovery import Unknown
from instaslice.resource_api import ResourceAPI, Unavailable
from instaslice.resources import MIG, Resources
from instaslice.serve.http import MAY_WAIT, PEER, TEXT
from instaslice.serve.judge import Answer, BadCall, Decide, decide
from instaslice.serve.limits import Limits
from instaslice.serve.metrics import Metrics
from instaslice.templates import DeviceClaim

MAX_BODY: Final = Limits().body
LIGHT: Final = Limits().light

_log = logging.getLogger("instaslice")

_JSON: Final = ("Content-Type", "application/json")
_IS_JSON: Final = re.compile(r"\s*application/json\s*(;.*)?", re.IGNORECASE).fullmatch


class Provisioner(Protocol):
    """Makes the templates that pods need."""

    def ensure(
        self, namespace: str, claims: Iterable[DeviceClaim], api: ResourceAPI, may_wait: bool
    ) -> list[str]:
        """Make what is missing, as far as time allows; returns warnings for the pod's author.

        Raises MustWait where that could take time, and may not.
        """


class MustWait(Exception):
    """The answer must wait for the API server, and may not: ask again where that stops nobody."""


def _info(message: str, fields: dict[str, Any]) -> None:
    _log.info(message, extra={"fields": fields})


class Webhook:
    """InstaSlice as a WSGI application.

    resource_api: tells, at each request, which version of resource.k8s.io the cluster serves.
    metrics: what to count in, and what /metrics shows.
    provisioner: makes templates at admission; None makes none.
    resources: the extended resources that are rewritten.
    decide_large: decides on bodies of over Limits.light.
    log: takes a message and what it is about.
    callers: names of which the caller's certificate must have one; any certificate will do where it
    is empty, and none is needed where it is None. The kubelet's probes, and metrics, need none.
    """

    def __init__(
        self,
        resource_api: Callable[[], ResourceAPI | Unavailable],
        metrics: Metrics,
        provisioner: Provisioner | None = None,
        callers: frozenset[str] | None = None,
        resources: Resources = MIG,
        decide_large: Decide = decide,
        log: Callable[[str, dict[str, Any]], None] = _info,
    ) -> None:
        self._resource_api = resource_api
        self._metrics = metrics
        self._provisioner = provisioner
        self._callers = callers
        self._resources = resources
        self._decide_large = decide_large
        self._log = log
        self._routes: dict[str, dict[str, Callable[[WSGIEnvironment], Answer]]] = {
            "/mutate": {"POST": self._mutate},
            "/healthz": {"GET": self._healthz, "HEAD": self._healthz},
            "/readyz": {"GET": self._readyz, "HEAD": self._readyz},
            "/metrics": {"GET": self._show_metrics, "HEAD": self._show_metrics},
        }

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """Answer a request."""
        try:
            status, headers, body = self._route(environ)(environ)
        except BadCall as bad:
            status, headers, body = bad.answer
            self._metrics.count_bad_call()
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _route(self, environ: WSGIEnvironment) -> Callable[[WSGIEnvironment], Answer]:
        methods = self._routes.get(environ.get("PATH_INFO", ""))
        if methods is None:
            raise BadCall("404 Not Found", f"there are only {', '.join(self._routes)}")
        try:
            return methods[environ["REQUEST_METHOD"]]
        except KeyError:
            allowed = ", ".join(methods)
            raise BadCall(
                "405 Method Not Allowed", f"only {allowed} here", ("Allow", allowed)
            ) from None

    def _mutate(self, environ: WSGIEnvironment) -> Answer:
        if self._callers is not None:
            _check_caller(environ.get(PEER), self._callers)
        body = _read_body(environ)
        may_wait = environ.get(MAY_WAIT, True)
        start = perf_counter()
        with self._metrics.in_flight:
            request, verdict = self._judge(body, may_wait)
            warnings: list[str] = []
            if verdict.rewrite.claims:
                verdict, warnings = self._provide(request, verdict, may_wait)
        answer = review.respond(request, verdict, warnings)
        seconds = perf_counter() - start
        self._metrics.duration.observe(seconds)
        self._metrics.count(request.operation, verdict.outcome, verdict.rewrite.claims)
        if verdict.outcome != "unchanged":
            self._log(verdict.outcome, _told(request, verdict, seconds))
        return "200 OK", [_JSON], answer

    def _judge(self, body: bytes, may_wait: bool) -> tuple[review.Request, review.Verdict]:
        """The request in a body, and the verdict on it. Raises BadCall, MustWait."""
        settle = self._decide_large if len(body) > LIGHT else decide
        api = self._resource_api()
        request, verdict = settle(body, api, self._resources)
        is_unavailable = isinstance(verdict, review.Verdict) and verdict.outcome == "unavailable"
        if is_unavailable and isinstance(api, Unknown) and api.is_expected():
            if not may_wait:
                raise MustWait
            api.wait()
            request, verdict = settle(body, self._resource_api(), self._resources)
        return request, _failed(request, verdict) if isinstance(verdict, str) else verdict

    def _provide(
        self, request: review.Request, verdict: review.Verdict, may_wait: bool
    ) -> tuple[review.Verdict, list[str]]:
        """Make what a pod needs; the verdict after it, and warnings. Raises MustWait."""
        api, claims = self._resource_api(), verdict.rewrite.claims
        if self._provisioner is None or request.dry_run or not isinstance(api, ResourceAPI):
            return verdict, []
        try:
            return verdict, self._provisioner.ensure(request.namespace, claims, api, may_wait)
        except MustWait:
            raise
        except Exception:
            return _failed(request, traceback.format_exc()), []

    def _healthz(self, environ: WSGIEnvironment) -> Answer:
        return "200 OK", [TEXT], b"ok\n"

    def _readyz(self, environ: WSGIEnvironment) -> Answer:
        """Ready is who knows the answer, be it a refusal.

        Without an endpoint the API server could not ask, and the user would read "failed calling
        webhook" in place of the reason.
        """
        api = self._resource_api()
        if isinstance(api, Unknown):
            return "503 Service Unavailable", [TEXT], f"{api.reason}\n".encode()
        if isinstance(api, Unavailable):
            text = f"ok, and pods that ask for devices are refused: {api.reason}\n"
            return "200 OK", [TEXT], text.encode()
        return "200 OK", [TEXT], f"ok, resource.k8s.io/{api.version}\n".encode()

    def _show_metrics(self, environ: WSGIEnvironment) -> Answer:
        return "200 OK", [("Content-Type", CONTENT_TYPE_LATEST)], self._metrics.show()


def _failed(request: review.Request, reason: str) -> review.Verdict:
    """A denial, for an error of our own. reason: its traceback."""
    fields = {**_subject(request), "traceback": reason}
    _log.error("an admission failed", extra={"fields": fields})
    message = "InstaSlice hit an internal error; see its log"
    return review.Verdict("failed", status=review.failure(500, "InternalError", message))


def _check_caller(certificate: Any, names: frozenset[str]) -> None:
    """Raises BadCall unless a certificate is there, for one of the names if there are any."""
    if not certificate:
        raise BadCall("403 Forbidden", "the caller shows no certificate")
    # Not in any field: an authority may let others choose an organization or an e-mail address.
    subject = [field for part in certificate.get("subject", ()) for field in part]
    theirs = {value for field, value in subject if field == "commonName"}
    theirs |= {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
    if names and names.isdisjoint(theirs):
        raise BadCall("403 Forbidden", "the caller's certificate has none of the names let in")


def _read_body(environ: WSGIEnvironment) -> bytes:
    """The request's body of at most MAX_BODY bytes. Raises BadCall."""
    media_type = environ.get("CONTENT_TYPE", "")
    if media_type != "application/json" and not _IS_JSON(media_type):
        raise BadCall("415 Unsupported Media Type", "the Content-Type is not application/json")
    declared: str = environ.get("CONTENT_LENGTH", "")
    if not declared:
        raise BadCall("411 Length Required", "there is no Content-Length")
    if not (declared.isascii() and declared.isdecimal()):
        raise BadCall("400 Bad Request", "the Content-Length is not a number")
    if len(declared) > len(str(MAX_BODY)) or int(declared) > MAX_BODY:
        raise BadCall("413 Content Too Large", f"the body is over {MAX_BODY} bytes")
    body: bytes = environ["wsgi.input"].read(int(declared))
    if len(body) < int(declared):
        message = f"the body ends after {len(body)} of {declared} bytes"
        raise BadCall("400 Bad Request", message)
    return body


def _subject(request: review.Request) -> dict[str, Any]:
    """Which pod a log line is about; what users typed is cut to what Kubernetes allows of it."""
    return {
        "operation": request.operation[:63],
        "namespace": request.namespace[:63],
        "name": request.name[:253],
        "uid": request.uid[:63],
    }


def _told(request: review.Request, verdict: review.Verdict, seconds: float) -> dict[str, Any]:
    """What the log says of an admission."""
    fields = _subject(request)
    if request.dry_run:
        fields["dryRun"] = True
    claims = verdict.rewrite.claims
    if claims:
        fields["templates"] = [claim.template for claim in claims]
        fields["claims"] = sum(claims.values())
    if verdict.status is not None:
        fields["reason"] = verdict.status["message"][:1000]
    fields["milliseconds"] = round(seconds * 1000, 3)
    return fields
