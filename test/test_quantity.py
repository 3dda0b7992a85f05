import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice.quantity import NANO, InvalidQuantity, nanos

SUFFIXES = {
    "": Fraction(1),
    **{s: Fraction(10) ** e for s, e in {"n": -9, "u": -6, "m": -3, "k": 3, "M": 6}.items()},
    **{s: Fraction(10) ** e for s, e in {"G": 9, "T": 12, "P": 15, "E": 18}.items()},
    **{f"{s}i": Fraction(1024) ** (i + 1) for i, s in enumerate("KMGTPE")},
}
LARGEST = (2**63 - 1) * NANO


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        *[("1", 1), ("0", 0), ("007", 7), ("+2", 2), ("-1", -1), ("1.", 1), (".5k", 500)],
        *[("1k", 1000), ("1Ki", 1024), ("2000m", 2), ("1e0", 1), ("1E3", 1000), ("10e-1", 1)],
        *[("1E", 10**18), (3, 3), (3.0, 3), (1e3, 1000), ("1" + "0" * 12, 10**12)],
        ("0" * 3999 + "1", 1),
        # kube-apiserver 1.36.3 accepts these.
        *[(" 1", 1), ("1 ", 1), ("  2k ", 2000), ("\u00a03\u3000", 3), (None, 0)],
    ],
)
def test_every_spelling_of_a_whole_number(quantity: object, value: int) -> None:
    assert nanos(quantity) == value * NANO


@pytest.mark.parametrize(
    ("quantity", "value"),
    [
        ("500m", NANO // 2),
        ("1n", 1),
        ("0.1n", 1),  # the API server rounds up
        ("9e-99999999", 1),
        ("-0.1n", -1),
        ("0.9999999999", NANO),
        ("1e-1000000000", 1),
        ("0e1000000000", 0),
        ("1e1000000000", LARGEST),
        ("-99E", -LARGEST),
    ],
)
def test_rounding_and_capping(quantity: str, value: int) -> None:
    assert nanos(quantity) == value


@pytest.mark.parametrize(
    "quantity",
    [
        *("", " ", "1 1", "- 1", "\t1", "one", "1x", "1kk", "1ki", "1e", "1e+", "1e1.5", ".", "-"),
        *("+-1", "1,5", "0x1", "1_000", "١", "1\n", "∞", "NaN", "1" * 5000, "0" * 4000 + "1"),
        *(True, [], {}, float("inf"), float("nan")),
        *(f"{blank}1" for blank in ("\u1fff", "\u200b", "\ufeff", "\u180e", "_")),
    ],
)
def test_malformed_quantities(quantity: object) -> None:
    with pytest.raises(InvalidQuantity, match="must match the regular expression"):
        nanos(quantity)


@pytest.mark.property
@given(
    st.sampled_from(["", "+", "-"]),
    st.text("0123456789", max_size=20),
    st.text("0123456789", max_size=20),
    st.sampled_from(sorted(SUFFIXES)) | st.integers(-40, 40),
)
def test_quantities_are_exact(sign: str, whole: str, fraction: str, suffix: str | int) -> None:
    digits = whole + ("." + fraction if fraction else "")
    if not digits:
        digits = "0"
    scale = Fraction(10) ** suffix if isinstance(suffix, int) else SUFFIXES[suffix]
    text = f"{sign}{digits}{f'e{suffix}' if isinstance(suffix, int) else suffix}"
    number = Fraction(digits if digits[0] != "." else "0" + digits) * scale
    expected = min(math.ceil(number * NANO), LARGEST)
    assert nanos(text) == (-expected if sign == "-" else expected)


@pytest.mark.parametrize("blank", [" ", "\x85", "\xa0", "\u1680", *map(chr, range(0x2000, 0x200B))])
def test_blanks_around_a_quantity_are_those_of_go(blank: str) -> None:
    """unicode.IsSpace, except the blanks that JSON must escape."""
    assert nanos(f"{blank}1{blank}{blank}") == NANO
