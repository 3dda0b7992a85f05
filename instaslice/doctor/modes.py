"""Which pods a registered webhook is sent, read off its configuration. Pure.

It is held against what `instaslice webhook-configuration` prints, since InstaSlice cannot judge
other CEL than its own.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from instaslice.patch import Json
from instaslice.webhook_configuration import (
    ALL,
    BESIDE,
    LABEL,
    OPT_IN,
    match_conditions,
    webhook_configuration,
)

#: How the expressions name resources beside those of MIG.
_NAMES: Final = re.compile(r"name in \[([^]]*)\]")
#: What a mode does not change, and an administrator should not.
_FIXED: Final = ("rules", "matchPolicy", "objectSelector", "reinvocationPolicy")
#: The two that a dry run is let through by.
_SIDE_EFFECTS: Final = ("None", "NoneOnDryRun")


class Registered(NamedTuple):
    """What the API server sends."""

    mode: str  #: a key of `webhook_configuration.MODES`; empty where the conditions are others
    opt_in: bool  #: only namespaces that are labelled so
    resources: frozenset[str]  #: those beside MIG's that the conditions name
    has_conditions: bool
    differences: tuple[str, ...]  #: fields that are not as InstaSlice prints them


def read(webhook: Json) -> Registered:
    """What is sent to a webhook."""
    found = webhook.get("matchConditions") or []
    expressions = [str(condition.get("expression")) for condition in found]
    named = _NAMES.search("".join(expressions))
    resources = frozenset(re.findall(r"'([^']*)'", named[1])) if named else frozenset()
    opt_in = any(
        requirement.get("key") == LABEL and requirement.get("operator") == "In"
        for requirement in (webhook.get("namespaceSelector") or {}).get("matchExpressions") or []
    )
    mode = ""
    for each in (ALL, BESIDE):
        conditions = match_conditions(each, resources)
        if _bare(expressions) == _bare(condition["expression"] for condition in conditions):
            mode = OPT_IN if opt_in and each == ALL else each
    expected = webhook_configuration()["webhooks"][0]
    differences = [key for key in _FIXED if webhook.get(key) != expected[key]]
    if webhook.get("sideEffects") not in _SIDE_EFFECTS:
        differences.append("sideEffects")
    return Registered(mode, opt_in, resources, bool(found), tuple(differences))


def _bare(expressions: Iterable[str]) -> list[str]:
    """Expressions without blanks, which say nothing."""
    return ["".join(expression.split()) for expression in expressions]
