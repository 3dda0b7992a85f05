"""Discovers the version of resource.k8s.io that the cluster serves, and its features.

The control plane may be upgraded at any time, so discovery asks the API server every few minutes.
If it does not answer, the last answer stays valid. If it answers that it does not serve DRA, this
applies at once: it would drop claims silently, and a rewritten pod would run without its GPU.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from instaslice.cluster.client import Answer, Caller, ClusterError
from instaslice.cluster.gates import find_out
from instaslice.resource_api import GROUP, VERSIONS, ResourceAPI, Unavailable

_log = logging.getLogger("instaslice")

#: Seconds between questions when a version is known, when none is, and while pods wait for the
#: first answer. The last two are shorter since a webhook that is not ready blocks pods.
PAUSES: Final = (300.0, 1.0, 0.1)

#: Seconds to wait for the first answer, and for the answer to one question: half of the webhook's
#: timeout.
PATIENCE: Final = 2.5

_NOT_ASKED: Final = "the API server has not been asked yet"
Served = ResourceAPI | Unavailable


@dataclass(frozen=True, slots=True)
class Unknown(Unavailable):
    """The API server has not answered yet; any other Unavailable is an answer.

    until: when to stop waiting, on the monotonic clock. said: set when the answer has arrived.
    """

    until: float = field(default=0.0, compare=False)
    said: threading.Event = field(default_factory=threading.Event, compare=False)

    def is_expected(self) -> bool:
        """Whether an answer may arrive soon."""
        return not self.said.is_set() and time.monotonic() < self.until

    def wait(self) -> None:
        """Wait for the answer, at most until `until`."""
        self.said.wait(max(0.0, self.until - time.monotonic()))


class Discovery:
    """Asks the API server again and again, in a thread.

    on_change: called with each answer that differs from the previous one.
    namespace: where dry runs probe for features.
    pauses: as PAUSES.
    """

    def __init__(
        self,
        cluster: Caller,
        on_change: Callable[[Served], None],
        namespace: str = "default",
        pauses: tuple[float, float, float] = PAUSES,
    ) -> None:
        self._cluster, self._on_change = cluster, on_change
        self._namespace, self._pauses = namespace, pauses
        self._current: Served = Unknown(_NOT_ASKED)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="discovery", daemon=True)

    def start(self) -> None:
        """Start the thread, which asks at once."""
        self._current = Unknown(_NOT_ASKED, time.monotonic() + PATIENCE)
        self._on_change(self._current)
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait for its end."""
        self._stop.set()
        self._thread.join()

    def current(self) -> Served:
        """The last answer."""
        return self._current

    def _run(self) -> None:
        self.ask()
        while not self._stop.wait(self._pause()):
            self.ask()

    def _pause(self) -> float:
        """Seconds until the next question."""
        known, unknown, expected = self._pauses
        if isinstance(self._current, Unknown) and self._current.is_expected():
            return expected
        return known if isinstance(self._current, ResourceAPI) else unknown

    def ask(self) -> None:
        """Ask the API server once, and store its answer."""
        try:
            answer = ask(self._cluster)
            if isinstance(answer, ResourceAPI):
                # Features keep their last known state until the API server gives another answer.
                last, known = self._current, answer.without_proof
                if isinstance(last, ResourceAPI) and last.version == answer.version:
                    known = last
                answer = find_out(self._cluster, answer, known, self._namespace)
        except ClusterError as error:
            now = self._current
            if not isinstance(now, Unknown):
                fields = {"reason": str(error)}
                _log.warning("the API server was not reached", extra={"fields": fields})
                return
            answer = Unknown(f"the API server was not reached: {error}", now.until, now.said)
        except Exception:  # the thread must survive internal errors
            _log.exception("asking the API server failed")
            return
        if answer != self._current:
            before, self._current = self._current, answer
            if isinstance(before, Unknown) and not isinstance(answer, Unknown):
                before.said.set()
            if isinstance(answer, ResourceAPI):
                features = ", ".join(sorted(answer.features))
                fields = {"resource_api": answer.version, "features": features}
                _log.info("pods are rewritten for a version", extra={"fields": fields})
            else:
                fields = {"reason": answer.reason}
                _log.error("pods that ask for devices are refused", extra={"fields": fields})
            self._on_change(answer)


def ask(cluster: Caller) -> Served:
    """Find the newest known version that serves templates. Raises ClusterError without an answer.

    Since 1.33, a cluster may serve older versions without templates, so each version is checked.
    """
    group = cluster.call("GET", f"/apis/{GROUP}")
    if group.status == 404:
        return Unavailable(
            f"the cluster does not serve {GROUP}: it has no Dynamic Resource Allocation, or its "
            "DynamicResourceAllocation gate or runtime-config is off"
        )
    served = _names(group, "versions", "version")
    for api in reversed(VERSIONS.values()):
        if api.version in served:
            kinds = cluster.call("GET", f"/apis/{GROUP}/{api.version}")
            if "resourceclaimtemplates" in _names(kinds, "resources", "name"):
                return api
    return Unavailable(
        f"the cluster serves {GROUP} as {', '.join(sorted(served)) or 'no version'}, "
        f"and InstaSlice knows {', '.join(VERSIONS)}"
    )


def _names(answer: Answer, key: str, name: str) -> set[str]:
    """The names in a list of a discovery document. Raises ClusterError if it is malformed."""
    if answer.status != 200:
        raise ClusterError(f"GET /apis/{GROUP}: {answer.reason}")
    entries = answer.body.get(key)
    listed = entries if isinstance(entries, list) else [None]
    names = [entry.get(name) if isinstance(entry, dict) else None for entry in listed]
    if not all(isinstance(found, str) for found in names):
        raise ClusterError(f"GET /apis/{GROUP}: it has no list of {key} by {name}")
    return {str(found) for found in names}
