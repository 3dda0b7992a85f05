"""Call a WSGI application as a server does."""

import io
import json
from typing import Any, NamedTuple
from wsgiref.types import WSGIApplication
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def call(
    app: WSGIApplication,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    strict: bool = True,
    **environ: Any,
) -> Reply:
    """Call an application, checked against PEP 3333 by wsgiref's validator.

    strict: False for a request that the validator itself would refuse.
    environ: overrides; None removes the variable.
    """
    full: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": "application/json",
        "QUERY_STRING": "",
        "wsgi.input": io.BytesIO(body),
        **environ,
    }
    full = {key: value for key, value in full.items() if value is not None}
    setup_testing_defaults(full)
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        started.append((status, headers))
        return lambda data: None

    chunks = (validator(app) if strict else app)(full, start_response)
    try:
        data = b"".join(chunks)
    finally:
        if strict:
            chunks.close()  # type: ignore[attr-defined]
    [(status, headers)] = started
    return Reply(int(status.split()[0]), {k.lower(): v for k, v in headers}, data)
