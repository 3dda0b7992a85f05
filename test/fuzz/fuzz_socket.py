"""Random bytes over TLS, sent to a real server, which must survive them.

python -m test.fuzz.fuzz_socket [--seconds 60] [--seed N]; pytest runs a short one.
"""

import argparse
import contextlib
import math
import random
import ssl
import sys
import tempfile
import time
from pathlib import Path

from test.support.certs import Authority
from test.support.serving import SAMPLE, Server, serve

REQUEST = b"POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
SEEDS = (
    REQUEST + b"Content-Length: %d\r\n\r\n" % len(SAMPLE) + SAMPLE,
    REQUEST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    REQUEST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
    b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    b"HEAD /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
)
#: Lines that change the meaning of a request, or the end of its headers.
WORDS = (
    *(b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b" ", b":", b"\t", b"\xff", b"\xc3\xa9", b"HTTP/"),
    *(b"Content-Length: 5\r\n", b"Content-Length: 99999999999\r\n", b"Content-Length: -1\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Connection: close\r\n"),
    *(b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Expect: 100-continue\r\n", b" folded\r\n"),
    *(b"X: " + b"y" * 9000 + b"\r\n", b"X: y\r\n" * 200, b"Host: a\r\nHost: b\r\n", b"1e3", b"*"),
)
#: KiB by which the worker may grow.
GROWTH = 5 * 1024


def mutate(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randint(0, min(len(changed), chance.choice((60, 200, 5000))))
        match chance.randrange(5):
            case 0:
                changed[at:at] = chance.choice(WORDS)
            case 1:
                del changed[at : at + chance.choice((1, 2, 20, 1000))]
            case 2:
                changed[at : at + 1] = bytes([chance.randrange(256)])
            case 3:
                changed[at:at] = changed[chance.randint(0, len(changed)) :][:500]
            case _:
                changed[at : at + 4] = chance.choice(WORDS)
    return bytes(changed)


def attack(server: Server, chance: random.Random) -> None:
    """Open a connection, send random requests in pieces, and end it in a random way."""
    with contextlib.suppress(OSError), server.raw(timeout=0.02) as connection:
        data = b"".join(
            mutate(chance.choice(SEEDS), chance) for _ in range(chance.choice((1, 1, 3)))
        )
        while data:
            size = chance.choice((1, 50, 20_000, 20_000))
            connection.sendall(data[:size])
            data = data[size:]
            if size == 1 and chance.random() < 0.1:
                break  # cut short
        match chance.randrange(4):
            case 0:
                return
            case 1:
                connection.unwrap()
            case 2:  # no TLS any more
                connection.shutdown(2)
            case _:
                while answer := connection.recv(65536):
                    assert not answer.startswith(b"HTTP/1.1 5"), (data, answer)


def run(
    server: Server, seed: int, seconds: float = math.inf, connections: float = math.inf
) -> tuple[int, int]:
    """Attack until one bound is reached; returns the number of connections, and the growth in KiB.

    Raises AssertionError if the server has lost a worker, logged a fault, or grown.
    """
    chance = random.Random(seed)
    workers = server.workers()
    for _ in range(300):  # the worker keeps the memory that the first connections need
        attack(server, chance)
    before = server.resident()
    count = 0
    end = time.monotonic() + seconds
    while count < connections and time.monotonic() < end:
        attack(server, chance)
        count += 1
    assert server.call("POST", "/mutate", SAMPLE)[0] == 200
    assert server.workers() == workers, "a worker was lost"
    faults = [line for line in server.lines() if line["level"] not in ("info", "warning")]
    assert not faults, faults[:3]
    growth = server.resident() - before
    assert growth < GROWTH, f"the worker grew by {growth} KiB"
    return count, growth


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    arguments = parser.parse_args()
    print(f"socket: seed {arguments.seed}", flush=True)
    authority = Authority()
    context: ssl.SSLContext = authority.trusting()
    with tempfile.TemporaryDirectory() as folder:
        cert_dir = authority.mint(Path(folder) / "certs")
        with serve(cert_dir, context) as server:
            count, growth = run(server, arguments.seed, arguments.seconds)
    print(f"socket: {count} connections, no fault, the worker grew by {growth} KiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
