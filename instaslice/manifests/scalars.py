"""What kubectl reads in a YAML scalar, which is neither YAML 1.1 nor 1.2.

Source: sigs.k8s.io/yaml, `goyaml.v2/resolve.go`, and what kubectl 1.36 made of each case in
`test/manifests/test_scalars.py`: `0644` is 420, `0o644` too, `y` is true, `1e3` is 1000, a time is
text, and what is no number of JSON (`.inf`) is refused.
"""

import base64
import binascii
import re
from functools import lru_cache
from typing import Any, Final

_TAG: Final = "tag:yaml.org,2002:"

_WORDS: Final = {
    spelling: meaning
    for words, meaning in (
        ("y yes true on", True),
        ("n no false off", False),
        ("~ null", None),
    )
    for word in words.split()
    for spelling in (word, word.capitalize(), word.upper())
} | {"": None}
_NOT_JSON: Final = frozenset(
    sign + word
    for sign in ("", "+", "-")
    for word in (".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN")
)
#: Go's `strconv.ParseInt` with base 0; underscores are taken out before.
_INTEGER: Final = re.compile(
    r"(?P<sign>[+-]?)(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<bin>[01]+)|0[oO]?(?P<oct>[0-7]+)"
    r"|(?P<dec>0|[1-9][0-9]*))",
    re.ASCII,
)
_BASES: Final = {"hex": 16, "bin": 2, "oct": 8, "dec": 10}
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", re.ASCII)
#: The integers that Go keeps as such: those of int64 and uint64.
_LEAST, _LARGEST = -(2**63), 2**64 - 1
#: Python refuses to parse an integer of more than 4,300 digits (sys.set_int_max_str_digits); no
#: integer of 64 bits is spelt with a hundred.
_MAX_LENGTH: Final = 100
#: From here on Go's encoder writes a whole number with an exponent, so that it stays a float.
_EXPONENT: Final = 1e21


class BadScalar(ValueError):
    """kubectl refuses the scalar; `str()` of it says why."""


@lru_cache(maxsize=4096)
def plain(text: str) -> Any:
    """What a plain scalar without a tag means: text, bool, int, float or None.

    Raises BadScalar.
    """
    if text in _WORDS:
        return _WORDS[text]
    if text in _NOT_JSON:
        raise BadScalar(f"{text} is no number that JSON has")
    if text[0] not in "+-.0123456789":
        return text
    found = number(text.replace("_", "")) if text[0] != "." else number(text)
    return text if found is None else found


def number(text: str) -> int | float | None:
    """A number as Go reads it, or None. What is whole is an int, as Go writes it in JSON."""
    match = _INTEGER.fullmatch(text) if len(text) <= _MAX_LENGTH else None
    if match and match.lastgroup:
        kind = match.lastgroup
        found = int(match["sign"] + match[kind], _BASES[kind])
        if _LEAST <= found <= _LARGEST:
            return found
        if kind != "dec":
            return None
    if not _FLOAT.fullmatch(text):
        return None
    real = float(text)
    if real in (float("inf"), float("-inf")):
        return None
    return int(real) if real.is_integer() and abs(real) < _EXPONENT else real


def tagged(text: str, tag: str) -> Any:
    """What a scalar with a tag means. Raises BadScalar."""
    kind = tag.removeprefix(_TAG) if tag.startswith(_TAG) else ""
    if kind == "binary":
        try:
            # Go's decoder skips line ends.
            data = base64.b64decode(re.sub(r"[\r\n]", "", text), validate=True)
        except (binascii.Error, ValueError):
            raise BadScalar("!!binary value holds no base64") from None
        return data.decode(errors="replace")
    if kind not in ("null", "bool", "int", "float"):
        return text
    found = plain(text)
    fits = {
        "null": found is None,
        "bool": isinstance(found, bool),
        "int": isinstance(found, int) and not isinstance(found, bool),
        "float": isinstance(found, int | float) and not isinstance(found, bool),
    }
    if not fits[kind]:
        raise BadScalar(f"{text!r} is no !!{kind}")
    return found


def key(value: Any) -> str:
    """The key that JSON has for a decoded one. Raises BadScalar for what kubectl refuses."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    raise BadScalar("has a key that is no text, number or truth value")
