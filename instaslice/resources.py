"""Extended resources, and the DRA requests that replace them.

InstaSlice knows MIG resources by their spelling (R1). An administrator may map other resources:

    nvidia.com/gpu=gpu.nvidia.com    to a device class, which the administrator creates
    nvidia.com/gpu=mig-1g.5gb        to a MIG profile: the device plugin's strategy "single"

`bigger` lists the slices that may replace a slice of a profile, on any GPU.
"""

import re
from collections.abc import Iterable, Mapping, Set
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Final

from instaslice import profiles
from instaslice.profiles import DRIVER, MIG_CLASS, PROFILE, Resource, is_called

_IS_MIG: Final = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'mig'"

#: The compute slices of the choices of `bigger`, beside the profile's own.
_COMPUTE: Final = (2, 3, 4, 7)
#: For each variant of a profile, a pattern of the variants with at least its engines.
_VARIANTS: Final = {"": "", "+me": "[+]me([.]all)?", "+me.all": "[+]me[.]all", "+gfx": "[+]gfx"} | {
    "-me": "(-me)?"
}
#: The least real memory, in Mi, for each GB in a profile's name. NVIDIA rounds names up, so some
#: slices have less: a 1g.18gb of an H200 has 16 GiB.
_MI_PER_GB: Final = 896

