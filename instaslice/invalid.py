"""Messages about a pod: errors that refuse it, in the API server's words, and notices.

Source: `field.Error` of apimachinery's `pkg/util/validation/field`.
"""

import json
import re
from itertools import accumulate
from typing import Final, NamedTuple

#: Members and indexes: ("spec", "containers", 0, "resources", "limits", "nvidia.com/mig-1g.5gb").
Path = tuple[str | int, ...]

#: Errors, and warnings, that a person reads before mending the first of them.
MAX_MESSAGES: Final = 8
#: The longest that a value is shown, in characters: the longest DNS label.
_SHOWN: Final = 63
_UNPRINTABLE: Final = re.compile("[^ -~]")
_MEMBER: Final = re.compile(r"[^./\[\]]+")


class Notice(NamedTuple):
    """Something that a pod's author should know, and is not refused for."""

    about: str  #: a resource, an annotation or a field; may be empty
    text: str

    def __str__(self) -> str:
        return f"{self.about}: {self.text}" if self.about else self.text


class FieldError(NamedTuple):
    """One thing that is wrong with a pod, as `field.Error` of apimachinery has it."""

    path: Path
    reason: str  #: "FieldValueInvalid", a metav1.CauseType
    message: str  #: 'Invalid value: "500m": must be an integer'

    @property
    def field(self) -> str:
        """The path as text."""
        return field_path(*self.path)

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class InvalidPod(Exception):
    """The pod is refused; `errors` says why, field by field, a few of them."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(*errors)
        self.errors = errors[:MAX_MESSAGES]

    def __str__(self) -> str:
        """The message as the API server words it: one error plain, several in brackets."""
        lines = [str(error) for error in self.errors]
        return lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"


def invalid(path: Path, value: object, detail: str) -> FieldError:
    """A value that may not be, as apimachinery's `field.Invalid` words it."""
    return FieldError(path, "FieldValueInvalid", f'Invalid value: "{shorten(value)}": {detail}')


def forbidden(path: Path, detail: str) -> FieldError:
    """A field that may not be as it is here, as apimachinery's `field.Forbidden` words it."""
    return FieldError(path, "FieldValueForbidden", f"Forbidden: {detail}")


def too_many(path: Path, number: int, most: int) -> FieldError:
    """A list that is too long, as apimachinery's `field.TooMany` words it."""
    message = f"Too many: {number}: must have at most {most} items"
    return FieldError(path, "FieldValueTooMany", message)


def field_path(*tokens: str | int) -> str:
    """A path as apimachinery's `field.Path` prints it: "containers[0].limits[nvidia.com/gpu]"."""
    steps = [
        f".{token}" if isinstance(token, str) and _MEMBER.fullmatch(token) else f"[{token}]"
        for token in tokens
    ]
    return "".join(steps).removeprefix(".")


def shorten(value: object) -> str:
    """A value as text, cut to what a message has room for: it is what a user typed.

    value: decoded JSON. What is not text is shown as JSON has it, `null` and not `None`.
    """
    text = value if isinstance(value, str) else ""
    if not isinstance(value, str):  # piece by piece, since it may be large or deep
        for text in accumulate(json.JSONEncoder(ensure_ascii=False).iterencode(value)):
            if len(text) > _SHOWN:
                break
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def printable(text: str) -> str:
    """Text as one line of printable ASCII: kubectl shows what a user typed as it comes."""
    if text.isascii() and text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
