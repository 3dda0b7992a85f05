"""ResourceSlices as NVIDIA's DRA driver publishes them for A100s (40 GB) and H100s (80 GB).

test/e2e/real_node compares them with what the driver itself (v0.4.0 to v0.5.0-dev) publishes for a
simulated NVML. Sources: placements and engines of a profile are from NVIDIA's MIG User Guide ("A100
MIG Profiles"); memory is what an A100 reports for a slice.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

Json = dict[str, Any]

DRIVER: Final = "gpu.nvidia.com"


class Profile(NamedTuple):
    """A MIG profile: what a slice of it consumes of a GPU, and its placements."""

    name: str
    number: int  #: NVIDIA's "GPU instance profile ID"
    slices: int  #: compute slices, with a copy engine each
    memory: int  #: in MiB
    decoders: int
    media: int  #: optical flow engines; an A100 has as many JPEG engines
    span: int  #: memory slices
    starts: tuple[int, ...]  #: the first memory slice of each placement
    processors: int = 0  #: multiprocessors of an H100; an A100 has 14 for each compute slice
    copies: int = 0  #: copy engines, if not one for each compute slice

    @property
    def engines(self) -> dict[str, str]:
        """The counters; a device's capacity has the same names in camel case."""
        return {
            "copy-engines": str(self.copies or self.slices),
            "decoders": str(self.decoders),
            "encoders": "0",
            "jpeg-engines": str(self.decoders if self.processors else self.media),
            "memory": f"{self.memory}Mi",
            "multiprocessors": str(self.processors or 14 * self.slices),
            "ofa-engines": str(self.media),
        }


PROFILES: Final = (
    Profile("1g.10gb", 15, 1, 9856, 1, 0, 2, (0, 2, 4, 6)),
    Profile("1g.5gb", 19, 1, 4864, 0, 0, 1, (0, 1, 2, 3, 4, 5, 6)),
    Profile("1g.5gb+me", 20, 1, 4864, 1, 1, 1, (0, 1, 2, 3, 4, 5, 6)),
    Profile("2g.10gb", 14, 2, 9856, 1, 0, 2, (0, 2, 4)),
    Profile("3g.20gb", 9, 3, 19968, 2, 0, 4, (0, 4)),
    Profile("4g.20gb", 5, 4, 19968, 2, 0, 4, (0,)),
    Profile("7g.40gb", 0, 7, 40192, 5, 1, 8, (0,)),
)


class Model(NamedTuple):
    """A GPU model."""

    name: str
    architecture: str
    capability: str  #: CUDA's
    profiles: tuple[Profile, ...]  #: the last one is the whole GPU


A100: Final = Model("NVIDIA A100-SXM4-40GB", "Ampere", "8.0.0", PROFILES)
H100: Final = Model(
    *("NVIDIA H100 80GB HBM3", "Hopper", "9.0.0"),
    (
        Profile("1g.10gb", 19, 1, 9856, 1, 0, 1, (0, 1, 2, 3, 4, 5, 6), 16),
        Profile("1g.10gb+me", 20, 1, 9856, 1, 1, 1, (0, 1, 2, 3, 4, 5, 6), 16),
        Profile("1g.20gb", 15, 1, 20096, 1, 0, 2, (0, 2, 4, 6), 26),
        Profile("2g.20gb", 14, 2, 20096, 2, 0, 2, (0, 2, 4), 32),
        Profile("3g.40gb", 9, 3, 40448, 3, 0, 4, (0, 4), 60),
        Profile("4g.40gb", 5, 4, 40448, 4, 0, 4, (0,), 64),
        Profile("7g.80gb", 0, 7, 81152, 7, 1, 8, (0,), 132, 8),
    ),
)

#: Models by letter; a string has a letter for each GPU of a node.
MODELS: Final = {"a": A100, "h": H100}
TWO_A100S: Final = "aa"

#: The number of slices of a profile that fit on a GPU.
ROOM: Final = {"1g.5gb": 7, "1g.5gb+me": 1, "1g.10gb": 4, "2g.10gb": 3} | {
    "3g.20gb": 2,
    "4g.20gb": 1,
    "7g.40gb": 1,
}


