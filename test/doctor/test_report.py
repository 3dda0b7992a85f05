"""The report as text and as JSON."""

import json

from instaslice.doctor import report
from instaslice.doctor.report import Finding, State

FINDINGS = [
    Finding("DRA", State.GOOD, "served"),
    Finding("certificate", State.WRONG, "it ended", "renew it"),
]


def test_the_report() -> None:
    assert report.as_text(FINDINGS) == (
        "✓ DRA          served\n✗ certificate  it ended\n               -> renew it\n"
    )
    assert report.as_text(FINDINGS, colour=True).startswith("\x1b[32m✓\x1b[0m DRA")
    first, second = json.loads(report.as_json(FINDINGS))
    assert first == {"check": "DRA", "state": "good", "text": "served", "advice": ""}
    assert (second["state"], second["advice"]) == ("wrong", "renew it")
