"""Findings, as people and programs read them. Pure."""

import json
from collections.abc import Sequence
from typing import Final

from instaslice.doctor.findings import Finding, State

#: Colours of a terminal (ECMA-48, SGR).
_COLOURS: Final = {State.GOOD: "32", State.UNSURE: "33", State.WRONG: "31"}


def as_text(findings: Sequence[Finding], *, colour: bool = False) -> str:
    """A table: sign, check, what was found; and below it, what to do."""
    width = max((len(finding.check) for finding in findings), default=0)
    lines = []
    for finding in findings:
        sign = finding.state.value
        if colour:
            sign = f"\x1b[{_COLOURS[finding.state]}m{sign}\x1b[0m"
        lines.append(f"{sign} {finding.check:{width}}  {finding.text}")
        if finding.advice:
            lines.append(f"  {'':{width}}  -> {finding.advice}")
    return "".join(line + "\n" for line in lines)


def as_json(findings: Sequence[Finding]) -> str:
    """A list of objects; `state` is "good", "unsure" or "wrong"."""
    values = [
        {
            "check": finding.check,
            "state": finding.state.name.lower(),
            "text": finding.text,
            "advice": finding.advice,
        }
        for finding in findings
    ]
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
