"""The WSGI application (PEP 3333): routes and status codes.

A bad *call* gets an HTTP status and a line of text. A bad *pod* gets status 200 and a denial inside
the AdmissionReview. An internal error is a denial too, never a 500, so its author reads the reason.
"""

import logging
import re
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CONTENT_TYPE_LATEST

from instaslice import review
from instaslice.cluster.discovery import Unknown
from instaslice.resource_api import ResourceAPI, Unavailable
from instaslice.resources import MIG, Resources
from instaslice.serve.http import LAST, MAY_WAIT, PEER, TEXT
from instaslice.serve.judge import Answer, BadCall, Decide, decide
from instaslice.serve.limits import Limits
from instaslice.serve.metrics import Metrics
from instaslice.templates import DeviceClaim

_log = logging.getLogger("instaslice")

_JSON: Final = ("Content-Type", "application/json")
_IS_JSON: Final = re.compile(r"\s*application/json\s*(;.*)?", re.IGNORECASE).fullmatch


#: Creates the templates of a pod in a namespace, as far as time allows; returns warnings for its
#: author. Raises MustWait if that could take time and the last argument, whether it may, is false.
Ensure = Callable[[str, Iterable[DeviceClaim], ResourceAPI, bool], list[str]]


class MustWait(Exception):
    """The answer has to wait for the API server: ask again on a thread that may wait."""


def _info(message: str, fields: dict[str, Any]) -> None:
    _log.info(message, extra={"fields": fields})


@dataclass(eq=False)
class Webhook:
    """InstaSlice as a WSGI application."""

    #: Returns the version of resource.k8s.io that is served; called for each request.
    resource_api: Callable[[], ResourceAPI | Unavailable]
    metrics: Metrics  #: counts admissions, and is shown by /metrics
    ensure: Ensure | None = None  #: None creates no templates
    #: The caller's certificate must carry one of these names; if empty, any verified certificate
    #: will do; if None, no certificate is needed. Probes and /metrics never need one.
    callers: frozenset[str] | None = None
    resources: Resources = MIG  #: those that are rewritten
    decide_large: Decide = decide  #: decides on bodies of more than `limits.light` bytes
    log: Callable[[str, dict[str, Any]], None] = _info  #: takes a message and its fields
    limits: Limits = field(default_factory=Limits)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
        """Answer a request."""
        try:
            status, headers, body = _route(environ)(self, environ)
        except BadCall as bad:
            status, headers, body = bad.answer
            self.metrics.bad_calls.inc()
        if status != "200 OK" or environ["REQUEST_METHOD"] != "POST":
            # Only the API server needs to keep connections. Others pay a handshake per request.
            environ[LAST] = True
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _mutate(self, environ: WSGIEnvironment) -> Answer:
        if self.callers is not None:
            _check_caller(environ.get(PEER), self.callers)
        body = _read_body(environ, self.limits.body)
        may_wait = environ.get(MAY_WAIT, True)
        start = perf_counter()
        with self.metrics.in_flight:
            request, verdict = self._judge(body, may_wait)
            warnings: list[str] = []
            if verdict.rewrite.claims:
                verdict, warnings = self._provide(request, verdict, may_wait)
        answer = review.respond(request, verdict, warnings)
        seconds = perf_counter() - start
        self.metrics.duration.observe(seconds)
        self.metrics.count(request.operation, verdict.outcome, verdict.rewrite.claims)
        if verdict.outcome != "unchanged":
            self.log(verdict.outcome, _log_fields(request, verdict, seconds))
        return "200 OK", [_JSON], answer

    def _judge(self, body: bytes, may_wait: bool) -> tuple[review.Request, review.Verdict]:
        """Read the request in a body and decide on it. Raises BadCall and MustWait."""
        decide_on = self.decide_large if len(body) > self.limits.light else decide
        api = self.resource_api()
        request, verdict = decide_on(body, api, self.resources)
        is_unavailable = isinstance(verdict, review.Verdict) and verdict.outcome == "unavailable"
        if is_unavailable and isinstance(api, Unknown) and api.is_expected():
            if not may_wait:
                raise MustWait
            api.wait()
            request, verdict = decide_on(body, self.resource_api(), self.resources)
        return request, _failed(request, verdict) if isinstance(verdict, str) else verdict

    def _provide(
        self, request: review.Request, verdict: review.Verdict, may_wait: bool
    ) -> tuple[review.Verdict, list[str]]:
        """Create what a pod needs; returns the final verdict and warnings. Raises MustWait."""
        api, claims = self.resource_api(), verdict.rewrite.claims
        if self.ensure is None or request.dry_run or not isinstance(api, ResourceAPI):
            return verdict, []
        try:
            return verdict, self.ensure(request.namespace, claims, api, may_wait)
        except MustWait:
            raise
        except Exception:
            return _failed(request, traceback.format_exc()), []

    def _healthz(self, environ: WSGIEnvironment) -> Answer:
        return "200 OK", [TEXT], b"ok\n"

    def _readyz(self, environ: WSGIEnvironment) -> Answer:
        """Report ready as soon as pods can be answered, even if the answer is a denial.

        A pod that is not ready gets no calls, so users would read "failed calling webhook" in place
        of the reason.
        """
        api = self.resource_api()
        if isinstance(api, Unknown):
            return "503 Service Unavailable", [TEXT], f"{api.reason}\n".encode()
        if isinstance(api, ResourceAPI):
            return "200 OK", [TEXT], f"ok, resource.k8s.io/{api.version}\n".encode()
        text = f"ok, and pods that ask for devices are refused: {api.reason}\n"
        return "200 OK", [TEXT], text.encode()

    def _show_metrics(self, environ: WSGIEnvironment) -> Answer:
        return "200 OK", [("Content-Type", CONTENT_TYPE_LATEST)], self.metrics.show()


