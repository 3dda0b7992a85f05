"""Replay the inputs that fuzzing found. Fuzzing itself needs atheris: `make fuzz`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from test.fuzz import fuzz_framing, fuzz_quantity, fuzz_review

CORPUS = Path(__file__).parent / "corpus"
CHECKS: dict[str, Callable[[bytes], None]] = {
    "framing": fuzz_framing.check,
    "review": fuzz_review.check,
    "quantity": fuzz_quantity.check,
}
FILES = sorted(path for path in CORPUS.glob("*/*"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_an_input_of_the_corpus_passes_its_check(path: Path) -> None:
    CHECKS[path.parent.name](path.read_bytes())


def test_the_corpus_has_every_target_and_is_small() -> None:
    assert {path.parent.name for path in FILES} == set(CHECKS)
    assert sum(path.stat().st_size for path in FILES) < 200_000
