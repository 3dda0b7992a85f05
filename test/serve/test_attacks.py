"""A hostile client beside an honest one, from the same address. `make soak` has more."""

import contextlib
import http.client
import os
import signal
import time
from collections.abc import Callable
from functools import partial

import pytest

from test.support import attacks
from test.support.apiserver import APIServer
from test.support.process import PATIENCE
from test.support.serving import SAMPLE, Server, Serving, exchange, memory, until

#: Honest requests of each kind beside an attack; `make coverage` sends more.
OFTEN = int(os.environ.get("ATTACK_REQUESTS", "3"))
#: Seconds for an honest request on an idle machine. On a busy one it may take ten times as long as
#: the longest without an attack.
PROMPT = 0.5


def timed(call: Callable[..., tuple[int, bytes]]) -> float:
    start = time.monotonic()
    assert call("POST", "/mutate", SAMPLE)[0] == 200
    return time.monotonic() - start


@pytest.fixture(scope="module")
def quiet() -> list[float]:
    """Seconds of requests without an attack, before each one so far."""
    return []


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_honest_requests_are_answered_beside_an_attack(
    name: str, shared: Server, quiet: list[float]
) -> None:
    [worker] = shared.workers()
    quiet += [timed(shared.call) for _ in range(2 * OFTEN)]
    with (
        contextlib.closing(shared.connect()) as kept,
        attacks.attack(name, shared.port) as attacker,
    ):
        calls = (shared.call, partial(exchange, kept))
        assert timed(calls[1]) < PATIENCE
        # Its first burst is the largest, and nothing shows when that is over.
        time.sleep(max(0.6, 0.04 * OFTEN))
        seconds = []
        for _ in range(OFTEN):
            for call in calls:
                seconds.append(timed(call))
                time.sleep(0.02)
        assert attacker.poll() is None
    assert max(seconds) < max(PROMPT, 10 * max(quiet))
    assert shared.workers() == [worker]
    assert memory(worker)["VmHWM"] < 200 * 1024
    assert [line for line in shared.lines() if line["level"] == "error"] == []


def connected(server: Server) -> http.client.HTTPSConnection | None:
    """A connection after its handshake; None if the server does not listen any more."""
    connection = server.connect()
    try:
        connection.connect()
    except ConnectionError:
        return None
    return connection


def test_sigterm_during_a_flood_loses_no_request(serving: Serving) -> None:
    with serving() as server, contextlib.ExitStack() as stack:
        kept = [stack.enter_context(contextlib.closing(server.connect())) for _ in range(5)]
        for connection in kept:
            connection.connect()
        for _ in range(2):
            stack.enter_context(attacks.attack("connect()", server.port))
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        let_in = 0
        while new := connected(server):
            with contextlib.closing(new):
                assert exchange(new, "POST", "/mutate", SAMPLE)[0] == 200
            let_in += 1
        assert let_in
        for connection in kept:
            assert exchange(connection, "POST", "/mutate", SAMPLE)[0] == 200
        assert server.process.wait(timeout=PATIENCE) == 0
        said = [line["message"] for line in server.lines()]
        assert not [text for text in said if "TIMEOUT" in text or "killed" in text.lower()]


@pytest.mark.parametrize("seconds", [0.05, 30.0])
def test_a_new_worker_asks_for_the_version_before_it_refuses(
    seconds: float, serving: Serving, api_server: APIServer, reached: list[str]
) -> None:
    options = ["--resource-api", "auto", *reached]
    with serving(*options) as server:
        until(lambda: server.call("GET", "/readyz")[0] == 200)
        [worker] = server.workers()
        api_server.delay = seconds
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.workers() not in ([worker], []) and len(server.workers()) == 1)
        start = time.monotonic()
        body = server.call("POST", "/mutate", SAMPLE)[1]
        assert (b'"allowed":true' in body) == (seconds < 1)
        assert time.monotonic() - start < 4, "before the API server's timeout"
