"""`make run`: serve with a throw-away certificate and show what becomes of samples/sample.yaml."""

import argparse
import base64
import http.client
import json
import signal
import ssl
import sys
import tempfile
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonpatch
import yaml

from test.support.certs import Authority
from test.support.process import HOST, ROOT, Process, until

SAMPLE = ROOT / "samples" / "sample.yaml"


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


def send(
    port: int,
    context: ssl.SSLContext,
    method: str,
    path: str,
    body: str | None = None,
    timeout: float = 5,
) -> bytes:
    """The answer to a request. Raises OSError."""
    connection = http.client.HTTPSConnection(HOST, port, context=context, timeout=timeout)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        return connection.getresponse().read()
    finally:
        connection.close()


def is_up(port: int, context: ssl.SSLContext) -> bool:
    """Whether the server answers soon; on a port that is taken, a silent program may listen."""
    try:
        return bool(send(port, context, "GET", "/healthz", timeout=0.5))
    except OSError:
        return False


def show(title: str, pod: dict[str, Any]) -> None:
    print(f"# {title}\n{yaml.safe_dump(pod, sort_keys=False)}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--port", type=int, default=8443)
    port = parser.parse_args().port
    pod = yaml.safe_load(SAMPLE.read_text())
    # A supervisor's SIGTERM ends the server as Ctrl-C does; a shell with "&" has SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)

    with tempfile.TemporaryDirectory(prefix="instaslice-") as folder:
        authority = Authority()
        context = authority.trusting()
        serve = [sys.executable, "-m", "instaslice", "serve", "--resource-api", "v1"]
        serve += ["--bind", f"{HOST}:{port}", "--cert-dir", str(authority.mint(Path(folder)))]
        server = Process([*serve, "--log-format", "text"], log=None)
        try:
            until(lambda: server.poll() is not None or is_up(port, context), "the server is up")
            if server.poll() is not None:
                return server.poll() or 1  # it has said why
            answer = json.loads(send(port, context, "POST", "/mutate", json.dumps(review(pod))))
            patch = base64.b64decode(answer["response"]["patch"]).decode()
            show(f"{SAMPLE.name}, as a user writes it", pod)
            show("the pod that Kubernetes runs", jsonpatch.apply_patch(pod, patch))
            print(f"Serving on https://{HOST}:{port}; its CA is {folder}/ca.crt. Ctrl-C ends it.")
            sys.stdout.flush()
            return server.wait()
        except KeyboardInterrupt:
            return 0
        except (OSError, http.client.HTTPException) as error:
            print(f"make run: {error}", file=sys.stderr)
            return 1
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main())
