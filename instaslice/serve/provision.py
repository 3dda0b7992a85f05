"""Makes the templates that admitted pods need, so that nothing is to be set up per namespace.

An admission asks for what its pod needs and waits at most a second, together with others. What is
not known to be there is made by one thread, which goes on with what fails until it succeeds or the
namespace is gone; so an API server that is away or slow costs admissions a second, and never a pod.
"""

import logging
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import quote

from instaslice.cluster.client import Answer, Cluster, ClusterError
from instaslice.resource_api import ResourceAPI
from instaslice.serve.metrics import Metrics
from instaslice.templates import DeviceClaim, objects

_log = logging.getLogger("instaslice")

#: Seconds that an admission waits for all of its pod's templates; the API server gives it five.
PATIENCE: Final = 1.0
#: Seconds for which a template is taken to be there: someone may have deleted it since.
MEMORY: Final = 600.0
#: Seconds after which a template that is known is made again beside the next admission that needs
#: it, which does not wait: its namespace may have been deleted, and made anew under the same name.
RECHECK: Final = 10.0
#: Seconds before the second attempt, doubled with each, and the longest pause.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 300.0
#: Templates that are remembered, and those that are waited for: namespaces are what users make.
MOST_KNOWN: Final = 10_000
MOST_PENDING: Final = 1_000

_CLASS: Final = "DeviceClass"
#: kind -> the plural in its path.
_PLURALS: Final = {
    _CLASS: "deviceclasses",
    "ResourceClaimTemplate": "resourceclaimtemplates",
    "MigDeviceClaimParameters": "migdeviceclaimparameters",
}


class _Key(NamedTuple):
    namespace: str
    claim: DeviceClaim
    version: str


@dataclass(slots=True)
class _Task:
    """A template that is not there yet."""

    api: ResourceAPI
    asked: float  #: since when it is waited for, on the monotonic clock
    due: float  #: when to try, on the monotonic clock
    pause: float = FIRST_PAUSE  #: seconds to the attempt after that
    tried: threading.Event = field(default_factory=threading.Event)  #: set by the first attempt


class _Gone(Exception):
    """The namespace is gone, or going: there is nothing to make any more."""


