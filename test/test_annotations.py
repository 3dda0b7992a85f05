import pytest

from instaslice import annotations
from instaslice.annotations import ALTERNATIVES, PLACEMENT, Wishes, read_alternatives
from instaslice.invalid import InvalidPod
from instaslice.resources import MIG, Resource, Resources


def annotated(key: str, value: object) -> dict[str, object]:
    return {"metadata": {"annotations": {key: value}}}


def read(pod: dict[str, object], resources: Resources = MIG) -> Wishes:
    return annotations.read(annotations.of(pod), resources)


def slice_of(name: str) -> Resource:
    found = MIG.find(f"nvidia.com/mig-{name}")
    assert found
    return found


def test_chains() -> None:
    text = "3g.20gb or 4g.20gb; 1g.5gb or 1g.10gb or 2g.10gb;"
    assert read(annotated(ALTERNATIVES, text)).alternatives == {
        slice_of("3g.20gb"): (slice_of("4g.20gb"),),
        slice_of("1g.5gb"): (slice_of("1g.10gb"), slice_of("2g.10gb")),
    }


@pytest.mark.parametrize(
    "text", ["1g.5gb+me  or\t1g.10gb.me", "mig-1g.5gb.me or nvidia.com/mig-1g.10gb.me"]
)
def test_profiles_in_any_spelling(text: str) -> None:
    wanted = {slice_of("1g.5gb.me"): (slice_of("1g.10gb.me"),)}
    assert read(annotated(ALTERNATIVES, text)).alternatives == wanted


@pytest.mark.parametrize("value", ["same-gpu", "different-gpus", " same-gpu "])
def test_placements(value: str) -> None:
    assert read(annotated(PLACEMENT, value)).placement == value.strip()


@pytest.mark.parametrize("pod", [{}, {"metadata": None}, {"metadata": {"annotations": []}}])
def test_without_annotations_nothing_is_asked_for(pod: dict[str, object]) -> None:
    assert read(pod) == Wishes({}, is_default=True)


OTHER = read_alternatives("3g.20gb or 7g.40gb")
DEFAULT = Resources({}, read_alternatives("1g.5gb or bigger"))


@pytest.mark.parametrize(
    ("pod", "alternatives", "is_default"),
    [
        ({}, DEFAULT.alternatives, True),
        (annotated(PLACEMENT, "same-gpu"), DEFAULT.alternatives, True),
        (annotated(ALTERNATIVES, " none "), {}, False),
        (annotated(ALTERNATIVES, "3g.20gb or 7g.40gb"), OTHER, False),
    ],
)
def test_the_administrators_alternatives_are_for_pods_without_their_own(
    pod: dict[str, object], alternatives: dict[Resource, object], is_default: bool
) -> None:
    wishes = read(pod, DEFAULT)
    assert (wishes.alternatives, wishes.is_default) == (alternatives, is_default)


ALONE = '"bigger" stands alone behind one profile, as in "1g.5gb or bigger"'
RIGHT = 'write it like "3g.20gb or 4g.20gb; 1g.5gb or 1g.10gb"'


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        (PLACEMENT, "same", "must be same-gpu or different-gpus"),
        (PLACEMENT, "", "must be same-gpu or different-gpus"),
        (PLACEMENT, 1, "must be same-gpu or different-gpus"),
        (PLACEMENT, [1], "must be same-gpu or different-gpus"),
        (ALTERNATIVES, "", RIGHT),
        (ALTERNATIVES, [], RIGHT),
        (ALTERNATIVES, ";;", RIGHT),
        (ALTERNATIVES, ";" * 16_001, "is longer than 16000 characters"),
        (ALTERNATIVES, "1g.5gb", f"a chain names 2 to 8 profiles: {RIGHT}"),
        (ALTERNATIVES, " or ".join(["1g.5gb"] * 9), f"a chain names 2 to 8 profiles: {RIGHT}"),
        (ALTERNATIVES, "bigger or 1g.5gb", ALONE),
        (ALTERNATIVES, "1g.5gb or 2g.10gb or bigger", ALONE),
        (ALTERNATIVES, "1g.5gb or", f'profiles are joined by "or" and chains by ";": {RIGHT}'),
        (ALTERNATIVES, "a, b", f'profiles are joined by "or" and chains by ";": {RIGHT}'),
        (
            ALTERNATIVES,
            "1g.5gb or banana",
            "banana is not a MIG profile such as 1g.5gb or 1g.10gb+me",
        ),
        (ALTERNATIVES, "1g.5gb or 1g.5gb", "a chain names each profile once"),
        (ALTERNATIVES, "1g.5gb or 1g.10gb; 1g.5gb or 2g.10gb", "two chains begin with 1g.5gb"),
    ],
)
def test_what_cannot_be_read_is_denied_by_its_key_and_value(
    key: str, value: object, why: str
) -> None:
    with pytest.raises(InvalidPod) as caught:
        read(annotated(key, value))
    shown = str(value) if len(str(value)) <= 63 else f"{str(value)[:60]}..."
    assert str(caught.value) == f'metadata.annotations[{key}]: Invalid value: "{shown}": {why}'
