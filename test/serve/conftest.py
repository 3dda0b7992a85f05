"""Fixtures for tests of the serving process."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.support.apiserver import APIServer, reaching
from test.support.certs import Authority
from test.support.serving import Logged, Server, Serving, serve


@pytest.fixture
def serving(cert_dir: Path, authority: Authority) -> Serving:
    return lambda *options, **how: serve(cert_dir, authority.trusting(), *options, **how)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Server]:
    """One server, for tests that leave it unchanged."""
    cert_dir = authority.mint(tmp_path_factory.mktemp("shared") / "certs")
    with serve(cert_dir, authority.trusting()) as running:
        yield running


@pytest.fixture
def reached(api_server: APIServer, account: Path) -> list[str]:
    """Options by which a server reaches `api_server`."""
    return reaching(api_server, account)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> Logged:
    monkeypatch.setattr(logging.getLogger("instaslice"), "propagate", True)
    caplog.set_level(logging.INFO, "instaslice")
    return lambda: [(each.getMessage(), each.__dict__["fields"]) for each in caplog.records]
