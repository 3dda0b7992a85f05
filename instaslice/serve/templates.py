"""Creates the templates and device classes that pods need, so that namespaces need no set-up.

An admission asks for the objects of its pod and waits at most a second. One thread creates those
that are not known to exist. It retries failures until they succeed or the namespace is gone, so an
API server that is slow or away costs an admission a second, but never loses an object.

The author of pods in one namespace decides what is requested there. Therefore:

- namespaces take turns, and a full queue drops entries of the namespace that has the most;
- only names are remembered, and a claim only if its name does not say everything;
- the number of templates that a process creates on demand in a namespace is bounded, and so is the
  size of one (`limits`); templates that an administrator creates beyond that are used;
- an existing object is compared with what InstaSlice would create, since anybody who may create
  templates can take its name. It is checked again after each admission that uses it.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final
from urllib.parse import quote

from instaslice.cluster.client import PLURALS, Answer, Caller, ClusterError
from instaslice.invalid import MAX_MESSAGES
from instaslice.patch import Json
from instaslice.profiles import MIG_DOMAIN
from instaslice.resource_api import ResourceAPI
from instaslice.resources import Resources
from instaslice.serve.app import MustWait
from instaslice.serve.limits import Limits
from instaslice.serve.metrics import CREATION_OUTCOMES, Metrics
from instaslice.templates import DeviceClaim, claim_of, difference, from_template, objects

_log = logging.getLogger("instaslice")


@dataclass(slots=True, eq=False)
class Wanted:
    """A template or a device class that pods need. Times are on the monotonic clock."""

    namespace: str | None  #: None for a device class
    name: str  #: of the template; for a device class, without its domain
    bound: tuple[int, str] | None  #: from `TemplateMaker._bound`
    api: ResourceAPI
    claim: DeviceClaim | None  #: None if the name says everything
    made: bool = False  #: whether this process created it
    until: float = 0.0  #: how long it counts as existing
    due: float = 0.0  #: when the next attempt is due
    pause: float = 0.0  #: seconds between attempts
    attempts: int = 0  #: finished attempts, or drops from the queue
    problem: str = ""  #: a warning for authors of pods that use it

    def __str__(self) -> str:
        if self.namespace is None:
            return f"DeviceClass {self.name}.{MIG_DOMAIN}"
        return f"ResourceClaimTemplate {self.name}"

    def weight(self) -> int:
        """The bytes that it takes; device classes are few: at most one for each known profile."""
        requests = self.claim.requests if self.claim else ()
        choices = sum(len(request.choices) for request in requests)
        return 0 if self.namespace is None else 1024 * (1 + choices)


_due: Final = attrgetter("due")


@dataclass(slots=True)
class _Row:
    turn: float = 0.0  #: when the namespace last had a turn
    entries: dict[str, Wanted] = field(default_factory=dict)
    weight: int = 0


class Turns:
    """Objects that pods need, by namespace: at most `room` bytes of them, and whose turn it is."""

    def __init__(self, room: int) -> None:
        self.rows: dict[str | None, _Row] = {}
        self._room = room

    def __contains__(self, wanted: Wanted) -> bool:
        return self.find(wanted.namespace, wanted.name) is wanted

    def find(self, namespace: str | None, name: str) -> Wanted | None:
        """The entry of that name, or None."""
        row = self.rows.get(namespace)
        return row.entries.get(name) if row else None

    def of(self, namespace: str | None) -> list[Wanted]:
        """The entries of a namespace."""
        return [*self.rows[namespace].entries.values()] if namespace in self.rows else []

    def add(self, wanted: Wanted) -> None:
        """Add an entry, in place of another of its name; `trim` then makes room for it."""
        if wanted not in self:
            self.discard(self.find(wanted.namespace, wanted.name))
            row = self.rows.setdefault(wanted.namespace, _Row())
            row.entries[wanted.name] = wanted
            row.weight += wanted.weight()
            self._room -= wanted.weight()

    def trim(self) -> None:
        """Remove entries of the fullest namespaces until the others have room."""
        while self._room < 0:
            fullest = max(self.rows.values(), key=lambda row: row.weight)
            # The one that failed most often, then the oldest. Those that count as made go last.
            order = sorted(fullest.entries.values(), key=lambda each: (each.made, -each.pause))
            for victim in order[: 1 + len(order) // 8]:  # sorting for each one would take long
                if self._room < 0:
                    self.discard(victim)
                    victim.attempts += 1

    def discard(self, wanted: Wanted | None) -> None:
        """Remove an entry, if it is there."""
        if wanted and wanted in self:
            row = self.rows[wanted.namespace]
            del row.entries[wanted.name]
            row.weight -= wanted.weight()
            self._room += wanted.weight()
            if not row.entries:
                del self.rows[wanted.namespace]

    def next(self, now: float) -> Wanted | None:
        """The entry that is due longest in the namespace whose turn it is, or None."""
        for namespace, row in self.rows.items():
            first = min(row.entries.values(), key=_due)
            if first.due <= now:
                row.turn = now
                self.rows[namespace] = self.rows.pop(namespace)
                return first
        return None

    def firsts(self) -> Iterator[float]:
        """For each namespace, since or from when it waits for a turn."""
        for row in self.rows.values():
            yield max(row.turn, min(map(_due, row.entries.values())))


#: The log's messages for outcomes; for others, "template created" and the like.
_MESSAGES: Final = {
    "failed": "a {} was not created",
    "refused": "a {} was not created",
    "beyond_bound": "a {} is beyond a bound",
    "gone": "a {} cannot be created",
    "fault": "creating a {} failed",
}


class TemplateMaker:
    """Creates templates and device classes in a thread; `ensure` is for `app.Webhook`."""

    def __init__(
        self, cluster: Caller, metrics: Metrics, resources: Resources, limits: Limits
    ) -> None:
        self._cluster, self._metrics = cluster, metrics
        self._resources, self._limits = resources, limits
        self._changed = threading.Condition()  # guards the fields below
        self._missing = Turns(limits.templates_waiting)  #: to be created
        self._again = Turns(limits.templates_waiting)  #: known, and to be checked
        self._known = Turns(1024 * limits.templates_known)  #: known to exist
        self._waiters: Counter[str] = Counter()  #: admissions that wait, by namespace
        self._next_check = 0.0
        self._next_log = 0.0
        self._thread = threading.Thread(target=self._run, name="templates", daemon=True)
        self._stopped = False

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, and wait for its end."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join()

    def ensure(
        self, namespace: str, claims: Iterable[DeviceClaim], api: ResourceAPI, may_wait: bool
    ) -> list[str]:
        """Create a pod's templates, within `template_patience`; returns at most 8 warnings.

        Raises MustWait if that could take time and `may_wait` is false.
        """
        claims = list(claims)
        choices = [] if api.is_classic else [each for claim in claims for each in claim.choices]
        classes = [claim_of(choice) for choice in dict.fromkeys(choices) if choice.has_own_class]
        needs = [*((None, each) for each in classes), *((namespace, each) for each in claims)]
        with self._changed:
            now = time.monotonic()
            found = [self._known.find(place, claim.template) for place, claim in needs]
            if not may_wait and not all(each and each.until > now for each in found):
                raise MustWait
            asked = [self._ask(place, claim, api, now) for place, claim in needs]
            waiting = [(each, each.attempts) for each in asked if each.until <= now]
            self._missing.trim()
            self._again.trim()
            if waiting and self._waiters[namespace] < self._limits.template_waiters:
                # Admissions share one wait, which begins with the oldest template without a turn.
                # So an API server that hangs costs all of them the patience once, not each one.
                since = min((each for each in self._missing.firsts() if each <= now), default=now)
                self._waiters[namespace] += 1
                self._changed.wait_for(
                    lambda: all(each.attempts > before for each, before in waiting),
                    max(0.0, since + self._limits.template_patience - now),
                )
                self._waiters[namespace] -= 1
                self._waiters += Counter()  # drops what is 0
            now = time.monotonic()
            # The command that creates a template creates its classes, too.
            is_late = any(each.until <= now for each in asked if each.namespace)
            told = [each for each in asked if each.namespace or each.problem or not is_late]
            warnings = [_warning(each, now) for each in told]
        return list(dict.fromkeys(filter(None, warnings)))[:MAX_MESSAGES]

    def _ask(
        self, namespace: str | None, claim: DeviceClaim, api: ResourceAPI, now: float
    ) -> Wanted:
        """Queue an object for a claim: to be created, or to be checked if it is known."""
        name, limits = claim.template, self._limits
        wanted = self._known.find(namespace, name) or self._missing.find(namespace, name)
        if wanted is None:
            kept = None if from_template(name, self._resources) == claim else claim
            wanted = Wanted(namespace, name, self._bound(claim), api, kept)
        is_known = wanted.until > now
        queue = self._again if is_known else self._missing
        if wanted not in queue:
            self._again.discard(wanted)
            wanted.api, wanted.pause = api, limits.first_pause
            wanted.due = max(now, self._recheck(wanted)) if is_known else now
            queue.add(wanted)
        elif not is_known and wanted.due > now:
            # The reason why it could not be created may be gone.
            wanted.due, wanted.pause = now, limits.first_pause
        else:
            return wanted
        self._changed.notify_all()
        return wanted

    def _bound(self, claim: DeviceClaim) -> tuple[int, str] | None:
        """How many templates like a claim's are created in a namespace, and how users read that."""
        limits = self._limits
        choices = [choice for request in claim.requests for choice in request.choices]
        if sum(bool(choice.selector) for choice in choices) > limits.template_selectors:
            return 0, f"templates of at most {limits.template_selectors} selectors"
        if claim.unknown:
            return (
                limits.templates_unknown,
                "at most {} for profiles of no known GPU in a namespace",
            )
        if len(choices) == 1 and claim.requests[0].count == 1 and not claim.placement:
            return None
        return limits.templates_counted, "at most {} of several devices in a namespace"

    def _recheck(self, wanted: Wanted) -> float:
        """When a known object may be checked again."""
        return wanted.until - self._limits.template_memory + self._limits.template_recheck

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (wanted := self._next(time.monotonic())) and not self._stopped:
                    self._changed.wait(self._until_due(time.monotonic()))
                if wanted is None or self._stopped:
                    return
            self._try(wanted)
            with self._changed:
                wanted.attempts += 1
                self._changed.notify_all()

    def _next(self, now: float) -> Wanted | None:
        """The next object to check or to create; a pause after each check is for creations."""
        if now >= self._next_check and (known := self._again.next(now)):
            self._again.discard(known)  # a pod that asks meanwhile queues another check
            return known
        return self._missing.next(now)

    def _until_due(self, now: float) -> float | None:
        checks = (max(each, self._next_check) for each in self._again.firsts())
        first = min([*self._missing.firsts(), *checks], default=None)
        return None if first is None else max(0.0, first - now)

    def _try(self, wanted: Wanted) -> None:
        """Make one attempt at an object, record the result, and log it."""
        fields: dict[str, object] = {"namespace": wanted.namespace, "template": wanted.name}
        what, creations, error = "template", self._metrics.template_creations, None
        if is_class := wanted.namespace is None:
            fields = {"class": f"{wanted.name}.{MIG_DOMAIN}"}
            what, creations = "device class", self._metrics.class_creations
        try:
            outcome, how = self._make(wanted)
        except ClusterError as failure:
            refused = 400 <= failure.status < 500 and failure.status not in (401, 408, 429)
            outcome, how = "refused" if is_class and refused else "failed", str(failure)
            fields["seconds"] = wanted.pause
        except Exception as fault:  # the thread must survive; another attempt would fail, too
            outcome, how, error = "fault", "", fault
        if how:
            fields["reason"] = how
        with self._changed:
            is_news = self._record(wanted, outcome, how)
        if is_news:
            message = _MESSAGES.get(outcome, f"{{}} {outcome}").format(what)
            level = logging.ERROR if error else logging.WARNING if how else logging.INFO
            _log.log(level, message, extra={"fields": fields}, exc_info=error)
        creations.labels(outcome if outcome in CREATION_OUTCOMES else "failed").inc()

    def _record(self, wanted: Wanted, outcome: str, how: str) -> bool:
        """Record the outcome of an attempt: of `_make`, or how it failed.

        Both "failed" and "refused" are tried again, but pods do not wait for what was refused.
        "fault": an error of InstaSlice. Returns whether users of the log do not know it yet.
        """
        limits, now, before, is_news = self._limits, time.monotonic(), wanted.problem, True
        queues = self._missing, self._again, self._known
        if wanted not in self._missing:
            self._next_check = now + limits.template_spacing
        if outcome in ("created", "existed", "differs", "refused"):
            is_news = outcome == "created" or not wanted.until or bool(how and not before)
            self._missing.discard(wanted)
            self._known.discard(wanted)
            self._known.add(wanted)  # as the newest
            wanted.until = now + limits.template_memory
            wanted.made = wanted.made or outcome == "created"
            if wanted in self._again:
                wanted.due = self._recheck(wanted)
        elif outcome != "failed":
            others = [each for queue in queues for each in queue.of(wanted.namespace)]
            for each in [wanted, *others] if outcome == "gone" else [wanted]:
                for queue in queues:
                    queue.discard(each)
                each.until, each.problem = 0.0, ""
                each.attempts += each is not wanted
            if outcome == "beyond_bound":
                is_news = now >= self._next_log  # there can be hundreds a second
                self._next_log = now + 1.0 if is_news else self._next_log
        if outcome in ("failed", "refused"):
            wanted.due = now + wanted.pause
            wanted.pause = min(2 * wanted.pause, limits.longest_pause)
            if wanted.until and wanted not in self._missing:
                self._again.add(wanted)
        wanted.problem = _problem(wanted, outcome, how)
        self._again.trim()
        self._known.trim()
        return is_news

    def _make(self, wanted: Wanted) -> tuple[str, str]:
        """Create or check an object, and the parameters of a template of v1alpha2.

        Returns an outcome and its details, as `_make_object` does. Raises ClusterError.
        """
        claim = wanted.claim or from_template(wanted.name, self._resources)
        assert claim is not None  # it is kept where the name does not say everything
        beyond, outcome, differences = self._beyond(wanted), "", []
        for manifest in objects(wanted.api, claim, wanted.namespace):
            if (manifest["kind"] == "DeviceClass") == (wanted.namespace is None):
                outcome, how = self._make_object(manifest, wanted.until > 0, beyond)
                if outcome in ("beyond_bound", "gone"):
                    return outcome, how
                differences += [how] if how else []
        return "differs" if differences else outcome, ", ".join(differences)

    def _make_object(self, manifest: Json, look: bool, beyond: str = "") -> tuple[str, str]:
        """Create one object unless it exists.

        look: it was there before, so it is read first. beyond: why it must not be created, or "".
        Returns "created" or "existed"; "differs", and how; "beyond_bound" or "gone" (the namespace
        is), and why. Raises ClusterError.
        """
        metadata, path = manifest["metadata"], f"/apis/{manifest['apiVersion']}/"
        if namespace := metadata.get("namespace"):
            path += f"namespaces/{quote(namespace, safe='')}/"
        path += PLURALS[manifest["kind"]]
        it = f"{path}/{quote(metadata['name'], safe='')}"
        found = self._cluster.call("GET", it) if look or beyond else Answer(404, {})
        if found.status in (403, 404):
            if beyond:
                return "beyond_bound", beyond
            made = self._cluster.call("POST", path, manifest)
            if made.status == 201:
                return "created", ""
            if _is_gone(made):
                return "gone", made.reason[:300]
            if made.status in (403, 409) and found.status == 404:
                # A quota is enforced before the name is looked up.
                found = self._cluster.call("GET", it)
            if made.status == 409 and found.status == 403:
                return "existed", ""  # InstaSlice may not read it
            if made.status != 409 and found.status != 200:
                raise ClusterError(f"the API server answered {made.reason}", made.status)
        if found.status == 200 and not found.body:
            return "differs", "it is too large or too deeply nested to compare"
        theirs = found.body.get("spec")
        if found.status != 200 or not isinstance(theirs, dict):
            raise ClusterError(f"the API server answered {found.reason}")
        ours = {**manifest["spec"]}
        if "extendedResourceName" not in theirs:
            # The API server drops it if its gate is off, as in 1.34 and 1.35. Pods get the same.
            ours.pop("extendedResourceName", None)
        how = difference({"spec": ours}, found.body)
        return ("differs" if how else "existed"), how

    def _beyond(self, wanted: Wanted) -> str:
        """The bound that forbids to create a template, with the command to do it, or ""."""
        if wanted.bound is None or wanted.made:
            return ""
        most, what = wanted.bound
        with self._changed:
            known = self._known.of(wanted.namespace)
        if sum(each.made and each.bound == wanted.bound for each in known) < most:
            return ""
        return f"InstaSlice creates {what.format(most)}; {_command(wanted)}"


