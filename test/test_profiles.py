import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice import profiles


@pytest.mark.parametrize(
    ("resource", "template", "attribute", "label"),
    [
        ("nvidia.com/mig-1g.5gb", "mig-1g.5gb", "1g.5gb", "mig-1g-5gb"),
        ("nvidia.com/mig-7g.141gb", "mig-7g.141gb", "7g.141gb", "mig-7g-141gb"),
        ("nvidia.com/mig-1g.10gb.me", "mig-1g.10gb.me", "1g.10gb+me", "mig-1g-10gb-me"),
        (
            "nvidia.com/mig-1g.24gb.me.all",
            *("mig-1g.24gb.me.all", "1g.24gb+me.all", "mig-1g-24gb-me-all"),
        ),
        ("nvidia.com/mig-4g.96gb.gfx", "mig-4g.96gb.gfx", "4g.96gb+gfx", "mig-4g-96gb-gfx"),
        ("nvidia.com/mig-1g.24gb-me", "mig-1g.24gb-me", "1g.24gb-me", "mig-1g-24gb--me"),
    ],
)
def test_a_profile_has_four_spellings(
    resource: str, template: str, attribute: str, label: str
) -> None:
    profile = profiles.from_resource(resource)
    assert profile is not None
    assert profile[:3] == (resource, template, label)
    assert profile.profile == attribute
    assert profiles.from_attribute(attribute) == profile
    assert profiles.from_template(template) == profile


@pytest.mark.parametrize(
    "resource",
    [
        "nvidia.com/gpu",
        "nvidia.com/mig-",
        "nvidia.com/mig-banana",
        "nvidia.com/mig-1g.5gb.shared",  # a time-sliced replica
        "nvidia.com/mig-1g.5gb.ME",
        "nvidia.com/mig-1g.5gb-gfx",
        "nvidia.com/mig-1g.5gb-me.all",
        "nvidia.com/mig-1g.5gb+me",
        "nvidia.com/mig-1g.5gb\n",
        "nvidia.com/mig-0g.5gb",
        "nvidia.com/mig-1g.05gb",
        "nvidia.com/mig-1c.1g.5gb",
        "nvidia.com/mig-١g.5gb",  # a digit, but not ASCII
        "nvidia.com/MIG-1g.5gb",
        "amd.com/mig-1g.5gb",
        "nvidia.com/mig-1g." + "5" * 60 + "gb",  # over 63 characters
    ],
)
def test_other_names_are_not_profiles(resource: str) -> None:
    assert profiles.from_resource(resource) is None


@pytest.mark.parametrize(
    "attribute", ["1g.5gb.me", "1g.5gb+me+me", "1g.5gb+", "", "+me", "1g+5gb", "1g.5gb.me+all"]
)
def test_attributes_are_spelt_with_a_plus(attribute: str) -> None:
    assert profiles.from_attribute(attribute) is None


@pytest.mark.property
@given(
    st.integers(1, 99), st.integers(1, 999), st.sampled_from(["", ".me", ".me.all", ".gfx", "-me"])
)
def test_any_well_spelt_profile_is_one(slices: int, memory: int, attribute: str) -> None:
    resource = f"nvidia.com/mig-{slices}g.{memory}gb{attribute}"
    profile = profiles.from_resource(resource)
    assert profile is not None
    assert profile.name == resource
    assert profiles.from_attribute(profile.profile) == profile
    assert profile.request.replace("-", "").isalnum()


def test_known_profiles_are_sorted_by_size() -> None:
    known = profiles.known_profiles()
    names = {name for row in profiles.PROFILES_BY_GPU.values() for name in row}
    assert {profile.profile for profile in known} == names
    assert len(known) == len(names)
    assert all(profile.has_own_class for profile in known)
    assert known[0].profile == "1g.5gb"
    assert known[-1].profile == "7g.278gb"
    unknown = profiles.from_resource("nvidia.com/mig-9g.999gb")
    assert unknown is not None
    assert not unknown.has_own_class


def test_the_longest_profile_with_a_count_fits_a_dns_label() -> None:
    longest = profiles.from_resource("nvidia.com/mig-999g.9999gb.me.all")
    assert longest
    assert len(f"{longest.request}-x112-1792") <= 63
    assert profiles.from_label(longest.request) == longest
    for spelling in ("1000g.5gb", "1g.10000gb", "1" * 50 + "g.5gb"):
        assert profiles.from_resource(f"nvidia.com/mig-{spelling}") is None
