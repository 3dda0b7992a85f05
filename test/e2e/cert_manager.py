"""cert-manager: its definitions, and its real controller and cainjector.

CERT_MANAGER_CONTROLLER and CERT_MANAGER_CAINJECTOR name the programs. Its webhook does not run,
since it only validates users' objects.
"""

import os
import subprocess
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from test.e2e.cluster import Cluster, Json
from test.support.process import free_ports, running, until

PROGRAMS: Final = ("CERT_MANAGER_CONTROLLER", "CERT_MANAGER_CAINJECTOR")

_ANYTHING: Final = {
    "openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
}


def missing() -> str:
    """The programs that are missing, in one line; empty if there are none."""
    lacks = [name for name in PROGRAMS if not os.access(os.environ.get(name, ""), os.X_OK)]
    return f"needs cert-manager: {' and '.join(lacks)} name no program" if lacks else ""


def definition(kind: str, group: str, version: str = "v1", scope: str = "Namespaced") -> Json:
    """A CustomResourceDefinition that accepts any fields."""
    served = {"name": version, "served": True, "storage": True, "schema": _ANYTHING}
    plural = f"{kind.lower()}{'' if kind.endswith('s') else 's'}"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "names": {"kind": kind, "plural": plural, "singular": kind.lower()},
            "scope": scope,
            "versions": [{**served, "subresources": {"status": {}}}],
        },
    }


def define(cluster: Cluster, *definitions: Json) -> None:
    """Create definitions, and wait until they are served."""
    for each in definitions:
        cluster.create(each)
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all").check_returncode()


_GROUP: Final = "cert-manager.io"
CERTIFICATES: Final = (definition("Certificate", _GROUP), definition("Issuer", _GROUP))
#: The definitions of all objects that the programs watch.
_DEFINITIONS: Final = (
    *CERTIFICATES,
    definition("CertificateRequest", _GROUP),
    definition("ClusterIssuer", _GROUP, scope="Cluster"),
    definition("Challenge", f"acme.{_GROUP}"),
    definition("Order", f"acme.{_GROUP}"),
)


@contextmanager
def cert_manager(cluster: Cluster, folder: Path) -> Iterator[None]:
    """Run cert-manager inside the context. folder: an existing one, for logs."""
    define(cluster, *_DEFINITIONS)
    cluster.make("Namespace", "cert-manager")
    metrics, health = free_ports(2)
    options = [f"--kubeconfig={cluster.plane.kubeconfig}", "--leader-elect=false", "--v=2"]
    controller = [f"--metrics-listen-address=127.0.0.1:{metrics}"]
    controller += [f"--internal-healthz-listen-address=127.0.0.1:{health}"]
    with ExitStack() as stack:
        for name, own in zip(PROGRAMS, (controller, _unmeasured()), strict=True):
            command = [os.environ[name], *options, *own]
            environment = {"KUBECONFIG": str(cluster.plane.kubeconfig)}
            stack.enter_context(running(command, folder / f"{name}.log", environment))
        yield


def _unmeasured() -> list[str]:
    """The option that keeps newer cainjectors from listening on a fixed port."""
    asked = subprocess.run(
        [os.environ[PROGRAMS[1]], "--help"], capture_output=True, text=True, timeout=30
    )
    option = "--metrics-listen-address"
    return [f"{option}=0"] if option in asked.stdout + asked.stderr else []


def secret(cluster: Cluster, name: str) -> dict[str, bytes]:
    """The data of a Secret; empty if it does not exist."""
    found = cluster.find("Secret", name) or {}
    return {key: b64decode(value) for key, value in (found.get("data") or {}).items()}


def renew(cluster: Cluster, certificate: str, secret_name: str) -> float:
    """Request a new certificate, as `cmctl renew` does. Returns the seconds until it is issued."""
    before, start = secret(cluster, secret_name), time.monotonic()
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    issuing = {"type": "Issuing", "status": "True", "reason": "ManuallyTriggered"}
    found = cluster.send("get", "Certificate", "cert-manager.io/v1", name=certificate).body
    kept = [each for each in found["status"]["conditions"] if each["type"] != "Issuing"]
    body = {"status": {"conditions": [*kept, {**issuing, "lastTransitionTime": now}]}}
    how = "application/merge-patch+json"
    kind, version = "Certificate/status", "cert-manager.io/v1"
    cluster.send("patch", kind, version, name=certificate, body=body, content_type=how)
    until(
        lambda: secret(cluster, secret_name).get("tls.crt") not in (None, before.get("tls.crt")),
        f"{certificate} is issued again",
        seconds=60,
        every=0.1,
    )
    return time.monotonic() - start
