"""The WSGI application (PEP 3333): routes, limits, status codes.

What is wrong with a *call* is an HTTP status and a line of text; what is wrong with a *pod* is a
status of 200 and a denial inside the AdmissionReview. A fault of InstaSlice's own is a denial too,
never a 500: the webhook fails closed, and says so.
"""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from json import JSONDecodeError, JSONDecoder
from time import perf_counter
from typing import Any, Final, Protocol
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CONTENT_TYPE_LATEST

from instaslice import review
from instaslice.cluster.discovery import Unknown
from instaslice.resource_api import ResourceAPI, Unavailable
from instaslice.resources import MIG, Resources
from instaslice.serve.http import MAY_WAIT, PEER, TEXT, Headers
from instaslice.serve.limits import Limits
from instaslice.serve.metrics import Metrics
from instaslice.templates import DeviceClaim

MAX_BODY: Final = Limits().body

#: What a decoded review may take, in bytes: any object of 3 MiB, whatever it holds, and two of them
#: that are not mostly brackets. A body grows by DENSEST at most; it is counted only where it might
#: grow to more than this.
MAX_DECODED: Final = 160 * 1024 * 1024
#: Bytes for two of the body at most, lists in lists, in CPython: a list of one, 104.
DENSEST: Final = 52
#: Bytes of each in CPython 3.11 to 3.13, its place in another list or object included.
_LIST: Final = 104
_OBJECT: Final = 232
_EMPTY: Final = 88

_log = logging.getLogger("instaslice")

Answer = tuple[str, Headers, bytes]
_JSON: Final = ("Content-Type", "application/json")


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


class BadCall(Exception):
    """A call that cannot be answered with a review, and its HTTP status ("400 Bad Request")."""

    def __init__(self, status: str, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(message)
        self.answer: Answer = (status, [TEXT, *headers], f"{message}\n".encode())


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


# Python's decoder takes NaN and Infinity by default, which RFC 8259 does not have.
_decode: Final = JSONDecoder(parse_constant=_refuse_constant).decode


class Webhook:
    """InstaSlice as a WSGI application.

    resource_api: tells, at each request, which version of resource.k8s.io the cluster serves.
    metrics: what to count in, and what /metrics shows.
    provisioner: makes templates at admission; None makes none.
    resources: the extended resources that are rewritten.
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
    ) -> None:
        self._resource_api = resource_api
        self._metrics = metrics
        self._provisioner = provisioner
        self._callers = callers
        self._resources = resources
        self._large = threading.Lock()
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
        chunks = _send(start_response, status, headers, body)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else chunks

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
            # Decoded, a large one may take 200 MiB: so one at a time.
            with self._large if len(body) > Limits().light else contextlib.nullcontext():
                request = parse(body)
                verdict = self._judge(request, may_wait)
            warnings: list[str] = []
            if verdict.rewrite.claims:
                verdict, warnings = self._provide(request, verdict, may_wait)
        answer = review.respond(request, verdict, warnings)
        seconds = perf_counter() - start
        self._metrics.duration.observe(seconds)
        self._metrics.count(request.operation, verdict.outcome, verdict.rewrite.claims)
        if verdict.outcome != "unchanged":
            _log.info(verdict.outcome, extra={"fields": _told(request, verdict, seconds)})
        return "200 OK", [_JSON], answer

    def _judge(self, request: review.Request, may_wait: bool) -> review.Verdict:
        """The verdict on a request, whatever happens. Raises MustWait."""
        try:
            api = self._resource_api()
            verdict = review.judge(request, api, self._resources)
            if verdict.outcome == "unavailable" and isinstance(api, Unknown) and api.is_expected():
                if not may_wait:
                    raise MustWait
                api.wait()
                verdict = review.judge(request, self._resource_api(), self._resources)
        except MustWait:
            raise
        except Exception:
            verdict = _failed(request)
        # Nobody needs the pod while templates are waited for.
        request.pod.clear()
        return verdict

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
            return _failed(request), []

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


def _send(start_response: StartResponse, status: str, headers: Headers, body: bytes) -> list[bytes]:
    start_response(status, [*headers, ("Content-Length", str(len(body)))])
    return [body]


def _failed(request: review.Request) -> review.Verdict:
    """A denial, for the exception that is being handled."""
    _log.exception("an admission failed", extra={"fields": _subject(request)})
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
    media_type = str(environ.get("CONTENT_TYPE", "")).partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise BadCall("415 Unsupported Media Type", "the Content-Type is not application/json")
    declared = environ.get("CONTENT_LENGTH") or ""
    stream: Any = environ["wsgi.input"]
    if declared:
        if not (declared.isascii() and declared.isdecimal()):
            raise BadCall("400 Bad Request", "the Content-Length is not a number")
        # Compared as digits: int() of a header of thousands of them would cost or fail.
        digits = declared.lstrip("0") or "0"
        if len(digits) > len(str(MAX_BODY)) or int(digits) > MAX_BODY:
            raise _too_large()
        body: bytes = stream.read(int(digits))
        if len(body) < int(digits):
            raise BadCall("400 Bad Request", f"the body ends after {len(body)} of {digits} bytes")
        return body
    if not environ.get("wsgi.input_terminated"):
        raise BadCall("411 Length Required", "there is no Content-Length")
    body = stream.read(MAX_BODY + 1)
    if len(body) > MAX_BODY:
        raise _too_large()
    return body


def _too_large() -> BadCall:
    return BadCall("413 Content Too Large", f"the body is over {MAX_BODY} bytes")


def parse(body: bytes) -> review.Request:
    """The review that a body holds. Raises BadCall."""
    if len(body) * DENSEST > MAX_DECODED and estimate(body) > MAX_DECODED:
        raise BadCall("413 Content Too Large", "the body holds too many lists and objects")
    try:
        return review.read(_decode(body.decode()))
    except review.BadReview as bad:
        raise BadCall("400 Bad Request", str(bad)) from None
    except UnicodeDecodeError as bad:
        raise BadCall("400 Bad Request", f"byte {bad.start} of the body is not UTF-8") from None
    except JSONDecodeError as bad:
        where = f"line {bad.lineno}, column {bad.colno}"
        raise BadCall("400 Bad Request", f"the body is not JSON: {bad.msg}: {where}") from None
    except RecursionError:
        raise BadCall("400 Bad Request", "the body is nested too deeply") from None
    except ValueError as bad:  # NaN, or a number of more digits than Python reads
        raise BadCall("400 Bad Request", f"the body is not JSON: {bad}") from None


def estimate(body: bytes) -> int:
    """The bytes that JSON's lists and objects take when they are decoded, at most.

    Brackets in strings count, too: to tell them apart would take as long as decoding.
    """
    empty = body.count(b"[]") + body.count(b"{}")
    lists, objects = body.count(b"[") - body.count(b"[]"), body.count(b"{") - body.count(b"{}")
    return _LIST * lists + _OBJECT * objects + _EMPTY * empty


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
