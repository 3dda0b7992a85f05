"""Reads objects of an API server that may stop answering in the middle of it."""

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

from instaslice.cluster.client import Answer, Caller, ClusterError
from instaslice.doctor.snapshot import Unreadable
from instaslice.patch import Json

#: Objects to ask for at once.
PAGE: Final = 500
#: Calls in a row that bring no answer, after which no more is asked: each has waited for its whole
#: deadline, and a report of what was found is worth more than another wait.
MAX_SILENT: Final = 2


class Reader:
    """A `Caller` that gives up, and what it reads."""

    def __init__(self, cluster: Caller) -> None:
        self._cluster = cluster
        self._silent = 0

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        """One request with a JSON answer of any status. Raises ClusterError."""
        if self._silent >= MAX_SILENT:
            raise ClusterError("not asked for, since the API server has stopped answering")
        try:
            answer = self._cluster.call(method, path, body)
        except ClusterError:
            self._silent += 1
            raise
        self._silent = 0
        return answer

    def get(self, path: str) -> Json:
        """An object. Raises Unreadable."""
        try:
            answer = self.call("GET", path)
        except ClusterError as error:
            raise Unreadable(str(error)) from None
        if answer.status != 200:
            raise Unreadable(answer.reason, answer.status)
        return answer.body

    def find(self, path: str) -> list[Json]:
        """An object, or nothing where there is none. Raises Unreadable."""
        try:
            return [self.get(path)]
        except Unreadable as error:
            if error.status == 404:
                return []
            raise

    def list(self, path: str) -> Iterator[Json]:
        """The objects of a list, page by page. Raises Unreadable."""
        query: dict[str, Any] = {"limit": PAGE}
        while True:
            page = self.get(f"{path}{'&' if '?' in path else '?'}{urlencode(query)}")
            for item in page.get("items") or []:
                if not isinstance(item, dict):
                    raise Unreadable(f"{path}: what is listed there is no object")
                yield item
            query["continue"] = (page.get("metadata") or {}).get("continue")
            if not query["continue"]:
                return
