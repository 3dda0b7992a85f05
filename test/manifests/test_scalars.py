"""Scalars mean what kubectl reads: every row was tried with kubectl 1.36."""

import pytest

from instaslice.manifests import scalars

TAG = "tag:yaml.org,2002:"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("y", True), ("n", False), ("Yes", True), ("off", False), ("FALSE", False)],
        *[("tRue", "tRue"), ("~", None), ("", None), ("Null", None), ("=", "="), ("x", "x")],
        *[("0644", 420), ("0o644", 420), ("+0644", 420), ("0_7", 7), ("00", 0), ("0689", 689)],
        *[("0x1F", 31), ("-0x1f", -31), ("0x_1", 1), ("0b11", 3), ("-0b11", -3), ("0o8", "0o8")],
        *[("0x", "0x"), ("0b", "0b"), ("+1", 1), ("-0", 0), ("1_000", 1000), ("1__0", 10)],
        *[("1e3", 1000), ("1.e3", 1000), ("1e+3", 1000), ("1.", 1), (".5", 0.5), ("+.5", 0.5)],
        *[("0.10", 0.1), ("1_0.5", 10.5), ("09.5", 9.5), ("1e-7", 1e-7), ("1e21", 1e21)],
        *[
            ("1e400", "1e400"),
            ("1:30", "1:30"),
            ("2024-01-02", "2024-01-02"),
            ("1" * 5000, "1" * 5000),
        ],
        ("2024-01-02T03:04:05Z", "2024-01-02T03:04:05Z"),
        ("9007199254740993", 9007199254740993),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", int(18446744073709551616.0)),
        ("0xFFFFFFFFFFFFFFFFFF", "0xFFFFFFFFFFFFFFFFFF"),
        ("123456789012345678901234567890", 1.2345678901234568e29),
    ],
)
def test_plain_scalars(text: str, value: object) -> None:
    found = scalars.plain(text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", [".inf", "-.inf", ".NaN", "+.Inf"])
def test_what_is_not_a_number_in_json_is_refused(text: str) -> None:
    with pytest.raises(scalars.BadScalar, match="not a number in JSON"):
        scalars.plain(text)


@pytest.mark.parametrize(
    ("tag", "text", "value"),
    [
        *[("str", "1", "1"), ("int", "3", 3), ("float", "3", 3), ("float", "1e3", 1000)],
        *[("bool", "yes", True), ("null", "~", None), ("timestamp", "2020-01-01", "2020-01-01")],
        *[("binary", "aGVsbG8=", "hello"), ("binary", "aGVs\nbG8=", "hello")],
        ("binary", "/w==", "\ufffd"),
    ],
)
def test_tags(tag: str, text: str, value: object) -> None:
    assert scalars.meaning(text, TAG + tag, True) == value


def test_a_tag_of_somebodys_own_makes_text() -> None:
    assert scalars.meaning("1", "!thing", True) == "1"


@pytest.mark.parametrize(
    ("tag", "text"), [("int", "yes"), ("null", "x"), ("binary", "x"), ("bool", "1"), ("int", "0.5")]
)
def test_what_a_tag_does_not_fit_is_refused(tag: str, text: str) -> None:
    with pytest.raises(scalars.BadScalar, match=f"!!{tag}"):
        scalars.meaning(text, TAG + tag, True)


@pytest.mark.parametrize(("value", "key"), [("a", "a"), (True, "true"), (1, "1"), (1.5, "1.5")])
def test_keys(value: object, key: str) -> None:
    assert scalars.key(value) == key


@pytest.mark.parametrize("value", [None, [1], {"a": 1}])
def test_what_can_be_no_key_is_refused(value: object) -> None:
    with pytest.raises(scalars.BadScalar, match="has a key that is not text"):
        scalars.key(value)
