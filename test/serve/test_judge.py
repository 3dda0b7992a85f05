import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from instaslice import review
from instaslice.cluster.discovery import Unknown
from instaslice.resource_api import NEWEST
from instaslice.resources import MIG
from instaslice.serve.judge import BadCall, Judge, decide
from instaslice.serve.limits import Limits
from test.support.process import until
from test.support.serving import SAMPLE, Server, Serving

LARGE = SAMPLE + b" " * Limits().light


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with contextlib.closing(Judge()) as made:
        yield made


def test_the_process_decides_as_the_function_does(judge: Judge) -> None:
    one, other = (each(SAMPLE, NEWEST, MIG) for each in (decide, judge.decide))
    assert one[0] == other[0]
    assert isinstance(one[1], review.Verdict)
    assert isinstance(other[1], review.Verdict)
    assert other[1].rewrite.claims == one[1].rewrite.claims
    _, away = judge.decide(SAMPLE, Unknown("not asked yet"), MIG)
    assert isinstance(away, review.Verdict)
    assert away.outcome == "unavailable"


def test_the_process_raises_bad_calls(judge: Judge) -> None:
    with pytest.raises(BadCall) as bad:
        judge.decide(b"{", NEWEST, MIG)
    assert bad.value.answer[0] == "400 Bad Request"


def judges(server: Server) -> list[int]:
    """The process ids of the worker's children."""
    tasks = Path(f"/proc/{server.workers()[0]}/task")
    return [int(pid) for each in tasks.iterdir() for pid in (each / "children").read_text().split()]


def test_a_process_that_hangs_is_replaced() -> None:
    with contextlib.closing(Judge(patience=2.0)) as made:

        def decides() -> bool:
            with contextlib.suppress(MemoryError):  # a busy machine may take long to start it
                return isinstance(made.decide(LARGE, NEWEST, MIG)[1], review.Verdict)
            return False

        until(decides)
        assert made._process is not None
        made._process.send_signal(signal.SIGSTOP)
        with pytest.raises(MemoryError):
            made.decide(LARGE, NEWEST, MIG)
        until(decides)


def test_a_killed_process_is_replaced(serving: Serving) -> None:
    with serving() as server:
        assert judges(server) == [], "no large body was sent yet"
        assert server.call("POST", "/mutate", LARGE)[0] == 200
        [old] = judges(server)
        os.kill(old, signal.SIGKILL)
        until(lambda: ") Z " in Path(f"/proc/{old}/stat").read_text())
        assert server.call("POST", "/mutate", LARGE)[0] == 200
        [new] = judges(server)
        assert new != old


def test_the_process_ends_with_its_worker(serving: Serving) -> None:
    with serving() as server:
        assert server.call("POST", "/mutate", LARGE)[0] == 200
        [judge] = judges(server)
        os.kill(server.workers()[0], signal.SIGKILL)
        until(lambda: not Path(f"/proc/{judge}").exists())