class TemplateMaker:
    """Makes templates in a thread of its own (an `app.Provisioner`)."""

    def __init__(self, cluster: Cluster, metrics: Metrics) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._known: dict[_Key, float] = {}  # until when, on the monotonic clock
        self._pending: dict[_Key, _Task] = {}
        #: Device classes that are taken to be there, and until when; there is one for each profile
        #: that InstaSlice knows, and so a bounded number.
        self._classes: dict[str, float] = {}
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="templates", daemon=True)
        self._stopped = False

    def start(self) -> None:
        """Begin to make what is asked for."""
        self._thread.start()

    def stop(self) -> None:
        """Make no more; returns when the thread has ended."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
        self._thread.join()

    def must_wait(self, namespace: str, claims: Iterable[DeviceClaim], api: ResourceAPI) -> bool:
        """Whether one of the templates is not known to be there."""
        now = time.monotonic()
        keys = (_Key(namespace, claim, api.version) for claim in claims)
        return not all(self._known.get(key, now) > now for key in keys)

    def ensure(self, namespace: str, claims: Iterable[DeviceClaim], api: ResourceAPI) -> list[str]:
        """Make a pod's templates, within PATIENCE; returns a warning for each that is not there."""
        keys = [_Key(namespace, claim, api.version) for claim in claims]
        tasks, deadline = self._ask_for(keys, api)
        for task in tasks:
            task.tried.wait(max(0.0, deadline - time.monotonic()))
        with self._changed:
            missing = [key for key in keys if key not in self._known]
        return [
            f"ResourceClaimTemplate {key.claim.template} is not there yet; to make it: "
            f"instaslice templates --apply --namespace {key.namespace} {key.claim.template}"
            for key in missing
        ]

    def _ask_for(self, keys: list[_Key], api: ResourceAPI) -> tuple[list[_Task], float]:
        """The tasks of what is not known to be there, new ones among them; and until when to wait.

        Those that wait do so together: an API server that hangs costs all of them PATIENCE once,
        and not each of them anew when a thread of the pool is free again.
        """
        now = time.monotonic()
        tasks = []
        with self._changed:
            for key in keys:
                left = self._known.get(key, now) - now
                if left > MEMORY - RECHECK:
                    continue
                task = self._pending.get(key)
                if task is None:
                    if len(self._pending) >= MOST_PENDING:  # what has failed most gives way
                        del self._pending[max(self._pending, key=lambda k: self._pending[k].pause)]
                    task = self._pending[key] = _Task(api, asked=now, due=now)
                if left <= 0:
                    self._known.pop(key, None)
                    tasks.append(task)
            waiting = (task.asked for task in self._pending.values() if not task.tried.is_set())
            deadline = next(waiting, now) + PATIENCE  # the first is the oldest
            self._changed.notify()
        return tasks, deadline

    def _run(self) -> None:
        while True:
            with self._changed:
                key = self._next()
                while key is None and not self._stopped:
                    self._changed.wait(self._until_due())
                    key = self._next()
                if key is None or self._stopped:
                    return
                task = self._pending[key]
            try:
                self._try(key, task)
            except Exception:  # the thread must outlive a fault of ours
                _log.exception("making a template failed")
                self._later(task)
            task.tried.set()

    def _next(self) -> _Key | None:
        """What is due longest, if anything is."""
        if not self._pending:
            return None
        key = min(self._pending, key=lambda key: self._pending[key].due)
        return key if self._pending[key].due <= time.monotonic() else None

    def _until_due(self) -> float | None:
        """Seconds until anything is due; None where nothing is asked for."""
        dues = [task.due for task in self._pending.values()]
        return max(0.0, min(dues) - time.monotonic()) if dues else None

    def _try(self, key: _Key, task: _Task) -> None:
        """One attempt at a template, and what follows from it."""
        fields = {"namespace": key.namespace, "template": key.claim.template}
        try:
            outcome = self._make(key, task.api)
        except ClusterError as error:
            self._later(task)
            self._metrics.template_creations.labels("failed").inc()
            again = {"reason": str(error), "seconds": round(task.due - time.monotonic())}
            _log.warning("a template was not made", extra={"fields": {**fields, **again}})
            return
        except _Gone:
            outcome = "failed"
        with self._changed:
            self._pending.pop(key, None)  # it may have given way meanwhile
            known = self._known.pop(key, None)
            if outcome != "failed":
                self._remember(key)
        self._metrics.template_creations.labels(outcome).inc()
        if outcome != "existed" or known is None:  # or nothing is new
            _log.info(f"template {outcome}", extra={"fields": fields})

    def _make(self, key: _Key, api: ResourceAPI) -> str:
        """Make a template and what it refers to: "created", or "existed".

        Raises ClusterError, and _Gone.
        """
        outcome = "existed"
        for manifest in objects(api, key.claim, key.namespace):
            kind, metadata = manifest["kind"], manifest["metadata"]
            is_class = kind == _CLASS
            if is_class and self._classes.get(metadata["name"], 0.0) > time.monotonic():
                continue
            where = "" if is_class else f"namespaces/{quote(key.namespace, safe='')}/"
            path = f"/apis/{manifest['apiVersion']}/{where}{_PLURALS[kind]}"
            answer = self._cluster.call("POST", path, manifest)
            if is_class and answer.status in (201, 403, 409):
                if answer.status == 403:  # an administrator may have made it
                    fields = {"class": metadata["name"], "reason": answer.reason}
                    _log.warning("a device class may not be made", extra={"fields": fields})
                self._classes[metadata["name"]] = time.monotonic() + MEMORY
            elif answer.status == 201:
                outcome = "created"
            elif _is_gone(answer):
                raise _Gone
            elif answer.status != 409:
                raise ClusterError(f"the API server answered {answer.reason}")
        return outcome

    def _remember(self, key: _Key) -> None:
        self._known[key] = time.monotonic() + MEMORY
        if len(self._known) > MOST_KNOWN:
            del self._known[next(iter(self._known))]  # the oldest

    def _later(self, task: _Task) -> None:
        with self._changed:
            task.due = time.monotonic() + task.pause
            task.pause = min(2 * task.pause, LONGEST_PAUSE)


def _is_gone(answer: Answer) -> bool:
    """Whether an answer says that the namespace does not exist, or is being deleted."""
    details = answer.body.get("details")
    if not isinstance(details, dict):
        return False
    causes = details.get("causes")
    if answer.status == 404:
        return details.get("kind") == "namespaces"
    return answer.status == 403 and any(
        isinstance(cause, dict) and cause.get("reason") == "NamespaceTerminating"
        for cause in (causes if isinstance(causes, list) else [])
    )
