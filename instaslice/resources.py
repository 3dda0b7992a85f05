"""Extended resources, and what to ask DRA for in their place. A MIG profile is one kind of it.

A MIG resource is known by how it is spelt (R1), any other because an administrator maps it:

    nvidia.com/gpu=gpu.nvidia.com    to a device class, which is the administrator's
    nvidia.com/gpu=mig-1g.5gb        to a MIG profile: the device plugin's strategy "single"

`bigger` says which slices may stand in for one of a profile, on GPUs that name theirs otherwise.
"""

import re
from collections.abc import Iterable, Mapping, Set
from functools import lru_cache
from hashlib import sha256
from types import MappingProxyType
from typing import Final, NamedTuple

from instaslice import profiles
from instaslice.profiles import Profile

#: NVIDIA's DRA driver has this class for MIG slices of every profile.
MIG_CLASS: Final = "mig.nvidia.com"
#: A class for one profile is named by the profile's template and this domain.
MIG_DOMAIN: Final = "nvidia.com"
#: NVIDIA's DRA driver: its name, which is also the domain of its attributes.
DRIVER: Final = "gpu.nvidia.com"
_PROFILE: Final = f"device.attributes['{DRIVER}'].profile"
_IS_MIG: Final = f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'mig'"

#: Compute slices that a choice of `bigger` may have, beside those of the profile itself.
_COMPUTE: Final = (2, 3, 4, 7)
#: By the variant of a profile, the variants that have at least its engines, as a pattern.
_VARIANTS: Final = {"": "", "+me": "[+]me([.]all)?", "+me.all": "[+]me[.]all", "+gfx": "[+]gfx"} | {
    "-me": "(-me)?"
}
#: The least memory behind a GB of a profile's name, in Mi. NVIDIA names a slice by its share of a
#: GPU, rounded up, and some have less: a 1g.18gb of an H200 has 16 GiB.
_MI_PER_GB: Final = 896

#: A DNS label and a DNS subdomain (RFC 1123; apimachinery, `validation.IsDNS1123Subdomain`).
_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
#: The longest subdomain, in characters; and what a name needs beyond it for its count, ".x112".
MAX_NAME: Final = 253
_COUNT_SUFFIX: Final = len(".x112")
#: The longest DNS label, in characters.
MAX_LABEL: Final = 63
#: A resource's name that Kubernetes takes: a domain and a qualified name of at most 63 characters
#: (apimachinery, `validation.IsQualifiedName`); a quota puts "requests." before the domain.
_NAME: Final = re.compile(
    r"([^/]{1,244})/([A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)", re.ASCII
)
#: How the name of a template for several devices ends.
_COUNTED: Final = re.compile(r".*\.x[0-9]+", re.ASCII)
#: How templates of MIG slices begin.
_RESERVED: Final = ("mig-", "same-gpu-", "different-gpus-")
#: The device plugin's suffix of slices that several pods share; no profile has it (R1).
_SHARED: Final = re.compile(r"nvidia\.com/mig-.+\.shared", re.ASCII)
#: Hexadecimal digits of the digest that tells names apart which are spelt alike: 64 bits.
DIGEST: Final = 16


class Resource(NamedTuple):
    """The DRA form of a container's request for an extended resource."""

    name: str  #: the extended resource, "nvidia.com/mig-1g.5gb"
    template: str  #: how the names of its templates begin, "mig-1g.5gb"
    request: str  #: of a claim, a DNS label: "mig-1g-5gb"
    device_class: str  #: "mig-1g.5gb.nvidia.com"
    selector: str = ""  #: CEL, which devices of the class; empty for any
    profile: Profile | None = None  #: where it is a MIG slice

    @property
    def has_own_class(self) -> bool:
        """Whether the class is InstaSlice's to make: only for profiles that a known GPU has.

        A class is cluster-wide, and who may create pods must not be able to fill the cluster.
        """
        return self.profile is not None and self.profile.known


@lru_cache(maxsize=1024)  # bounded, and so are the names: they are what users type
def of_profile(profile: Profile) -> Resource:
    """The resource by which the device plugin offers slices of a profile."""
    name, template, label = profile.resource, profile.template, profile.label
    if profile.known:
        return Resource(name, template, label, f"{template}.{MIG_DOMAIN}", "", profile)
    return Resource(name, template, label, MIG_CLASS, _is_called(profile), profile)


@lru_cache(maxsize=1024)
def bigger(profile: Profile) -> tuple[Resource, ...]:
    """The slices that may replace one, in order: as many compute slices first, then more (R13).

    Of each at least its memory, by the profile's name and by the capacity where the driver
    publishes it. Variants with media engines, or graphics, stand in only for their own kind.
    """
    memory, found = profile.size[1], []
    template = "mig-bigger"  # which a template's name says once
    for slices in (f"{step}g" for step in _steps(profile)):
        name, selector = f"{slices} of {memory}gb or more", _at_least(profile, slices)
        found.append(Resource(name, template, f"bigger-{slices}", MIG_CLASS, selector))
        template = ""
    return tuple(found)


