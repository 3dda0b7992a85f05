"""A real node for one run: containerd, a kubelet, kube-proxy and the tests' own DRA driver.

They and the control plane run in a separate machine (test/e2e/machine.py), so that Services, their
addresses and probes work as usual. The kubelet and kube-proxy are in the folder of the control
plane's programs. containerd, ctr, runc, nft and busybox are on PATH; CNI_FOLDERS has the plugins.
"""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from test.e2e import machine as machines
from test.e2e.cluster import Cluster, Json
from test.e2e.controlplane import COUNTERS, ControlPlane, control_plane
from test.e2e.driver import Driver
from test.e2e.gpus import FIRST_APART
from test.e2e.images import busybox_images
from test.e2e.machine import Machine, machine
from test.support.a100 import MODELS, TWO_A100S, device_classes, resource_slices
from test.support.process import Process, until

NAME: Final = "node"

#: The addresses of pods, in the network reserved for benchmarks (RFC 2544).
PODS: Final = "198.18.0.0/24"

#: The default image of the tests' pods, and the image of samples/sample.yaml.
IMAGE: Final = "registry.test/image:1"
SAMPLE_IMAGE: Final = "quay.io/project-codeflare/busybox:1.36"
PAUSE: Final = "registry.test/pause:1"

#: The folders in which distributions install CNI's plugins.
CNI_FOLDERS: Final = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
CNI_PLUGINS: Final = ("bridge", "host-local", "loopback")
PROGRAMS: Final = ("busybox", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "nft")

#: The first containerd that gives a container the devices of its claims; older ones silently run it
#: without them.
FIRST_CDI: Final = (1, 7)


def missing(assets: Path) -> str:
    """What is missing for a node, in one line; empty if nothing is."""
    needed = [*machines.TOOLS, *PROGRAMS]
    lacks = machines.missing_tools(needed)
    lacks += [name for name in ("kubelet", "kube-proxy") if not (assets / name).is_file()]
    lacks += [] if _cni_folder() else ["CNI's plugins"]
    if "containerd" not in lacks and _containerd_version() < FIRST_CDI:
        lacks.append("containerd 1.7 or later")
    lacks += [] if os.geteuid() == 0 else ["root's rights"]
    return f"needs, for a real node, {', '.join(lacks)}" if lacks else ""


def _containerd_version() -> tuple[int, ...]:
    """The version of the containerd on PATH, such as (1, 7); () if it prints none."""
    said = subprocess.run(["containerd", "--version"], capture_output=True, text=True, check=False)
    found = re.search(r" v?(\d+)\.(\d+)\.", said.stdout)
    return tuple(map(int, found.groups())) if found else ()


def _cni_folder() -> Path | None:
    for folder in CNI_FOLDERS:
        if all((folder / plugin).is_file() for plugin in CNI_PLUGINS):
            return folder
    return None


class Node:
    """A running node, which `real_node_of_tests` creates."""

    def __init__(self, assets: Path, cluster: Cluster, machine: Machine, folder: Path) -> None:
        self.cluster = cluster  #: with an administrator's rights
        self.plane = cluster.plane
        self.machine = machine
        self.folder = folder
        self.kubelet_root = folder / "kubelet"
        self.driver_folder = folder / "driver"
        self._assets = assets
        self._processes: dict[str, Process | Driver] = {}

    def start(self, name: str, command: Sequence[str | Path]) -> Process:
        """Start a program. name: for the program and its log."""
        process = Process(command, self.folder / f"{name}.log")
        self._processes[name] = process
        return process

    def end(self, name: str) -> None:
        """Kill a program, if it runs."""
        if process := self._processes.pop(name, None):
            process.kill()

    def check(self) -> None:
        """Raise RuntimeError, with the end of its log, if a program has ended by itself."""
        for process in self._processes.values():
            process.check()

    def ctr(self, *arguments: str | Path) -> str:
        """Run containerd's client on Kubernetes' containers, and return its output."""
        socket = self.folder / "containerd.sock"
        return self.machine.run("ctr", "--address", socket, "--namespace", "k8s.io", *arguments)

    def start_containerd(self) -> None:
        config = self.folder / "containerd.toml"
        config.write_text(_containerd_config(self.folder))
        network = self.folder / "cni"
        network.mkdir()
        (network / "10-pods.conflist").write_text(json.dumps(_cni_config(self.folder)))
        command = self.machine.command("containerd", "--config", config)
        process = self.start("containerd", command)
        socket = self.folder / "containerd.sock"
        until(socket.exists, "containerd answers", process.check)
        archive = self.folder / "images.tar"
        sleep = ["sleep", "2147483647"]
        busybox = Path(shutil.which("busybox") or "")
        names = {IMAGE: ["sh"], SAMPLE_IMAGE: ["sh"], PAUSE: sleep}
        busybox_images(archive, busybox, names)
        self.ctr("images", "import", archive)

    def start_kubelet(self) -> None:
        config = self.folder / "kubelet.json"
        config.write_text(json.dumps(_kubelet_config(self.folder, self.plane, self.machine)))
        command = self.machine.command(
            self._assets / "kubelet",
            f"--config={config}",
            f"--kubeconfig={self.plane.kubeconfig}",
            f"--root-dir={self.kubelet_root}",
            f"--hostname-override={NAME}",
            f"--node-ip={machines.ADDRESS}",
        )
        self.start("kubelet", command)

    def start_proxy(self) -> None:
        config = self.folder / "kube-proxy.json"
        config.write_text(json.dumps(_proxy_config(self.plane)))
        proxy = self._assets / "kube-proxy"
        command = self.machine.command(proxy, f"--config={config}", f"--hostname-override={NAME}")
        self.start("kube-proxy", command)

    def start_driver(self, *, models: str = TWO_A100S) -> None:
        """Start the DRA driver. models: of the GPUs, as letters of `MODELS`."""
        combined = self.plane.version.minor < FIRST_APART
        gpus = [MODELS[letter] for letter in models]
        slices = resource_slices(NAME, models=gpus, combined=combined, whole=True)
        driver = Driver(self.cluster, self.driver_folder, self.kubelet_root, slices)
        self._processes["driver"] = driver

    def other_gpus(self, *options: str, **more: Any) -> None:
        """Start the driver without its earlier state, as on another machine.

        options, more: as for `start_driver`.
        """
        self.end("driver")
        self.forget()
        for each in self.cluster.list("ResourceSlice"):
            self.cluster.delete("ResourceSlice", each["metadata"]["name"])
        self.start_driver(*options, **more)
        until(self.published, "devices are published", self.check)

    def published(self) -> bool:
        """Whether the number of ResourceSlices is the one that they state."""
        slices = self.cluster.list("ResourceSlice")
        return {len(slices)} == {each["spec"]["pool"]["resourceSliceCount"] for each in slices}

    def forget(self) -> None:
        """Remove the state of the driver, which must not run."""

    @contextmanager
    def failing_driver(self) -> Iterator[str]:
        """Let the driver fail to prepare claims inside the context; yields its message."""
        driver = self._processes["driver"]
        assert isinstance(driver, Driver)
        driver.failure = "the GPU has fallen off the bus"
        yield driver.failure
        driver.failure = ""

    def prepared(self) -> set[str]:
        """The UIDs of the claims that the driver has prepared."""
        return {file.stem for file in (self.driver_folder / "cdi").glob("*.json")}

    def end_all(self) -> None:
        while self._processes:
            self._processes.popitem()[1].kill()