def resource_slices(
    node: str = "node-1",
    *,
    models: Sequence[Model] = (A100, A100),
    combined: bool = False,
    counted: bool = True,
    whole: bool = False,
) -> list[Json]:
    """The ResourceSlices of a node with a GPU of each model, with the driver's gate DynamicMIG on.

    combined: counters and devices are in one ResourceSlice, as for Kubernetes 1.34; from 1.35 on
    they are separate. counted: False for what an API server stores if its gate
    DRAPartitionableDevices is off. whole: include the whole GPUs.
    """
    sets = [
        {"name": f"gpu-{gpu}-counter-set", "counters": _counters(model.profiles[-1], 0)}
        for gpu, model in enumerate(models if counted else ())
    ]
    devices = [
        [*([whole_gpu(gpu, model)] if whole else []), *slices_of(gpu, counted=counted, model=model)]
        for gpu, model in enumerate(models)
    ]
    if combined:
        parts: list[Json] = [
            {"sharedCounters": [own], "devices": cut}
            for own, cut in zip(sets, devices, strict=True)
        ]
    else:
        parts = [{"sharedCounters": sets} if sets else {}, *({"devices": d} for d in devices)]
    return [resource_slice(node, number, len(parts), **part) for number, part in enumerate(parts)]


def static_slices(node: str = "node-1", *profiles: tuple[str, int]) -> list[Json]:
    """The ResourceSlices without that gate: slices that an administrator has created.

    profiles: name and first memory slice of each, all on one GPU.
    """
    found = []
    for name, start in profiles:
        (profile,) = (each for each in PROFILES if each.name == name)
        device = _slice(0, profile, start, counted=False)
        device["attributes"]["uuid"] = {"string": f"MIG-{profile.number:08}-{start}"}
        for place in range(start, start + profile.span):
            device["capacity"][f"memorySlice{place}"] = {"value": "1"}
        found.append(device)
    return [resource_slice(node, 0, 1, devices=found)]


def resource_slice(node: str, number: int, count: int, **spec: Any) -> Json:
    pool = {"name": node, "generation": 1, "resourceSliceCount": count}
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceSlice",
        "metadata": {"name": f"{number:05}-{DRIVER}-{node}"},
        "spec": {"driver": DRIVER, "nodeName": node, "pool": pool, **spec},
    }


def slices_of(gpu: int, *, counted: bool = True, model: Model = A100) -> list[Json]:
    """A device for each slice that a GPU could be cut into."""
    return [
        _slice(gpu, profile, start, counted=counted, model=model)
        for profile in model.profiles
        for start in profile.starts
    ]


def whole_gpu(gpu: int, model: Model = A100) -> Json:
    """A whole GPU as a device; the driver publishes it if it can switch MIG mode."""
    has = model.profiles[-1]
    device = _device(f"gpu-{gpu}", gpu, has, model, type="gpu", uuid=_uuid(gpu))
    consumed = {"counterSet": f"gpu-{gpu}-counter-set", "counters": _counters(has, 0)}
    return {**device, "consumesCounters": [consumed]}


def device_classes() -> list[Json]:
    """The DeviceClasses that the driver's chart creates (v25.12.0 and later; gpu, then mig).

    An API server whose gate DRAExtendedResource is off drops the first one's extendedResourceName.
    """
    return [
        {
            "apiVersion": "resource.k8s.io/v1",
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
                ],
                **more,
            },
        }
        for kind, more in (("gpu", {"extendedResourceName": "nvidia.com/gpu"}), ("mig", {}))
    ]


def _slice(gpu: int, profile: Profile, start: int, *, counted: bool, model: Model = A100) -> Json:
    spelt = profile.name.replace(".", "").replace("+", "-")
    device = _device(
        f"gpu-{gpu}-mig-{spelt}-{profile.number}-{start}",
        gpu,
        profile,
        model,
        type="mig",
        profile=profile.name,
        parentUUID=_uuid(gpu),
    )
    if counted:
        consumed = {
            "counterSet": f"gpu-{gpu}-counter-set",
            "counters": _counters(profile, start),
        }
        device["consumesCounters"] = [consumed]
    return device


def _device(name: str, gpu: int, has: Profile, model: Model, /, **more: str) -> Json:
    return {
        "name": name,
        "attributes": {
            **_of("string", productName=model.name, architecture=model.architecture),
            **_of("string", brand="Nvidia", **more),
            **_of("version", cudaComputeCapability=model.capability, cudaDriverVersion="12.8.0"),
            **_of("version", driverVersion="570.86.15"),
            "resource.kubernetes.io/pciBusID": {"string": f"0000:{7 + 8 * gpu:02x}:00.0"},
        },
        "capacity": {_camel(each): {"value": n} for each, n in has.engines.items()},
    }


def _of(kind: str, **values: str) -> Json:
    return {name: {kind: value} for name, value in values.items()}


def _camel(name: str) -> str:
    """copy-engines -> copyEngines."""
    first, *rest = name.split("-")
    return first + "".join(word.title() for word in rest)


def _counters(profile: Profile, start: int) -> Json:
    places = {f"memory-slice-{start + each}": "1" for each in range(profile.span)}
    return {name: {"value": value} for name, value in (profile.engines | places).items()}


def _uuid(gpu: int) -> str:
    return f"GPU-{gpu:08}-0000-0000-0000-000000000000"
