"""Claims, and the API objects that they need.

Kubernetes creates a claim from a ResourceClaimTemplate. The template's name says what it asks for,
so that pods which ask for the same share a template:

    mig-1g.5gb                                one slice
    mig-1g.5gb.x2                             two
    mig-3g.20gb-or-4g.20gb                    a 3g.20gb or, if none is free, a 4g.20gb
    mig-1g.5gb-or-bigger                      a 1g.5gb or, if none is free, a bigger slice
    same-gpu-mig-1g.5gb.x2-and-mig-3g.20gb    three slices, all of one GPU
    gpu.nvidia.com.x2                         two devices that are not slices

This module does no I/O: others print the objects, apply them, or create them at admission.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from instaslice import profiles
from instaslice.patch import Json
from instaslice.profiles import DRIVER, MIG_DOMAIN, Resource
from instaslice.resource_api import ALTERNATIVES, CONSTRAINTS, EXTENDED_RESOURCES, ResourceAPI
from instaslice.resources import (
    MAX_LABEL,
    MAX_NAME,
    Resources,
    bigger,
    bigger_of,
    digested,
    is_slice,
)

#: The label of every object that InstaSlice creates (Kubernetes' recommended labels).
LABELS: Final = {"app.kubernetes.io/managed-by": "instaslice"}

#: The attribute that is the same for all slices of a GPU.
GPU: Final = f"{DRIVER}/parentUUID"
#: The most alternatives of a request (FirstAvailableDeviceRequestMaxSize of the API).
MAX_CHOICES: Final = 8

_OR: Final = "-or-"
_AND: Final = "-and-"
#: The name of a placed claim's template begins like this.
_PLACED: Final = re.compile(f"({'|'.join(CONSTRAINTS)})-(?=mig-)")
_COUNT: Final = re.compile(r"(.+)\.x([1-9][0-9]{0,2})", re.ASCII)
#: The name of a placed claim's request: label, count, and a number if several are alike.
_REQUEST: Final = re.compile(r"(.+?)(?:-x([1-9][0-9]{0,2}))?(?:-([1-9][0-9]*))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class DeviceRequest:
    """A request of a claim, for devices of the first available choice."""

    choices: tuple[Resource, ...]  #: the resource that the limit names, then its alternatives
    count: int = 1

    @property
    def resource(self) -> Resource:
        """The resource that the limit names."""
        return self.choices[0]

    @property
    def template(self) -> str:
        """The name of a template with only this request."""
        others = [c.template.removeprefix("mig-") for c in self.choices[1:] if c.template]
        name = _OR.join([self.resource.template, *others])
        return f"{name}.x{self.count}" if self.count > 1 else name

    def profiles(self, published: Iterable[str]) -> list[str]:
        """The profiles that may serve the request, as drivers print them, in order of preference.

        published: the profiles that the choices of "or bigger" select from.
        """
        names = [choice.profile for choice in self.choices if choice.profile]
        if self.resource.profile and len(names) < len(self.choices):
            names += bigger_of(self.resource, published)
        return list(dict.fromkeys(names))


@dataclass(frozen=True)
class DeviceClaim:
    """The requests of a claim."""

    requests: tuple[DeviceRequest, ...]  #: one, unless it has a placement
    placement: str = ""  #: a key of CONSTRAINTS, or empty

    def __hash__(self) -> int:
        return hash(self.template)

    @cached_property
    def template(self) -> str:
        """The name of its template."""
        name = self.long_name
        return name if len(name) <= MAX_NAME else digested(name, MAX_NAME, name)

    @property
    def long_name(self) -> str:
        """The name that says all; a template's name is cut at MAX_NAME characters."""
        name = _AND.join(request.template for request in self.requests)
        return f"{self.placement}-{name}" if self.placement else name

    @property
    def has_alternatives(self) -> bool:
        """Whether several resources may serve one of its requests."""
        return any(len(request.choices) > 1 for request in self.requests)

    @property
    def choices(self) -> list[Resource]:
        """Every resource that may serve it, once."""
        return list(dict.fromkeys(c for request in self.requests for c in request.choices))

    @cached_property
    def unknown(self) -> list[Resource]:
        """The slices that may serve it, but that no known GPU has."""
        return [each for each in self.choices if each.profile and not each.has_own_class]

    @property
    def request_names(self) -> list[str]:
        """The names of the requests; containers refer to those of a placed claim."""
        if not self.placement:
            return [self.requests[0].resource.request]
        names: list[str] = []
        seen: dict[str, int] = {}
        for each in self.requests:
            name = each.resource.request + (f"-x{each.count}" if each.count > 1 else "")
            seen[name] = number = seen.get(name, 0) + 1
            names.append(name if number == 1 else f"{name}-{number}")
        return names


