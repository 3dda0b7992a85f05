"""A cluster for commands: a server that answers like an API server."""

from pathlib import Path

import pytest

from test.support import apiserver
from test.support.apiserver import APIServer
from test.support.certs import Authority


@pytest.fixture
def reached(
    api_server: APIServer, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """The option that makes a command use `api_server`, without proxies."""
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    ca, user = authority.ca.cert_pem.bytes(), {"token": "first"}
    return f"--kubeconfig={apiserver.kubeconfig(tmp_path / 'kubeconfig', api_server, ca, user)}"
