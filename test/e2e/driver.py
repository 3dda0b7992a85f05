"""A DRA driver for tests, for GPUs that do not exist. It is no model for a product.

It does what a kubelet and a scheduler require of a driver: it publishes devices, registers, and
prepares claims. "Preparing" a device puts an environment variable into the container, by a file of
the Container Device Interface (CDI): SLICE_GPU_0_MIG_1G5GB_19_0=gpu-0-mig-1g5gb-19-0. These files
are its only state.

Sources of the messages, their fields and their numbers: k8s.io/kubelet/pkg/apis,
pluginregistration/v1/api.proto and dra/v1/api.proto.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Event
from typing import Any, Final

import grpc

from test.e2e.background import again_and_again
from test.e2e.cluster import Cluster, Json, Refused
from test.support.a100 import DRIVER

#: The kind of its CDI devices (CDI specification, `kind`).
CDI_KIND: Final = "instaslice.test/slice"
CDI_VERSION: Final = "0.5.0"

#: The name by which a driver registers for the kubelet's API, from Kubernetes 1.34 on.
SERVICE: Final = "v1.DRAPlugin"

#: The prefix of the environment variables that name devices.
PREFIX: Final = "SLICE_"


class Driver:
    """A driver that runs until it is killed."""

    def __init__(self, cluster: Cluster, folder: Path, kubelet: Path, slices: list[Json]) -> None:
        """folder: for CDI files, in `cdi`. kubelet: its `--root-dir`. slices: to publish."""
        self.failure = ""  #: if set, preparing any claim fails with this message
        self._cluster = cluster
        self._cdi = folder / "cdi"
        self._cdi.mkdir(parents=True, exist_ok=True)
        self._registered = Event()
        self._work = ExitStack()
        self._serve(kubelet)
        self._work.enter_context(again_and_again(lambda: self._publish(slices)))

    def kill(self) -> None:
        self._work.close()

    def check(self) -> None:
        """Do nothing, since it cannot end by itself."""

    def _publish(self, slices: Sequence[Json]) -> None:
        """Create the ResourceSlices that do not exist.

        A kubelet that starts removes those of drivers that it does not know yet.
        """
        if not self._registered.is_set():
            return
        there = {each["metadata"]["name"] for each in self._cluster.list("ResourceSlice")}
        for each in slices:
            if each["metadata"]["name"] not in there:
                self._cluster.create(each)

    def _serve(self, kubelet: Path) -> None:
        endpoint = kubelet / "plugins" / DRIVER / "dra.sock"
        registration = kubelet / "plugins_registry" / f"{DRIVER}-reg.sock"
        info = _message((1, "DRAPlugin"), (2, DRIVER), (3, str(endpoint)), (4, SERVICE))
        dra = {
            "NodePrepareResources": self._prepare_all,
            "NodeUnprepareResources": self._unprepare_all,
        }
        register = {"GetInfo": lambda _: info, "NotifyRegistrationStatus": self._notify}
        # As soon as the kubelet finds the registration socket, it calls this one.
        dra_name = f"k8s.io.kubelet.pkg.apis.dra.{SERVICE}"
        self._work.enter_context(_listening(endpoint, dra_name, dra))
        name = "pluginregistration.Registration"
        self._work.enter_context(_listening(registration, name, register))

    def _notify(self, status: bytes) -> bytes:
        fields = _fields(status)
        if fields.get(1):
            self._registered.set()
        else:
            print(f"the kubelet does not take it: {fields.get(2)}", flush=True)
        return b""

    def _prepare_all(self, request: bytes) -> bytes:
        """Write the CDI files of claims, and return the names of their devices."""

        def answer(claim: "_Claim") -> bytes:
            try:
                return _message(*((1, device) for device in self._prepare(*claim)))
            except (OSError, Refused, ValueError) as error:
                return _message((2, str(error)))

        return _by_claim(request, answer)

    def _prepare(self, namespace: str, uid: str, name: str) -> list[bytes]:
        """The messages of a claim's devices. Raises OSError, Refused, ValueError."""
        if self.failure:
            raise ValueError(self.failure)
        found = self._cluster.within(namespace).get("ResourceClaim", name)
        if found["metadata"]["uid"] != uid:
            raise ValueError(f"claim {name} is another one")
        results = [
            result
            for result in found["status"]["allocation"]["devices"]["results"]
            if result["driver"] == DRIVER
        ]
        devices = []
        for name in (result["device"] for result in results):
            env = [f"{_variable(name)}={name}"]
            devices.append({"name": f"{uid}-{name}", "containerEdits": {"env": env}})
        spec = {"cdiVersion": CDI_VERSION, "kind": CDI_KIND, "devices": devices}
        file = self._file(uid)
        file.with_suffix(".new").write_text(json.dumps(spec))
        os.replace(file.with_suffix(".new"), file)
        return [
            _message(
                # For `firstAvailable`, the result is REQUEST/CHOICE; containers name the request
                # only (resource.k8s.io/v1, DeviceRequestAllocationResult.request).
                (1, result["request"].partition("/")[0]),
                (2, result["pool"]),
                (3, result["device"]),
                (4, f"{CDI_KIND}={uid}-{result['device']}"),
            )
            for result in results
        ]

    def _unprepare_all(self, request: bytes) -> bytes:
        """Remove the CDI files of claims."""

        def answer(claim: "_Claim") -> bytes:
            self._file(claim[1]).unlink(missing_ok=True)
            return b""

        return _by_claim(request, answer)

    def _file(self, uid: str) -> Path:
        return self._cdi / f"{uid}.json"


