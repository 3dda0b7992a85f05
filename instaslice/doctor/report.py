"""Findings and policies as people and programs read them. Pure."""

import json
import textwrap
from collections.abc import Sequence
from typing import Final

from instaslice.doctor.findings import Finding, State
from instaslice.doctor.policies import Policy
from instaslice.doctor.snapshot import some

#: Colours of a terminal (ECMA-48, SGR).
_COLOURS: Final = {State.GOOD: "32", State.UNSURE: "33", State.WRONG: "31"}

#: By effect of a policy: how that is, what is said of it, and what to do.
POLICIES: Final = {
    "counts": (State.GOOD, "{name} counts on: {keys}", ""),
    "ignores": (State.UNSURE, "{name} limits {keys}, which rewritten pods do not use", "{command}"),
    "evaded": (
        State.UNSURE,
        "{name} limits {keys} of pods in its scope ({detail}); claims have no scope, so that "
        "rewritten pods escape it",
        "{command}",
    ),
    "refuses": (
        State.WRONG,
        "LimitRange {name} has {keys} in its {detail}, so that every rewritten pod is refused",
        "take it out: a rewritten pod has no such limit that could please it; {command}",
    ),
    "lifted": (
        State.UNSURE,
        "LimitRange {name} has a max of {keys}, to which nothing holds rewritten pods",
        "deploy InstaSlice's ValidatingAdmissionPolicy, the component policies: docs/quotas.md",
    ),
    "lifted-before-1.30": (
        State.UNSURE,
        "LimitRange {name} has a max of {keys}, to which nothing holds rewritten pods: Kubernetes "
        "has the policies for that from 1.30 on",
        "use a ResourceQuota: docs/quotas.md",
    ),
    "mapped": (State.GOOD, "Kueue's configuration maps the classes of {keys}", ""),
    "unmapped": (
        State.WRONG,
        "queues cover {keys}, and Kueue's deviceClassMappings lack their classes: a rewritten pod "
        "of no Job is not admitted (Jobs count by the limits in their templates)",
        "{command}",
    ),
}


def of_policy(policy: Policy) -> tuple[State, str, str]:
    """State, text and advice."""
    state, text, advice = POLICIES[policy.effect]
    values = policy._asdict() | {"keys": some(policy.keys)}
    found = advice.format(**values)
    if policy.detail and policy.effect == "ignores":
        found += f" ({policy.detail})"
    return state, text.format(**values), found


def as_text(findings: Sequence[Finding], *, colour: bool = False, width: int = 0) -> str:
    """A table: sign, check, what was found; and below it, what to do.

    width: columns to wrap at; 0 for none. Advice, which is to be copied, is not wrapped.
    """
    first = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for finding in findings:
        sign = finding.state.value
        if colour:
            sign = f"\x1b[{_COLOURS[finding.state]}m{sign}\x1b[0m"
        text = (
            wrapped(finding.text, width - first - 4, " " * (first + 4)) if width else finding.text
        )
        lines.append(f"{sign} {finding.check:{first}}  {text}")
        if finding.advice:
            lines.append(f"  {'':{first}}  -> {finding.advice}")
    return "".join(line + "\n" for line in lines)


def wrapped(text: str, width: int, indent: str) -> str:
    """Text in lines of at most `width` columns beside their indent; a long word is not cut."""
    lines = textwrap.wrap(text, max(width, 20), break_long_words=False, break_on_hyphens=False)
    return f"\n{indent}".join(lines)


def as_json(findings: Sequence[Finding]) -> str:
    """A list of objects; `state` is "good", "unsure" or "wrong"."""
    values = [each._asdict() | {"state": each.state.name.lower()} for each in findings]
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
