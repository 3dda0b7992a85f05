"""Builds the image from the Containerfile without a registry.

Stand-ins from Debian's packages replace the two base images: one with the packages of distroless'
Python image, and a build image with pip. buildah builds in a chroot.

It needs root; amd64; buildah and mmdebstrap; a Debian whose apt can fetch packages (the stand-ins
come from the same mirror, by the same proxy); and a pip that can fetch the locked wheels, which are
copied to the build image. So the build itself needs no network.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from test.support.process import ROOT

TOOLS: Final = ("apt-get", "buildah", "mmdebstrap")

DEBIAN: Final = "trixie"
#: The packages of distroless' python3-debian13, without libraries, which apt adds.
BASE_PACKAGES: Final = "base-files,python3.13-minimal,libpython3.13-stdlib"
BUILD_PACKAGES: Final = "base-files,coreutils,dash,python3-pip"


class Platform(NamedTuple):
    """Other names of an architecture."""

    wheels: str  #: in the names of Python's wheels
    elf: int  #: in the header of an executable (e_machine)


#: By Debian's names, which are Go's, too.
PLATFORMS: Final = {"amd64": Platform("x86_64", 62), "arm64": Platform("aarch64", 183)}
#: The architecture of this machine.
NATIVE: Final = "amd64"

#: The options for the image of the whole command line.
COMMAND_LINE: Final = ("--build-arg", "LOCK=requirements-cli.lock", "--target", "cli")


def run(*command: str | Path, env: Mapping[str, str] | None = None) -> str:
    """Run a command, and return its standard output.

    env: replaces this process's environment. Raises RuntimeError with the command's messages.
    """
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True, env=env)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


# The environment's apt and pip


def apt_source() -> str:
    """The source of DEBIAN's packages, from the mirror of this machine's apt."""
    targets = run(
        *("apt-get", "indextargets", "--format", "$(LABEL) $(RELEASE) $(COMPONENT) $(SITE)"),
        "Created-By: Packages",
    )
    for line in targets.splitlines():
        label, release, component, site = line.split(" ", 3)
        if label == "Debian" and component == "main" and "-" not in release:
            return f"deb {site} {DEBIAN} main"
    raise RuntimeError("apt has no source of Debian's packages: run `apt-get update` on a Debian")


def apt_options() -> str:
    """The options with which this machine's apt fetches: proxies, certificates, timeouts."""
    lines = run("apt-config", "dump").splitlines(keepends=True)
    return "".join(line for line in lines if line.startswith("Acquire::"))


def download(folder: Path) -> None:
    """Fetch the locked wheels with this machine's configuration of pip.

    The server's are for every platform, and the command line's for this machine's.
    """
    locks = {
        "amd64": ("requirements.lock", "requirements-cli.lock"),
        "arm64": ("requirements.lock",),
    }
    for architecture, platform in PLATFORMS.items():
        run(
            *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder, "--no-deps"),
            *("--require-hashes", "--only-binary=:all:", "--python-version", "3.13"),
            *("--platform", f"manylinux_2_28_{platform.wheels}"),
            *("--platform", f"manylinux2014_{platform.wheels}"),
            *(f"--requirement={ROOT / lock}" for lock in locks[architecture]),
        )


# The stand-ins


def _root(folder: Path, name: str, architecture: str, packages: str, *hooks: str) -> Path:
    """An archive of Debian's packages, which are only unpacked, so for any architecture.

    folder: an existing one, for the archive. hooks: mmdebstrap's, in place of the packages'
    scripts.
    """
    options, archive = folder / "apt.conf", folder / f"{name}.tar"
    options.write_text(apt_options())
    run(
        *("mmdebstrap", "--quiet", "--variant=extract", f"--architectures={architecture}"),
        *(f"--include={packages}", f"--aptopt={options}"),
        *(f"--extract-hook={hook}" for hook in ('ln -sf python3.13 "$1/usr/bin/python3"', *hooks)),
        *(DEBIAN, archive, apt_source()),
    )
    return archive


def build_root(folder: Path) -> Path:
    """The stand-in for the build stage, whose pip has the wheels in a folder and no index."""
    wheels, config = folder / "wheels", folder / "pip.conf"
    download(wheels)
    config.write_text("[global]\nno-index = true\nfind-links = /wheels\n")
    return _root(
        *(folder, "build", NATIVE, BUILD_PACKAGES),
        'cd "$1" && cat usr/share/ca-certificates/*/* >etc/ssl/certs/ca-certificates.crt',
        *(f"copy-in {wheels} /", f"copy-in {config} /etc"),
    )