def _variable(device: str) -> str:
    """The environment variable of a device: SLICE_GPU_0."""
    return PREFIX + device.upper().replace("-", "_")


_Claim = tuple[str, str, str]  # namespace, uid, name


def _by_claim(request: bytes, answer: Callable[[_Claim], bytes]) -> bytes:
    """The answer to a message with claims: a map from UID to message, encoded as entries."""
    entries = []
    for each in _fields(request).get(1, []):
        fields = _fields(each)
        namespace, uid, name = (fields[number][0].decode() for number in (1, 2, 3))
        entries.append((1, _message((1, uid), (2, answer((namespace, uid, name))))))
    return _message(*entries)


def _message(*fields: tuple[int, str | bytes]) -> bytes:
    """Encode a protobuf message of text fields and message fields (wire type 2)."""
    encoded = b""
    for number, value in fields:
        data = value.encode() if isinstance(value, str) else value
        length, size = len(data), b""
        while length > 0x7F:
            length, size = length >> 7, size + bytes([length & 0x7F | 0x80])
        encoded += bytes([number << 3 | 2]) + size + bytes([length]) + data
    return encoded


def _fields(message: bytes) -> dict[int, list[Any]]:
    """Decode a protobuf message to fields by number: bytes or integers."""
    found: dict[int, list[Any]] = {}
    place = 0

    def integer() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place, value, shift = place + 1, value | (byte & 0x7F) << shift, shift + 7
            if byte < 0x80:
                return value

    while place < len(message):
        tag, value = integer(), integer()
        if tag & 7 == 2:
            place += value
            found.setdefault(tag >> 3, []).append(message[place - value : place])
        else:
            found.setdefault(tag >> 3, []).append(value)
    return found


@contextmanager
def _listening(
    socket: Path, service: str, methods: Mapping[str, Callable[[bytes], bytes]]
) -> Iterator[None]:
    """Run a gRPC server on a Unix socket, and remove the socket afterwards."""

    def handler(function: Callable[[bytes], bytes]) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: function(request))

    socket.parent.mkdir(parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    handlers = {method: handler(function) for method, function in methods.items()}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, handlers)])
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    try:
        yield
    finally:
        server.stop(grace=None).wait(5)
        socket.unlink(missing_ok=True)
