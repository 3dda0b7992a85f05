"""NVIDIA's DRA driver on the tests' node, without a GPU.

Its gpu-kubelet-plugin runs unchanged, with the stand-in for NVML in test/e2e/nvml, which gcc
compiles. The files of NVIDIA's kernel module are created in the node's own mounts.
"""

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import pytest

from test.e2e import node as nodes
from test.e2e.cluster import Cluster, Json
from test.e2e.images import busybox_images
from test.e2e.node import Node, real_node_of_tests
from test.support.a100 import DRIVER, MODELS, TWO_A100S, slices_of, whole_gpu
from test.support.process import ROOT

#: Names the gpu-kubelet-plugin to run.
VARIABLE: Final = "NVIDIA_DRA_DRIVER"
#: Names the driver's chart, a folder.
CHART: Final = "NVIDIA_DRA_CHART"
SOURCE: Final = ROOT / "test/e2e/nvml/nvml.c"

#: The stand-in's number of instances of a GPU, and of devices of each (its own, its compute's).
INSTANCES: Final = 32
GPUS: Final = 2

#: A free number in place of the kernel module's major number for nvidia-caps.
MAJOR: Final = 236

#: Writes the kernel module's list of capabilities for the driver. $1: GPUs, $2: instances.
_CAPABILITIES: Final = """
set -e
grep -q ' /proc/driver ' /proc/mounts || mount -t tmpfs tmpfs /proc/driver
minor=1 gpu=0
while [ "$gpu" -lt "$1" ]; do
  instance=0
  while [ "$instance" -lt "$2" ]; do
    folder=/proc/driver/nvidia/capabilities/gpu$gpu/mig/gi$instance
    mkdir -p "$folder/ci0"
    for file in "$folder/access" "$folder/ci0/access"; do
      printf 'DeviceFileMinor: %s\\nDeviceFileMode: 292\\nDeviceFileModify: 1\\n' "$minor" >"$file"
      minor=$((minor + 1))
    done
    instance=$((instance + 1))
  done
  gpu=$((gpu + 1))
done
"""

_CAP: Final = re.compile(r"nvidia-cap([0-9]+)")


def wanted() -> type[Node]:
    """The class of node that the environment selects."""
    return NvidiaNode if os.environ.get(VARIABLE) else Node


def missing() -> str:
    """What is missing, in one line; empty if nothing is."""
    program = os.environ.get(VARIABLE)
    if not program:
        return f"needs NVIDIA's gpu-kubelet-plugin: {VARIABLE} names none"
    if not os.access(program, os.X_OK):
        return f"{VARIABLE} names no program"
    return "" if shutil.which("gcc") else "needs gcc, for the stand-in for NVML"


def chart() -> Path | None:
    """The driver's chart, if the environment names it."""
    folder = Path(os.environ.get(CHART) or "nowhere")
    return folder if (folder / "Chart.yaml").is_file() else None


