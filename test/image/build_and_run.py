"""`make image-test`: build the Containerfile for both platforms, and run the image as a pod.

test/image/build.py builds it, and says what a machine needs. Here runc runs the image as the
Deployment in config/ does, with its securityContext, environment, memory limit and preStop hook,
and with a uid that the image does not define. Storage, containers and mounts are in one temporary
folder, which is removed at the end.
"""

import base64
import http.client
import json
import os
import re
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from instaslice import __version__
from test.image.build import COMMAND_LINE, NATIVE, PLATFORMS, Buildah, Image, missing, run, storage
from test.image.docker import Docker
from test.support.certs import Authority
from test.support.process import HOST, ROOT, Process, free_port, until

SAMPLE: Final = ROOT / "test" / "data" / "reviews" / "create" / "sample.json"

#: A uid that the image does not define, as in clusters that choose uids by namespace (OpenShift).
UID: Final = 1000650000
#: The image of the whole command line.
CLI: Final = "instaslice-cli"
#: The variables of the component no-api, since there is no API server here.
NO_API: Final = {"INSTASLICE_RESOURCE_API": "v1", "INSTASLICE_PROVISION_TEMPLATES": "false"}


@pytest.fixture(scope="module", autouse=True)
def tools() -> None:
    """Report missing tools before a test fails for lack of them."""
    if lacks := missing("runc"):
        pytest.fail(lacks)


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    with storage(tmp_path_factory.mktemp("buildah")) as buildah:
        yield buildah