@lru_cache(maxsize=1024)  # nearly all pods ask for the same few
def claim_of(resource: Resource, count: int = 1, *alternatives: Resource) -> DeviceClaim:
    """A claim for devices of a resource, or of the first available alternative."""
    return DeviceClaim((DeviceRequest((resource, *alternatives), count),))


def from_template(template: str, resources: Resources) -> DeviceClaim | None:
    """Read a claim from the name of its template; None if InstaSlice would not use that name.

    The name of a placed claim may be too long to say everything; the result is then None, too.
    """
    if len(template) > MAX_NAME:
        return None
    match = _PLACED.match(template)
    parts = template[match.end() :].split(_AND) if match else [template]
    requests = [_read_request(part, resources) for part in parts]
    if None in requests:
        return None
    claim = DeviceClaim(tuple(filter(None, requests)), match[1] if match else "")
    return claim if claim.template == template else None


def _read_request(text: str, resources: Resources) -> DeviceRequest | None:
    counted = _COUNT.fullmatch(text)
    name, count = (counted[1], int(counted[2])) if counted else (text, 1)
    if resource := resources.from_template(name):
        return DeviceRequest((resource,), count)
    first, *others = name.split(_OR)
    resource = profiles.from_template(first)
    if resource and others == ["bigger"]:
        return DeviceRequest((resource, *bigger(resource)), count)
    found = [resource, *(profiles.from_template(f"mig-{other}") for other in others)]
    choices = tuple(filter(None, found))
    return DeviceRequest(choices, count) if len(choices) == len(found) else None


def is_placed(template: str) -> bool:
    """Whether a template has a name like those of placed claims."""
    return _PLACED.match(template) is not None


def is_ours(template: str, resources: Resources) -> bool:
    """Whether a template has a name that InstaSlice uses."""
    return is_placed(template) or from_template(template, resources) is not None


def stands_for(template: str, request: object, resources: Resources) -> tuple[Resource, int] | None:
    """The resource and the count that a container has by a reference to a claim, or None.

    template: that of the claim; if it is not InstaSlice's, the result is None.
    request: the request that the reference names; None if it refers to the whole claim.
    """
    if is_placed(template):
        return of_request(request)
    claim = from_template(template, resources)
    return (claim.requests[0].resource, claim.requests[0].count) if claim else None


def of_request(name: object) -> tuple[Resource, int] | None:
    """Read the resource and the count from the name of a placed claim's request, or None."""
    match = _REQUEST.fullmatch(name) if isinstance(name, str) and len(name) <= MAX_LABEL else None
    resource = profiles.from_label(match[1]) if match else None
    return (resource, int(match[2] or 1)) if match and resource else None


# -- objects -------------------------------------------------------------------------------------

#: The class and the API group of the parameters of NVIDIA's driver for v1alpha2.
CLASSIC_CLASS: Final = "gpu.nvidia.com"
_CLASSIC_GROUP: Final = "gpu.resource.nvidia.com"


def objects(api: ResourceAPI, claim: DeviceClaim, namespace: str | None = None) -> list[Json]:
    """The objects that a claim needs, in the order in which to create them.

    Device classes come first and are cluster-wide; the rest is in the namespace. The
    ResourceClaimTemplate comes last, so that if it exists, everything does.
    """
    name = claim.template
    spec: Json = {}
    if api.is_classic:
        profile = claim.requests[0].resource.profile
        kind = "MigDeviceClaimParameters" if profile else "GpuClaimParameters"
        what = {"profile": profile} if profile else {"count": 1}
        found = [_object(f"{_CLASSIC_GROUP}/v1alpha1", kind, name, what, namespace)]
        reference = {"apiGroup": _CLASSIC_GROUP, "kind": kind, "name": name}
        spec = {"resourceClassName": CLASSIC_CLASS, "parametersRef": reference}
    else:
        found = [device_class(api, each) for each in claim.choices if each.has_own_class]
        named = zip(claim.request_names, claim.requests, strict=True)
        spec["devices"] = {"requests": [_request(api, *each) for each in named]}
        if claim.placement:
            spec["devices"]["constraints"] = [{CONSTRAINTS[claim.placement]: GPU}]
    template = _object(api.group_version, "ResourceClaimTemplate", name, {"spec": spec}, namespace)
    return [*found, template]


