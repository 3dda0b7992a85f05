"""Any bytes as HTTP: whatever is accepted, h11 and gunicorn's parser accept alike; and no fault."""

import random

from test.fuzz.fuzz_socket import mutate as mutate_http
from test.support import witnesses


def check(data: bytes) -> None:
    """Raises AssertionError where the three are not of one mind on what is accepted."""
    chance = random.Random(len(data))
    seen, accepted = witnesses.ours(data, chance)
    assert seen == witnesses.gunicorns(data)[: len(seen)], (data, seen)
    assert seen == [each for part in accepted for each in witnesses.h11s(part)], (data, seen)


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Bytes like `data`: HTTP with a line or two changed, moved or doubled."""
    return mutate_http(data, random.Random(seed))[:most]