#: A DNS label and a DNS subdomain (RFC 1123; apimachinery, `validation.IsDNS1123Subdomain`).
_LABEL: Final = re.compile(r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?", re.ASCII)
_SUBDOMAIN: Final = re.compile(rf"{_LABEL.pattern}(?:\.{_LABEL.pattern})*", re.ASCII)
#: The longest subdomain, in characters, and the room that a template's name needs for its count.
MAX_NAME: Final = 253
_COUNT_SUFFIX: Final = len(".x112")
#: The longest DNS label, in characters.
MAX_LABEL: Final = 63
#: A valid resource name: a domain and a qualified name of at most 63 characters (apimachinery,
#: `validation.IsQualifiedName`). The domain leaves room for the "requests." of a quota.
_NAME: Final = re.compile(
    r"([^/]{1,244})/([A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)", re.ASCII
)
#: Names of templates for several devices end like this.
_COUNTED: Final = re.compile(r".*\.x[0-9]+", re.ASCII)
#: Names of templates for MIG slices begin with these.
_RESERVED: Final = ("mig-", "same-gpu-", "different-gpus-")
#: The device plugin's names for slices that several pods share; these are not profiles (R1).
_SHARED: Final = re.compile(r"nvidia\.com/mig-.+\.shared", re.ASCII)
#: Hexadecimal digits of the digest that keeps names unique: 64 bits.
DIGEST: Final = 16


@lru_cache(maxsize=1024)
def bigger(profile: Resource) -> tuple[Resource, ...]:
    """The choices for "PROFILE or bigger", those with the fewest compute slices first (R13).

    Each has at least the profile's memory, by its name and by its capacity if the driver publishes
    it. Variants with media engines or graphics replace only profiles of the same kind.
    """
    memory, found = profile.size[1], []
    template = "mig-bigger"  # only the first: a template's name says it once
    for slices in (f"{step}g" for step in _steps(profile)):
        name, selector = f"{slices} of {memory}gb or more", _at_least(profile, slices)
        found.append(Resource(name, template, f"bigger-{slices}", MIG_CLASS, selector))
        template = ""
    return tuple(found)


def bigger_of(profile: Resource, names: Iterable[str]) -> list[str]:
    """Those of some profiles, as drivers print them, that `bigger` selects, smallest first."""
    fits = re.compile(_pattern(profile, _any_of(profile)))
    found = (profiles.from_attribute(name) for name in names if fits.search(name))
    return [each.profile for each in sorted(filter(None, found), key=lambda each: each.size)]


def is_slice(profile: Resource, or_bigger: bool = False) -> str:
    """CEL that selects the slices of a profile, through any class.

    or_bigger: also select bigger ones. A missing capacity must not be an error, which would stop
    the scheduler.
    """
    fits = _at_least(profile, _any_of(profile)) if or_bigger else is_called(profile.profile)
    return f"{_IS_MIG} && {fits}"


def _steps(profile: Resource) -> list[int]:
    """The compute slices of a profile, and the larger numbers of _COMPUTE."""
    slices = profile.size[0]
    return [slices, *(step for step in _COMPUTE if step > slices)]


def _any_of(profile: Resource) -> str:
    return f"({'|'.join(map(str, _steps(profile)))})g"


def _pattern(profile: Resource, slices: str) -> str:
    """A pattern of the profiles with these compute slices and at least a profile's memory."""
    _, memory, variant = profile.size
    return f"^{slices}[.]({_from(memory)})gb{_VARIANTS[variant]}$"


def _at_least(profile: Resource, slices: str) -> str:
    # It is one pattern since the API server refuses CEL of a high estimated cost, as with split().
    capacity, least = f"device.capacity['{DRIVER}']", profile.size[1] * _MI_PER_GB
    return (
        f"{PROFILE}.matches('{_pattern(profile, slices)}') && (!('memory' in {capacity}) || "
        f"{capacity}.memory.compareTo(quantity('{least}Mi')) >= 0)"
    )


def _from(least: int) -> str:
    """A pattern of the numbers >= least; for 24 it is 24|2[5-9]|[3-9][0-9]|[1-9][0-9]{2,}."""
    digits = str(least)
    found = [digits]
    for at in reversed(range(len(digits))):
        if digits[at] != "9":
            rest = len(digits) - at - 1
            more = "[0-9]" * rest if rest < 2 else f"[0-9]{{{rest}}}"
            found.append(f"{digits[:at]}[{int(digits[at]) + 1}-9]{more}")
    return "|".join([*found, f"[1-9][0-9]{{{len(digits)},}}"])


class Resources:
    """The extended resources that InstaSlice rewrites, and the default alternatives.

    mapped: by name, beside MIG resources. alternatives: as in `annotations.Wishes`.
    """

    def __init__(
        self,
        mapped: Mapping[str, Resource] = MappingProxyType({}),
        alternatives: Mapping[Resource, tuple[Resource, ...]] = MappingProxyType({}),
    ) -> None:
        self.mapped: Final = dict(mapped)
        self.alternatives: Final = dict(alternatives)
        self._by_template = {resource.template: resource for resource in mapped.values()}

    def find(self, name: str) -> Resource | None:
        """The resource with this name, or None if InstaSlice does not rewrite it (R1)."""
        return profiles.from_resource(name) or self.mapped.get(name)

    def from_template(self, template: str) -> Resource | None:
        """The resource whose template for one device has this name, or None."""
        return profiles.from_template(template) or self._by_template.get(template)


#: MIG resources only.
MIG: Final = Resources()


def read_mapping(texts: Iterable[str]) -> Resources:
    """Read the resources that an administrator maps; MIG resources are always included.

    texts: each "NAME=DEVICECLASS" or "NAME=mig-PROFILE". Raises ValueError with the reason.
    """
    targets: dict[str, str] = {}
    for text in texts:
        name, equals, target = text.partition("=")
        if not (equals and name and target):
            raise ValueError(f"{text!r} is not NAME=DEVICECLASS")
        if name in targets:
            raise ValueError(f"{name!r} is mapped twice")
        targets[name] = target
    mapped: dict[str, Resource] = {}
    taken: set[str] = set()
    # a.com/b.c and c.a.com/b would share a name: the one with the fewest dots gets it.
    for name in sorted(targets, key=lambda name: (name.partition("/")[2].count("."), name)):
        mapped[name] = resource = _mapped(name, targets[name], taken)
        if not resource.profile:
            taken |= {resource.template, resource.request}
    return Resources({name: mapped[name] for name in targets})


def _mapped(name: str, target: str, taken: Set[str]) -> Resource:
    """Read one mapping. taken: other resources' templates and requests. Raises ValueError."""
    match = _NAME.fullmatch(name)
    # Source: `IsExtendedResourceName` of pkg/apis/core/v1/helper.
    if (
        match is None
        or not is_subdomain(match[1])
        or "kubernetes.io/" in name
        or name.startswith("requests.")
    ):
        raise ValueError(f"{name!r} is not an extended resource, such as nvidia.com/gpu")
    if name.startswith(profiles.RESOURCE_PREFIX) and not _SHARED.fullmatch(name):
        raise ValueError(f"{name!r} is built in: MIG resources need no mapping")
    if profile := profiles.from_template(target):
        return profile
    if not is_subdomain(target):
        raise ValueError(f"{target!r} is not the name of a device class, such as gpu.nvidia.com")
    return Resource(name, *_names(name, match[2], match[1], taken), target)


def _names(name: str, short: str, domain: str, taken: Set[str]) -> tuple[str, str]:
    """The names of a mapped resource's template and request.

    For nvidia.com/gpu they are "gpu.nvidia.com" and "gpu-nvidia-com". A name that would be invalid
    or taken ends in a digest: "ascend910.huawei.com-" and 16 digits for huawei.com/Ascend910.
    """
    template = f"{short}.{domain}"
    most = MAX_NAME - _COUNT_SUFFIX
    is_reserved = template.startswith(_RESERVED) and not _SHARED.fullmatch(name)
    if (
        not is_subdomain(template)
        or len(template) > most
        or _COUNTED.fullmatch(template)
        or is_reserved
        or template in taken
    ):
        plain = re.sub("[^a-z0-9]+", "-", short.lower()) + f".{domain}"
        template = digested(f"resource-{plain}" if is_reserved else plain, most, name)
    request = template.replace(".", "-")
    if len(request) > MAX_LABEL or request in taken:
        request = digested(request, MAX_LABEL, name)
    return template, request


def digested(text: str, most: int, name: str) -> str:
    """Cut a text to at most `most` characters, with a digest of the name at its end."""
    digest = "-" + sha256(name.encode()).hexdigest()[:DIGEST]
    return text[: most - len(digest)].rstrip(".-") + digest


def is_subdomain(text: str) -> bool:
    """Whether a text is a DNS subdomain (RFC 1123, apimachinery's `IsDNS1123Subdomain`)."""
    return len(text) <= MAX_NAME and _SUBDOMAIN.fullmatch(text) is not None


def is_label(text: str) -> bool:
    """Whether a text is a DNS label, as a namespace's name is (apimachinery, `IsDNS1123Label`)."""
    return len(text) <= MAX_LABEL and _LABEL.fullmatch(text) is not None
