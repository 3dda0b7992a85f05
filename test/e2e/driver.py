"""A DRA driver for tests, of GPUs that are not there. It is neither a product nor a model of one.

It does what a kubelet and a scheduler need of a driver: it publishes devices, registers, and
prepares claims. "Preparing" a device puts an environment variable into the container, by a file of
the Container Device Interface (CDI): SLICE_GPU_0_MIG_1G5GB_19_0=gpu-0-mig-1g5gb-19-0. These files
are all that it remembers. It fails as long as there is a file `fail` in its folder, with the
words in it.

    python -m test.e2e.driver FOLDER --kubelet ROOT --node NAME --kubeconfig FILE
"""

import argparse
import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any, Final

import grpc
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from test.e2e import kubelet_api
from test.support.a100 import DRIVER, resource_slices

Json = dict[str, Any]

#: What CDI devices are of (its specification, `kind`).
CDI_KIND: Final = "instaslice.test/slice"
CDI_VERSION: Final = "0.5.0"

GROUP_VERSION: Final = ("resource.k8s.io", "v1")

#: Of the environment variables that tell of devices.
PREFIX: Final = "SLICE_"


class Driver:
    """The driver's answers to a kubelet."""

    def __init__(
        self,
        folder: Path,
        find_claim: Callable[[str, str], Json],
        services: Sequence[str] = tuple(kubelet_api.DRA),
    ) -> None:
        """folder: for CDI files, below `cdi`, and for the order to fail.

        find_claim: from namespace and name to the ResourceClaim. services: those it speaks.
        """
        self.folder = folder
        self.cdi = folder / "cdi"
        self.cdi.mkdir(parents=True, exist_ok=True)
        self._find_claim = find_claim
        self._services = services
        self.registered = Event()

    @contextmanager
    def serving(self, root: Path) -> Iterator[None]:
        """Answer while the context lasts. root: the kubelet's own folder (`--root-dir`)."""
        endpoint = root / "plugins" / DRIVER / "dra.sock"
        registration = root / "plugins_registry" / f"{DRIVER}-reg.sock"
        info = kubelet_api.MESSAGES[kubelet_api.REGISTRATION]["PluginInfo"](
            type="DRAPlugin",
            name=DRIVER,
            endpoint=str(endpoint),
            supported_versions=self._services,
        )
        dra = [
            kubelet_api.handler(
                kubelet_api.DRA[service],
                {
                    "NodePrepareResources": self.prepare,
                    "NodeUnprepareResources": self.unprepare,
                },
            )
            for service in self._services
        ]
        register = kubelet_api.handler(
            kubelet_api.REGISTRATION,
            {"GetInfo": lambda _: info, "NotifyRegistrationStatus": self._notify},
        )
        # The kubelet looks for the second, and calls the first as soon as it has found it.
        with _listening(endpoint, dra), _listening(registration, [register]):
            yield

    def _notify(self, status: Any) -> Any:
        if status.plugin_registered:
            self.registered.set()
        else:
            print(f"the kubelet does not take it: {status.error}", flush=True)
        return kubelet_api.MESSAGES[kubelet_api.REGISTRATION]["RegistrationStatusResponse"]()

    def prepare(self, request: Any) -> Any:
        """NodePrepareResources: write the CDI files of claims, and name their devices."""
        classes = _classes_of(request)
        answer = classes["NodePrepareResourcesResponse"]()
        for claim in request.claims:
            one = answer.claims[claim.uid]
            try:
                for device in self._prepare(claim):
                    one.devices.add(**device)
            except (OSError, LookupError, ValueError) as error:
                one.error = str(error)
        return answer

    def _prepare(self, claim: Any) -> list[Json]:
        """The devices of a claim, as fields of the message. Raises OSError, LookupError."""
        with suppress(FileNotFoundError):
            raise ValueError((self.folder / "fail").read_text())
        found = self._find_claim(claim.namespace, claim.name)
        if found["metadata"]["uid"] != claim.uid:
            raise ValueError(f"claim {claim.name} is another one")
        results = [
            result
            for result in found["status"]["allocation"]["devices"]["results"]
            if result["driver"] == DRIVER
        ]
        names = [result["device"] for result in results]
        ids = {name: f"{claim.uid}-{name}" for name in names}
        spec = {
            "cdiVersion": CDI_VERSION,
            "kind": CDI_KIND,
            "devices": [
                {"name": ids[name], "containerEdits": {"env": [f"{variable(name)}={name}"]}}
                for name in names
            ],
        }
        file = self._file(claim.uid)
        file.with_suffix(".new").write_text(json.dumps(spec))
        os.replace(file.with_suffix(".new"), file)
        return [
            {
                # Of `firstAvailable` the result names request and choice; containers name the
                # first (resource.k8s.io/v1, DeviceRequestAllocationResult.request).
                "request_names": [result["request"].partition("/")[0]],
                "pool_name": result["pool"],
                "device_name": result["device"],
                "cdi_device_ids": [f"{CDI_KIND}={ids[result['device']]}"],
            }
            for result in results
        ]

    def unprepare(self, request: Any) -> Any:
        """NodeUnprepareResources: remove the CDI files of claims."""
        answer = _classes_of(request)["NodeUnprepareResourcesResponse"]()
        for claim in request.claims:
            self._file(claim.uid).unlink(missing_ok=True)
            answer.claims[claim.uid].error = ""
        return answer

    def _file(self, uid: str) -> Path:
        return self.cdi / f"{uid}.json"


def variable(device: str) -> str:
    """The environment variable of a device: SLICE_GPU_0."""
    return PREFIX + device.upper().replace("-", "_")


def _classes_of(message: Any) -> Json:
    """The messages of the same package as this one."""
    return kubelet_api.MESSAGES[message.DESCRIPTOR.file.package]


@contextmanager
def _listening(socket: Path, handlers: Sequence[grpc.GenericRpcHandler]) -> Iterator[None]:
    """A gRPC server on a Unix socket; the socket is gone afterwards."""
    socket.parent.mkdir(parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    server.add_generic_rpc_handlers(handlers)
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
    parser.add_argument("--service", action="append", choices=list(kubelet_api.DRA))
    parser.add_argument("--combined", action="store_true", help="counters beside their devices")
    options = parser.parse_args()
    api = _API(options.kubeconfig)
    slices = resource_slices(options.node, combined=options.combined, whole=True)
    driver = Driver(options.folder, api.find_claim, options.service or tuple(kubelet_api.DRA))
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
