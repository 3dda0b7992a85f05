"""What `instaslice doctor` has to say: one line of its report each. Pure."""

from collections.abc import Iterator
from enum import Enum
from typing import NamedTuple


class State(Enum):
    """How something is, with the sign that it is shown by."""

    GOOD = "✓"
    UNSURE = "!"
    WRONG = "✗"


class Finding(NamedTuple):
    """One line of the report."""

    check: str
    state: State
    text: str
    advice: str = ""  #: what to do; empty where there is nothing


#: What a check finds: state and text, and mostly advice.
Found = Iterator[tuple[State, str] | tuple[State, str, str]]
