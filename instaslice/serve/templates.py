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
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import quote

from instaslice.cluster.client import PLURALS, Answer, Caller, ClusterError
from instaslice.invalid import MAX_MESSAGES
from instaslice.patch import Json
from instaslice.resource_api import ResourceAPI
from instaslice.resources import MIG, MIG_DOMAIN, Resources
from instaslice.serve.app import MustWait
from instaslice.serve.limits import Limits
from instaslice.serve.metrics import Metrics
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
    claim: DeviceClaim | None  #: while it is queued, and if the name does not say everything
    weight: int = 1024  #: in bytes, while it is queued
    made: bool = False  #: whether this process created it
    until: float = 0.0  #: how long it counts as existing
    asked: float = 0.0  #: when a pod last needed it
    checked: float = 0.0  #: when it was last seen
    due: float = 0.0  #: when the next attempt is due
    pause: float = 0.0  #: seconds between attempts
    attempts: int = 0  #: finished attempts, or drops from the queue
    problem: str = ""  #: a warning for authors of pods that use it


@dataclass(slots=True)
class _Row:
    turn: float = 0.0  #: when the namespace last had a turn
    templates: dict[str, Template] = field(default_factory=dict)
    weight: int = 0


class Turns:
    """Templates by namespace, and whose turn it is. Not thread-safe."""

    def __init__(self, weighs: Callable[[Template], int]) -> None:
        self.rows: dict[str, _Row] = {}
        self.weight = 0  #: of all rows
        self._weighs = weighs

    def find(self, namespace: str, name: str) -> Template | None:
        """The template of that name, or None."""
        row = self.rows.get(namespace)
        return row.templates.get(name) if row else None

    def add(self, template: Template, room: int) -> list[Template]:
        """Add a template; returns those that are dropped to keep the weight within `room`."""
        if before := self.find(template.namespace, template.name):
            self.discard(before)
        row = self.rows.setdefault(template.namespace, _Row())
        row.templates[template.name] = template
        row.weight += self._weighs(template)
        self.weight += self._weighs(template)
        victims: list[Template] = []
        while self.weight > room:
            fullest = max(self.rows.values(), key=lambda each: each.weight)
            # The one that failed most often, else the oldest. Those that count as made go last.
            victims.append(
                max(fullest.templates.values(), key=lambda each: (not each.made, each.pause))
            )
            self.discard(victims[-1])
        return victims

    def discard(self, template: Template) -> None:
        """Remove a template, if it is there."""
        row = self.rows.get(template.namespace)
        if row is None or row.templates.get(template.name) is not template:
            return
        del row.templates[template.name]
        row.weight -= self._weighs(template)
        self.weight -= self._weighs(template)
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
            yield max(row.turn, min(each.due for each in row.templates.values()))


def _due(template: Template) -> float:
    return template.due


def _weight(template: Template) -> int:
    return template.weight


class _Class(NamedTuple):
    """A device class as it was last seen."""

    checked: float
    is_there: bool
    problem: str  #: a warning for authors of pods that use it


class _Refused(ClusterError):
    """The API server refuses to create an object, whatever is tried."""


class _Beyond(Exception):
    """A template does not exist and must not be created; `str()` of it names the bound."""


class _Gone(Exception):
    """The namespace is gone."""