def _command(wanted: Wanted) -> str:
    where = f"--namespace {wanted.namespace}"
    how = f"instaslice templates --apply {where} {wanted.name}"
    if wanted.namespace is None:
        how = f"instaslice deviceclasses {wanted.name} --resource-api {wanted.api.version}"
        how += " | kubectl apply -f -"
    elif wanted.claim:  # its name does not say everything
        how = f"instaslice rewrite --with-templates FILE | kubectl apply {where} -f -"
    return f"to create it: {how}"


def _problem(wanted: Wanted, outcome: str, how: str) -> str:
    """The warning for authors of pods that use an object, after an attempt at it, or ""."""
    if outcome == "differs":
        effect = ", and the pod gets what it asks for" if wanted.namespace else ""
        return f"{wanted} differs from what InstaSlice creates{effect}: {how}"
    if outcome == "beyond_bound":
        return f"{wanted} does not exist: {how}"
    if outcome == "refused":
        return f"{wanted} cannot be created; {_command(wanted)}"
    _, quota, rest = how.partition("exceeded quota")
    return f"{wanted} cannot be created: {quota}{rest}" if quota else ""


def _warning(wanted: Wanted, now: float) -> str:
    """The warning for the author of a pod that uses an object, or ""."""
    if wanted.until > now or wanted.problem:
        return wanted.problem
    return f"{wanted} does not exist yet; {_command(wanted)}"


def _is_gone(answer: Answer) -> bool:
    """Whether an answer says that the namespace does not exist or is being deleted."""
    details = answer.body.get("details")
    if not isinstance(details, dict) or answer.status not in (403, 404):
        return False
    if answer.status == 404:
        return details.get("kind") == "namespaces"
    causes = details.get("causes")
    return isinstance(causes, list) and any(
        isinstance(cause, dict) and cause.get("reason") == "NamespaceTerminating"
        for cause in causes
    )
