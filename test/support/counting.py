"""What something costs, in a unit that no other program changes."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def lines_of_python(call: Callable[[], object]) -> int:
    """How many lines of Python run in a call."""
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
