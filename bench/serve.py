"""Serve InstaSlice, or an application that does nothing, with the same gunicorn settings.

The application that does nothing is the floor: the cost of the server itself. Options choose the
worker class and the JSON parser; `instaslice serve` has no such settings.
"""

import argparse
import importlib
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from instaslice.resources import MIG
from instaslice.serve import judge, server
from instaslice.serve.settings import Settings

#: The answer of a webhook that allows every pod.
CONSTANT = (
    b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview",'
    b'"response":{"uid":"48933560-91e7-4039-8817-84987e4f98c6","allowed":true}}'
)


def floor(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    """Read the body, answer a constant."""
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    length = ("Content-Length", str(len(CONSTANT)))
    start_response("200 OK", [("Content-Type", "application/json"), length])
    return [CONSTANT]


class Variant(server.Server):
    """The server with some of its settings changed."""

    def __init__(self, *args: Any, name: str, changes: dict[str, Any]) -> None:
        self._name = name
        self._changes = changes
        super().__init__(*args)

    def load_config(self) -> None:
        super().load_config()
        for key, value in self._changes.items():
            self.cfg.set(key, value)

    def load(self) -> Any:
        return floor if self._name == "floor" else super().load()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("app", choices=["instaslice", "floor"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cert-dir", type=Path, required=True)
    parser.add_argument("--worker", choices=["stall-free", "gthread"], default="stall-free")
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--json", default="json", help="the module whose loads() decodes reviews")
    arguments = parser.parse_args()
    changes: dict[str, Any] = {}
    if arguments.json != "json":
        setattr(judge, "_decode", importlib.import_module(arguments.json).loads)  # noqa: B010
    if arguments.worker == "gthread":
        changes["worker_class"] = "gthread"
    settings = Settings(
        host="127.0.0.1",
        port=arguments.port,
        cert_dir=arguments.cert_dir,
        resource_api="v1",
        resources=MIG,
        provision_templates=False,
        cluster=None,
        log_format="json",
        log_level="info",
        threads=arguments.threads,
        client_ca=None,
        client_names=frozenset(),
    )
    Variant(settings, name=arguments.app, changes=changes).run()


if __name__ == "__main__":
    main()
