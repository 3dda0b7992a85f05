import json
from collections.abc import Callable
from typing import Any

import pytest

from instaslice.patch import Json
from instaslice.profiles import from_attribute
from instaslice.resource_api import VERSIONS, ResourceAPI
from instaslice.resources import of_profile
from instaslice.templates import DeviceClaim, DeviceRequest, claim_of, difference, objects


def made(api: ResourceAPI, *names: str, count: int = 1, placement: str = "") -> list[Json]:
    """The objects of a claim of one of some profiles."""
    first, *others = [of_profile(found) for found in map(from_attribute, names) if found]
    claim = claim_of(first, count, *others)
    if placement:
        claim = DeviceClaim((DeviceRequest((first,), count),), placement)
    return objects(api, claim, "ml")


def defaulted(value: Any) -> Any:
    """An object as the API server gives it back."""
    if isinstance(value, list):
        return [defaulted(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {key: defaulted(each) for key, each in value.items()}
    if "deviceClassName" in found:
        found = {"allocationMode": "ExactCount", "count": 1, "adminAccess": None, **found}
    if "resourceClassName" in found:
        found = {"allocationMode": "WaitForFirstConsumer", **found}
    if "spec" in found:  # what an API server of 1.27 to 1.33 writes, whose Go omits no empty time
        found["metadata"] = {"creationTimestamp": None}
    return found


@pytest.mark.parametrize("api", VERSIONS.values(), ids=lambda api: api.version)
@pytest.mark.parametrize("count", [1, 2])
def test_what_instaslice_made_itself_does_not_differ(api: ResourceAPI, count: int) -> None:
    shapes = [made(api, "1g.5gb", count=count), made(api, "9g.999gb", count=count)]
    if api.version == "v1":
        shapes += [made(api, "3g.20gb", "4g.20gb"), made(api, "1g.5gb", placement="same-gpu")]
    for manifests in shapes:
        for ours in manifests:
            theirs = {**defaulted(ours), "metadata": {"uid": "1", "resourceVersion": "7"}}
            assert difference(ours, theirs) == ""


def exactly(manifest: Json) -> Json:
    found: Json = manifest["spec"]["spec"]["devices"]["requests"][0]["exactly"]
    return found


def devices(manifest: Json) -> Json:
    found: Json = manifest["spec"]["spec"]["devices"]
    return found


@pytest.mark.parametrize(
    ("squat", "said"),
    [
        (
            lambda m: exactly(m).update(allocationMode="All", count=None),
            "requests[0].exactly.count is missing, not 2, "
            "requests[0].exactly.allocationMode is All",
        ),
        (lambda m: exactly(m).update(adminAccess=True), "requests[0].exactly.adminAccess is true"),
        (
            lambda m: exactly(m).update(deviceClassName="gpu.nvidia.com"),
            "requests[0].exactly.deviceClassName is gpu.nvidia.com, not mig-1g.5gb.nvidia.com",
        ),
        (
            lambda m: exactly(m).update(selectors=[{"cel": {"expression": "false"}}]),
            "requests[0].exactly.selectors is a list of 1",
        ),
        (lambda m: exactly(m).update(count=1), "requests[0].exactly.count is missing, not 2"),
        (
            lambda m: devices(m).update(config=[{"opaque": {"parameters": {"x" * 999: 1}}}]),
            "config is a list of 1",
        ),
        (
            lambda m: devices(m)["requests"].append({"name": "more"}),
            "requests is a list of 2, not a list of 1",
        ),
        (lambda m: m.update(spec=None), "spec is missing, not set"),
        (lambda m: m.update(spec={"spec": 7}), "spec is 7, not set"),
    ],
)
def test_how_a_template_differs_is_said_in_words(
    squat: Callable[[Json], object], said: str
) -> None:
    [_, ours] = made(VERSIONS["v1"], "1g.5gb", count=2)
    theirs = json.loads(json.dumps(ours))
    squat(theirs)
    assert difference(ours, theirs) == said


def test_a_class_whose_selector_is_another_differs() -> None:
    [ours, _] = made(VERSIONS["v1"], "1g.5gb")
    theirs = json.loads(json.dumps(ours))
    theirs["spec"]["selectors"][0]["cel"]["expression"] = "false\n" + "x" * 1000
    said = difference(ours, theirs)
    assert said.startswith("selectors[0].cel.expression is false\\nxxx")
    assert len(said) < 200


def test_what_somebody_typed_does_not_make_it_long() -> None:
    [_, ours] = made(VERSIONS["v1"], "1g.5gb")
    theirs = {"spec": {f"{'k' * 500}{n}": "v" * 500 for n in range(500)}}
    assert len(difference(ours, theirs)) < 700
