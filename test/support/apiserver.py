"""An HTTPS server that answers as an API server does, faults included."""

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Json = dict[str, Any]

#: Answers a request with any bytes.
Fault = Callable[[BaseHTTPRequestHandler], object]

GROUP = "/apis/resource.k8s.io"


def status(code: int, reason: str, message: str, **details: Any) -> Json:
    """A metav1.Status, as the API server answers errors."""
    kind = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "metadata": {}}
    return {**kind, "code": code, "reason": reason, "message": message, "details": details}


class APIServer:
    """Serves some versions of resource.k8s.io, and stores the objects that are created."""

    def __init__(self, cert_dir: Path, *versions: str) -> None:
        self.versions = list(versions)
        #: Versions that are served without DRA's kinds, as v1alpha3 is from 1.33 on.
        self.hollow: set[str] = set()
        #: Names of fields that are dropped everywhere, as by a feature gate that is off.
        self.dropped: set[str] = set()
        self.token = "first"
        self.namespaces = {"default", "ml"}
        self.terminating: set[str] = set()
        self.objects: dict[str, Json] = {}  # path -> manifest
        self.lists: dict[str, list[Json]] = {}  # path -> items
        self.requests: list[tuple[str, str]] = []
        self.fault: Fault | None = None
        self.fault_after = 0  #: requests that are answered before the fault
        self.delay = 0.0  #: seconds before each answer
        #: Seconds to create an object; objects are created one at a time, as on one core.
        self.cost: Callable[[Json], float] = lambda manifest: 0.0
        self._core = threading.Lock()
        self._cert_dir = cert_dir
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            #: As Go does. Otherwise a body waits 40 ms for the client's delayed ACK of its headers.
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                server._serve(self)

            do_POST = do_PATCH = do_GET  # noqa: N815 - http.server names them so

            def log_message(self, *args: object) -> None:
                """Print nothing; tests read `requests`."""

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *args: object) -> None:
                """Print nothing; some tests hang up on purpose."""

        self._http = Quiet(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert_dir / "tls.crt", cert_dir / "tls.key")
        self._http.socket = context.wrap_socket(
            self._http.socket, server_side=True, do_handshake_on_connect=False
        )
        self.port: int = self._http.server_address[1]
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def created(self, kind: str) -> list[str]:
        """namespace/name, or name, of each object of a kind, in the order of creation."""
        return [
            "/".join(filter(None, (o["metadata"].get("namespace"), o["metadata"]["name"])))
            for o in self.objects.values()
            if o["kind"] == kind
        ]

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append((handler.command, handler.path))
        length = int(handler.headers.get("Content-Length") or 0)
        body = json.loads(handler.rfile.read(length)) if length else None
        time.sleep(self.delay)
        if self.fault and len(self.requests) > self.fault_after:
            handler.close_connection = True
            self.fault(handler)
            return
        code, answer = self._answer(handler, body)
        reply(handler, code, json.dumps(answer).encode())

    def _answer(self, handler: BaseHTTPRequestHandler, body: Json | None) -> tuple[int, Json]:
        if handler.headers.get("Authorization") != f"Bearer {self.token}":
            return 401, status(401, "Unauthorized", "Unauthorized")
        path = handler.path.partition("?")[0]
        if handler.command == "GET":
            if path in self.objects:
                return 200, self.objects[path]
            if path in self.lists:
                return 200, {"items": self.lists[path]}
            if path == "/api/v1/namespaces":
                return 200, {"items": [self._namespace(name) for name in sorted(self.namespaces)]}
            return self._discover(path)
        assert body is not None
        if seconds := self.cost(body):
            with self._core:
                time.sleep(seconds)
        if handler.command == "PATCH":
            return self._apply(path, body)
        is_namespaced = "/namespaces/" in path
        namespace = path.partition("/namespaces/")[2].partition("/")[0]
        if is_namespaced and namespace not in self.namespaces:
            message = f'namespaces "{namespace}" not found'
            return 404, status(404, "NotFound", message, name=namespace, kind="namespaces")
        if namespace in self.terminating:
            causes = [{"reason": "NamespaceTerminating", "message": "being terminated"}]
            return 403, status(403, "Forbidden", "forbidden: being terminated", causes=causes)
        name = body["metadata"].get("name") or body["metadata"]["generateName"] + "0"
        key = f"{path}/{name}"
        if key in self.objects:
            return 409, status(409, "AlreadyExists", f"{key} already exists")
        body = without(body, self.dropped)
        if "dryRun=All" not in handler.path:
            self.objects[key] = body
        return 201, body

    def _namespace(self, name: str) -> Json:
        phase = "Terminating" if name in self.terminating else "Active"
        return {"metadata": {"name": name}, "status": {"phase": phase}}

    def _apply(self, path: str, body: Json) -> tuple[int, Json]:
        """Apply on the server's side, with one field manager, so that the object is replaced."""
        before = self.objects.get(path)
        version = before["metadata"]["resourceVersion"] if before else "1"
        after = {**body, "metadata": {**body["metadata"], "resourceVersion": version}}
        if before and after != before:
            after["metadata"]["resourceVersion"] = str(int(version) + 1)
        self.objects[path] = after
        return (200 if before else 201), after

    def _discover(self, path: str) -> tuple[int, Json]:
        if path == GROUP and self.versions:
            versions = [{"groupVersion": f"{GROUP[6:]}/{v}", "version": v} for v in self.versions]
            return 200, {"kind": "APIGroup", "name": GROUP[6:], "versions": versions}
        version = path.removeprefix(GROUP + "/")
        if version in self.versions:
            kinds = ["devicetaintrules"]
            if version not in self.hollow:
                kinds += ["resourceclaims", "resourceclaimtemplates"]
            return 200, {"kind": "APIResourceList", "resources": [{"name": k} for k in kinds]}
        return 404, status(404, "NotFound", "the server could not find the requested resource")