def _object(version: str, kind: str, name: str, spec: Json, namespace: str | None = None) -> Json:
    place = {"namespace": namespace} if namespace else {}
    metadata = {"name": name, **place, "labels": dict(LABELS)}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def device_class(api: ResourceAPI, resource: Resource, *, or_bigger: bool = False) -> Json:
    """Make a DeviceClass for a MIG profile, in any version except v1alpha2.

    or_bigger: also select bigger slices (R13), in no order.

    If the API has `extendedResourceName`, it lets the scheduler serve pods that were not rewritten,
    and makes a ResourceQuota on the extended resource count claims (KEP-5004).
    """
    assert resource.profile
    spec: Json = {}
    if EXTENDED_RESOURCES in api.features:
        spec["extendedResourceName"] = resource.name
    spec["selectors"] = [{"cel": {"expression": is_slice(resource, or_bigger)}}]
    name = f"{resource.template}{'-or-bigger' if or_bigger else ''}.{MIG_DOMAIN}"
    return _object(api.group_version, "DeviceClass", name, spec)


def _request(api: ResourceAPI, name: str, request: DeviceRequest) -> Json:
    if len(request.choices) > 1:
        assert ALTERNATIVES in api.features
        choices = [{"name": c.request, **_asks(c, request.count)} for c in request.choices]
        return {"name": name, "firstAvailable": choices}
    asks = _asks(request.resource, request.count)
    return {"name": name, "exactly": asks} if api.has_exactly else {"name": name, **asks}


def _asks(resource: Resource, count: int) -> Json:
    """The fields that ExactDeviceRequest and DeviceSubRequest have in common."""
    found: Json = {"deviceClassName": resource.device_class}
    if resource.selector:
        found["selectors"] = [{"cel": {"expression": resource.selector}}]
    if count > 1:
        found["count"] = count
    return found


def serves(api: ResourceAPI, resource: Resource) -> bool:
    """Whether a version can ask for a resource."""
    return not api.is_classic or bool(resource.profile) or resource.device_class == CLASSIC_CLASS


def why_not(api: ResourceAPI, claim: DeviceClaim) -> str:
    """The reason why a version cannot express a claim, or ""."""
    version = api.group_version
    if sum(request.count for request in claim.requests) > api.max_devices:
        return f"a claim of {version} holds at most {api.max_devices}"
    if claim.has_alternatives and ALTERNATIVES not in api.features:
        return f"{version} has no alternatives"
    if claim.placement and claim.placement not in api.features:
        return f"{version} cannot keep the placement {claim.placement}"
    lacking = [choice.name for choice in claim.choices if not serves(api, choice)]
    return f"the driver of {version} does not have {lacking[0]}" if lacking else ""


# -- objects that others created under InstaSlice's names ----------------------------------------

#: Values that the API server fills in (pkg/apis/resource, defaults.go of v1alpha2 and v1), and
#: values that it leaves out.
_DEFAULTS: Final = {"allocationMode": ("ExactCount", "WaitForFirstConsumer"), "count": (1,)}
_EMPTY: Final[tuple[object, ...]] = (None, False, "", [], {})
#: The most differences in a message, and characters of a value, which may be user input.
_MAX_LISTED: Final = 4
_SHOWN: Final = 40


def difference(ours: Json, theirs: Json) -> str:
    """Describe how the `spec` of an object differs, for users; "" if both ask for the same.

    Anyone who can create templates in a namespace can take a name before InstaSlice needs it, and
    so decide what other people's pods get: every device of a class, another class, admin access.

    ours: from `objects`. theirs: the API server's object, in the same version.
    """
    found = list(_walk("", ours.get("spec"), theirs.get("spec")))
    more = f", and {len(found) - _MAX_LISTED} more" if len(found) > _MAX_LISTED else ""
    return ", ".join(found[:_MAX_LISTED]) + more


def _walk(path: str, ours: object, theirs: object) -> Iterator[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        mine, other = _stated(ours), _stated(theirs)
        for key in {**mine, **other}:
            here = key if path in ("", "spec", "devices") else f"{path}.{key}"
            yield from _walk(here, mine.get(key), other.get(key))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, pair in enumerate(zip(ours, theirs, strict=True)):
            yield from _walk(f"{path}[{index}]", *pair)
    elif ours != theirs:
        here = ascii(path[:80])[1:-1] or "spec"
        wanted = f", not {_brief(ours)}" if isinstance(ours, (str, int, list)) else ""
        yield f"{here} is {_brief(theirs)}{wanted}"


def _stated(fields: Json) -> Json:
    """Remove the fields that only state defaults, such as metadata that is empty."""
    deep = {k: _stated(v) if isinstance(v, dict) else v for k, v in fields.items()}
    return {k: v for k, v in deep.items() if v not in _EMPTY and v not in _DEFAULTS.get(k, ())}


def _brief(value: object) -> str:
    if value is None:
        return "missing"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return "set"
    text = json.dumps(value) if not isinstance(value, str) else ascii(value)[1:-1]
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