NodeT = TypeVar("NodeT", bound=Node)


@contextmanager
def real_node_of_tests(kind: type[NodeT]) -> Iterator[NodeT]:
    """Run a cluster of one node inside the context, with the programs in KUBEBUILDER_ASSETS.

    The calling thread is in the node's network meanwhile. kind: the class for its driver. Raises
    RuntimeError and TimeoutError.
    """
    assets = Path(os.environ["KUBEBUILDER_ASSETS"])
    # pytest's folder is too long for the path of a Unix socket, at most 107 bytes (unix(7)).
    folder = Path(tempfile.mkdtemp(prefix="node-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        own = stack.enter_context(machine(folder / "machine"))
        stack.enter_context(own.network())
        plane = stack.enter_context(
            control_plane(assets, folder / "plane", address=machines.ADDRESS, gates=COUNTERS)
        )
        cluster = Cluster(plane, folder / "discovery")
        made = kind(assets, cluster, own, folder)
        stack.callback(made.end_all)
        made.start_containerd()
        for manifest in device_classes():
            cluster.create(manifest)
        made.start_kubelet()
        made.start_proxy()
        made.start_driver()
        until(lambda: _ready(cluster), "the node is ready", made.check, seconds=60)
        until(made.published, "devices are published", made.check)
        yield made


def _ready(cluster: Cluster) -> bool:
    found = cluster.find("Node", NAME)
    conditions = found["status"].get("conditions", []) if found else []
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    # The node lifecycle controller removes the taint of a new node.
    return ready and found is not None and not found["spec"].get("taints")


def _containerd_config(folder: Path) -> str:
    """containerd 1.7's configuration, version 2."""
    state = folder / "containerd"
    return f"""\
version = 2
root = "{state}/root"
state = "{state}/state"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{state}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
# Most containers lack CAP_SYS_RESOURCE, without which no score can be lowered.
restrict_oom_score_adj = true
enable_cdi = true
cdi_spec_dirs = ["{folder}/driver/cdi", "/var/run/cdi"]
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{_cni_folder()}"
conf_dir = "{folder}/cni"
"""


def _cni_config(folder: Path) -> Json:
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "isGateway": True,
        "hairpinMode": True,  # lets a pod reach itself by its Service
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": PODS}]],
            "routes": [{"dst": "0.0.0.0/0"}],
            "dataDir": str(folder / "addresses"),
        },
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge]}


def _kubelet_config(folder: Path, plane: ControlPlane, machine: Machine) -> Json:
    nothing = {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"}
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": False},
            "x509": {"clientCAFile": str(plane.ca)},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": machine.cgroup,
        "containerRuntimeEndpoint": f"unix://{folder}/containerd.sock",
        "failCgroupV1": False,
        "failSwapOn": False,
        "evictionHard": {**nothing, "nodefs.inodesFree": "0%", "imagefs.inodesFree": "0%"},
        "imageGCHighThresholdPercent": 100,
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "podLogsDir": str(folder / "logs"),
        "volumePluginDir": str(folder / "volumeplugins"),
        "staticPodPath": "",
        "oomScoreAdj": 0,
        "healthzPort": 0,
        # As often as possible, since tests wait for the kubelet's status.
        "syncFrequency": "1s",
        "nodeStatusUpdateFrequency": "5s",
        "kubeAPIQPS": 100,
        "kubeAPIBurst": 200,
        "registryPullQPS": 0,
    }


def _proxy_config(plane: ControlPlane) -> Json:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(plane.kubeconfig)},
        "clusterCIDR": PODS,
        "mode": "nftables",
        "oomScoreAdj": 0,
        # These sysctls belong to the whole machine.
        "conntrack": {"maxPerCore": 0},
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
    }
