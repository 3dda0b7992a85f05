"""Kubernetes quantities ("1k", "1e0", "2000m") as exact integers.

The grammar is that of `resource.Quantity` (apimachinery, `pkg/api/resource/quantity.go`):

    quantity = [sign] (digits [. [digits]] | . digits) [suffix]
    suffix   = Ki..Ei | n u m k M G T P E | (e|E) [sign] digits

Like `resource.Quantity`, this module rounds away from zero to whole nano-units (10**-9), and caps
the amount at 2**63-1 units. In JSON, a quantity may be null, which is 0, and a string may have
blanks around it (`Quantity.UnmarshalJSON`).
"""

import re
from typing import Final

NANO: Final = 10**9
_LARGEST: Final = (2**63 - 1) * NANO

#: The blanks that Go's `strings.TrimSpace` removes, except those that JSON must escape:
#: UnmarshalJSON sees their escapes, so they stay.
_BLANKS: Final = " \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u202f\u205f\u3000"

#: Sign, whole, fraction, suffix and exponent; the whole or the fraction must have a digit.
_GRAMMAR: Final = re.compile(
    r"([+-]?)(?=\.?[0-9])([0-9]*)(?:\.([0-9]*))?(?:([KMGTPE]i|[numkMGTPE]?)|[eE]([+-]?[0-9]+))",
    re.ASCII,
)
#: suffix -> (power of two, power of ten)
_SUFFIXES: Final = {
    "": (0, 0),
    **{suffix: (0, 3 * (i - 3)) for i, suffix in enumerate("num")},
    **{suffix: (0, 3 * (i + 1)) for i, suffix in enumerate("kMGTPE")},
    **{f"{suffix}i": (10 * (i + 1), 0) for i, suffix in enumerate("KMGTPE")},
}
#: Python refuses to parse an integer of more than 4,300 digits (sys.set_int_max_str_digits). The
#: API server never sends such a long quantity, since it normalizes quantities.
_MAX_LENGTH: Final = 4000

#: The API server's error for a malformed quantity (apimachinery, `resource.ErrFormatWrong`).
MALFORMED: Final = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)


class InvalidQuantity(ValueError):
    """The value is not a quantity; `str()` gives the API server's words."""


def nanos(value: object) -> int:
    """Convert a quantity to nano-units (10**-9).

    value: the decoded JSON or YAML value: a string such as "1k", a number, or null.
    Raises InvalidQuantity for any value that the API server would refuse.
    """
    if value is None:
        return 0
    if type(value) is str:
        # A shortcut for nearly all values; the general way gives the same result.
        if value.isdecimal() and value.isascii() and len(value) < 10:
            return int(value) * NANO
        text = value.strip(_BLANKS)
    else:
        text = repr(value) if type(value) in (int, float) else ""
    match = _GRAMMAR.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match is None:
        raise InvalidQuantity(MALFORMED)
    sign, whole, fraction, suffix, exponent = match.groups("")
    two, ten = (0, int(exponent)) if exponent else _SUFFIXES[suffix]
    digits, ten = int(whole + fraction) << two, ten - len(fraction) + 9
    if ten >= 0:
        # 10**28 is more than _LARGEST: no need to compute 10 to the power of a typed number.
        amount = digits * int(10 ** min(ten, 28))
    else:  # rounded up; a suffix of 60 bits adds at most 19 digits
        amount = -(-digits // int(10 ** min(-ten, len(whole) + len(fraction) + 20)))
    return min(amount, _LARGEST) * (-1 if sign == "-" else 1)