@pytest.fixture(scope="module")
def release(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """A function that runs `make release` in a clone whose CHANGELOG dates this version."""
    clone, base = tmp_path_factory.mktemp("release") / "clone", "localhost/base"
    run("git", "clone", "--quiet", ROOT, clone)
    changelog = clone / "CHANGELOG.md"
    changelog.write_text(changelog.read_text().replace("(unreleased)", "(2026-11-30)"))
    author = ("-c", "user.name=test", "-c", "user.email=test@example.com")
    run("git", "-C", clone, *author, "commit", "--quiet", "--all", "--message", "Release")
    build_image = buildah.build_image()
    buildah("manifest", "create", base)
    for platform in PLATFORMS:
        buildah("manifest", "add", base, f"containers-storage:{buildah.base_image(platform)}")
    options = ["--pull-never", "--isolation", "chroot"]
    options += [f"--build-arg=BUILD_PLATFORM=linux/{NATIVE}", f"--build-arg=BASE_IMAGE={base}"]
    options += [f"--build-arg=BUILD_IMAGE={build_image}"]
    environment = {"BUILDAH": " ".join(buildah.command()), "BUILD_OPTIONS": " ".join(options)}

    def release() -> str:
        done = subprocess.run(
            [sys.executable, "-m", "hack.release", "registry.example.com/instaslice"],
            cwd=clone,
            env={**os.environ, **environment, "PYTHONPATH": str(clone)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        run("sh", "-c", f"cd {clone}/dist && sha256sum --quiet --check SHA256SUMS")
        return done.stdout

    return release


@pytest.fixture(scope="module")
def released(release: Callable[[], str]) -> str:
    """The checksums of a release."""
    return release()


@pytest.fixture(scope="module")
def images(buildah: Buildah, released: str) -> dict[str, Image]:
    """The images of the release by architecture, and the command line's."""
    names = {each: f"instaslice-{__version__}-{each}" for each in PLATFORMS}
    names[CLI] = buildah.build(NATIVE, "localhost/build", *COMMAND_LINE, name=CLI)
    return {key: Image(buildah, name) for key, name in names.items()}


# The run


@dataclass(frozen=True)
class Pod:
    """A running container of the Deployment."""

    spec: dict[str, Any]  #: of the pod
    port: int
    runc: tuple[str, ...]
    process: Process
    context: ssl.SSLContext

    def ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """Send a request; returns the status and the body of the answer. Raises OSError."""
        connection = http.client.HTTPSConnection(HOST, self.port, context=self.context, timeout=5)
        with closing(connection):
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()

    def is_ready(self) -> bool:
        try:
            return self.ask("GET", "/readyz")[0] == 200
        except OSError:
            return False

    def patched(self) -> set[str]:
        """The paths of the patch for the sample."""
        _, body = self.ask("POST", "/mutate?timeout=5s", SAMPLE.read_bytes())
        patch = json.loads(base64.b64decode(json.loads(body)["response"]["patch"]))
        return {operation["path"] for operation in patch}

    def execute(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run a command in it."""
        return subprocess.run(
            [*self.runc, "exec", "pod", *command], check=False, capture_output=True, text=True
        )


def bundle(spec: dict[str, Any], image: dict[str, Any], root: Path, tls: Path, port: int) -> Any:
    """The config.json of the OCI runtime specification, as a kubelet's runtime would write it.

    image: OCI image configuration.
    """
    (container,) = spec["containers"]
    security = container["securityContext"]
    assert security["capabilities"] == {"drop": ["ALL"]}, "what else is to be translated?"
    assert spec["securityContext"]["runAsNonRoot"], "what else is to be translated?"
    (mount,) = container["volumeMounts"]
    env = dict(pair.split("=", 1) for pair in image["config"]["Env"])
    env |= {pair["name"]: pair["value"] for pair in container["env"]}
    env |= NO_API | {"INSTASLICE_BIND": f"{HOST}:{port}"}
    limit = container["resources"]["limits"]["memory"].removesuffix("Mi")
    bind = {"source": str(tls), "options": ["bind", "ro"]}
    device, shared = ["nosuid", "mode=755"], ["nosuid", "noexec", "nodev", "mode=1777"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": UID, "gid": 0},
            "args": image["config"]["Entrypoint"],
            "env": [f"{name}={value}" for name, value in env.items()],
            "cwd": "/",
            "capabilities": {},
            "noNewPrivileges": not security["allowPrivilegeEscalation"],
        },
        "root": {"path": str(root), "readonly": security["readOnlyRootFilesystem"]},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": device},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": shared},
            {"destination": mount["mountPath"], **bind},
        ],
        "linux": {
            # No network namespace, since the test uses this machine's loopback.
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
            "resources": {"memory": {"limit": int(limit) << 20}},
        },
    }


@pytest.fixture
def pod(images: dict[str, Image], tmp_path: Path) -> Iterator[Pod]:
    """This machine's image, running as a pod of the Deployment."""
    authority = Authority()
    tls = authority.mint(tmp_path / "tls")
    for path in (*tmp_path.parents[:2], tmp_path, tls):
        path.chmod(0o755)
    for path in tls.iterdir():
        path.chmod(0o644)  # a Secret's volume: anybody in the container may read it
    (deployment, _) = yaml.safe_load_all((ROOT / "config/base/deployment.yaml").read_text())
    spec, port = deployment["spec"]["template"]["spec"], free_port()
    runc = ("runc", "--root", str(tmp_path / "runc"))
    with images[NATIVE].root() as root:
        config = bundle(spec, images[NATIVE].config, root, tls, port)
        (tmp_path / "config.json").write_text(json.dumps(config))
        process = Process([*runc, "run", "--bundle", tmp_path, "pod"], tmp_path / "log")
        try:
            pod = Pod(spec, port, runc, process, authority.trusting())
            until(pod.is_ready, "it is ready", process.check)
            yield pod
        finally:
            if process.poll() is None:
                run(*runc, "delete", "--force", "pod")
                process.wait(10)


def status(pid: int) -> dict[str, str]:
    """/proc/<pid>/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def size(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.rglob("*"))


def megabytes(size: float) -> str:
    return f"{size / 1e6:.1f} MB"


# The tests


@pytest.mark.parametrize("architecture", PLATFORMS)
def test_image_has_only_the_locked_packages(architecture: str, images: dict[str, Image]) -> None:
    lock = (ROOT / "requirements.lock").read_text()
    locked = {
        f"{name.replace('-', '_')}-{version}.dist-info"
        for name, version in re.findall(r"^(\S+)==(\S+)", lock, re.MULTILINE)
    }
    with images[architecture].root() as root:
        app = root / "app"
        infos = {path.name for path in app.iterdir() if path.suffix == ".dist-info"}
        others = {path.name for path in app.iterdir()} - infos
        sources = sorted(app.rglob("*.py"))
        bytecode = sorted(app.rglob("*.pyc"))
        elves = [path for path in app.rglob("*.so*") if path.is_file()]
        machines = {int.from_bytes(path.read_bytes()[18:20], "little") for path in elves}
        total, added = size(root), size(app)
        shell = [path for path in ("bin/sh", "usr/bin/sh") if (root / path).exists()]
    assert infos == locked
    assert others - {info.partition("-")[0] for info in locked} == {"instaslice", "LICENSE"}
    assert len(bytecode) == len(sources) > 0
    assert machines <= {PLATFORMS[architecture].elf}
    assert not shell
    print(f"\n{architecture}: {megabytes(total)} unpacked, {megabytes(added)} of it InstaSlice's")


@pytest.mark.parametrize("architecture", PLATFORMS)
def test_image_has_labels_and_configuration(architecture: str, images: dict[str, Image]) -> None:
    image = images[architecture].config
    config = image["config"]
    assert (image["os"], image["architecture"]) == ("linux", architecture)
    assert config["User"] == "65532:65532"
    assert config["Entrypoint"] == ["/usr/bin/python3", "-m", "instaslice", "serve"]
    assert "Cmd" not in config
    assert "8443/tcp" in config["ExposedPorts"]
    prefix = "org.opencontainers.image."
    labels = {key.removeprefix(prefix) for key in config["Labels"] if key.startswith(prefix)}
    assert labels == {
        *("title", "description", "licenses", "version", "revision", "source", "base.name")
    }


def test_command_line_image_rewrites_a_file(images: dict[str, Image]) -> None:
    """An administrator without Python uses it to rewrite a file."""
    image = images[CLI]
    assert image.config["config"]["Entrypoint"] == ["/usr/bin/python3", "-m", "instaslice"]
    container = image.buildah("from", "--pull-never", image.name)
    try:
        done = subprocess.run(
            [
                *image.buildah.command("run", "--isolation", "chroot", "--user", str(UID)),
                *(container, "--", "/usr/bin/python3", "-m", "instaslice", "rewrite", "-"),
            ],
            input=(ROOT / "samples/sample.yaml").read_text(),
            capture_output=True,
            text=True,
        )
        doctor = image.buildah.command("run", "--isolation", "chroot", container, "--")
        asked = subprocess.run(
            [*doctor, "/usr/bin/python3", "-m", "instaslice", "doctor"],
            capture_output=True,
            text=True,
        )
    finally:
        image.buildah("rm", container)
    assert done.returncode == 0
    # One line says that the result needs a template.
    assert done.stderr.startswith("instaslice: the result needs templates: mig-1g.5gb ")
    assert done.stderr.count("\n") == 1
    assert "resourceClaimTemplateName: mig-1g.5gb" in done.stdout
    assert "kubeconfig" in asked.stderr, "it has the kubernetes client, and no cluster"


def test_releases_are_reproducible(released: str, release: Callable[[], str]) -> None:
    assert release() == released
    name = f"instaslice-{__version__}"
    assert {line.split()[1] for line in released.splitlines()} == {
        *("install.yaml", "install-opt-in.yaml", f"{name}.tar.gz", f"{name}-py3-none-any.whl"),
        *(f"{name}-linux-{each}.oci.tar" for each in PLATFORMS),
        *(f"{name}.tgz", f"{name}.spdx.json", f"{name}.provenance.json"),
    }


def test_docker_engine_builds_the_image(buildah: Buildah, images: dict[str, Image]) -> None:
    """`make docker-build`, the README's first command, with Debian's docker.io."""
    if shutil.which("dockerd") is None:
        pytest.skip("dockerd is not on PATH (Debian's package docker.io)")
    arguments = []
    with Docker.running() as docker:
        for argument, stand_in in (("BUILD_IMAGE", "build"), ("BASE_IMAGE", f"base-{NATIVE}")):
            docker("import", buildah.archive(stand_in), f"{stand_in}:here")
            arguments += ["--build-arg", f"{argument}={stand_in}:here"]
        for target, image in (("docker-build", "IMG"), ("docker-build-cli", "IMG_CLI")):
            docker.make(target, f"{image}=built:{target}", *arguments)
        config = json.loads(docker("image", "inspect", "built:docker-build"))[0]
        printed = docker("run", "--rm", "--network=none", "built:docker-build-cli", "--version")
    assert config["Config"]["Entrypoint"] == images[NATIVE].config["config"]["Entrypoint"]
    assert config["Config"]["User"] == "65532:65532"
    assert printed == f"instaslice {__version__}"


def test_server_runs_and_ends_as_a_pod(pod: Pod) -> None:
    assert "/spec/resourceClaims" in pod.patched()
    pids = json.loads(run(*pod.runc, "ps", "--format", "json", "pod"))
    assert len(pids) == 2, "a master and a worker"
    for facts in map(status, pids):
        assert facts["Uid"].split() == [str(UID)] * 4
        assert facts["NoNewPrivs"] == "1"
        sets = [facts[f"Cap{which}"] for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")]
        assert {int(capabilities, 16) for capabilities in sets} == {0}
    for folder in ("tmp", "dev/shm"):
        assert list(Path(f"/proc/{pids[0]}/root", folder).iterdir()) == [], "it writes no files"
    write = pod.execute("/usr/bin/python3", "-c", "open('/app/file', 'w')")
    assert "Read-only file system" in write.stderr
    resident = sum(int(status(pid)["VmRSS"].split()[0]) for pid in pids)
    print(f"\nresident memory of master and worker: {megabytes(resident * 1024)}")

    # As the kubelet ends it: the preStop hook, during which it serves, and then SIGTERM.
    begin = time.monotonic()
    hook = pod.spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert pod.execute(*hook).returncode == 0
    assert time.monotonic() - begin >= 5, "the pause is too short to update endpoints"
    assert "/spec/resourceClaims" in pod.patched()
    run(*pod.runc, "kill", "pod", "TERM")
    code = pod.process.wait(pod.spec["terminationGracePeriodSeconds"])
    assert code == 0, pod.process.printed()