class NvidiaNode(Node):
    """A node with NVIDIA's driver, and `GPUS` A100s, all in MIG mode."""

    def start_driver(
        self, *options: str, models: str = TWO_A100S, gates: Sequence[str] = ("DynamicMIG",)
    ) -> None:
        """Start the DRA driver. options: the stand-in's FAKE_NVML_... gates: the driver's."""
        root, cdi = self._root, self.driver_folder / "cdi"
        if not root.exists():
            cdi.mkdir(parents=True)
            self._make_root(root)
            self.machine.run("sh", "-c", _CAPABILITIES, "sh", str(GPUS), str(INSTANCES))
        for folder in ("plugins_registry", "plugins"):
            (self.kubelet_root / folder).mkdir(parents=True, exist_ok=True)
        settings = self._settings(root, models)
        settings |= dict(option.split("=", 1) for option in options)
        command = self.machine.command(
            *("env", *(f"{name}={value}" for name, value in settings.items())),
            *(os.environ[VARIABLE], f"--node-name={nodes.NAME}", "--image-name=none"),
            *(f"--kubeconfig={self.plane.kubeconfig}", f"--cdi-root={cdi}"),
            *(f"--nvidia-driver-root={root}", f"--container-driver-root={root}"),
            "--nvidia-cdi-hook-path=/bin/true",
            f"--kubelet-registrar-directory-path={self.kubelet_root / 'plugins_registry'}",
            f"--kubelet-plugins-directory-path={self.kubelet_root / 'plugins'}",
            *([f"--feature-gates={','.join(f'{gate}=true' for gate in gates)}"] if gates else []),
            *("-v", "6"),
        )
        self.start("driver", command)

    def load_image(self, name: str) -> None:
        """Load an image with the driver, in place of the one that its chart names.

        Before the driver, its container creates the files of NVIDIA's kernel module.
        """
        archive = self.folder / "driver.tar"
        capabilities = f"#!/bin/sh\n{_CAPABILITIES}"
        program = f'#!/bin/sh\ncapabilities {GPUS} {INSTANCES}\nexec /driver "$@"\n'
        files: dict[str, Path | str] = {
            "driver": Path(os.environ[VARIABLE]),
            "bin/bash": '#!/bin/sh\nexec sh "$@"\n',
            "usr/bin/capabilities": capabilities,
            "usr/bin/gpu-kubelet-plugin": program,
            "usr/bin/kubelet-plugin-prestart.sh": "",  # it would run nvidia-smi
        }
        busybox_images(archive, Path(shutil.which("busybox") or ""), {name: ["sh"]}, files)
        self.ctr("images", "import", archive)

    def chart_values(self, models: str) -> Json:
        """What the driver's chart needs for the stand-in."""
        settings = self._settings(Path("/driver-root"), models)
        env = [{"name": name, "value": value} for name, value in settings.items()]
        return {
            "nvidiaDriverRoot": str(self._root),
            "nvidiaCDIHookPath": "/bin/true",
            "resources": {"computeDomains": {"enabled": False}},
            "kubeletPlugin": {
                "kubeletRegistrarDirectoryPath": str(self.kubelet_root / "plugins_registry"),
                "kubeletPluginsDirectoryPath": str(self.kubelet_root / "plugins"),
                "containers": {"gpus": {"env": env}},
            },
        }

    @property
    def log(self) -> Path:
        """The log of the operations on the GPUs, one a line."""
        return self._root / "nvml.log"

    @property
    def _root(self) -> Path:
        """The root of the installation of NVIDIA's GPU driver."""
        return self.folder / "nvidia"

    def _settings(self, root: Path, models: str) -> dict[str, str]:
        """Variables of the stand-in and the driver. root: as the driver sees it."""
        return {
            "FAKE_NVML_STATE": str(root / "state"),
            "FAKE_NVML_LOG": str(root / self.log.name),
            "FAKE_NVML_MODELS": models,
            "ALT_PROC_DEVICES_PATH": str(root / "devices"),
        }

    def forget(self) -> None:
        shutil.rmtree(self.kubelet_root / "plugins" / DRIVER, ignore_errors=True)
        for file in (self._root / "state", *self.driver_folder.glob("cdi/*"), self.log):
            file.unlink(missing_ok=True)

    def prepared(self) -> set[str]:
        found = (re.search("claim_(.{36})", f.name) for f in self.driver_folder.glob("cdi/*"))
        return {match[1] for match in found if match}

    def _make_root(self, root: Path) -> None:
        """Create the files of the driver's installation: libraries, nvidia-smi, device nodes."""
        library, dev = root / "usr/lib64", root / "dev"
        for folder in (library, root / "usr/bin", dev):
            folder.mkdir(parents=True)
        nvml = library / "libnvidia-ml.so.1"
        compiler = ["gcc", "-shared", "-fPIC", "-fvisibility=hidden", "-pthread"]
        subprocess.run([*compiler, "-o", nvml, SOURCE], check=True, timeout=60)
        (library / "libcuda.so.570.86.15").touch()
        smi = root / "usr/bin/nvidia-smi"
        smi.write_text("#!/bin/sh\n")
        smi.chmod(0o755)
        devices = {f"nvidia{gpu}": (195, gpu) for gpu in range(GPUS)}
        devices |= {"nvidiactl": (195, 255), "nvidia-uvm": (511, 0), "nvidia-uvm-tools": (511, 1)}
        for name, number in devices.items():
            os.mknod(dev / name, stat.S_IFCHR | 0o666, os.makedev(*number))
        listed = Path("/proc/devices").read_text()
        ours = listed.replace("\nBlock devices:", f"{MAJOR} nvidia-caps\n\nBlock devices:", 1)
        (root / "devices").write_text(ours)


def devices_of(files: Sequence[str], models: str = TWO_A100S) -> list[str]:
    """The devices whose files a container has in /dev, by the names in test/support/a100.py.

    files: such as "nvidia0" and "nvidia-cap3". A slice has two caps and its GPU's file.
    """
    minors = sorted(int(match[1]) for file in files if (match := _CAP.fullmatch(file)))
    found = []
    for first, second in zip(minors[::2], minors[1::2], strict=True):
        assert second == first + 1, f"half a slice: {files}"
        gpu, instance = divmod(first // 2, INSTANCES)
        assert f"nvidia{gpu}" in files
        found.append(str(slices_of(gpu, model=MODELS[models[gpu]])[instance - 1]["name"]))
    cut = {each.split("-mig-")[0] for each in found}
    whole = [str(whole_gpu(g)["name"]) for g in range(GPUS) if f"nvidia{g}" in files]
    return sorted(found + [each for each in whole if each not in cut])


# The fixtures of the folders with tests on a real node


@pytest.fixture(scope="package")
def real_node() -> Iterator[Node]:
    """A cluster of one node, with NVIDIA's driver if the environment names it.

    A folder's tests run in its network.
    """
    with real_node_of_tests(wanted()) as node:
        yield node


@pytest.fixture(scope="package")
def cluster(real_node: Node) -> Cluster:
    return real_node.cluster
