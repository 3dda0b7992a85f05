import jsonpointer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice.patch import extend, pointer
from test.support.reviews import apply


@pytest.mark.property
@given(st.lists(st.text()))
def test_another_library_reads_our_pointers(tokens: list[str]) -> None:
    assert jsonpointer.JsonPointer(pointer(*tokens)).parts == tokens


@pytest.mark.parametrize("existing", [None, [], ["a"]])
@pytest.mark.parametrize("values", [[], ["b"], ["b", "c"]])
def test_extending_a_list_that_exists_or_does_not(
    existing: list[str] | None, values: list[str]
) -> None:
    document = {"list": existing}
    patched = apply(extend("/list", existing, list(values)), document)
    assert (patched["list"] or []) == (existing or []) + values
