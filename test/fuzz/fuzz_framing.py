"""Any bytes as HTTP: h11 and gunicorn's parser read each accepted request in the same way."""

import random

from test.fuzz.fuzz_socket import mutate as mutate_http
from test.support import witnesses


def check(data: bytes) -> None:
    """Raise AssertionError if the three disagree on an accepted request."""
    chance = random.Random(len(data))
    seen, accepted = witnesses.ours(data, chance)
    assert seen == witnesses.gunicorns(data)[: len(seen)], (data, seen)
    assert seen == [each for part in accepted for each in witnesses.h11s(part)], (data, seen)


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Bytes like `data`: HTTP with a line or two changed, moved or doubled."""
    return mutate_http(data, random.Random(seed))[:most]
