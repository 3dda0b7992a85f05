"""Findings, and the report that lists them as text or JSON. Pure."""

import json
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Final, NamedTuple

from instaslice.cluster.client import ClusterError
from instaslice.doctor.inventory import grouped
from instaslice.doctor.snapshot import advice_on


class State(Enum):
    """The state of a finding; its value is the sign in the report."""

    GOOD = "✓"
    UNSURE = "!"
    WRONG = "✗"


GOOD, UNSURE, WRONG = State
_COLOURS: Final = {GOOD: "32", UNSURE: "33", WRONG: "31"}  #: of a terminal (ECMA-48, SGR)
_COMMANDS: Final = ("kubectl ", "instaslice ")  #: how advice begins that is a command


class Finding(NamedTuple):
    """One line of the report."""

    check: str
    state: State
    text: str
    advice: str = ""  #: what the reader should do; may be empty


#: A check's findings: state, text and, mostly, advice.
Found = Iterator[tuple[State, str] | tuple[State, str, str]]


def gather(checks: Iterable[tuple[str, Found]]) -> list[Finding]:
    """Collect the findings of checks by title.

    For checks that lack a list, one finding gives the reason; missing rights count as one reason.
    """
    findings: list[Finding] = []
    failures: list[tuple[str, ClusterError]] = []
    for title, found in checks:
        try:
            findings += [Finding(title, *each) for each in found]
        except ClusterError as error:
            failures.append((title, error))
    return findings + unread(failures)


def unread(failures: Iterable[tuple[str, ClusterError]]) -> list[Finding]:
    """A finding for each reason why something could not be read; missing rights are one reason."""
    findings = []
    by_reason = grouped((advice_on(each[1].status) or str(each[1]), each) for each in failures)
    for same in by_reason.values():
        first, *others = dict.fromkeys(str(error) for _, error in same)
        text = f"{', '.join(name for name, _ in same)}: {first}"
        text += f" (and {len(others)} more)" if others else ""
        findings.append(Finding("not checked", UNSURE, text, advice_on(same[0][1].status)))
    return findings


def is_wrong(findings: Iterable[Finding]) -> bool:
    """Whether something has to be fixed."""
    return any(finding.state is WRONG for finding in findings)


def as_text(findings: Sequence[Finding], *, colour: bool = False, width: int = 0) -> str:
    """A table with a sign, the check and the finding; advice is on the next line.

    width: columns to wrap at; 0 for no wrapping. Commands are not wrapped, so they can be copied.
    """
    first = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for check, state, text, advice in findings:
        sign = f"\x1b[{_COLOURS[state]}m{state.value}\x1b[0m" if colour else state.value
        lines.append(f"{sign} {check:{first}}  {wrapped(text, width, first + 4)}")
        if advice:
            columns = 0 if advice.startswith(_COMMANDS) else width
            lines.append(f"  {'':{first}}  -> {wrapped(advice, columns, first + 7)}")
    return "".join(line + "\n" for line in lines)


def wrapped(text: str, width: int, indent: int) -> str:
    """Wrap text at `width` columns and indent all lines but the first; 0 for no wrapping."""
    lines = textwrap.wrap(
        text, max(width - indent, 20), break_long_words=False, break_on_hyphens=False
    )
    return f"\n{'':{indent}}".join(lines) if width else text


def as_json(findings: Sequence[Finding]) -> str:
    """A list of objects; `state` is "good", "unsure" or "wrong"."""
    values = [each._asdict() | {"state": each.state.name.lower()} for each in findings]
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
