"""InstaSlice as a separate process."""

import sys
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

from test.support.certs import Authority
from test.support.process import HOST, Process, free_port, until


class Webhook:
    """`instaslice serve` on loopback, which can be stopped and restarted."""

    def __init__(self, folder: Path, kubeconfig: Path, *options: str) -> None:
        """folder: for the certificate and the log. kubeconfig: InstaSlice's own."""
        authority = Authority()
        self.port = free_port()
        self.kubeconfig = kubeconfig
        self._ca = authority.pem
        self._url = f"https://{HOST}:{self.port}"
        self._log = folder / "instaslice.log"
        self._command = [
            *(sys.executable, "-m", "instaslice", "serve"),
            f"--bind={HOST}:{self.port}",
            f"--cert-dir={authority.mint(folder / 'tls')}",
            *("--log-format=text", f"--kubeconfig={kubeconfig}", "--provision-templates"),
            *options,
        ]
        self._process: Process | None = None
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=authority.trusting()),
        )

    @property
    def client_config(self) -> dict[str, Any]:
        """A WebhookClientConfig with its URL and the CA of its certificate."""
        return {"url": f"{self._url}/mutate", "caBundle": b64encode(self._ca).decode()}

    def start(self) -> None:
        """Start it, if it does not run, and wait until it is ready.

        Raises RuntimeError, with the end of its log, and TimeoutError.
        """
        self._process = process = Process(self._command, self._log)
        until(self.readiness, "InstaSlice is ready", process.check)

    def stop(self) -> None:
        """End it by SIGTERM, as Kubernetes does; no error if it does not run."""
        if self._process:
            self._process.stop(grace=15)

    def kill(self) -> None:
        """Kill it, as when a machine fails."""
        if self._process:
            self._process.kill()

    def readiness(self) -> str:
        """The body of its readiness probe if it is ready, else empty."""
        return self.get("/readyz")

    def get(self, path: str) -> str:
        """The body of an answer; empty if there is none, or for an error."""
        try:
            with self._opener.open(self._url + path, timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:  # the base class of urllib's errors
            return ""
