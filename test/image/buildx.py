"""`make docker-buildx`, unchanged: an image for both platforms, pushed to a registry on loopback.

It needs docker's engine and client with the plugin buildx, a registry's program, and mmdebstrap.
The base images are stand-ins, as in build.py, and so is the SBOM scanner. Engine and registry run
in a separate network.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest

from instaslice import __version__
from test.e2e.machine import TOOLS, machine, missing_tools
from test.image.build import NATIVE, PLATFORMS, base_root, build_root
from test.image.docker import Docker
from test.support.process import HOST, free_port, running, until

#: The names of a registry's program: its authors' and Debian's.
REGISTRIES: Final = ("registry", "docker-registry")
#: The default scanner of buildx, and a script with its protocol (BuildKit's
#: docs/attestations/sbom-protocol.md).
SCANNER: Final = "docker.io/docker/buildkit-syft-scanner:stable-1"
SCAN: Final = """
import json, os
source, target = (os.environ[f"BUILDKIT_SCAN_{each}"] for each in ("SOURCE", "DESTINATION"))
packages = [{"name": name, "SPDXID": f"SPDXRef-{name}"} for name in os.listdir(f"{source}/app")]
statement = {
    "_type": "https://in-toto.io/Statement/v0.1",
    "predicateType": "https://spdx.dev/Document",
    "predicate": {"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "packages": packages},
}
open(f"{target}/sbom.spdx.json", "w").write(json.dumps(statement))
"""


def lacking() -> str:
    """What is missing, in one line; empty if nothing is."""
    if lacks := missing_tools(["dockerd", Docker.client, "mmdebstrap", *TOOLS]):
        return f"not on PATH: {', '.join(lacks)}"
    if subprocess.run([Docker.client, "buildx", "version"], capture_output=True).returncode:
        return "docker has no plugin buildx"
    if not any(map(shutil.which, REGISTRIES)):
        return f"none of {', '.join(REGISTRIES)} is on PATH"
    return ""


pytestmark = pytest.mark.skipif(bool(lacking()), reason=lacking())


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path]:
    """The root file systems of the build image's and each platform's base image's stand-ins."""
    return {
        "build": build_root(tmp_path),
        **{each: base_root(tmp_path, each) for each in PLATFORMS},
    }


@pytest.fixture
def registry(roots: dict[str, Path], tmp_path: Path) -> Iterator[str]:
    """Run an empty registry in a separate network; yields its address."""
    address = f"{HOST}:{free_port()}"
    program = next(filter(None, map(shutil.which, REGISTRIES)))
    config = tmp_path / "registry.json"
    store = {"filesystem": {"rootdirectory": str(tmp_path / "registry")}}
    config.write_text(json.dumps({"version": 0.1, "storage": store, "http": {"addr": address}}))
    log = tmp_path / "registry.log"
    with (
        machine(tmp_path / "machine") as own,
        own.network(),
        running([program, "serve", config], log) as process,
    ):
        until(lambda: "listening on" in log.read_text(), "the registry listens", process.check)
        yield address


def base_images(docker: Docker, registry: str, roots: dict[str, Path]) -> list[str]:
    """Push the stand-ins, and return the options that name them."""
    base, build = f"{registry}/base", f"{registry}/build"
    docker("import", roots["build"], build)
    for each in PLATFORMS:
        docker("import", f"--platform=linux/{each}", roots[each], f"{base}:{each}")
    command = json.dumps(["/usr/bin/python3", "-c", SCAN])
    docker("import", f"--change=ENTRYPOINT {command}", roots[NATIVE], SCANNER)
    for name in (build, *(f"{base}:{each}" for each in PLATFORMS)):
        docker("push", name)
    docker("buildx", "imagetools", "create", "--tag", base, *(f"{base}:{p}" for p in PLATFORMS))
    return [f"--build-arg=BASE_IMAGE={base}", f"--build-arg=BUILD_IMAGE={build}"]


def test_buildx_pushes_both_platforms_with_sbom_and_provenance(
    registry: str, roots: dict[str, Path]
) -> None:
    image = f"{registry}/instaslice:{__version__}"
    with Docker.running(containerd=True) as docker:
        options = base_images(docker, registry, roots)
        docker.make("docker-buildx", f"IMG={image}", *options)

        def read(field: str) -> dict[str, Any]:
            template = f"--format={{{{json .{field}}}}}"
            return json.loads(docker("buildx", "imagetools", "inspect", template, image))  # type: ignore[no-any-return]

        index, configs, sboms, provenances = map(read, ("Manifest", "Image", "SBOM", "Provenance"))
    names = {f"linux/{each}" for each in PLATFORMS}
    platforms = [
        "/".join(each["platform"][key] for key in ("os", "architecture"))
        for each in index["manifests"]
    ]
    assert sorted(platforms) == sorted([*names, *["unknown/unknown"] * len(names)])
    assert {*configs} == {*sboms} == {*provenances} == names
    for name in names:
        assert configs[name]["config"]["User"] == "65532:65532"
        packages = {each["name"] for each in sboms[name]["SPDX"]["packages"]}
        assert {"gunicorn", "instaslice", "prometheus_client"} <= packages
        materials = provenances[name]["SLSA"]["materials"]
        used = {each["uri"].rpartition("/")[2]: each["digest"]["sha256"] for each in materials}
        # The build image runs on this machine's platform, and the base image is the target's.
        platforms_used = {"base": name, "build": f"linux/{NATIVE}"}
        assert used.keys() == {
            "buildkit-syft-scanner@stable-1",
            *(f"{each}@latest?platform={quote(p, safe='')}" for each, p in platforms_used.items()),
        }
        assert all(used.values())
