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
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
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
    """A container of the Deployment, as the kubelet and the container runtime would run it."""

    spec: dict[str, Any]  #: of the pod
    image: dict[str, Any]  #: OCI image configuration
    root: Path
    tls: Path
    port: int

    @property
    def container(self) -> dict[str, Any]:
        (container,) = self.spec["containers"]
        return container  # type: ignore[no-any-return]

    def bundle(self, uid: int) -> dict[str, Any]:
        """The config.json of the OCI runtime specification."""
        security = self.container["securityContext"]
        assert security["capabilities"] == {"drop": ["ALL"]}, "what else is to be translated?"
        assert self.spec["securityContext"]["runAsNonRoot"], "what else is to be translated?"
        (mount,) = self.container["volumeMounts"]
        env = dict(pair.split("=", 1) for pair in self.image["config"]["Env"])
        env |= {pair["name"]: pair["value"] for pair in self.container["env"]}
        env |= NO_API | {"INSTASLICE_BIND": f"{HOST}:{self.port}"}
        limit = self.container["resources"]["limits"]["memory"].removesuffix("Mi")
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": uid, "gid": 0},
                "args": self.image["config"]["Entrypoint"],
                "env": [f"{name}={value}" for name, value in env.items()],
                "cwd": "/",
                "capabilities": {},
                "noNewPrivileges": not security["allowPrivilegeEscalation"],
            },
            "root": {"path": str(self.root), "readonly": security["readOnlyRootFilesystem"]},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc"},
                *(
                    {"destination": path, "type": "tmpfs", "source": "tmpfs", "options": options}
                    for path, options in (
                        ("/dev", ["nosuid", "mode=755", "size=64k"]),
                        ("/dev/shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]),
                    )
                ),
                {
                    "destination": mount["mountPath"],
                    "source": str(self.tls),
                    "options": ["bind", "ro"],
                },
            ],
            "linux": {
                # No network namespace, since the test uses this machine's loopback.
                "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount")],
                "resources": {"memory": {"limit": int(limit) << 20}},
            },
        }


@dataclass(frozen=True)
class Running:
    """A running pod."""

    pod: Pod
    runc: tuple[str, ...]
    process: Process
    context: ssl.SSLContext

    def connect(self) -> http.client.HTTPSConnection:
        """Open a TLS connection. Raises OSError if the server does not listen."""
        connection = http.client.HTTPSConnection(
            HOST, self.pod.port, context=self.context, timeout=5
        )
        try:
            connection.connect()
        except OSError:
            connection.close()
            raise
        return connection

    def ready(self) -> bool:
        try:
            with closing(self.connect()) as connection:
                connection.request("GET", "/readyz")
                return connection.getresponse().status == 200
        except OSError:
            return False

    def mutate(self) -> dict[str, Any] | None:
        """Send the sample, and return the response; None if the server no longer listens."""
        try:
            connection = self.connect()
        except ConnectionError:
            return None
        with closing(connection):
            return send_sample(connection)

    def pids(self) -> list[int]:
        return json.loads(run(*self.runc, "ps", "--format", "json", "pod"))  # type: ignore[no-any-return]

    def before_stop(self) -> None:
        """Run the preStop hook, as the kubelet does before it sends SIGTERM."""
        command = self.pod.container["lifecycle"]["preStop"]["exec"]["command"]
        run(*self.runc, "exec", "pod", *command)

    def terminate(self) -> int:
        """Send SIGTERM, and return the exit code."""
        run(*self.runc, "kill", "pod", "TERM")
        return self.process.wait(self.pod.spec["terminationGracePeriodSeconds"])


@pytest.fixture
def start(images: dict[str, Image], tmp_path: Path) -> Callable[..., Any]:
    """A function that runs this machine's image as a pod of the Deployment."""
    authority = Authority()
    tls = authority.mint(tmp_path / "tls")
    for path in (*tmp_path.parents[:2], tmp_path, tls):
        path.chmod(0o755)
    for path in tls.iterdir():
        path.chmod(0o644)  # a Secret's volume: anybody in the container may read it
    context = authority.trusting()

    @contextmanager
    def start(root: Path, uid: int = UID, **changes: Any) -> Iterator[Running]:
        """changes: to the container's securityContext."""
        (deployment, _) = yaml.safe_load_all((ROOT / "config/base/deployment.yaml").read_text())
        spec = deployment["spec"]["template"]["spec"]
        spec["containers"][0]["securityContext"] |= changes
        pod = Pod(spec, images[NATIVE].config, root, tls, free_port())
        (tmp_path / "config.json").write_text(json.dumps(pod.bundle(uid)))
        runc = ("runc", "--root", str(tmp_path / "runc"))
        process = Process([*runc, "run", "--bundle", tmp_path, "pod"], tmp_path / "log")
        try:
            running = Running(pod, runc, process, context)
            until(running.ready, "it is ready", process.check)
            yield running
        finally:
            if process.poll() is None:
                run(*runc, "delete", "--force", "pod")
                process.wait(10)

    return start


