"""The soak's servers, and the rows of its table."""

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from test.support.certs import Authority
from test.support.reviews import load
from test.support.serving import Server, serve

MINUTES = float(os.environ.get("SOAK_MINUTES", "10"))
MIB = 1024
Json = dict[str, Any]


class Row(NamedTuple):
    what: str
    measured: str
    bound: str
    held: bool


def count(of_ten_minutes: int) -> int:
    return max(2, round(of_ten_minutes * MINUTES / 10))


def percentiles(seconds: list[float]) -> str:
    ordered = sorted(seconds)
    points = [ordered[int(len(ordered) * share)] for share in (0.5, 0.99)] + [ordered[-1]]
    return " / ".join(f"{1000 * point:.1f}" for point in points) + " ms"


class Place:
    """A folder for servers, and the authority of their certificates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority()

    @contextlib.contextmanager
    def serve(self, *options: str, **how: Any) -> Iterator[Server]:
        cert_dir = self.authority.mint(self.folder / "certs")
        with serve(cert_dir, self.authority.trusting(), *options, **how) as server:
            yield server

    def account(self) -> Path:
        """A service account's folder, as the kubelet mounts it."""
        account = self.folder / "account"
        account.mkdir(exist_ok=True)
        self.authority.ca.cert_pem.write_to_path(str(account / "ca.crt"))
        (account / "token").write_text("first")
        return account


def admit(server: Server, name: str, end: float, seconds: list[float]) -> None:
    """Send pods of new namespaces, whose templates must be created, until `end`."""
    review = load("create", "sample")
    number = 0
    while time.monotonic() < end:
        review["request"]["namespace"] = f"{name}-{number}".replace("_", "-")
        number += 1
        start = time.monotonic()
        status, body = server.call("POST", "/mutate", json.dumps(review).encode())
        assert status == 200
        assert json.loads(body)["response"]["allowed"]
        seconds.append(time.monotonic() - start)
