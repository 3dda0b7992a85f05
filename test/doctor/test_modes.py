"""Which pods a registered webhook is sent."""

from typing import Any

import pytest

from instaslice.doctor.modes import Registered, read
from instaslice.webhook_configuration import ALL, BESIDE, MODES, OPT_IN
from test.support.snapshots import webhook


def registered(*arguments: str, **fields: Any) -> Registered:
    return read(webhook(*arguments, **fields)["webhooks"][1])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("resources", [(), ("nvidia.com/gpu",), ("amd.com/gpu", "nvidia.com/gpu")])
def test_what_instaslice_prints_is_known(mode: str, resources: tuple[str, ...]) -> None:
    found = registered(mode, *resources)
    assert found == Registered(mode, mode == OPT_IN, frozenset(resources), True, ())


def test_blanks_say_nothing() -> None:
    (_, printed) = webhook()["webhooks"]
    conditions = [
        {**each, "expression": each["expression"].replace("\n", " ") + "\n"}
        for each in printed["matchConditions"]
    ]
    assert registered(ALL, matchConditions=conditions).mode == ALL


def test_both_components_together() -> None:
    selector = webhook(OPT_IN)["webhooks"][1]["namespaceSelector"]
    found = registered(BESIDE, namespaceSelector=selector)
    assert (found.mode, found.opt_in) == (BESIDE, True)


def test_other_conditions_are_not_judged() -> None:
    found = registered(matchConditions=[{"name": "a", "expression": "true"}])
    assert (found.mode, found.has_conditions) == ("", True)
    assert not registered(matchConditions=None).has_conditions


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rules", []),
        ("matchPolicy", "Exact"),
        ("objectSelector", {}),
        ("reinvocationPolicy", "Never"),
        ("sideEffects", "Some"),
    ],
)
def test_what_no_mode_changes(field: str, value: object) -> None:
    assert registered(ALL, **{field: value}).differences == (field,)
    assert registered(ALL, timeoutSeconds=10, sideEffects="None").differences == ()
