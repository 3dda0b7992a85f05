"""Costs in a unit that other programs' load does not change."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def lines_of_python(call: Callable[[], object]) -> int:
    """The number of lines of Python that a call runs."""
    count = 0

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal count
        count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
