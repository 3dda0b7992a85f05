"""InstaSlice as a process of its own."""

import ssl
import sys
import urllib.request
from base64 import b64encode
from pathlib import Path
from typing import Any

import trustme
from prometheus_client.parser import text_string_to_metric_families

from test.support.process import Process, free_ports, wait_for


class Webhook:
    """`instaslice serve` on loopback, which can be ended and started again."""

    def __init__(self, folder: Path, *options: str) -> None:
        """folder: for the certificate and the log."""
        (port,) = free_ports(1)
        ca, certificates = trustme.CA(), folder / "tls"
        pair = ca.issue_cert("127.0.0.1")
        certificates.mkdir(parents=True)
        pair.cert_chain_pems[0].write_to_path(str(certificates / "tls.crt"))
        pair.private_key_pem.write_to_path(str(certificates / "tls.key"))
        self._ca = ca.cert_pem.bytes()
        self._url = f"https://127.0.0.1:{port}"
        self._log = folder / "instaslice.log"
        self._command = [
            *(sys.executable, "-m", "instaslice", "serve"),
            f"--bind=127.0.0.1:{port}",
            f"--cert-dir={certificates}",
            "--log-format=text",
            *options,
        ]
        self._process: Process | None = None
        trust = ssl.create_default_context(cadata=self._ca.decode())
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        )

    @property
    def client_config(self) -> dict[str, Any]:
        """A WebhookClientConfig: where the API server finds it, and whose certificate it trusts."""
        return {"url": f"{self._url}/mutate", "caBundle": b64encode(self._ca).decode()}

    def start(self) -> None:
        """Start it, if it does not run, and wait until it is ready.

        Raises RuntimeError, with the end of its log, and TimeoutError.
        """
        self._process = process = Process(self._command, self._log)
        wait_for("InstaSlice is ready", self.readiness, process.check)

    def stop(self) -> None:
        """End it as Kubernetes does, by SIGTERM; no error where it does not run."""
        if self._process:
            self._process.stop(grace=15)

    def kill(self) -> None:
        """End it at once, as a machine that fails does."""
        if self._process:
            self._process.kill()

    def readiness(self) -> str:
        """What it says where it is ready, and else an empty text."""
        return self._get("/readyz")

    def admissions(self) -> int:
        """How many admission requests it has answered since it started."""
        return int(self.counted("instaslice_admission_requests_total"))

    def counted(self, name: str) -> float:
        """The sum of a metric over its labels."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self._get("/metrics"))
            for sample in family.samples
            if sample.name == name
        )

    def _get(self, path: str) -> str:
        """The body of an answer; empty where there is none or it is an error."""
        try:
            with self._opener.open(self._url + path, timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:  # urllib's errors are of its kind
            return ""