class TemplateMaker:
    """Creates templates in a thread (an `app.Provisioner`)."""

    def __init__(
        self,
        cluster: Caller,
        metrics: Metrics,
        resources: Resources = MIG,
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
    ) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._resources = resources
        self._limits = limits
        self._changed = threading.Condition()  # guards the fields below
        self._missing = Turns(_weight)  #: to be created
        self._again = Turns(_weight)  #: known, and to be checked
        self._known = Turns(lambda template: 1)  #: known to exist; only counted
        self._classes: dict[str, _Class] = {}  #: at most one for each known profile
        self._waiters: Counter[str] = Counter()  #: admissions that wait, by namespace
        self._was_look = False  #: whether the last attempt was a check
        self._next_look = 0.0
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
                requests = (request for claim in wanted for request in claim.requests)
                choices = (choice for request in requests for choice in request.choices)
                warnings += [wrong.get(choice.device_class, "") for choice in choices]
        return list(dict.fromkeys(filter(None, warnings)))[:MAX_MESSAGES]

    def _ask(self, namespace: str, claim: DeviceClaim, api: ResourceAPI, now: float) -> Template:
        """Queue the template of a claim: to be created, or to be checked if it is known."""
        name = claim.template
        found = self._known.find(namespace, name) or self._missing.find(namespace, name)
        template = found or Template(namespace, name, self._kind(claim), api, None)
        template.asked, is_known = now, template.until > now
        queue = self._again if is_known else self._missing
        if queue.find(namespace, name) is template:
            if not is_known and template.due > now:
                # The reason why it could not be created may be gone.
                template.due, template.pause = now, self._limits.first_pause
            return template
        self._again.discard(template)
        template.api, template.pause = api, self._limits.first_pause
        template.due = (
            max(now, template.checked + self._limits.template_recheck) if is_known else now
        )
        template.claim, template.weight = None, 1024
        if from_template(name, self._resources) != claim:
            choices = sum(len(request.choices) for request in claim.requests)
            template.claim, template.weight = claim, 1024 * (1 + choices)
        self._wait(template, queue)
        return template

    def _wait(self, template: Template, queue: Turns) -> None:
        """Add a template to a queue."""
        for victim in queue.add(template, self._limits.templates_waiting):
            victim.attempts += 1
            self._changed.notify_all()

    def _kind(self, claim: DeviceClaim) -> int:
        choices = [choice for request in claim.requests for choice in request.choices]
        if sum(bool(choice.selector) for choice in choices) > self._limits.template_selectors:
            return _LARGE
        if any(choice.profile and not choice.profile.known for choice in choices):
            return _UNKNOWN
        is_plain = len(choices) == 1 and claim.requests[0].count == 1 and not claim.placement
        return _PLAIN if is_plain else _COUNTED

    # -- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                template = self._next(time.monotonic())
                while template is None and not self._stopped:
                    self._changed.wait(self._until_due(time.monotonic()))
                    template = self._next(time.monotonic())
                if template is None or self._stopped:
                    return
                claim = template.claim or from_template(template.name, self._resources)
            self._try(template, claim)
            with self._changed:
                template.attempts += 1
                self._changed.notify_all()

    def _next(self, now: float) -> Template | None:
        """The next template to create or to check; these two take turns."""
        look = None
        missing = self._missing.next(now) if self._was_look else None
        if missing is None and now >= self._next_look:
            look = self._again.next(now)
        if look:
            self._next_look = now + self._limits.template_spacing
            self._again.discard(look)  # a pod that asks meanwhile queues another check
        self._was_look = look is not None
        return look or missing or self._missing.next(now)

    def _until_due(self, now: float) -> float | None:
        looks = [max(each, self._next_look) for each in self._again.firsts()]
        dues = [each.due for row in self._missing.rows.values() for each in row.templates.values()]
        return max(0.0, min([*dues, *looks]) - now) if dues or looks else None

    def _try(self, template: Template, claim: DeviceClaim | None) -> None:
        """Make one attempt at a template and record the result."""
        fields: dict[str, object] = {"namespace": template.namespace, "template": template.name}
        outcome, pause = "failed", template.pause
        try:
            assert claim is not None  # it is kept where the name does not say everything
            outcome, how, again = self._make(template, claim)
        except ClusterError as error:
            reason = str(error)
            with self._changed:
                self._later(template, self._again if template.until else self._missing)
                _, quota, rest = reason.partition("exceeded quota")
                what = f"ResourceClaimTemplate {template.name} cannot be created"
                template.problem = f"{what}: {quota}{rest}" if quota else ""
            fields |= {"reason": reason, "seconds": pause}
            _log.warning("a template was not created", extra={"fields": fields})
        except _Beyond as beyond:
            outcome = "beyond_bound"
            with self._changed:
                self._forget(template)
                template.problem = f"ResourceClaimTemplate {template.name} does not exist: {beyond}"
            if time.monotonic() >= self._next_log:  # there can be hundreds a second
                self._next_log = time.monotonic() + 1.0
                fields["reason"] = str(beyond)
                _log.warning("a template is beyond a bound", extra={"fields": fields})
        except _Gone as gone:
            with self._changed:
                for turns in (self._missing, self._again, self._known):
                    row = turns.rows.get(template.namespace, _Row())
                    for each in list(row.templates.values()):
                        turns.discard(each)
                        each.until, each.problem, each.attempts = 0.0, "", each.attempts + 1
            fields["reason"] = str(gone)
            _log.warning("a template cannot be created", extra={"fields": fields})
        except Exception:  # the thread must survive internal errors; a retry would fail again
            _log.exception("creating a template failed", extra={"fields": fields})
            with self._changed:
                self._forget(template)
        else:
            with self._changed:
                is_news = not template.until or bool(how and not template.problem)
                self._remember(template, outcome, how)
                if again and self._again.find(template.namespace, template.name) is None:
                    template.due = template.checked + again
                    template.pause = min(2 * template.pause, self._limits.longest_pause)
                    self._wait(template, self._again)
            if how:
                fields["reason"] = how
            if outcome == "created" or is_news:
                level = logging.WARNING if how else logging.INFO
                _log.log(level, f"template {outcome}", extra={"fields": fields})
        self._metrics.template_creations.labels(outcome).inc()

    def _remember(self, template: Template, outcome: str, how: str) -> None:
        """Record that a template exists. how: in which way it differs, or ""."""
        self._missing.discard(template)
        self._known.discard(template)  # to be added again as the newest
        template.checked = time.monotonic()
        template.until = template.checked + self._limits.template_memory
        template.made = template.made or outcome == "created"
        template.problem = ""
        if how:
            what = f"ResourceClaimTemplate {template.name} differs from what InstaSlice creates"
            template.problem = f"{what}, and the pod gets what it asks for: {how}"
        for victim in self._known.add(template, self._limits.templates_known):
            victim.until = 0.0
        if self._again.find(template.namespace, template.name) is template:
            template.due = template.checked + self._limits.template_recheck
        else:
            template.claim = None

    def _forget(self, template: Template) -> None:
        template.until = 0.0
        for turns in (self._missing, self._again, self._known):
            turns.discard(template)

    def _later(self, template: Template, turns: Turns) -> None:
        """Schedule another attempt after a pause."""
        template.due = time.monotonic() + template.pause
        template.pause = min(2 * template.pause, self._limits.longest_pause)
        if turns is self._again and self._again.find(template.namespace, template.name) is None:
            self._wait(template, turns)

    def _make(self, template: Template, claim: DeviceClaim) -> tuple[str, str, float]:
        """Create or check a template and the classes that it refers to.

        Returns "created", "existed" or "differs"; the differences; and the seconds until its
        classes need another attempt, or 0. Raises ClusterError, _Beyond and _Gone.
        """
        beyond, outcome, differences, again = self._beyond(template), "", [], 0.0
        for manifest in objects(template.api, claim, template.namespace):
            path = f"/apis/{manifest['apiVersion']}/"
            if manifest["kind"] == "DeviceClass":
                again = max(again, self._make_class(manifest, path, template))
                continue
            path += f"namespaces/{quote(template.namespace, safe='')}/"
            outcome, how = self._make_object(manifest, path, template.until > 0, beyond)
            differences += [how] if how else []
        return "differs" if differences else outcome, ", ".join(differences), again

    def _make_class(self, manifest: Json, path: str, template: Template) -> float:
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
        problem, is_there = "", True
        try:
            outcome, how = self._make_object(manifest, path, before is not None)
        except _Refused as refused:
            outcome, how, is_there = "failed", str(refused), False
            command = f"instaslice deviceclasses {name.removesuffix(f'.{MIG_DOMAIN}')}"
            problem = f"DeviceClass {name} cannot be created; to create it: {command} "
            problem += f"--resource-api {path.split('/')[-2]} | kubectl apply -f -"
        except ClusterError:
            self._metrics.class_creations.labels("failed").inc()
            raise
        self._metrics.class_creations.labels(outcome).inc()
        if how and is_there:
            problem = f"DeviceClass {name} differs from what InstaSlice creates: {how}"
        fields = {"class": name, "reason": how}
        if problem and (before is None or problem != before.problem):
            _log.warning("a device class is missing or differs", extra={"fields": fields})
        if outcome == "created":
            _log.info("device class created", extra={"fields": fields})
        with self._changed:
            self._classes[name] = _Class(began, is_there, problem)
        return 0.0 if is_there else template.pause

    def _make_object(
        self, manifest: Json, path: str, look: bool, beyond: str = ""
    ) -> tuple[str, str]:
        """Create one object unless it exists; returns an outcome as `_make` does, and differences.

        look: it was there before, so it is read first. beyond: why it must not be created, or "".
        Raises ClusterError, _Beyond and _Gone.
        """
        path += PLURALS[manifest["kind"]]
        it = f"{path}/{quote(manifest['metadata']['name'], safe='')}"
        found = self._cluster.call("GET", it) if look or beyond else None
        if found is None or found.status in (403, 404):
            if beyond:
                raise _Beyond(beyond)
            made = self._cluster.call("POST", path, manifest)
            if made.status == 201:
                return "created", ""
            if _is_gone(made):
                raise _Gone(made.reason[:300])
            if made.status in (403, 409) and (found is None or found.status == 404):
                # A quota is enforced before the name is looked up.
                found = self._cluster.call("GET", it)
            if made.status == 409 and found and found.status == 403:
                return "existed", ""  # InstaSlice may not read it
            if made.status != 409 and (found is None or found.status != 200):
                is_final = 400 <= made.status < 500 and made.status not in (401, 408, 429)
                error = _Refused if is_final else ClusterError
                raise error(f"the API server answered {made.reason}")
        if found is not None and found.status == 200 and not found.body:
            return "differs", "it is too large or too deeply nested to compare"
        if found is None or found.status != 200 or not isinstance(found.body.get("spec"), dict):
            raise ClusterError(f"the API server answered {found.reason if found else 'nothing'}")
        ours = {**manifest["spec"]}
        if "extendedResourceName" not in found.body["spec"]:
            # The API server drops it if its gate is off, as in 1.34 and 1.35. Pods get the same.
            ours.pop("extendedResourceName", None)
        how = difference({"spec": ours}, found.body)
        return ("differs" if how else "existed"), how

    def _beyond(self, template: Template) -> str:
        """The bound that forbids to create a template, with the command to do it, or ""."""
        limits = self._limits
        if template.kind == _PLAIN or template.made:
            return ""
        command = _command(template)
        if template.kind == _LARGE:
            bound = limits.template_selectors
            return f"InstaSlice creates templates of at most {bound} selectors; {command}"
        with self._changed:
            row = self._known.rows.get(template.namespace, _Row())
            made = sum(each.made and each.kind == template.kind for each in row.templates.values())
        bound, whose = limits.templates_counted, "of several devices"
        if template.kind == _UNKNOWN:
            bound, whose = limits.templates_unknown, "for profiles of no known GPU"
        if made < bound:
            return ""
        return f"InstaSlice creates at most {bound} {whose} in a namespace; {command}"


def _command(template: Template) -> str:
    where = f"--namespace {template.namespace}"
    if template.claim:  # its name does not say everything
        return (
            f"to create it: instaslice rewrite --with-templates FILE | kubectl apply {where} -f -"
        )
    return f"to create it: instaslice templates --apply {where} {template.name}"


def _warning(template: Template, now: float) -> str:
    """The warning for the author of a pod that uses a template, or ""."""
    if template.until > now or template.problem:
        return template.problem
    return f"ResourceClaimTemplate {template.name} does not exist yet; {_command(template)}"


def _is_gone(answer: Answer) -> bool:
    """Whether an answer says that the namespace does not exist or is being deleted."""
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
