"""Any text as a quantity: it has the value that exact fractions give, or is refused."""

import math
from fractions import Fraction

from instaslice.quantity import NANO, InvalidQuantity, nanos

LARGEST = (2**63 - 1) * NANO
DIGITS = set("0123456789")
POWERS = {
    "": Fraction(1),
    **{s: Fraction(1000) ** (i - 3) for i, s in enumerate("num")},
    **{s: Fraction(1000) ** (i + 1) for i, s in enumerate("kMGTPE")},
    **{f"{s}i": Fraction(1024) ** (i + 1) for i, s in enumerate("KMGTPE")},
}
#: A larger exponent gives the largest or the least quantity, and a fraction would fill the memory.
FAR = 5000


def check(data: bytes) -> None:
    """Raise AssertionError if a quantity is not the one in its text."""
    text = data.decode(errors="replace")
    expected = oracle(text)
    try:
        found: int | None = nanos(text)
    except InvalidQuantity:
        found = None
    assert found == expected, (text, found, expected)


def oracle(text: str) -> int | None:
    """The quantity in nano-units, None if the text is not a quantity."""
    text = text.strip(
        "".join(c for c in text if c.isspace() and c >= " " and c not in "\u2028\u2029")
    )
    sign, rest = (text[0], text[1:]) if text[:1] in ("+", "-") else ("+", text)
    number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
    suffix = rest[len(number) :]
    whole, _, fraction = number.partition(".")
    if not (whole or fraction) or not set(whole + fraction) <= DIGITS or len(text) > 4000:
        return None
    power = POWERS.get(suffix) or scale(suffix)
    if power is None:
        return None
    amount = Fraction(int(whole + fraction), 10 ** len(fraction)) * power * NANO
    units = min(math.ceil(amount), LARGEST)
    return -units if sign == "-" else units


def scale(suffix: str) -> Fraction | None:
    """The factor of "e3" or "E-3"; None if the suffix is not an exponent."""
    exponent = suffix[1:]
    digits = exponent[1:] if exponent[:1] in ("+", "-") else exponent
    if suffix[:1] not in ("e", "E") or not digits or not set(digits) <= DIGITS:
        return None
    far = max(-FAR, min(FAR, int(exponent)))
    return Fraction(10) ** far
