"""A real server stays within the Deployment's memory, whatever clients send."""

import contextlib
from pathlib import Path

import yaml

from instaslice.quantity import NANO, nanos
from instaslice.serve.limits import Limits
from test.support import worst
from test.support.apiserver import FAULTS, APIServer
from test.support.limits import memory_limit
from test.support.process import PATIENCE
from test.support.serving import SAMPLE, Load, Serving, hung_up, memory, until

BASE = Path(__file__).parents[2] / "config" / "base" / "deployment.yaml"


def deployed() -> int:
    """The memory limit of the Deployment's container, in bytes."""
    deployment = next(iter(yaml.safe_load_all(BASE.read_text())))
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    return nanos(container["resources"]["limits"]["memory"]) // NANO


def test_the_largest_reviews_fit_the_deployments_memory(
    serving: Serving, api_server: APIServer, reached: list[str]
) -> None:
    options = ["--provision-templates", *reached]
    size = deployed()
    #: Unfinished requests are kept for the whole test, although others wait.
    limits = {"arrival": 600.0, "prompt": 600.0}
    with (
        memory_limit(size) as limit,
        serving(*options, within=limit.command, limits=limits) as server,
        contextlib.ExitStack() as stack,
    ):
        [worker] = server.workers()
        worst.hold_idle(server, stack, 200)
        # These come first, since later they would have to wait.
        unfinished = worst.hold_unfinished(server, stack, Limits().large // 2)
        api_server.fault = FAULTS["hang"]
        # Each has a namespace without known templates, so that its answer waits.
        clients = [
            stack.enter_context(Load(server, clients=1, body=worst.dense(f"n{number}")))
            for number in range(3)
        ]
        until(lambda: all(each.answered for each in clients), seconds=2 * PATIENCE)
        assert not all(map(hung_up, unfinished))
        assert server.call("POST", "/mutate", SAMPLE)[0] == 200
        assert server.workers() == [worker]
        apart = [memory(pid)["VmHWM"] for pid in (server.process.pid, worker)]
        assert (limit.peak() or 1024 * sum(apart)) < size * 9 // 10