def base_root(folder: Path, architecture: str) -> Path:
    """The stand-in for distroless' Python."""
    return _root(folder, f"base-{architecture}", architecture, BASE_PACKAGES)


# The build


@dataclass(frozen=True)
class Buildah:
    """buildah with a separate storage."""

    folder: Path

    def __call__(self, *arguments: str | Path) -> str:
        return run(*self.command(*arguments)).strip()

    def command(self, *arguments: str | Path) -> list[str]:
        """A command line of buildah for this storage."""
        # vfs makes whole copies, so no mounts are needed, and a container's root is a folder.
        folders = ("--root", self.folder / "root", "--runroot", self.folder / "run")
        return [str(each) for each in ("buildah", *folders, "--storage-driver", "vfs", *arguments)]

    def stand_in(self, archive: Path, architecture: str) -> str:
        """Create an image from the root file system in an archive, and return its name."""
        name = archive.stem
        container = self("from", "--platform", f"linux/{architecture}", "scratch")
        self("add", "--quiet", container, archive, "/")
        self("commit", "--quiet", "--rm", container, name)
        return f"localhost/{name}"

    def build_image(self) -> str:
        return self.stand_in(build_root(self.folder), NATIVE)

    def base_image(self, architecture: str) -> str:
        """The name of the base image, which is created once."""
        if self.archive(f"base-{architecture}").exists():
            return f"localhost/base-{architecture}"
        return self.stand_in(base_root(self.folder, architecture), architecture)

    def archive(self, stand_in: str) -> Path:
        """The archive with the root file system of a stand-in."""
        return self.folder / f"{stand_in}.tar"

    def build(self, architecture: str, build_image: str, *options: str, name: str = "") -> str:
        """Build the Containerfile for an architecture, and return the image's name."""
        base_image = self.base_image(architecture)
        name = name or f"instaslice-{architecture}"
        self(
            *("build", "--pull-never", "--isolation", "chroot", "--quiet"),
            *("--platform", f"linux/{architecture}"),
            # buildah before 1.30 confuses it with the target's.
            *("--build-arg", f"BUILD_PLATFORM=linux/{NATIVE}"),
            *("--build-arg", f"BUILD_IMAGE={build_image}"),
            *("--build-arg", f"BASE_IMAGE={base_image}"),
            *options,
            *("--tag", name, "--file", ROOT / "Containerfile", ROOT),
        )
        return name


@dataclass(frozen=True)
class Image:
    """A built image."""

    buildah: Buildah
    name: str

    @property
    def config(self) -> dict[str, Any]:
        """The image's configuration (OCI image specification, config.json)."""
        config: dict[str, Any] = json.loads(self.buildah("inspect", "--type", "image", self.name))
        return config["OCIv1"]  # type: ignore[no-any-return]

    @contextmanager
    def root(self) -> Iterator[Path]:
        """A copy of its root file system."""
        container = self.buildah("from", "--pull-never", self.name)
        try:
            yield Path(self.buildah("mount", container))
        finally:
            self.buildah("rm", container)

    def export(self, archive: Path, name: str) -> None:
        """Write it as an archive that container runtimes load, under a name."""
        self.buildah("push", "--quiet", self.name, f"docker-archive:{archive}:{name}")


def missing(*tools: str) -> str:
    """What a build, and these tools' user, needs and is not here; empty if all of it is."""
    lacks = [tool for tool in (*TOOLS, *tools) if shutil.which(tool) is None]
    if lacks:
        return f"not on PATH: {', '.join(lacks)} (Debian has packages of these names)"
    if os.geteuid() != 0:
        return "only root can do this"
    if run("dpkg", "--print-architecture").strip() != NATIVE:
        return f"this machine cannot run {NATIVE}"
    return ""


@contextmanager
def storage(folder: Path) -> Iterator[Buildah]:
    """buildah with its storage in a folder, which is removed afterwards."""
    buildah = Buildah(folder)
    try:
        yield buildah
    finally:
        buildah("rm", "--all")
        buildah("rmi", "--all", "--force")
        run("rm", "-rf", folder)