def bigger_of(profile: Profile, names: Iterable[str]) -> list[str]:
    """Of some profiles, as drivers print them, those that `bigger` is about, the smallest first."""
    fits = re.compile(_pattern(profile, _any_of(profile)))
    found = (profiles.from_attribute(name) for name in names if fits.search(name))
    return [each.attribute for each in sorted(filter(None, found), key=lambda each: each.size)]


def is_slice(profile: Profile, or_bigger: bool = False) -> str:
    """CEL: which devices are slices of a profile, whatever class one asks through.

    or_bigger: or bigger ones. One without a capacity is no error, which would stop the scheduler.
    """
    fits = _at_least(profile, _any_of(profile)) if or_bigger else _is_called(profile)
    return f"{_IS_MIG} && {fits}"


def _is_called(profile: Profile) -> str:
    return f"{_PROFILE} == '{profile.attribute}'"


def _steps(profile: Profile) -> list[int]:
    """The compute slices of the profile, and of those that are bigger."""
    slices = profile.size[0]
    return [slices, *(step for step in _COMPUTE if step > slices)]


def _any_of(profile: Profile) -> str:
    return f"({'|'.join(map(str, _steps(profile)))})g"


def _pattern(profile: Profile, slices: str) -> str:
    """What the names match of profiles of such slices, of at least the memory of one."""
    _, memory, variant = profile.size
    return f"^{slices}[.]({_from(memory)})gb{_VARIANTS[variant]}$"


def _at_least(profile: Profile, slices: str) -> str:
    # One pattern, for the API server refuses what it takes to cost much, as split() and int() do.
    capacity, least = f"device.capacity['{DRIVER}']", profile.size[1] * _MI_PER_GB
    return (
        f"{_PROFILE}.matches('{_pattern(profile, slices)}') && (!('memory' in {capacity}) || "
        f"{capacity}.memory.compareTo(quantity('{least}Mi')) >= 0)"
    )


def _from(least: int) -> str:
    """A pattern of the numbers from one on: of 24 on, 24|2[5-9]|[3-9][0-9]|[1-9][0-9]{2,}."""
    digits = str(least)
    found = [digits]
    for at in reversed(range(len(digits))):
        if digits[at] != "9":
            rest = len(digits) - at - 1
            more = "[0-9]" * rest if rest < 2 else f"[0-9]{{{rest}}}"
            found.append(f"{digits[:at]}[{int(digits[at]) + 1}-9]{more}")
    return "|".join([*found, f"[1-9][0-9]{{{len(digits)},}}"])


@lru_cache(maxsize=1024)
def _of_mig(name: str) -> Resource | None:
    profile = profiles.from_resource(name)
    return of_profile(profile) if profile else None


class Resources:
    """The extended resources that are rewritten, and what may stand in for them in any pod.

    mapped: by name, beside those of MIG. alternatives: the administrator's, as of an annotation.
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
        """The request that an extended resource stands for; None if it is not rewritten (R1)."""
        if name.startswith(profiles.RESOURCE_PREFIX) and len(name) <= profiles.LONGEST:
            return _of_mig(name) or self.mapped.get(name)
        return self.mapped.get(name)

    def from_template(self, template: str) -> Resource | None:
        """The resource whose template for one device is named so, or None."""
        profile = profiles.from_template(template)
        return of_profile(profile) if profile else self._by_template.get(template)


#: Those of MIG, and no other.
MIG: Final = Resources()


def read_mapping(texts: Iterable[str]) -> Resources:
    """MIG's resources and those that an administrator maps.

    texts: "NAME=DEVICECLASS" or "NAME=mig-PROFILE" each. Raises ValueError, "'...' is not ...".
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
    # a.com/b.c and c.a.com/b are spelt alike: the name with the fewest dots keeps the plain one.
    for name in sorted(targets, key=lambda name: (name.partition("/")[2].count("."), name)):
        mapped[name] = resource = _mapped(name, targets[name], taken)
        if resource.profile is None:
            taken |= {resource.template, resource.request}
    return Resources({name: mapped[name] for name in targets})


def _mapped(name: str, target: str, taken: Set[str]) -> Resource:
    """taken: templates and requests of others. Raises ValueError."""
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
        return of_profile(profile)
    if not is_subdomain(target):
        raise ValueError(f"{target!r} is not the name of a device class, such as gpu.nvidia.com")
    return Resource(name, *_names(name, match[2], match[1], taken), target)


def _names(name: str, short: str, domain: str, taken: Set[str]) -> tuple[str, str]:
    """The names of a mapped resource's templates and requests.

    "gpu.nvidia.com" for nvidia.com/gpu. What could not be named so, or not be told from others,
    ends in a digest: "ascend910.huawei.com-" and 16 digits for huawei.com/Ascend910.
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
    """A text cut to a number of characters, the last of which tell its name from others."""
    digest = "-" + sha256(name.encode()).hexdigest()[:DIGEST]
    return text[: most - len(digest)].rstrip(".-") + digest


def is_subdomain(text: str) -> bool:
    """Whether an object may be named so (RFC 1123, apimachinery's `IsDNS1123Subdomain`)."""
    return len(text) <= MAX_NAME and _SUBDOMAIN.fullmatch(text) is not None
