"""Feature gates; `test/e2e` asks real API servers of several versions."""

import pytest

from instaslice.cluster.client import Answer
from instaslice.doctor import gates
from instaslice.doctor.gates import GATES, Known
from instaslice.resource_api import NEWEST


@pytest.mark.parametrize("name", GATES)
def test_what_is_kept_is_on(name: str) -> None:
    path, manifest = gates.probe(NEWEST, name, "ml")
    assert path.endswith("?dryRun=All")
    assert gates.judge(name, Answer(201, manifest)) == Known(True)
    assert gates.judge(name, Answer(201, {**manifest, "spec": {}})) == Known(False)


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        (Answer(422, {"message": "invalid"}), Known(False)),
        (Answer(403, {"message": "forbidden"}), Known(None, "403 forbidden")),
        (Answer(201, {"spec": {"spec": {"devices": {"requests": []}}}}), Known(False)),
    ],
)
def test_other_answers(answer: Answer, known: Known) -> None:
    assert gates.judge(gates.PRIORITIZED, answer) == known
