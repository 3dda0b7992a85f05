"""The tests' own DRA driver, asked over its sockets as a kubelet asks. Needs no Kubernetes."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from test.e2e import kubelet_api
from test.e2e.driver import CDI_KIND, Driver, variable
from test.support.a100 import DRIVER

Json = dict[str, Any]

CLAIM = {"namespace": "ns", "name": "claim", "uid": "0f"}
ONE, OTHER = "gpu-0-mig-1g5gb-19-0", "gpu-1-mig-1g5gb-19-3"


def allocated(*devices: tuple[str, str], uid: str = "0f", driver: str = DRIVER) -> Json:
    """A ResourceClaim that has devices. devices: request and device."""
    results = [
        {"request": request, "driver": driver, "pool": "node", "device": device}
        for request, device in devices
    ]
    return {
        "metadata": {"uid": uid},
        "status": {"allocation": {"devices": {"results": results}}},
    }


class FakeKubelet:
    """The client's side of both sockets."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def ask(
        self, socket: Path | str, package: str, method: str, message: str, **fields: Any
    ) -> Any:
        request = kubelet_api.MESSAGES[package][message](**fields)
        with grpc.insecure_channel(f"unix:{socket}") as channel:
            return kubelet_api.call(channel, package, method, request)

    def info(self) -> Any:
        (socket,) = (self._root / "plugins_registry").iterdir()
        return self.ask(socket, kubelet_api.REGISTRATION, "GetInfo", "InfoRequest")

    def register(self, error: str = "") -> None:
        (socket,) = (self._root / "plugins_registry").iterdir()
        status = {"plugin_registered": not error, "error": error}
        method = "NotifyRegistrationStatus"
        self.ask(socket, kubelet_api.REGISTRATION, method, "RegistrationStatus", **status)

    def claims(self, verb: str, service: str, *claims: Json) -> Any:
        """NodePrepareResources or NodeUnprepareResources; the answer by claim."""
        method = f"Node{verb}Resources"
        package = kubelet_api.DRA[service]
        endpoint = self.info().endpoint
        return self.ask(endpoint, package, method, f"{method}Request", claims=claims).claims


