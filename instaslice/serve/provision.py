"""Makes the templates that admitted pods need, so that nothing is to be set up per namespace.

An admission asks for what its pod needs and waits at most a second, together with others. What is
not known to be there is made by one thread, which goes on with what fails until it succeeds, the
namespace is gone, or the API server says that it will never do; so an API server that is away or
slow costs admissions a second, and never a pod.
"""

import logging
import threading
import time
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import quote

from instaslice.cluster.client import PLURALS, Answer, Caller, ClusterError
from instaslice.resource_api import ResourceAPI
from instaslice.serve.app import MustWait
from instaslice.serve.backlog import MEMORY, Backlog, Task
from instaslice.serve.metrics import Metrics
from instaslice.templates import DeviceClaim, objects

_log = logging.getLogger("instaslice")

_CLASS: Final = "DeviceClass"

#: Answers that stay what they are, however often one asks: the object itself is refused
#: (RFC 9110, section 15.5; Kubernetes' API conventions, "HTTP Status codes").
_FINAL: Final = frozenset({400, 405, 406, 413, 414, 415, 422})


class _Key(NamedTuple):
    namespace: str
    claim: DeviceClaim
    api: ResourceAPI


class _GiveUp(Exception):
    """There is nothing to make any more, or it can never be made; `str()` of it says why."""


class TemplateMaker:
    """Makes templates in a thread of its own (an `app.Provisioner`)."""

    def __init__(self, cluster: Caller, metrics: Metrics) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._backlog: Backlog[_Key] = Backlog()
        #: Device classes that are taken to be there, and until when; there is one for each profile
        #: that InstaSlice knows, and so a bounded number.
        self._classes: dict[str, float] = {}
        self._changed = threading.Condition()  # of the backlog
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

    def ensure(
        self, namespace: str, claims: Iterable[DeviceClaim], api: ResourceAPI, may_wait: bool
    ) -> list[str]:
        """Make a pod's templates, within PATIENCE; returns a warning for each that is not there.

        Raises MustWait where that could take time, and may not.
        """
        keys = [_Key(namespace, claim, api) for claim in claims]
        with self._changed:
            now = time.monotonic()
            if not may_wait and self._backlog.missing(keys, now):
                raise MustWait
            tasks, deadline = self._backlog.ask_for(keys, now)
            self._changed.notify()
        for task in tasks:
            task.tried.wait(max(0.0, deadline - time.monotonic()))
        with self._changed:
            missing = self._backlog.missing([task.key for task in tasks], time.monotonic())
        return [
            f"ResourceClaimTemplate {key.claim.template} is not there yet; to make it: "
            f"instaslice templates --apply --namespace {key.namespace} {key.claim.template}"
            for key in missing
        ]

    def _run(self) -> None:
        while True:
            with self._changed:
                task = self._backlog.next(time.monotonic())
                while task is None and not self._stopped:
                    self._changed.wait(self._backlog.until_due(time.monotonic()))
                    task = self._backlog.next(time.monotonic())
                if task is None or self._stopped:
                    return
            try:
                self._try(task)
            except Exception:  # the thread must outlive our own errors, which would come again
                _log.exception("making a template failed", extra={"fields": _about(task.key)})
                self._drop(task)
            task.tried.set()

    def _try(self, task: Task[_Key]) -> None:
        """One attempt at a template, and what follows from it."""
        fields = _about(task.key)
        try:
            outcome = self._make(task.key)
        except ClusterError as error:
            with self._changed:
                pause = task.pause
                self._backlog.failed(task, time.monotonic())
            self._metrics.template_creations.labels("failed").inc()
            fields |= {"reason": str(error), "seconds": pause}
            _log.warning("a template was not made", extra={"fields": fields})
        except _GiveUp as given_up:
            self._drop(task)
            fields["reason"] = str(given_up)
            _log.warning("a template cannot be made", extra={"fields": fields})
        else:
            with self._changed:
                is_news = task.key not in self._backlog.known
                self._backlog.succeeded(task, time.monotonic())
            self._metrics.template_creations.labels(outcome).inc()
            if outcome != "existed" or is_news:
                _log.info(f"template {outcome}", extra={"fields": fields})

    def _drop(self, task: Task[_Key]) -> None:
        with self._changed:
            self._backlog.forget(task)
        self._metrics.template_creations.labels("failed").inc()

    def _make(self, key: _Key) -> str:
        """Make a template and what it refers to: "created", or "existed".

        Raises ClusterError, and _GiveUp.
        """
        outcome = "existed"
        for manifest in objects(key.api, key.claim, key.namespace):
            kind, name = manifest["kind"], manifest["metadata"]["name"]
            is_class = kind == _CLASS
            if is_class and self._classes.get(name, 0.0) > time.monotonic():
                continue
            where = "" if is_class else f"namespaces/{quote(key.namespace, safe='')}/"
            path = f"/apis/{manifest['apiVersion']}/{where}{PLURALS[kind]}"
            answer = self._cluster.call("POST", path, manifest)
            if is_class and answer.status in (201, 403, 409):
                if answer.status == 403:  # an administrator may have made it
                    fields = {"class": name, "reason": answer.reason}
                    _log.warning("a device class may not be made", extra={"fields": fields})
                self._classes[name] = time.monotonic() + MEMORY
            elif answer.status == 201:
                outcome = "created"
            elif answer.status in _FINAL or _is_gone(answer):
                raise _GiveUp(f"the API server answered {answer.reason}"[:300])
            elif answer.status != 409:
                raise ClusterError(f"the API server answered {answer.reason}")
        return outcome


def _about(key: _Key) -> dict[str, object]:
    """What a log line on a template says of it."""
    return {"namespace": key.namespace[:63], "template": key.claim.template}


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
