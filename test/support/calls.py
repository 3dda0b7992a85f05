"""An application called as the worker calls it, without a server."""

import json
from typing import Any, NamedTuple

from instaslice.serve.app import Webhook
from instaslice.serve.http import Request


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def call(
    app: Webhook,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    media_type: str = "application/json",
    certificate: Any = None,
    may_wait: bool = True,
    **request: Any,
) -> Reply:
    """Call an application. request: what else is to be said of it, or otherwise (`Request`)."""
    given: dict[str, Any] = {"length": len(body), "body": body, **request}
    fields = {b"content-type": media_type}
    made = Request(method, path, fields=fields, **given)
    status, headers, data = app(made, certificate, may_wait)
    return Reply(int(status.split()[0]), {k.lower(): v for k, v in headers}, data)
