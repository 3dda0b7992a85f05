"""Hypothesis profiles, and fixtures for all tests."""

import contextlib
import functools
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import kubernetes_validate.utils
import pytest
from hypothesis import HealthCheck, settings

from instaslice.cluster.client import Cluster, in_cluster
from test.support.apiserver import APIServer
from test.support.certs import Authority

settings.register_profile(
    # The same examples each time, so that CI's result depends on the commit alone.
    "ci",
    derandomize=True,
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "nightly",
    max_examples=10_000,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("test", settings.get_profile("ci"), max_examples=40)
settings.register_profile("quick", settings.get_profile("ci"), max_examples=20)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "test")
settings.load_profile(PROFILE)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two processes for each processor, since many tests wait; those of `make quick` do not."""
    return (os.cpu_count() or 1) * (1 if PROFILE == "quick" else 2)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the reasons for skipped tests, one line for each reason."""
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"skipped {count}: {reason}")


# A shell that starts the tests in the background has them and their children ignore SIGINT. Tests
# send it, as Ctrl-C does.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Tests start more than a hundred processes, which would each compile the same modules.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# Without caches it reads megabytes of definitions, and lists their versions, for each of thousands
# of manifests.
for _name in ("schema_contents", "all_versions"):
    _cached = functools.cache(getattr(kubernetes_validate.utils, _name))
    setattr(kubernetes_validate.utils, _name, _cached)


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture
def cert_dir(authority: Authority, tmp_path: Path) -> Iterator[Path]:
    folder = authority.mint(tmp_path / "certs")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def api_server(cert_dir: Path) -> Iterator[APIServer]:
    with contextlib.closing(APIServer(cert_dir, "v1")) as server:
        yield server


@pytest.fixture
def account(authority: Authority, tmp_path: Path) -> Path:
    """A service account's folder, as the kubelet mounts it."""
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "ca.crt").write_bytes(authority.pem)
    (folder / "token").write_text("first\n")
    return folder


@pytest.fixture
def cluster(api_server: APIServer, account: Path) -> Cluster:
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1"}
    found = in_cluster({**environment, "KUBERNETES_SERVICE_PORT": str(api_server.port)}, account)
    assert found is not None
    return found
