"""What is read of an API server that stops answering."""

import pytest

from instaslice.cluster.client import Answer, ClusterError
from instaslice.doctor import reader
from instaslice.doctor.reader import Reader
from instaslice.doctor.snapshot import Unreadable
from instaslice.patch import Json


class Cluster:
    """Gives its answers one after the other; an empty one is silence."""

    def __init__(self, *answers: Answer | None) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        self.asked.append(path)
        answer = self.answers.pop(0)
        if answer is None:
            raise ClusterError("no answer within 10 s")
        return answer


GOOD = Answer(200, {"items": []})


def test_after_two_silences_no_more_is_asked() -> None:
    cluster = Cluster(GOOD, None, GOOD, None, None, GOOD)
    reading = Reader(cluster)
    said = []
    for number in range(7):
        try:
            reading.get(f"/{number}")
        except Unreadable as error:
            said.append(f"{number}: {error}")
    assert said == [
        "1: no answer within 10 s",
        "3: no answer within 10 s",
        "4: no answer within 10 s",
        "5: not asked for, since the API server has stopped answering",
        "6: not asked for, since the API server has stopped answering",
    ]
    assert cluster.asked == ["/0", "/1", "/2", "/3", "/4"]


def test_what_is_not_there() -> None:
    assert Reader(Cluster(Answer(404, {}))).find("/x") == []
    assert Reader(Cluster(Answer(200, {"a": 1}))).find("/x") == [{"a": 1}]
    with pytest.raises(Unreadable, match="403 no"):
        Reader(Cluster(Answer(403, {"message": "no"}))).find("/x")
    with pytest.raises(Unreadable, match="no answer"):
        Reader(Cluster(None)).find("/x")


def test_long_lists_are_read_page_by_page() -> None:
    pages = [
        Answer(200, {"items": [{"n": 1}], "metadata": {"continue": "a b"}}),
        Answer(200, {"items": [{"n": 2}]}),
    ]
    cluster = Cluster(*pages, *pages)
    assert list(Reader(cluster).list("/x")) == [{"n": 1}, {"n": 2}]
    assert cluster.asked == [f"/x?limit={reader.PAGE}", f"/x?limit={reader.PAGE}&continue=a+b"]
    list(Reader(cluster).list("/x?a=b"))
    assert cluster.asked[2] == f"/x?a=b&limit={reader.PAGE}"
