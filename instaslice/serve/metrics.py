"""The metrics of the serving process.

Every label has few values, whatever users type. Likely values exist from the start, so a rate over
them is zero instead of absent.
"""

import time
from typing import Any, Final, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from instaslice import __version__, profiles
from instaslice.resource_api import ResourceAPI, Unavailable
from instaslice.resources import MIG, Resources
from instaslice.review import OUTCOMES
from instaslice.templates import DeviceClaim

_Metric = TypeVar("_Metric", Counter, Gauge, Histogram)

OPERATIONS: Final = ("CREATE", "UPDATE")
OTHER: Final = "other"
#: The outcomes of an attempt to create or check a template or a device class.
CREATION_OUTCOMES: Final = ("created", "existed", "differs", "failed", "beyond_bound")

#: The name of each metric without "instaslice_", and its help.
_HELP: Final = {
    "admission_requests": "Admission requests by operation and by how they ended.",
    "admission_duration_seconds": "Time to answer an admission request, in seconds.",
    "admissions_in_flight": "Admission requests being answered now.",
    "claims": "Claims put into pods, by resource; a MIG profile of no known GPU counts as 'other'.",
    "template_creations": "Attempts to create or check a ResourceClaimTemplate, by outcome.",
    "device_class_creations": "Attempts to create or check a DeviceClass, by outcome.",
    "certificate_expiry_timestamp_seconds": (
        "When the served certificate expires, in seconds since 1970."
    ),
    "certificate_reload_failures": (
        "Certificates found on disk that could not be used; the old one is kept."
    ),
    "log_lines_dropped": "Log lines that were not written: the queue was full, or writing failed.",
    "resource_api_info": "The version of resource.k8s.io that pods are rewritten for, or none.",
    "build_info": "The running InstaSlice.",
}


class Metrics:
    """InstaSlice's metrics in their own registry.

    resources: those that are rewritten. fresh: for how many seconds rendered text is shown again.
    """

    def __init__(self, resources: Resources = MIG, fresh: float = 0.0) -> None:
        self._fresh = fresh
        self._shown, self._shown_until = b"", 0.0
        # These tell when each series began. They would be half of all series.
        disable_created_metrics()
        self.registry = CollectorRegistry()

        def add(kind: type[_Metric], name: str, *labels: str, **details: Any) -> _Metric:
            about, where = _HELP[name], self.registry
            return kind(name, about, labels, namespace="instaslice", registry=where, **details)

        requests = add(Counter, "admission_requests", "operation", "outcome")
        self._requests = {
            (operation, outcome): requests.labels(operation, outcome)
            for operation in (*OPERATIONS, OTHER)
            for outcome in OUTCOMES
        }
        #: Calls without a review that could be answered.
        self.bad_calls = requests.labels(OTHER, "bad_call")
        # From the whole body to the finished answer. The first buckets show the cost of parsing;
        # the last one is the webhook's timeout (5 s).
        buckets = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25, 1, 5)
        self.duration = add(Histogram, "admission_duration_seconds", buckets=buckets)
        #: A context manager around each admission.
        self.in_flight = add(Gauge, "admissions_in_flight").track_inprogress()
        claims = add(Counter, "claims", "resource")
        names = [resource.name for resource in profiles.known_profiles()]
        names += [resource.name for resource in resources.mapped.values()]
        self._claims = {name: claims.labels(name) for name in names}
        self._other_claims = claims.labels(OTHER)
        self.template_creations = add(Counter, "template_creations", "outcome")
        self.class_creations = add(Counter, "device_class_creations", "outcome")
        for outcome in CREATION_OUTCOMES:
            self.template_creations.labels(outcome)
            self.class_creations.labels(outcome)
        self.certificate_expiry = add(Gauge, "certificate_expiry_timestamp_seconds")
        self.certificate_failures = add(Counter, "certificate_reload_failures")
        self.log_lines_dropped = add(Counter, "log_lines_dropped")
        self._resource_api = add(Gauge, "resource_api_info", "version")
        self._version: str | None = None
        add(Gauge, "build_info", "version").labels(__version__).set(1)

    def show(self) -> bytes:
        """Prometheus' text format, at most `fresh` seconds old: rendering takes 2 ms."""
        now = time.monotonic()
        if now >= self._shown_until:
            self._shown, self._shown_until = generate_latest(self.registry), now + self._fresh
        return self._shown

    def count(self, operation: str, outcome: str, claims: dict[DeviceClaim, int]) -> None:
        """Count an answered admission and the claims that it added."""
        key = (operation if operation in OPERATIONS else OTHER, outcome)
        self._requests[key].inc()
        for claim, number in claims.items():
            for request in claim.requests:
                self._claims.get(request.resource.name, self._other_claims).inc(number)

    def show_resource_api(self, api: ResourceAPI | Unavailable) -> None:
        """Show which version of resource.k8s.io is in use."""
        version = api.version if isinstance(api, ResourceAPI) else "none"
        if self._version not in (None, version):
            self._resource_api.labels(self._version).set(0)
        self._resource_api.labels(version).set(1)
        self._version = version
