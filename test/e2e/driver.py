"""A DRA driver for tests, of GPUs that are not there. It is neither a product nor a model of one.

It does what a kubelet and a scheduler need of a driver: it publishes devices, registers, and
prepares claims. "Preparing" a device puts an environment variable into the container, by a file of
the Container Device Interface (CDI): SLICE_GPU_0_MIG_1G5GB_19_0=gpu-0-mig-1g5gb-19-0. These files
are all that it remembers. It fails as long as there is a file `fail` in its folder, with the
words in it.

    python -m test.e2e.driver FOLDER --kubelet ROOT --node NAME --kubeconfig FILE

Sources of the messages, their fields and their numbers: k8s.io/kubelet/pkg/apis,
pluginregistration/v1/api.proto and dra/{v1,v1beta1}/api.proto.
"""

import argparse
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any, Final

import grpc
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from test.support.a100 import DRIVER, MODELS, TWO_A100S, resource_slices

Json = dict[str, Any]

#: What CDI devices are of (its specification, `kind`).
CDI_KIND: Final = "instaslice.test/slice"
CDI_VERSION: Final = "0.5.0"

GROUP_VERSION: Final = ("resource.k8s.io", "v1")
#: The services of a kubelet's two versions of the API, as a driver registers them.
SERVICES: Final = ("v1.DRAPlugin", "v1beta1.DRAPlugin")

#: Of the environment variables that tell of devices.
PREFIX: Final = "SLICE_"


class Driver:
    """The driver's answers to a kubelet: messages of protobuf in and out."""

    def __init__(
        self, folder: Path, find_claim: Callable[[str, str], Json], services: Sequence[str]
    ) -> None:
        """folder: for CDI files, below `cdi`, and for the order to fail.

        find_claim: from namespace and name to the ResourceClaim. services: those it speaks.
        """
        self._folder = folder
        self._cdi = folder / "cdi"
        self._cdi.mkdir(parents=True, exist_ok=True)
        self._find_claim = find_claim
        self._services = services
        self.registered = Event()

    @contextmanager
    def serving(self, root: Path) -> Iterator[None]:
        """Answer while the context lasts. root: the kubelet's own folder (`--root-dir`)."""
        endpoint = root / "plugins" / DRIVER / "dra.sock"
        registration = root / "plugins_registry" / f"{DRIVER}-reg.sock"
        texts = ((1, "DRAPlugin"), (2, DRIVER), (3, str(endpoint)))
        info = _message(*texts, *((4, service) for service in self._services))
        dra = {
            f"k8s.io.kubelet.pkg.apis.dra.{service}": {
                "NodePrepareResources": self._prepare_all,
                "NodeUnprepareResources": self._unprepare_all,
            }
            for service in self._services
        }
        register = {"GetInfo": lambda _: info, "NotifyRegistrationStatus": self._notify}
        # The kubelet looks for the second, and calls the first as soon as it has found it.
        with (
            _listening(endpoint, dra),
            _listening(registration, {"pluginregistration.Registration": register}),
        ):
            yield

    def _notify(self, status: bytes) -> bytes:
        fields = _fields(status)
        if fields.get(1):
            self.registered.set()
        else:
            print(f"the kubelet does not take it: {fields.get(2)}", flush=True)
        return b""

    def _prepare_all(self, request: bytes) -> bytes:
        """Write the CDI files of claims, and name their devices."""

        def answer(claim: "_Claim") -> bytes:
            try:
                return _message(*((1, device) for device in self._prepare(*claim)))
            except (OSError, LookupError, ValueError) as error:
                return _message((2, str(error)))

        return _by_claim(request, answer)

    def _prepare(self, namespace: str, uid: str, name: str) -> list[bytes]:
        """The messages of a claim's devices. Raises OSError, LookupError."""
        with suppress(FileNotFoundError):
            raise ValueError((self._folder / "fail").read_text())
        found = self._find_claim(namespace, name)
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
                # Of `firstAvailable` the result names request and choice; containers name the
                # first (resource.k8s.io/v1, DeviceRequestAllocationResult.request).
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
    """The answer to a message of claims: a map from UID to message, which has entries."""
    entries = []
    for each in _fields(request).get(1, []):
        fields = _fields(each)
        namespace, uid, name = (fields[number][0].decode() for number in (1, 2, 3))
        entries.append((1, _message((1, uid), (2, answer((namespace, uid, name))))))
    return _message(*entries)


def _message(*fields: tuple[int, str | bytes]) -> bytes:
    """A message of protobuf, whose fields are texts and messages (encoding, wire type 2)."""
    encoded = b""
    for number, value in fields:
        data = value.encode() if isinstance(value, str) else value
        length, size = len(data), b""
        while length > 0x7F:
            length, size = length >> 7, size + bytes([length & 0x7F | 0x80])
        encoded += bytes([number << 3 | 2]) + size + bytes([length]) + data
    return encoded


def _fields(message: bytes) -> dict[int, list[Any]]:
    """The fields of a message by number: bytes of texts and messages, else integers."""
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


Service = Mapping[str, Callable[[bytes], bytes]]


@contextmanager
def _listening(socket: Path, services: Mapping[str, Service]) -> Iterator[None]:
    """A gRPC server on a Unix socket; the socket is gone afterwards."""

    def handler(function: Callable[[bytes], bytes]) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: function(request))

    socket.parent.mkdir(parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    for name, methods in services.items():
        handlers = {method: handler(function) for method, function in methods.items()}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, handlers)])
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    try:
        yield
    finally:
        server.stop(grace=None).wait(5)
        socket.unlink(missing_ok=True)


class _API:
    """What the driver asks of the API server."""

    def __init__(self, kubeconfig: Path) -> None:
        configuration = client.Configuration()
        config.load_kube_config(str(kubeconfig), client_configuration=configuration)
        configuration.proxy = None
        self._api = client.CustomObjectsApi(client.ApiClient(configuration))

    def find_claim(self, namespace: str, name: str) -> Json:
        """A ResourceClaim. Raises LookupError."""
        try:
            found: Json = self._api.get_namespaced_custom_object(
                *GROUP_VERSION, namespace, "resourceclaims", name
            )
        except ApiException as error:
            raise LookupError(f"claim {name}: {error.reason}") from error
        return found

    def publish(self, slices: list[Json]) -> None:
        """Create the ResourceSlices that are not there; a kubelet that starts removes them."""
        for each in slices:
            try:
                self._api.create_cluster_custom_object(*GROUP_VERSION, "resourceslices", each)
            except ApiException as error:
                if error.status != 409:  # it is there
                    print(f"publish: {error.reason} {error.body}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="test.e2e.driver", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kubelet", type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--service", action="append", choices=SERVICES)
    parser.add_argument("--models", default=TWO_A100S, help="a letter for each GPU")
    parser.add_argument("--combined", action="store_true", help="counters beside their devices")
    options = parser.parse_args()
    api = _API(options.kubeconfig)
    models = [MODELS[letter] for letter in options.models]
    slices = resource_slices(options.node, models=models, combined=options.combined, whole=True)
    driver = Driver(options.folder, api.find_claim, options.service or SERVICES)
    ended = Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with driver.serving(options.kubelet):
        while not driver.registered.wait(0.1) and not ended.is_set():
            pass
        while not ended.is_set():
            api.publish(slices)
            ended.wait(1)


if __name__ == "__main__":
    main()