def without(value: Any, names: set[str]) -> Any:
    """A copy of a JSON value without the members of some names."""
    if isinstance(value, dict):
        return {k: without(v, names) for k, v in value.items() if k not in names}
    return [without(each, names) for each in value] if isinstance(value, list) else value


def reaching(server: APIServer, account: Path) -> list[str]:
    """Options for `instaslice serve` to reach a server. account: a service account's folder."""
    ca, user = (account / "ca.crt").read_bytes(), {"tokenFile": "token"}
    return ["--kubeconfig", str(kubeconfig(account / "config", server, ca, user, "default"))]


def kubeconfig(path: Path, server: APIServer, ca: bytes, user: Json, namespace: str = "ml") -> Path:
    """Write a kubeconfig with one context; returns its path. ca: PEM."""
    url, authority = f"https://127.0.0.1:{server.port}", base64.b64encode(ca).decode()
    cluster = {"server": url, "certificate-authority-data": authority}
    context = {"cluster": "c", "user": "u", "namespace": namespace}
    config = {
        "current-context": "here",
        "contexts": [{"name": "here", "context": context}],
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": user}],
    }
    path.write_text(json.dumps(config))
    return path


def reply(handler: BaseHTTPRequestHandler, code: int, data: bytes) -> None:
    handler.send_response(code)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data)


# -- faults --------------------------------------------------------------------------------------


#: Seconds: later than any tested deadline, even on a busy machine.
LATE = 60.0


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Answer long after any deadline."""
    time.sleep(LATE)  # on a thread that ends with the process


def drip(handler: BaseHTTPRequestHandler) -> None:
    """Send a byte now and then: each read succeeds, and the answer ends after any deadline."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    end = time.monotonic() + LATE
    while time.monotonic() < end:
        handler.wfile.write(b" ")  # it fails once the client has hung up
        time.sleep(0.1)


def sending(data: bytes) -> Fault:
    """Send these bytes, and hang up."""
    return lambda handler: handler.wfile.write(data)


def error(code: int, reason: str) -> Fault:
    return lambda handler: reply(handler, code, json.dumps(status(code, reason, reason)).encode())


hang_up = sending(b"")
_OK = b"HTTP/1.1 200 OK\r\n"
FAULTS: dict[str, Fault] = {
    "hang": hang,
    "drip": drip,
    "hang_up": hang_up,
    "half_a_body": sending(_OK + b'Content-Length: 1000\r\n\r\n{"versions": ['),
    "garbage": lambda handler: reply(handler, 200, b'{"versions": [{]'),
    "not_http": sending(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "endless": sending(_OK + b"\r\n" + b"[" * 3_000_000),
    "strange": lambda handler: reply(
        handler, 200, b'{"versions": [1, {"version": {}}], "resources": "all", "message": 1}'
    ),
    "401": error(401, "Unauthorized"),
    "403": error(403, "Forbidden"),
    "429": error(429, "TooManyRequests"),
    "500": error(500, "InternalError"),
}