@pytest.fixture
def folder() -> Iterator[Path]:
    """Of a short path: a Unix socket's has at most 107 bytes (unix(7))."""
    folder = Path(tempfile.mkdtemp(prefix="driver-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def claims() -> dict[str, Json]:
    """The ResourceClaims that there are, by name."""
    return {"claim": allocated(("slice", ONE), ("slice", OTHER))}


@pytest.fixture
def driver(folder: Path, claims: dict[str, Json]) -> Iterator[Driver]:
    driver = Driver(folder, lambda namespace, name: claims[name])
    with driver.serving(folder / "kubelet"):
        yield driver


@pytest.fixture
def kubelet(driver: Driver, folder: Path) -> FakeKubelet:
    return FakeKubelet(folder / "kubelet")


SERVICES = pytest.mark.parametrize("service", kubelet_api.DRA)


def test_it_registers(kubelet: FakeKubelet, driver: Driver) -> None:
    info = kubelet.info()
    assert (info.type, info.name) == ("DRAPlugin", "gpu.nvidia.com")
    assert [*info.supported_versions] == ["v1.DRAPlugin", "v1beta1.DRAPlugin"]
    assert not driver.registered.is_set()
    kubelet.register("no such version")
    assert not driver.registered.is_set()
    kubelet.register()
    assert driver.registered.is_set()


@SERVICES
def test_a_prepared_claim_tells_its_devices(
    kubelet: FakeKubelet, driver: Driver, service: str
) -> None:
    answer = kubelet.claims("Prepare", service, CLAIM)["0f"]
    assert answer.error == ""
    assert [device.device_name for device in answer.devices] == [ONE, OTHER]
    assert {device.pool_name for device in answer.devices} == {"node"}
    (file,) = driver.cdi.iterdir()
    spec = json.loads(file.read_text())
    made = {f"{spec['kind']}={each['name']}": each for each in spec["devices"]}
    for device in answer.devices:
        assert [*device.request_names] == ["slice"]
        (name,) = device.cdi_device_ids
        env = made[name]["containerEdits"]["env"]
        assert env == [f"{variable(device.device_name)}={device.device_name}"]
    assert spec["kind"] == CDI_KIND


def test_a_choice_is_of_the_request_that_a_container_names(
    kubelet: FakeKubelet, claims: dict[str, Json]
) -> None:
    claims["claim"] = allocated(("slice/second", ONE))
    answer = kubelet.claims("Prepare", "v1.DRAPlugin", CLAIM)["0f"]
    assert [*answer.devices[0].request_names] == ["slice"]


@SERVICES
def test_a_claim_that_is_given_back_is_gone(
    kubelet: FakeKubelet, driver: Driver, service: str
) -> None:
    kubelet.claims("Prepare", service, CLAIM)
    for _ in range(2):  # a kubelet asks again when it does not know
        assert kubelet.claims("Unprepare", service, CLAIM)["0f"].error == ""
        assert list(driver.cdi.iterdir()) == []


def test_it_fails_when_it_is_told_to(kubelet: FakeKubelet, driver: Driver) -> None:
    (driver.folder / "fail").write_text("no power")
    answer = kubelet.claims("Prepare", "v1.DRAPlugin", CLAIM)["0f"]
    assert answer.error == "no power"
    assert not answer.devices
    assert list(driver.cdi.iterdir()) == []
    (driver.folder / "fail").unlink()
    assert kubelet.claims("Prepare", "v1.DRAPlugin", CLAIM)["0f"].error == ""


@pytest.mark.parametrize(
    ("claim", "error"),
    [
        ({**CLAIM, "name": "none"}, "none"),
        ({**CLAIM, "uid": "ff"}, "claim is another one"),
    ],
    ids=["not there", "made anew under its name"],
)
def test_a_claim_that_is_not_there(kubelet: FakeKubelet, claim: Json, error: str) -> None:
    answer = kubelet.claims("Prepare", "v1.DRAPlugin", claim)[claim["uid"]]
    assert error in answer.error


def test_another_drivers_devices_are_not_its_business(
    kubelet: FakeKubelet, claims: dict[str, Json]
) -> None:
    claims["claim"] = allocated(("nic", "nic-0"), driver="nic.example.com")
    answer = kubelet.claims("Prepare", "v1.DRAPlugin", CLAIM)["0f"]
    assert (answer.error, len(answer.devices)) == ("", 0)


def test_it_leaves_no_socket(driver: Driver, folder: Path) -> None:
    again = Driver(folder, lambda namespace, name: {})
    with again.serving(folder / "other"):
        assert len(list((folder / "other").rglob("*.sock"))) == 2
    assert list((folder / "other").rglob("*.sock")) == []


@SERVICES
def test_messages_are_those_of_the_kubelet(service: str) -> None:
    """Field numbers as in api.proto, which both sides here take from one table."""
    messages = kubelet_api.MESSAGES[kubelet_api.DRA[service]]
    fields = {"request_names": ["a"], "pool_name": "b", "device_name": "c", "cdi_device_ids": ["d"]}
    device = messages["Device"](**fields)
    assert device.SerializeToString() == b"\x0a\x01a\x12\x01b\x1a\x01c\x22\x01d"
    claim = messages["Claim"](namespace="a", uid="b", name="c")
    assert claim.SerializeToString() == b"\x0a\x01a\x12\x01b\x1a\x01c"
    answer = messages["NodePrepareResourcesResponse"]()
    answer.claims["u"].error = "e"
    assert answer.SerializeToString() == b"\x0a\x08\x0a\x01u\x12\x03\x12\x01e"
