"""The objects that rewritten pods rely on, and those that make them unnecessary.

Pure: what is done with the objects, printing or applying or making them at admission, is others'.
"""

from collections.abc import Iterable
from typing import Any, Final

from instaslice.patch import Json
from instaslice.profiles import Profile
from instaslice.resource_api import GROUP, NEWEST, PROFILE_IS, ResourceAPI

#: On everything that InstaSlice makes (Kubernetes' recommended labels).
LABELS: Final = {"app.kubernetes.io/managed-by": "instaslice"}

#: Which devices are MIG slices of a profile, whatever class one asks through.
_IS_SLICE: Final = (
    "device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'mig' && "
    + PROFILE_IS
)
_DEVICE_CLASS: Final[Json] = {
    "apiVersion": f"{GROUP}/{NEWEST.version}",
    "kind": "DeviceClass",
    "metadata": {"name": "{label}.nvidia.com", "labels": LABELS},
    "spec": {
        "extendedResourceName": "{resource}",
        "selectors": [{"cel": {"expression": _IS_SLICE}}],
    },
}


def templates(api: ResourceAPI, profile: Profile, namespace: str | None = None) -> list[Json]:
    """What a pod's claim of a profile needs in its namespace, in the order in which to make it.

    The ResourceClaimTemplate comes last, so that where it is there, all is.
    """
    template = {
        "apiVersion": f"{GROUP}/{api.version}",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "{template}"},
        "spec": {"spec": api.claim_spec},
    }
    manifests = [_fill(shape, profile) for shape in (*api.parameters, template)]
    place = {"namespace": namespace} if namespace else {}
    for manifest in manifests:
        manifest["metadata"] = {**manifest["metadata"], **place, "labels": dict(LABELS)}
    return manifests


def device_classes(profiles: Iterable[Profile]) -> list[Json]:
    """A DeviceClass for each profile, by which the scheduler serves the extended resource itself.

    Source: KEP-5004, DeviceClass.spec.extendedResourceName, beta and on from Kubernetes 1.36.
    """
    return [_fill(_DEVICE_CLASS, profile) for profile in profiles]


def _fill(shape: Any, profile: Profile) -> Any:
    """A copy of a shape with the profile's spellings in their places."""
    if isinstance(shape, str):
        return shape.format(**profile._asdict())
    if isinstance(shape, dict):
        return {key: _fill(value, profile) for key, value in shape.items()}
    if isinstance(shape, list | tuple):
        return [_fill(value, profile) for value in shape]
    return shape
