import pytest

from instaslice.invalid import forbidden, invalid, too_many


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("500m", "500m"),
        (-1, "-1"),
        (1.5, "1.5"),
        (True, "true"),
        (None, "null"),
        ({"a": None}, '{"a": null}'),
        ([True], "[true]"),
        ("é", "é"),
        ("x" * 64, "x" * 60 + "..."),
    ],
)
def test_a_value_is_shown_as_json(value: object, shown: str) -> None:
    assert invalid(("spec",), value, "no").message == f'Invalid value: "{shown}": no'


def test_reasons_are_those_of_the_api_server() -> None:
    """Clients read metav1.CauseType; people read the message."""
    errors = (invalid(("a",), 1, "no"), too_many(("a",), 9, 8), forbidden(("a",), "no"))
    reasons = [error.reason for error in errors]
    assert reasons == ["FieldValueInvalid", "FieldValueTooMany", "FieldValueForbidden"]
