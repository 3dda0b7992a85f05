"""Two A100s with 40 GB, as a driver publishes them that cuts slices when they are asked for.

Sources: placements of profiles in NVIDIA's MIG User Guide ("A100 MIG Profiles"); names, attributes
and counters as NVIDIA's DRA driver has them.
"""

from typing import Any, Final, NamedTuple

Json = dict[str, Any]

DRIVER: Final = "gpu.nvidia.com"
GPUS: Final = 2
API_VERSION: Final = "resource.k8s.io/v1"

#: Of an A100: what can be cut is counted in memory slices and in compute slices.
MEMORY_SLICES: Final = 8
COMPUTE_SLICES: Final = 7


class Shape(NamedTuple):
    """A profile and where it fits."""

    profile: str
    number: int  #: NVIDIA's own ("GPU instance profile ID")
    compute: int
    memory: int  #: memory slices
    starts: tuple[int, ...]  #: the first memory slice, of every placement
    media: int = 0  #: JPEG and optical flow engines, of which a GPU has one set


SHAPES: Final = (
    Shape("1g.5gb", 19, 1, 1, (0, 1, 2, 3, 4, 5, 6)),
    Shape("1g.5gb+me", 20, 1, 1, (0, 1, 2, 3, 4, 5, 6), media=1),
    Shape("1g.10gb", 15, 1, 2, (0, 2, 4, 6)),
    Shape("2g.10gb", 14, 2, 2, (0, 2, 4)),
    Shape("3g.20gb", 9, 3, 4, (0, 4)),
    Shape("4g.20gb", 5, 4, 4, (0,)),
    Shape("7g.40gb", 0, 7, 8, (0,), media=1),
)


def device_classes() -> list[Json]:
    """The DeviceClasses that the driver's installation brings."""
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "DeviceClass",
            "metadata": {"name": f"{kind}.nvidia.com"},
            "spec": {
                "selectors": [
                    {
                        "cel": {
                            "expression": f"device.driver == '{DRIVER}' && "
                            f"device.attributes['{DRIVER}'].type == '{kind}'"
                        }
                    }
                ]
            },
        }
        for kind in ("gpu", "mig")
    ]


def resource_slices(node: str, *, combined: bool = False) -> list[Json]:
    """The ResourceSlices of a node.

    combined: counters and devices together, which Kubernetes 1.34 wants; from 1.35 on they are
    apart.
    """
    counters = [_counters(gpu) for gpu in range(GPUS)]
    if combined:
        parts: list[Json] = [
            {"sharedCounters": [counters[gpu]], "devices": _devices(gpu)} for gpu in range(GPUS)
        ]
    else:
        parts = [
            {"sharedCounters": counters},
            *({"devices": _devices(gpu)} for gpu in range(GPUS)),
        ]
    pool = {"name": node, "generation": 1, "resourceSliceCount": len(parts)}
    return [
        {
            "apiVersion": API_VERSION,
            "kind": "ResourceSlice",
            "metadata": {"name": f"{node}-{number}"},
            "spec": {"nodeName": node, "driver": DRIVER, "pool": pool, **part},
        }
        for number, part in enumerate(parts)
    ]


def _counters(gpu: int) -> Json:
    """What a GPU has to give."""
    whole = Shape("", 0, COMPUTE_SLICES, MEMORY_SLICES, (0,), media=1)
    return {"name": f"gpu-{gpu}-counter-set", "counters": _consumed(whole, 0)}


def _consumed(shape: Shape, start: int) -> Json:
    values = {
        "compute-slices": shape.compute,
        "jpeg-engines": shape.media,
        **{f"memory-slice-{start + each}": 1 for each in range(shape.memory)},
    }
    return {name: {"value": str(value)} for name, value in values.items()}


def _devices(gpu: int) -> list[Json]:
    """A GPU as a whole, and every slice that can be cut from it."""
    whole = Shape("", 0, COMPUTE_SLICES, MEMORY_SLICES, (0,), media=1)
    uuid = f"GPU-00000000-0000-4000-8000-{gpu:012}"
    found = [_device(f"gpu-{gpu}", gpu, whole, 0, type="gpu", uuid=uuid)]
    for shape in SHAPES:
        name = shape.profile.replace(".", "").replace("+", "-")
        for start in shape.starts:
            device = f"gpu-{gpu}-mig-{name}-{shape.number}-{start}"
            more = {"type": "mig", "profile": shape.profile, "parentUUID": uuid}
            found.append(_device(device, gpu, shape, start, **more))
    return found


def _device(name: str, gpu: int, shape: Shape, start: int, **attributes: str) -> Json:
    consumes = {"counterSet": f"gpu-{gpu}-counter-set", "counters": _consumed(shape, start)}
    values = {"productName": "NVIDIA A100-SXM4-40GB", **attributes}
    return {
        "name": name,
        "attributes": {key: {"string": value} for key, value in values.items()},
        "consumesCounters": [consumes],
    }
