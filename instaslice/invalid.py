"""A pod that is refused, in the API server's words.

Source: `field.Error` of apimachinery's `pkg/util/validation/field`.
"""

import json
from typing import NamedTuple


class FieldError(NamedTuple):
    """One thing that is wrong with a pod, as `field.Error` of apimachinery has it."""

    field: str  #: "spec.containers[0].resources.limits[nvidia.com/mig-1g.5gb]"
    reason: str  #: "FieldValueInvalid", a metav1.CauseType
    message: str  #: 'Invalid value: "500m": must be an integer'

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class InvalidPod(Exception):
    """The pod is refused; `errors` says why, field by field."""

    def __init__(self, *errors: FieldError) -> None:
        super().__init__(*errors)
        self.errors = errors

    def __str__(self) -> str:
        """The message as the API server words it: one error plain, several in brackets."""
        lines = [str(error) for error in self.errors]
        return lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"


def invalid(path: str, value: object, detail: str) -> FieldError:
    """A value that may not be, as apimachinery's `field.Invalid` words it."""
    return FieldError(path, "FieldValueInvalid", f'Invalid value: "{shorten(value)}": {detail}')


def required(path: str, detail: str) -> FieldError:
    """A value that is missing, as apimachinery's `field.Required` words it."""
    return FieldError(path, "FieldValueRequired", f"Required value: {detail}")


def forbidden(path: str, detail: str) -> FieldError:
    """A field that may not be as it is here, as apimachinery's `field.Forbidden` words it."""
    return FieldError(path, "FieldValueForbidden", f"Forbidden: {detail}")


def shorten(value: object) -> str:
    """A value as text, cut to what a message has room for: it is what a user typed.

    value: decoded JSON. What is not text is shown as JSON has it, `null` and not `None`.
    """
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 63 else text[:60] + "..."


def wrong_type(path: str, kind: type) -> InvalidPod:
    """A value of another JSON type than the field's."""
    word = "an object" if kind is dict else "an array"
    return InvalidPod(FieldError(path, "FieldValueTypeInvalid", f"must be {word}"))
