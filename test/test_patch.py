import jsonpointer
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice.patch import pointer


@pytest.mark.property
@given(st.lists(st.text()))
def test_another_library_reads_our_pointers(tokens: list[str]) -> None:
    assert jsonpointer.JsonPointer(pointer(*tokens)).parts == tokens
