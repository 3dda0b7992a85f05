"""Extended resources, and what to ask DRA for in their place. A MIG profile is one kind of it.

A MIG resource is known by how it is spelt (R1), any other because an administrator maps it:

    nvidia.com/gpu=gpu.nvidia.com    to a device class, which is the administrator's
    nvidia.com/gpu=mig-1g.5gb        to a MIG profile: the device plugin's strategy "single"
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
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
IS_PROFILE: Final = f"device.attributes['{DRIVER}'].profile == '{{attribute}}'"
#: Which devices are MIG slices of a profile, whatever class one asks through.
IS_SLICE: Final = (
    f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'mig' && {IS_PROFILE}"
)

#: A DNS label and a DNS subdomain (RFC 1123; apimachinery, `validation.IsDNS1123Subdomain`).
_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
#: The longest subdomain, in characters; and what a name needs beyond it for its count, ".x112".
MAX_NAME: Final = 253
_COUNT_SUFFIX: Final = len(".x112")
#: The longest DNS label, in characters.
MAX_LABEL: Final = 63
#: A resource's name that Kubernetes takes: a domain and a qualified name of at most 63 characters
#: (apimachinery, `validation.IsQualifiedName`).
_NAME: Final = re.compile(r"([^/]+)/([A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)", re.ASCII)
#: How the name of a template for several devices ends.
_COUNTED: Final = re.compile(r"x[0-9]+")


class Resource(NamedTuple):
    """What a container asks for by an extended resource, as DRA is asked for it."""

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
    device_class, selector = MIG_CLASS, IS_PROFILE.format(attribute=profile.attribute)
    if profile.known:
        device_class, selector = f"{profile.template}.{MIG_DOMAIN}", ""
    name, template, label = profile.resource, profile.template, profile.label
    return Resource(name, template, label, device_class, selector, profile)


@lru_cache(maxsize=1024)
def _of_mig(name: str) -> Resource | None:
    profile = profiles.from_resource(name)
    return of_profile(profile) if profile else None


class Resources:
    """The extended resources that are rewritten.

    mapped: by name, beside those of MIG.
    """

    def __init__(self, mapped: Mapping[str, Resource] = MappingProxyType({})) -> None:
        self.mapped: Final = dict(mapped)
        self._by_template = {resource.template: resource for resource in mapped.values()}

    def find(self, name: str) -> Resource | None:
        """What an extended resource stands for, or None where it is not to be rewritten (R1)."""
        if name.startswith(profiles.RESOURCE_PREFIX):
            return _of_mig(name) if len(name) <= profiles.LONGEST else None
        return self.mapped.get(name)

    def from_template(self, template: str) -> Resource | None:
        """The resource whose template for one device is named so, or None."""
        resource = self._by_template.get(template)
        if resource is None and (profile := profiles.from_template(template)):
            return of_profile(profile)
        return resource


#: Those of MIG, and no other.
MIG: Final = Resources()


def read_mapping(texts: Iterable[str]) -> Resources:
    """MIG's resources and those that an administrator maps.

    texts: "NAME=DEVICECLASS" or "NAME=mig-PROFILE" each. Raises ValueError, "'...' is not ...".
    """
    mapped: dict[str, Resource] = {}
    templates: dict[str, str] = {}
    for text in texts:
        name, equals, target = text.partition("=")
        if not (equals and name and target):
            raise ValueError(f"{text!r} is not NAME=DEVICECLASS")
        if name in mapped:
            raise ValueError(f"{name!r} is mapped twice")
        resource = _mapped(name, target)
        if resource.profile is None:
            taken = templates.setdefault(resource.template, name)
            if taken != name:
                what = f"would share the template name {resource.template}"
                raise ValueError(f"{taken!r} and {name!r} {what}")
        mapped[name] = resource
    return Resources(mapped)


def _mapped(name: str, target: str) -> Resource:
    match = _NAME.fullmatch(name)
    # Source: `IsExtendedResourceName` of pkg/apis/core/v1/helper.
    if match is None or "kubernetes.io/" in name or name.startswith("requests."):
        raise ValueError(f"{name!r} is not an extended resource, such as nvidia.com/gpu")
    if name.startswith(profiles.RESOURCE_PREFIX):
        raise ValueError(f"{name!r} is built in: MIG resources need no mapping")
    profile = profiles.from_template(target)
    if profile:
        return of_profile(profile)
    domain, short = match.groups()
    template = f"{short}.{domain}"
    if (
        not is_subdomain(template)
        or len(template) > MAX_NAME - _COUNT_SUFFIX
        or _COUNTED.fullmatch(domain.rpartition(".")[2])
        or profiles.from_template(template)
    ):
        raise ValueError(f"{name!r} cannot be mapped: no template can be named {template}")
    if not is_subdomain(target):
        raise ValueError(f"{target!r} is not the name of a device class, such as gpu.nvidia.com")
    request = template.replace(".", "-")[:MAX_LABEL].rstrip("-")
    return Resource(name, template, request, target)


def is_subdomain(text: str) -> bool:
    """Whether an object may be named so (RFC 1123, apimachinery's `IsDNS1123Subdomain`)."""
    return len(text) <= MAX_NAME and _SUBDOMAIN.fullmatch(text) is not None
