"""Messages about a pod: errors that refuse it, in the API server's words, and notices.

Source: `field.Error` of apimachinery's `pkg/util/validation/field`.
"""

import json
import re
from itertools import accumulate
from typing import Final, NamedTuple

#: Members and indexes: ("spec", "containers", 0, "resources", "limits", "nvidia.com/mig-1g.5gb").
Path = tuple[str | int, ...]

#: The most errors or warnings to report; people fix the first ones before they read more.
MAX_MESSAGES: Final = 8
#: The most characters of a value in a message: the length of the longest DNS label.
_SHOWN: Final = 63
_UNPRINTABLE: Final = re.compile("[^ -~]")
_MEMBER: Final = re.compile(r"[^./\[\]]+")


class Notice(NamedTuple):
    """Something that a pod's author should know, but that does not refuse the pod."""

    about: str  #: a resource, an annotation or a field; may be empty
    text: str

    def __str__(self) -> str:
        return f"{self.about}: {self.text}" if self.about else self.text


class FieldError(NamedTuple):
    """An error in a field of a pod, like apimachinery's `field.Error`."""

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
    """The pod is refused; `errors` has the first MAX_MESSAGES reasons."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(*errors)
        self.errors = errors[:MAX_MESSAGES]

    def __str__(self) -> str:
        """The message in the API server's form: one error plain, several in brackets."""
        lines = [str(error) for error in self.errors]
        return lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"


def invalid(path: Path, value: object, detail: str) -> FieldError:
    """The error for an invalid value, worded like apimachinery's `field.Invalid`."""
    return FieldError(path, "FieldValueInvalid", f'Invalid value: "{shorten(value)}": {detail}')


def forbidden(path: Path, detail: str) -> FieldError:
    """The error for a forbidden field, worded like apimachinery's `field.Forbidden`."""
    return FieldError(path, "FieldValueForbidden", f"Forbidden: {detail}")


def too_many(path: Path, number: int, most: int) -> FieldError:
    """The error for a list that is too long, worded like apimachinery's `field.TooMany`."""
    message = f"Too many: {number}: must have at most {most} items"
    return FieldError(path, "FieldValueTooMany", message)


def field_path(*tokens: str | int) -> str:
    """Format a path like apimachinery's `field.Path`: "containers[0].limits[nvidia.com/gpu]"."""
    steps = [
        f".{token}" if isinstance(token, str) and _MEMBER.fullmatch(token) else f"[{token}]"
        for token in tokens
    ]
    return "".join(steps).removeprefix(".")


def shorten(value: object) -> str:
    """Format a user's value for a message, cut to _SHOWN characters.

    value: decoded JSON. Anything but a string is shown as JSON, so None is `null`.
    """
    text = value if isinstance(value, str) else ""
    if not isinstance(value, str):  # piece by piece, since it may be large or deep
        for text in accumulate(json.JSONEncoder(ensure_ascii=False).iterencode(value)):
            if len(text) > _SHOWN:
                break
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def printable(text: str) -> str:
    """Escape text into one line of printable ASCII, since kubectl prints messages unescaped."""
    if text.isascii() and text.isprintable():
        return text
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
