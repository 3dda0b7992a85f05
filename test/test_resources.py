import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instaslice.resources import MIG, read_mapping
from instaslice.templates import claim_of, from_template, is_ours, stands_for


def test_a_resource_is_mapped_to_a_class() -> None:
    resources = read_mapping(["nvidia.com/gpu=gpu.nvidia.com", "amd.com/gpu=gpu.amd.com"])
    gpu = resources.find("nvidia.com/gpu")
    assert gpu
    assert (gpu.template, gpu.request) == ("gpu.nvidia.com", "gpu-nvidia-com")
    assert (gpu.device_class, gpu.selector, gpu.profile) == ("gpu.nvidia.com", "", "")
    assert not gpu.has_own_class
    assert resources.from_template("gpu.amd.com") == resources.find("amd.com/gpu")
    assert resources.from_template("mig-1g.5gb") == MIG.find("nvidia.com/mig-1g.5gb")
    assert resources.from_template("theirs") is None
    assert resources.find("nvidia.com/mig-1g.5gb") == MIG.find("nvidia.com/mig-1g.5gb")


def test_a_resource_may_be_mapped_to_a_profile() -> None:
    """This serves the device plugin's strategy "single"."""
    resources = read_mapping(["nvidia.com/gpu=mig-1g.5gb"])
    assert resources.find("nvidia.com/gpu") == MIG.find("nvidia.com/mig-1g.5gb")


def test_a_mapped_name_leaves_room_for_the_count_of_a_template() -> None:
    """A template for 112 devices ends with ".x112"; a name has at most 253 characters."""
    domain = f"{'b' * 63}.{'c' * 63}.{'d' * 63}"
    longest = f"{domain}/{'a' * (253 - len('.x112') - len('.') - len(domain))}"
    resource = read_mapping([f"{longest}=x"]).find(longest)
    assert resource
    assert len(claim_of(resource, 112).template) == 253
    longer = read_mapping([f"{longest}a=x"]).find(f"{longest}a")
    assert longer
    assert len(claim_of(longer, 112).template) == 253


@pytest.mark.parametrize(
    ("texts", "why"),
    [
        (["nvidia.com/gpu"], "'nvidia.com/gpu' is not NAME=DEVICECLASS"),
        (["nvidia.com/gpu="], "'nvidia.com/gpu=' is not NAME=DEVICECLASS"),
        (["=gpu.nvidia.com"], "'=gpu.nvidia.com' is not NAME=DEVICECLASS"),
        (["cpu=cpu.example.com"], "'cpu' is not an extended resource, such as nvidia.com/gpu"),
        (["kubernetes.io/x=a"], "'kubernetes.io/x' is not an extended resource"),
        (["requests.a.com/x=a"], "'requests.a.com/x' is not an extended resource"),
        (["a.com/b/c=a"], "'a.com/b/c' is not an extended resource"),
        (["a.com/x=b", "a.com/x=c"], "'a.com/x' is mapped twice"),
        (["nvidia.com/mig-1g.5gb=a"], "'nvidia.com/mig-1g.5gb' is built in"),
        (["a.com/x=Not_A_Class"], "'Not_A_Class' is not the name of a device class"),
        (["A.com/x=a"], "'A.com/x' is not an extended resource"),
        ([f"{'a.' * 122}b/x=a"], "is not an extended resource"),  # 245 characters of domain
    ],
)
def test_a_wrong_mapping_is_refused(texts: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        read_mapping(texts)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


_DOMAINS = st.from_regex(r"[a-z0-9](-?[a-z0-9]){0,3}(\.[a-z0-9]{1,4}){0,3}", fullmatch=True)
_SHORT = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", fullmatch=True)
#: Names whose templates would collide, or look like those of MIG slices.
_TRAPS = st.sampled_from(
    (
        *("b.c/a", "c/a.b", "a.com/x_y", "a.com/x-y", "a.com/X-Y", "huawei.com/Ascend910"),
        *("5gb/mig-1g", "x2/gpu.nvidia.com", "5gb-or-bigger/mig-1g", "5gb/same-gpu-mig-1g"),
        *("a.com/a..b", "a-b/c", "nvidia.com/mig-1g.5gb.shared", "amd.com/cpx_nps4", "b/c.a"),
        *(f"{'a' * 63}.{'b' * 63}.{'c' * 63}/{'d' * 60}", f"{'a' * 63}.com/b"),
        *("nvidia.com/gpu", f"{'a' * 63}.com/b.c"),
    )
)


@pytest.mark.property
@given(st.lists(_TRAPS | st.builds("{}/{}".format, _DOMAINS, _SHORT), unique=True, max_size=20))
def test_every_extended_resource_has_unique_names(names: list[str]) -> None:
    names = [name for name in names if not name.startswith("requests.")]
    resources = read_mapping(f"{name}=a-class" for name in names)
    found = [resource for name in names if (resource := resources.find(name))]
    assert len({each.template for each in found}) == len({each.request for each in found})
    assert len({each.template for each in found}) == len(names)
    label = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    for resource in found:
        for count in (1, 2, 112):
            claim = claim_of(resource, count)
            assert len(claim.template) <= 253
            assert re.fullmatch(rf"{label}(\.{label})*", claim.template)
            assert from_template(claim.template, resources) == claim
            assert is_ours(claim.template, resources)
            assert stands_for(claim.template, None, resources) == (resource, count)
            assert not is_ours(claim.template, MIG)
        assert len(resource.request) <= 63
        assert re.fullmatch(label, resource.request)


def test_shared_slices_are_left_alone_unless_they_are_mapped() -> None:
    shared = "nvidia.com/mig-1g.5gb.shared"
    assert MIG.find(shared) is None
    found = read_mapping([f"{shared}=shared.example.com"]).find(shared)
    assert found
    assert found.template == "mig-1g.5gb.shared.nvidia.com"
    assert found.device_class == "shared.example.com"
