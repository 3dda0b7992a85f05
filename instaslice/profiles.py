"""MIG profiles, their four spellings, and the resources that they are.

Four parties spell one profile in four ways:

=====================  ===========================  ==========================================
extended resource      nvidia.com/mig-1g.10gb.me    NVIDIA's device plugin, and so the pod
template               mig-1g.10gb.me               InstaSlice: the resource after the slash
DRA attribute          1g.10gb+me                   NVIDIA's DRA driver, in its ResourceSlices
request in a template  mig-1g-10gb-me               a DNS label, which has no dots
=====================  ===========================  ==========================================

Source: k8s-device-plugin `internal/rm/rm.go` writes the profile's "+" as "." in the resource name;
a "-" (as in 1g.24gb-me, a slice without media engines) stays. A DNS label doubles that "-",
mig-1g-24gb--me, so that no two profiles have the same label.
"""

import re
from functools import lru_cache
from typing import Final, NamedTuple

RESOURCE_PREFIX: Final = "nvidia.com/mig-"
#: The class of NVIDIA's DRA driver for MIG slices of every profile.
MIG_CLASS: Final = "mig.nvidia.com"
#: The name of a profile's class is that of its template and this domain.
MIG_DOMAIN: Final = "nvidia.com"
#: The name of NVIDIA's DRA driver, and the domain of its attributes.
DRIVER: Final = "gpu.nvidia.com"
PROFILE: Final = f"device.attributes['{DRIVER}'].profile"

#: `<n>g.<m>gb` and an attribute, as the device plugin spells them. It is a pattern, not a list,
#: because new drivers have new profiles. A slice of a Jetson Thor has 0gb, since it shares the
#: machine's memory. Digits are bounded so that a request's name, with a count, fits a DNS label.
_SPELLING: Final = re.compile(
    r"[1-9][0-9]{0,2}g\.(?:0|[1-9][0-9]{0,3})gb(?:\.me\.all|\.me|\.gfx|-me)?", re.ASCII
)
#: The longest resource name: Kubernetes allows 63 characters after the slash.
LONGEST: Final = len("nvidia.com/") + 63

#: The profiles of each MIG GPU, as NVIDIA's tools print them (MIG User Guide, "Supported MIG
#: Profiles"; GPU Operator, mig-parted's config map). The table serves documentation, generated
#: manifests, device classes and warnings; a profile outside it is rewritten too. The rows of GB200
#: 189GB, B300, GB300, RTX PRO 5000 and RTX PRO 4500 come from secondary sources.
_TABLE: Final = {
    "A30": "1g.6gb 1g.6gb+me 2g.12gb 2g.12gb+me 4g.24gb",
    "A100 40GB": "1g.5gb 1g.5gb+me 1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb",
    "A100 80GB": "1g.10gb 1g.10gb+me 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb",
    "H100 80GB": "1g.10gb 1g.10gb+me 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb",
    "H100 94GB": "1g.12gb 1g.12gb+me 1g.24gb 2g.24gb 3g.47gb 4g.47gb 7g.94gb",
    "H100 96GB (GH200), H20": "1g.12gb 1g.12gb+me 1g.24gb 2g.24gb 3g.48gb 4g.48gb 7g.96gb",
    "H200 141GB": "1g.18gb 1g.18gb+me 1g.35gb 2g.35gb 3g.71gb 4g.71gb 7g.141gb",
    "GH200 144GB": "1g.18gb 1g.18gb+me 1g.36gb 2g.36gb 3g.72gb 4g.72gb 7g.144gb",
    "B200": "1g.23gb 1g.23gb+me 1g.45gb 2g.45gb 3g.90gb 4g.90gb 7g.180gb",
    "GB200": "1g.23gb 1g.23gb+me 1g.47gb 2g.47gb 3g.93gb 4g.93gb 7g.186gb",
    # mig-parted's config (`all-3g.95gb` and so on) has these profiles, but names no GPU for them.
    "GB200 189GB": "1g.23gb 1g.23gb+me 1g.47gb 2g.47gb 3g.95gb 4g.95gb 7g.189gb",
    "B300": "1g.34gb 1g.34gb+me 1g.67gb 2g.67gb 3g.135gb 4g.135gb 7g.269gb",
    "GB300": "1g.35gb 1g.35gb+me 1g.70gb 2g.70gb 3g.139gb 4g.139gb 7g.278gb",
    "RTX PRO 6000 Blackwell": "1g.24gb 1g.24gb+me 1g.24gb+gfx 1g.24gb+me.all 1g.24gb-me"
    " 2g.48gb 2g.48gb+gfx 2g.48gb+me.all 2g.48gb-me 4g.96gb 4g.96gb+gfx",
    "RTX PRO 5000 Blackwell": "1g.24gb 1g.24gb+me 1g.24gb+gfx 1g.24gb+me.all 1g.24gb-me"
    " 2g.48gb 2g.48gb+gfx",
    "RTX PRO 4500 Blackwell": "1g.16gb 1g.16gb+gfx 1g.16gb+me.all 1g.16gb-me 2g.32gb 2g.32gb+gfx",
}
PROFILES_BY_GPU: Final = {gpu: tuple(names.split()) for gpu, names in _TABLE.items()}
_KNOWN: Final = frozenset(name for names in PROFILES_BY_GPU.values() for name in names)