def send_sample(connection: http.client.HTTPSConnection) -> dict[str, Any]:
    """Send the sample, and return the response."""
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/mutate?timeout=5s", SAMPLE.read_bytes(), headers)
    answer = connection.getresponse()
    body = answer.read()
    assert answer.status == 200, body
    return json.loads(body)["response"]  # type: ignore[no-any-return]


def status(pid: int) -> dict[str, str]:
    """/proc/<pid>/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def tree(root: Path) -> dict[str, tuple[int, int, int, int]]:
    """All files below a folder, with the metadata that a write would change."""
    found = {}
    for folder, folders, files in os.walk(root):
        for path in (Path(folder, name) for name in (*folders, *files)):
            stat = path.lstat()
            key = str(path.relative_to(root))
            found[key] = (stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_ino)
    return found


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


def test_server_runs_as_a_pod(images: dict[str, Image], start: Callable[..., Any]) -> None:
    with images[NATIVE].root() as root, start(root) as running:
        answer = running.mutate()
        assert answer
        assert answer["allowed"]
        patch = json.loads(base64.b64decode(answer["patch"]))
        assert "/spec/resourceClaims" in {operation["path"] for operation in patch}

        pids = running.pids()
        assert len(pids) == 2, "a master and a worker"
        for facts in map(status, pids):
            assert facts["Uid"].split() == [str(UID)] * 4
            assert facts["NoNewPrivs"] == "1"
            sets = [facts[f"Cap{which}"] for which in ("Inh", "Prm", "Eff", "Bnd", "Amb")]
            assert {int(capabilities, 16) for capabilities in sets} == {0}
        write = ["/usr/bin/python3", "-c", "open('/app/file', 'w')"]
        refused = subprocess.run(
            [*running.runc, "exec", "pod", *write], check=False, capture_output=True, text=True
        )
        assert "Read-only file system" in refused.stderr
        resident = sum(int(status(pid)["VmRSS"].split()[0]) for pid in pids)
    print(f"\nresident memory of master and worker: {megabytes(resident * 1024)}")


def test_server_ends_without_losing_requests(
    images: dict[str, Image], start: Callable[..., Any]
) -> None:
    """It serves during the preStop pause, loses no request, and exits with code 0."""
    answers = 0
    stop = threading.Event()

    def call(running: Running) -> None:
        """Send one admission after another, each on a new connection, while it listens."""
        nonlocal answers
        while not stop.is_set() and running.mutate():
            answers += 1
            time.sleep(0.005)

    with images[NATIVE].root() as root, start(root) as running:
        caller = threading.Thread(target=call, args=[running])
        caller.start()
        try:
            until(lambda: answers > 10, "more than ten admissions")
            begin, before = time.monotonic(), answers
            running.before_stop()
            pause, during = time.monotonic() - begin, answers - before
            assert caller.is_alive(), "it did not serve during the pause"
            code = running.terminate()
            total = time.monotonic() - begin
        finally:
            stop.set()
            caller.join(10)
        assert code == 0, running.process.printed()
        assert pause >= 5, "the pause is too short to update endpoints"
    print(f"\n{during} admissions in a pause of {pause:.1f} s; gone after {total:.1f} s")


def test_server_writes_no_files(images: dict[str, Image], start: Callable[..., Any]) -> None:
    """It writes nothing even if its root file system is writable."""
    with images[NATIVE].root() as root:
        for folder, folders, files in os.walk(root):
            for name in (".", *folders, *files):
                os.chown(Path(folder, name), UID, 0, follow_symlinks=False)
        (root / "etc" / "instaslice" / "tls").mkdir(parents=True)  # runc would create it
        before = tree(root)
        with start(root, readOnlyRootFilesystem=False) as running:
            assert running.mutate()
            pid = running.pids()[0]
            for folder in ("tmp", "dev/shm"):
                assert list(Path(f"/proc/{pid}/root", folder).iterdir()) == []
            assert running.terminate() == 0
        assert tree(root) == before
