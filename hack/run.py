"""`make run`: serve with a throw-away certificate and show what becomes of samples/sample.yaml."""

import argparse
import base64
import http.client
import json
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonpatch
import trustme
import yaml

SAMPLE = Path(__file__).parent.parent / "samples" / "sample.yaml"
HOST = "127.0.0.1"

#: Seconds for the server to come up; it takes less than one.
START = 15.0


def mint(folder: Path) -> ssl.SSLContext:
    """Write tls.crt and tls.key, and return a context that trusts only them."""
    authority = trustme.CA()
    certificate = authority.issue_cert(HOST, "localhost")
    certificate.private_key_pem.write_to_path(str(folder / "tls.key"))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(folder / "tls.crt"), append=True)
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def review(pod: dict[str, Any]) -> dict[str, Any]:
    """The AdmissionReview that the API server would send for a new pod."""
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": str(uuid4()),
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "default",
            "name": pod["metadata"]["name"],
            "operation": "CREATE",
            "object": pod,
        },
    }


def send(port: int, context: ssl.SSLContext, method: str, path: str, body: str | None) -> bytes:
    connection = http.client.HTTPSConnection(HOST, port, context=context, timeout=5)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        return connection.getresponse().read()
    finally:
        connection.close()


def wait(server: subprocess.Popen[bytes], port: int, context: ssl.SSLContext) -> bool:
    """Whether the server came up; if not, it has said why."""
    deadline = time.monotonic() + START
    while server.poll() is None and time.monotonic() < deadline:
        try:
            send(port, context, "GET", "/healthz", None)
            return True
        except OSError:
            time.sleep(0.05)
    return False


def show(title: str, pod: dict[str, Any]) -> None:
    print(f"# {title}\n{yaml.safe_dump(pod, sort_keys=False)}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8443)
    port = parser.parse_args().port
    pod = yaml.safe_load(SAMPLE.read_text())
    # A supervisor's SIGTERM ends the server as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    with tempfile.TemporaryDirectory(prefix="instaslice-") as folder:
        context = mint(Path(folder))
        serve = [sys.executable, "-m", "instaslice", "serve", "--resource-api", "v1"]
        serve += ["--bind", f"{HOST}:{port}", "--cert-dir", folder, "--log-format", "text"]
        server = subprocess.Popen(serve)
        try:
            if not wait(server, port, context):
                return server.poll() or 1
            answer = json.loads(send(port, context, "POST", "/mutate", json.dumps(review(pod))))
            patch = base64.b64decode(answer["response"]["patch"]).decode()
            show(f"{SAMPLE.name}, as a user writes it", pod)
            show("the pod that Kubernetes runs", jsonpatch.apply_patch(pod, patch))
            print(f"Serving on https://{HOST}:{port}; its CA is {folder}/ca.crt. Ctrl-C ends it.")
            sys.stdout.flush()
            return server.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            if server.poll() is None:
                server.terminate()
            server.wait()


if __name__ == "__main__":
    sys.exit(main())