#: The methods of each path, and the function that answers.
_ROUTES: Final[dict[str, tuple[str, Callable[[Webhook, WSGIEnvironment], Answer]]]] = {
    "/mutate": ("POST", Webhook._mutate),
    "/healthz": ("GET, HEAD", Webhook._healthz),
    "/readyz": ("GET, HEAD", Webhook._readyz),
    "/metrics": ("GET, HEAD", Webhook._show_metrics),
}


def _route(environ: WSGIEnvironment) -> Callable[[Webhook, WSGIEnvironment], Answer]:
    """The function that answers a request. Raises BadCall."""
    path = environ.get("PATH_INFO", "")
    if path not in _ROUTES:
        raise BadCall("404 Not Found", f"there are only {', '.join(_ROUTES)}")
    methods, answer = _ROUTES[path]
    if environ["REQUEST_METHOD"] not in methods.split(", "):
        raise BadCall("405 Method Not Allowed", f"only {methods} here", ("Allow", methods))
    return answer


def _failed(request: review.Request, reason: str) -> review.Verdict:
    """Deny a pod because of an internal error. reason: its traceback."""
    fields = {**_subject(request), "traceback": reason}
    _log.error("an admission failed", extra={"fields": fields})
    message = "InstaSlice hit an internal error; see its log"
    return review.Verdict("failed", status=review.failure(500, "InternalError", message))


def _check_caller(certificate: Any, names: frozenset[str]) -> None:
    """Raises BadCall unless the certificate exists and carries one of the names, if any."""
    if not certificate:
        raise BadCall("403 Forbidden", "the caller shows no certificate")
    # Other fields do not count: an authority may let the caller choose its organization or e-mail.
    subject = [field for part in certificate.get("subject", ()) for field in part]
    theirs = {value for field, value in subject if field == "commonName"}
    theirs |= {value for kind, value in certificate.get("subjectAltName", ()) if kind == "DNS"}
    if names and names.isdisjoint(theirs):
        raise BadCall("403 Forbidden", "the caller's certificate has none of the names let in")


def _read_body(environ: WSGIEnvironment, bound: int) -> bytes:
    """The request's body of at most `bound` bytes. Raises BadCall."""
    media_type = environ.get("CONTENT_TYPE", "")
    if media_type != "application/json" and not _IS_JSON(media_type):
        raise BadCall("415 Unsupported Media Type", "the Content-Type is not application/json")
    declared: str = environ.get("CONTENT_LENGTH", "")
    if not declared:
        raise BadCall("411 Length Required", "there is no Content-Length")
    if not (declared.isascii() and declared.isdecimal()):
        raise BadCall("400 Bad Request", "the Content-Length is not a number")
    if len(declared) > len(str(bound)) or int(declared) > bound:
        raise BadCall("413 Content Too Large", f"the body is over {bound} bytes")
    body: bytes = environ["wsgi.input"].read(int(declared))
    if len(body) < int(declared):
        raise BadCall("400 Bad Request", f"the body ends after {len(body)} of {declared} bytes")
    return body


def _subject(request: review.Request) -> dict[str, Any]:
    """The pod that a log line is about, each field cut to the length that Kubernetes allows."""
    return {
        "operation": request.operation[:63],
        "namespace": request.namespace[:63],
        "name": request.name[:253],
        "uid": request.uid[:63],
    }


def _log_fields(request: review.Request, verdict: review.Verdict, seconds: float) -> dict[str, Any]:
    """The fields of an admission's log line."""
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
