import pytest

from instaslice.resources import MIG, read_mapping
from instaslice.templates import claim_of


def test_mig_is_built_in() -> None:
    found = MIG.find("nvidia.com/mig-1g.10gb.me")
    assert found
    assert found.template == "mig-1g.10gb.me"
    assert found.device_class == "mig-1g.10gb.me.nvidia.com"
    assert MIG.find("nvidia.com/mig-banana") is None
    assert MIG.find("nvidia.com/gpu") is None


def test_a_resource_is_mapped_to_a_class() -> None:
    resources = read_mapping(["nvidia.com/gpu=gpu.nvidia.com", "amd.com/gpu=gpu.amd.com"])
    gpu = resources.find("nvidia.com/gpu")
    assert gpu
    assert (gpu.template, gpu.request) == ("gpu.nvidia.com", "gpu-nvidia-com")
    assert (gpu.device_class, gpu.selector, gpu.profile) == ("gpu.nvidia.com", "", None)
    assert not gpu.has_own_class
    assert resources.from_template("gpu.amd.com") == resources.find("amd.com/gpu")
    assert resources.from_template("mig-1g.5gb") == MIG.find("nvidia.com/mig-1g.5gb")
    assert resources.from_template("theirs") is None
    assert resources.find("nvidia.com/mig-1g.5gb") == MIG.find("nvidia.com/mig-1g.5gb")


def test_a_resource_that_means_a_slice_is_that_slice() -> None:
    """The device plugin's strategy "single"."""
    resources = read_mapping(["nvidia.com/gpu=mig-1g.5gb"])
    assert resources.find("nvidia.com/gpu") == MIG.find("nvidia.com/mig-1g.5gb")


def test_a_mapped_name_leaves_room_for_the_count_of_a_template() -> None:
    """A template for 112 devices ends with ".x112"; a name has at most 253 characters."""
    domain = f"{'b' * 63}.{'c' * 63}.{'d' * 63}"
    longest = f"{domain}/{'a' * (253 - len('.x112') - len('.') - len(domain))}"
    resource = read_mapping([f"{longest}=x"]).find(longest)
    assert resource
    assert len(claim_of(resource, 112).template) == 253
    with pytest.raises(ValueError, match="cannot be mapped"):
        read_mapping([f"{longest}a=x"])


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
        (["a.com/X_1=a"], "'a.com/X_1' cannot be mapped: no template can be named X_1.a.com"),
        ([f"{'a' * 63}.{'b' * 63}.{'c' * 63}/{'d' * 60}=a"], "cannot be mapped"),
        (["x2/gpu.nvidia.com=a"], "cannot be mapped"),  # two of nvidia.com/gpu
        (["5gb/mig-1g=a"], "cannot be mapped"),  # a slice
        (["b.c/a=x", "c/a.b=y"], "'b.c/a' and 'c/a.b' would share the template name a.b.c"),
    ],
)
def test_a_wrong_mapping_is_refused(texts: list[str], why: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        read_mapping(texts)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)
