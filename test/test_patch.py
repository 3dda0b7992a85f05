import jsonpointer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice.patch import add, extend, pointer, remove
from test.support.reviews import apply


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ((), ""),
        (("spec", "containers", 0), "/spec/containers/0"),
        (("nvidia.com/mig-1g.5gb",), "/nvidia.com~1mig-1g.5gb"),
        (("~", "/", "~1", ""), "/~0/~1/~01/"),
    ],
)
def test_pointers_are_escaped(tokens: tuple[str | int, ...], expected: str) -> None:
    assert pointer(*tokens) == expected


@pytest.mark.property
@given(st.lists(st.text()))
def test_a_pointer_is_read_back_by_another_library(tokens: list[str]) -> None:
    assert jsonpointer.JsonPointer(pointer(*tokens)).parts == tokens


@pytest.mark.parametrize("existing", [None, [], ["a"]])
@pytest.mark.parametrize("values", [[], ["b"], ["b", "c"]])
def test_extending_a_list_whether_it_is_there_or_not(
    existing: list[str] | None, values: list[str]
) -> None:
    document = {"list": existing}
    patched = apply(extend("/list", existing, list(values)), document)
    assert (patched["list"] or []) == (existing or []) + values


def test_operations_are_those_of_rfc_6902() -> None:
    assert add("/a", 1) == {"op": "add", "path": "/a", "value": 1}
    assert remove("/a") == {"op": "remove", "path": "/a"}
