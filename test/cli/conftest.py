"""A cluster for commands: a server that answers as an API server does."""

from pathlib import Path

import pytest

from test.support import apiserver
from test.support.apiserver import APIServer
from test.support.certs import Authority


@pytest.fixture
def reached(
    api_server: APIServer, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The option by which a command reaches `api_server`, whatever there is of proxies."""
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    ca, user = authority.ca.cert_pem.bytes(), {"token": "first"}
    return f"--kubeconfig={apiserver.kubeconfig(tmp_path / 'kubeconfig', api_server, ca, user)}"
