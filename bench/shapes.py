"""`make bench-shapes`: measure the time of the largest reviews, and its growth with the size.

Times are the processor time of the core and of decoding the JSON. A size is the body's.
"""

import gc
import json
import time
from contextlib import suppress
from statistics import median

from instaslice.resource_api import NEWEST
from instaslice.review import BadReview, judge, read, respond
from test.support.shapes import SHAPES

#: etcd takes pods of up to half of this. The API server sends reviews of up to 3 MiB for such a
#: pod, and of twice that for an update.
LARGEST = 3 * 1024 * 1024
ROUNDS = 5


def sized(shape: str, size: int) -> bytes:
    """A review of about this size."""
    make, number = SHAPES[shape], 100
    for _ in range(8):
        body = json.dumps(make(number), separators=(",", ":")).encode()
        if 0.97 * size <= len(body) <= 1.03 * size:
            break
        number = max(1, round(number * size / len(body)))
    return body


def seconds(body: bytes) -> tuple[float, float]:
    """The median times to decode a review, and to answer it."""
    decoding, answering = [], []
    for _ in range(ROUNDS):
        start = time.process_time()
        decoded = json.loads(body)
        middle = time.process_time()
        with suppress(BadReview):
            request = read(decoded)
            respond(request, judge(request, NEWEST), [])
        decoding.append(middle - start)
        answering.append(time.process_time() - middle)
    return median(decoding), median(answering)


def main() -> None:
    gc.set_threshold(100_000, 50, 100)  # as in the server
    print("| shape, 3 MiB | json.loads | twice the size costs | the rest | twice the size costs |")
    print("|---|---|---|---|---|")
    for shape in SHAPES:
        half, whole = (seconds(sized(shape, LARGEST // n)) for n in (2, 1))
        parts = zip(half, whole, strict=True)
        cells = [f"{last * 1000:.1f} ms | {last / first:.2f}" for first, last in parts]
        print(f"| {shape} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