class Resource(NamedTuple):
    """An extended resource, and how to ask for it through DRA."""

    name: str  #: the extended resource, "nvidia.com/mig-1g.10gb.me"
    template: str  #: the beginning of its templates' names, "mig-1g.10gb.me"
    request: str  #: the request's name, a DNS label (RFC 1123): "mig-1g-10gb-me"
    device_class: str  #: "mig-1g.10gb.me.nvidia.com"
    selector: str = ""  #: CEL that selects devices of the class; empty for any
    #: The value of device.attributes['gpu.nvidia.com'].profile, "1g.10gb+me"; empty if it is no MIG
    #: slice, or one of several profiles.
    profile: str = ""
    #: Whether InstaSlice creates its class, which it does only for profiles that a known GPU has.
    #: Classes are cluster-wide, so users who can create pods must not be able to create many.
    has_own_class: bool = False

    @property
    def size(self) -> tuple[int, int, str]:
        """The compute slices, the memory in GB, and the variant ("", "+me", "-me") of a profile."""
        slices, rest = self.profile.split("g.", 1)
        memory, variant = rest.split("gb", 1)
        return int(slices), int(memory), variant


def from_resource(name: str) -> Resource | None:
    """The slices of a MIG profile that an extended resource names, or None."""
    return _read(name) if name.startswith(RESOURCE_PREFIX) and len(name) <= LONGEST else None


@lru_cache(maxsize=1024)  # users type the names, so their number and length are bounded
def _read(name: str) -> Resource | None:
    spelling = name[len(RESOURCE_PREFIX) :]
    if not _SPELLING.fullmatch(spelling):
        return None
    template, attribute = "mig-" + spelling, spelling.replace("gb.", "gb+")
    label = "mig-" + spelling.replace("-", "--").replace(".", "-")
    if attribute in _KNOWN:
        return Resource(name, template, label, f"{template}.{MIG_DOMAIN}", "", attribute, True)
    return Resource(name, template, label, MIG_CLASS, is_called(attribute), attribute)


def is_called(attribute: str) -> str:
    """CEL that selects the slices of a profile among the devices of NVIDIA's driver."""
    return f"{PROFILE} == '{attribute}'"


def from_template(template: str) -> Resource | None:
    """The slices for which a template asks for one, "mig-1g.10gb.me", or None."""
    return from_resource("nvidia.com/" + template)


def from_label(label: str) -> Resource | None:
    """The slices of the profile with this DNS label, or None."""
    spelling = "-".join(part.replace("-", ".") for part in label.split("--"))
    found = from_template(spelling.replace("mig.", "mig-", 1))
    return found if found and found.request == label else None


def from_attribute(attribute: str) -> Resource | None:
    """The slices of a profile as NVIDIA's tools print it, "1g.10gb+me"; None if it is misspelt."""
    found = from_resource(RESOURCE_PREFIX + attribute.replace("gb+", "gb."))
    return found if found and found.profile == attribute else None


def from_name(name: str) -> Resource | None:
    """The slices of the profile with this name, in any spelling except the DNS label, or None."""
    bare = name.removeprefix("nvidia.com/").removeprefix("mig-")
    return from_attribute(bare) or from_resource(RESOURCE_PREFIX + bare)


def known_profiles() -> list[Resource]:
    """The slices of every profile of `PROFILES_BY_GPU` once, smallest first."""
    return sorted(filter(None, map(from_attribute, _KNOWN)), key=lambda each: each.size)
