"""`make run`: serve with a throw-away certificate, and show samples/sample.yaml rewritten."""

import argparse
import base64
import difflib
import http.client
import json
import signal
import ssl
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import jsonpatch
import yaml

from instaslice.cli.main import main as instaslice
from test.support.certs import Authority
from test.support.process import HOST, ROOT, Process, until
from test.support.reviews import pod_review

SAMPLE = ROOT / "samples" / "sample.yaml"

TITLES = "as the user writes it", "as Kubernetes runs it"


def send(
    port: int,
    context: ssl.SSLContext,
    method: str,
    path: str,
    body: str | None = None,
    timeout: float = 5,
) -> bytes:
    """Send a request; returns the body of the answer. Raises OSError."""
    connection = http.client.HTTPSConnection(HOST, port, context=context, timeout=timeout)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        return connection.getresponse().read()
    finally:
        connection.close()


def is_up(port: int, context: ssl.SSLContext) -> bool:
    """Whether the server answers soon; a silent program may listen on a taken port."""
    try:
        return bool(send(port, context, "GET", "/healthz", timeout=0.5))
    except OSError:
        return False


def show(port: int, folder: str, pod: dict[str, Any], patched: dict[str, Any]) -> None:
    """Print the request, the changes to the pod, and a command that repeats the request."""
    (container,) = pod["spec"]["containers"]
    (claim,) = patched["spec"]["resourceClaims"]
    print(f"Pod:     {pod['metadata']['name']} ({SAMPLE.relative_to(ROOT)})")
    print(f"Asks:    {json.dumps(container['resources']['limits'])}")
    print(f"Sent to: POST https://{HOST}:{port}/mutate\n")
    print("\n".join(difference(pod, patched)))
    print(
        "\nThe template that it names and its device class; InstaSlice creates them when needed:\n"
    )
    instaslice(["templates", "--resource-api", "v1", claim["resourceClaimTemplateName"]])
    print("\nTo repeat the request:\n")
    print(f"  curl --cacert {folder}/ca.crt -H 'Content-Type: application/json' \\")
    print(f"    --data @{folder}/review.json https://{HOST}:{port}/mutate")
    print("\nServing. Ctrl-C ends it.", flush=True)


def difference(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """The lines of a unified diff of two objects as YAML."""
    old, new = (yaml.safe_dump(each, sort_keys=False).splitlines() for each in (before, after))
    return difflib.unified_diff(old, new, *TITLES, n=30, lineterm="")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make run", description=__doc__)
    parser.add_argument("--port", type=int, default=8443)
    port = parser.parse_args().port
    pod = yaml.safe_load(SAMPLE.read_text())
    # SIGTERM, from a supervisor, ends the server as Ctrl-C does. A shell with "&" ignores SIGINT.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)

    with tempfile.TemporaryDirectory(prefix="instaslice-") as folder:
        authority = Authority()
        context = authority.trusting()
        log = Path(folder, "log")
        body = json.dumps(pod_review(pod, uid=str(uuid4()), name=pod["metadata"]["name"]))
        Path(folder, "review.json").write_text(body)
        serve = [sys.executable, "-m", "instaslice", "serve", "--resource-api", "v1"]
        serve += ["--bind", f"{HOST}:{port}", "--cert-dir", str(authority.mint(Path(folder)))]
        server = Process([*serve, "--log-format", "text"], log)
        try:
            until(lambda: server.poll() is not None or is_up(port, context), "the server is up")
            if server.poll() is not None:
                raise OSError(reason(log.read_text(), port))
            answer = json.loads(send(port, context, "POST", "/mutate", body))
            patch = base64.b64decode(answer["response"]["patch"]).decode()
            show(port, folder, pod, jsonpatch.apply_patch(pod, patch))
            return server.wait()
        except KeyboardInterrupt:
            return 0
        except (OSError, http.client.HTTPException) as error:
            print(f"make run: {error}", file=sys.stderr)
            return 1
        finally:
            server.stop()


def reason(log: str, port: int) -> str:
    """The reason for which the server has ended, from its log."""
    if "Address already in use" in log:
        return f"port {port} is taken; choose another with `make run PORT=...`"
    return log.strip() or "the server ended without a message"


if __name__ == "__main__":
    sys.exit(main())
