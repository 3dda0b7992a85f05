"""Creates the templates that admitted pods need, so that namespaces need no set-up.

An admission asks for the templates of its pod and waits at most a second. One thread creates those
that are not known to exist. It retries failures until they succeed or the namespace is gone, so an
API server that is slow or away costs an admission a second, but never loses a template.

The author of pods in one namespace decides what is requested there. Therefore:

- namespaces take turns, and a full queue drops entries of the namespace that has the most;
- only names are remembered, and a claim only if its name does not say everything;
- the number of templates that a process creates on demand in a namespace is bounded, and so is the
  size of one (`limits`); templates that an administrator creates beyond that are used;
- an existing template is compared with what InstaSlice would create, since anybody who may create
  templates can take its name. It is checked again after each admission that uses it.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final, NamedTuple
from urllib.parse import quote

from instaslice.cluster.client import PLURALS, Answer, Caller, ClusterError
from instaslice.invalid import MAX_MESSAGES
from instaslice.patch import Json
from instaslice.profiles import MIG_DOMAIN
from instaslice.resource_api import ResourceAPI
from instaslice.resources import MIG, Resources
from instaslice.serve.app import MustWait
from instaslice.serve.limits import Limits
from instaslice.serve.metrics import CREATION_OUTCOMES, Metrics
from instaslice.templates import DeviceClaim, difference, from_template, objects

_log = logging.getLogger("instaslice")

#: The kinds of templates, which have different bounds.
_PLAIN, _COUNTED, _UNKNOWN, _LARGE = range(4)


@dataclass(slots=True, eq=False)
class Template:
    """A template that pods of a namespace need. Times are on the monotonic clock."""

    namespace: str
    name: str
    kind: int  #: one of the four above
    api: ResourceAPI
    claim: DeviceClaim | None  #: None if the name says everything
    made: bool = False  #: whether this process created it
    until: float = 0.0  #: how long it counts as existing
    asked: float = 0.0  #: when a pod last needed it
    due: float = 0.0  #: when the next attempt is due
    pause: float = 0.0  #: seconds between attempts
    attempts: int = 0  #: finished attempts, or drops from the queue
    problem: str = ""  #: a warning for authors of pods that use it

    def weight(self) -> int:
        """The bytes that it takes."""
        requests = self.claim.requests if self.claim else ()
        return 1024 * (1 + sum(len(request.choices) for request in requests))


_due: Final = attrgetter("due")


@dataclass(slots=True)
class _Row:
    turn: float = 0.0  #: when the namespace last had a turn
    templates: dict[str, Template] = field(default_factory=dict)
    weight: int = 0


class Turns:
    """Templates by namespace, of at most `room` bytes in all, and whose turn it is."""

    def __init__(self, room: int) -> None:
        self.rows: dict[str, _Row] = {}
        self._room = room

    def __contains__(self, template: Template) -> bool:
        return self.find(template.namespace, template.name) is template

    def find(self, namespace: str, name: str) -> Template | None:
        """The template of that name, or None."""
        row = self.rows.get(namespace)
        return row.templates.get(name) if row else None

    def of(self, namespace: str) -> list[Template]:
        """The templates of a namespace."""
        return [*self.rows[namespace].templates.values()] if namespace in self.rows else []

    def add(self, template: Template) -> None:
        """Add a template, in place of another of its name; `trim` then makes room for it."""
        if template not in self:
            self.discard(self.find(template.namespace, template.name))
            row = self.rows.setdefault(template.namespace, _Row())
            row.templates[template.name] = template
            row.weight += template.weight()
            self._room -= template.weight()

    def trim(self) -> None:
        """Remove templates of the fullest namespaces until the others have room."""
        while self._room < 0:
            fullest = max(self.rows.values(), key=lambda row: row.weight)
            # The one that failed most often, then the oldest. Those that count as made go last.
            order = sorted(fullest.templates.values(), key=lambda each: (each.made, -each.pause))
            for victim in order[: 1 + len(order) // 8]:  # sorting for each one would take long
                if self._room < 0:
                    self.discard(victim)
                    victim.attempts += 1

    def discard(self, template: Template | None) -> None:
        """Remove a template, if it is there."""
        if template and template in self:
            row = self.rows[template.namespace]
            del row.templates[template.name]
            row.weight -= template.weight()
            self._room += template.weight()
            if not row.templates:
                del self.rows[template.namespace]

    def next(self, now: float) -> Template | None:
        """The template that is due longest in the namespace whose turn it is, or None."""
        for namespace, row in self.rows.items():
            first = min(row.templates.values(), key=_due)
            if first.due <= now:
                row.turn = now
                self.rows[namespace] = self.rows.pop(namespace)
                return first
        return None

    def firsts(self) -> Iterator[float]:
        """For each namespace, since or from when it waits for a turn."""
        for row in self.rows.values():
            yield max(row.turn, min(map(_due, row.templates.values())))


class _Class(NamedTuple):
    """A device class as it was last seen."""

    checked: float
    is_there: bool
    problem: str  #: a warning for authors of pods that use it


#: The log's messages for outcomes; for others, "template created" and the like.
_MESSAGES: Final = {
    "failed": "a template was not created",
    "beyond_bound": "a template is beyond a bound",
    "gone": "a template cannot be created",
    "fault": "creating a template failed",
}


class TemplateMaker:
    """Creates templates in a thread; `ensure` is for `app.Webhook`."""

    def __init__(
        self,
        cluster: Caller,
        metrics: Metrics,
        resources: Resources = MIG,
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
    ) -> None:
        self._cluster, self._metrics = cluster, metrics
        self._resources, self._limits = resources, limits
        counted, unknown = limits.templates_counted, limits.templates_unknown
        #: How many templates of a kind are created in a namespace, and how users read that.
        self._bounds = {
            _COUNTED: (counted, f"at most {counted} of several devices in a namespace"),
            _UNKNOWN: (unknown, f"at most {unknown} for profiles of no known GPU in a namespace"),
            _LARGE: (0, f"templates of at most {limits.template_selectors} selectors"),
        }
        self._changed = threading.Condition()  # guards the fields below
        self._missing = Turns(limits.templates_waiting)  #: to be created
        self._again = Turns(limits.templates_waiting)  #: known, and to be checked
        self._known = Turns(1024 * limits.templates_known)  #: known to exist
        self._classes: dict[str, _Class] = {}  #: at most one for each known profile
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
        wanted = list(claims)
        with self._changed:
            now = time.monotonic()
            found = [self._known.find(namespace, claim.template) for claim in wanted]
            if not may_wait and not all(each and each.until > now for each in found):
                raise MustWait
            asked = [self._ask(namespace, claim, api, now) for claim in wanted]
            waiting = [(each, each.attempts) for each in asked if each.until <= now]
            self._missing.trim()
            self._again.trim()
            self._changed.notify_all()
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
            warnings = [_warning(each, now) for each in asked]
            wrong = {name: each.problem for name, each in self._classes.items() if each.problem}
            if wrong and not api.is_classic:
                choices = (choice for claim in wanted for choice in claim.choices)
                warnings += [wrong.get(choice.device_class, "") for choice in choices]
        return list(dict.fromkeys(filter(None, warnings)))[:MAX_MESSAGES]

    def _ask(self, namespace: str, claim: DeviceClaim, api: ResourceAPI, now: float) -> Template:
        """Queue the template of a claim: to be created, or to be checked if it is known."""
        name, limits = claim.template, self._limits
        template = self._known.find(namespace, name) or self._missing.find(namespace, name)
        if template is None:
            says_all = from_template(name, self._resources) == claim
            kept = None if says_all else claim
            template = Template(namespace, name, self._kind(claim), api, kept)
        template.asked, is_known = now, template.until > now
        queue = self._again if is_known else self._missing
        if template not in queue:
            self._again.discard(template)
            template.api, template.pause = api, limits.first_pause
            template.due = max(now, self._recheck(template)) if is_known else now
            queue.add(template)
        elif not is_known and template.due > now:
            # The reason why it could not be created may be gone.
            template.due, template.pause = now, limits.first_pause
        return template

    def _kind(self, claim: DeviceClaim) -> int:
        choices = [choice for request in claim.requests for choice in request.choices]
        if sum(bool(choice.selector) for choice in choices) > self._limits.template_selectors:
            return _LARGE
        if claim.unknown:
            return _UNKNOWN
        is_plain = len(choices) == 1 and claim.requests[0].count == 1 and not claim.placement
        return _PLAIN if is_plain else _COUNTED

    def _recheck(self, template: Template) -> float:
        """When a known template may be checked again."""
        return template.until - self._limits.template_memory + self._limits.template_recheck

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (template := self._next(time.monotonic())) and not self._stopped:
                    self._changed.wait(self._until_due(time.monotonic()))
                if template is None or self._stopped:
                    return
            self._try(template)
            with self._changed:
                template.attempts += 1
                self._changed.notify_all()

    def _next(self, now: float) -> Template | None:
        """The next template to check or to create; a pause after each check is for creations."""
        if now >= self._next_check and (known := self._again.next(now)):
            self._again.discard(known)  # a pod that asks meanwhile queues another check
            return known
        return self._missing.next(now)

    def _until_due(self, now: float) -> float | None:
        checks = (max(each, self._next_check) for each in self._again.firsts())
        first = min([*self._missing.firsts(), *checks], default=None)
        return None if first is None else max(0.0, first - now)

    def _try(self, template: Template) -> None:
        """Make one attempt at a template, record the result, and log it."""
        fields: dict[str, object] = {"namespace": template.namespace, "template": template.name}
        again, error = 0.0, None
        try:
            outcome, how, again = self._make(template)
        except ClusterError as failure:
            outcome, how, again = "failed", str(failure), template.pause
            fields["seconds"] = again
        except Exception as fault:  # the thread must survive; another attempt would fail, too
            outcome, how, error = "fault", "", fault
        if how:
            fields["reason"] = how
        with self._changed:
            is_news = self._record(template, outcome, how, again)
        if is_news:
            message = _MESSAGES.get(outcome, f"template {outcome}")
            level = logging.ERROR if error else logging.WARNING if how else logging.INFO
            _log.log(level, message, extra={"fields": fields}, exc_info=error)
        label = outcome if outcome in CREATION_OUTCOMES else "failed"
        self._metrics.template_creations.labels(label).inc()

    def _record(self, template: Template, outcome: str, how: str, again: float) -> bool:
        """Record the outcome of an attempt, as `_make` returns it, or "failed", or "fault".

        Returns whether users of the log do not know it yet.
        """
        limits, now, before, is_news = self._limits, time.monotonic(), template.problem, True
        what, template.problem = f"ResourceClaimTemplate {template.name}", ""
        queues = self._missing, self._again, self._known
        if template not in self._missing:
            self._next_check = now + limits.template_spacing
        if outcome in ("created", "existed", "differs"):
            is_news = outcome == "created" or not template.until or bool(how and not before)
            self._missing.discard(template)
            self._known.discard(template)
            self._known.add(template)  # as the newest
            template.until = now + limits.template_memory
            template.made = template.made or outcome == "created"
            if how:
                what += " differs from what InstaSlice creates, and the pod gets what it asks for"
                template.problem = f"{what}: {how}"
            if template in self._again:
                template.due, again = self._recheck(template), 0.0
        elif outcome == "failed":
            _, quota, rest = how.partition("exceeded quota")
            template.problem = f"{what} cannot be created: {quota}{rest}" if quota else ""
        else:
            others = [each for queue in queues for each in queue.of(template.namespace)]
            for each in [template, *others] if outcome == "gone" else [template]:
                for queue in queues:
                    queue.discard(each)
                each.until, each.problem, each.attempts = 0.0, "", each.attempts + 1
            if outcome == "beyond_bound":
                template.problem = f"{what} does not exist: {how}"
                is_news = now >= self._next_log  # there can be hundreds a second
                self._next_log = now + 1.0 if is_news else self._next_log
            again = 0.0
        if again:
            template.due = now + again
            template.pause = min(2 * template.pause, limits.longest_pause)
            if template.until and template not in self._missing:
                self._again.add(template)
        self._again.trim()
        self._known.trim()
        return is_news

    def _make(self, template: Template) -> tuple[str, str, float]:
        """Create or check a template and the classes that it refers to.

        Returns an outcome and its details, as `_make_object` does, and the seconds until its
        classes need another attempt, or 0. Raises ClusterError.
        """
        claim = template.claim or from_template(template.name, self._resources)
        assert claim is not None  # it is kept where the name does not say everything
        beyond, outcome, differences, again = self._beyond(template), "", [], 0.0
        for manifest in objects(template.api, claim, template.namespace):
            if manifest["kind"] == "DeviceClass":
                again = max(again, self._make_class(manifest, template))
                continue
            outcome, how = self._make_object(manifest, template.until > 0, beyond)
            if outcome in ("beyond_bound", "gone"):
                return outcome, how, again
            differences += [how] if how else []
        return "differs" if differences else outcome, ", ".join(differences), again

    def _make_class(self, manifest: Json, template: Template) -> float:
        """Create or check a device class, unless that was done just now.

        Returns the seconds until it needs another attempt, or 0. Raises ClusterError.
        """
        name = manifest["metadata"]["name"]
        before, recheck = self._classes.get(name), self._limits.template_recheck
        began = time.monotonic()  # a pod that asks during the call needs another check
        if before and before.checked >= template.asked and before.is_there:
            return 0.0
        if before and not template.until and began < before.checked + recheck:
            return recheck  # many new templates share few classes
        outcome, problem, is_there = "failed", "", True
        try:
            outcome, how = self._make_object(manifest, before is not None)
        except ClusterError as error:
            if not 400 <= error.status < 500 or error.status in (401, 408, 429):
                raise
            how, is_there = str(error), False
            command = f"instaslice deviceclasses {name.removesuffix(f'.{MIG_DOMAIN}')}"
            problem = f"DeviceClass {name} cannot be created; to create it: {command} "
            problem += f"--resource-api {template.api.version} | kubectl apply -f -"
        finally:
            self._metrics.class_creations.labels(outcome).inc()
        if how and is_there:
            problem = f"DeviceClass {name} differs from what InstaSlice creates: {how}"
        fields = {"class": name, "reason": how}
        if outcome == "created":
            _log.info("device class created", extra={"fields": fields})
        elif problem and (before is None or problem != before.problem):
            _log.warning("a device class is missing or differs", extra={"fields": fields})
        with self._changed:
            self._classes[name] = _Class(began, is_there, problem)
        return 0.0 if is_there else template.pause

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

    def _beyond(self, template: Template) -> str:
        """The bound that forbids to create a template, with the command to do it, or ""."""
        if template.kind == _PLAIN or template.made:
            return ""
        most, what = self._bounds[template.kind]
        with self._changed:
            known = self._known.of(template.namespace)
        made = sum(each.made and each.kind == template.kind for each in known)
        return "" if made < most else f"InstaSlice creates {what}; {_command(template)}"


def _command(template: Template) -> str:
    where = f"--namespace {template.namespace}"
    how = f"instaslice templates --apply {where} {template.name}"
    if template.claim:  # its name does not say everything
        how = f"instaslice rewrite --with-templates FILE | kubectl apply {where} -f -"
    return f"to create it: {how}"


def _warning(template: Template, now: float) -> str:
    """The warning for the author of a pod that uses a template, or ""."""
    if template.until > now or template.problem:
        return template.problem
    return f"ResourceClaimTemplate {template.name} does not exist yet; {_command(template)}"


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
