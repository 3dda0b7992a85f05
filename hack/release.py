"""`make release IMG=...`: write a whole release into dist/. It publishes nothing.

It refuses a tree with changes, and one whose version, CHANGELOG, chart and lock files disagree.
Its files have the commit's time, so two runs give the same bytes (SOURCE_DATE_EPOCH,
reproducible-builds.org). It needs git, kubectl and buildah on PATH, and a package index.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from packaging.requirements import Requirement

from hack.lock import LOCKS, ROOT, requirements
from instaslice import __version__

DIST = ROOT / "dist"
NAME = f"instaslice-{__version__}"
PLATFORMS = ("amd64", "arm64")
CHART = ROOT / "charts" / "instaslice"

#: Name, content, and whether it is a program.
Member = tuple[str, bytes, bool]


class Refused(Exception):
    """The reason for which nothing was released, in one line."""


def run(*command: str | Path, **environment: str) -> str:
    """Run a command, which must succeed; returns its standard output. Raises Refused."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise Refused(f"{shlex.join(map(str, command[:3]))} ... ended with {done.returncode}")
    return done.stdout.strip()


def disagreements() -> Iterator[str]:
    """The reasons against a release of this tree, one line each."""
    if changed := run("git", "status", "--porcelain"):
        yield f"the tree has changes: {changed.splitlines()[0].strip()}"
    newest = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    if not newest or not re.fullmatch(rf"{__version__} \(\d{{4}}-\d\d-\d\d\)", newest[1]):
        yield f"CHANGELOG.md begins with {newest and newest[1]!r}, not '{__version__} (YYYY-MM-DD)'"
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    for key in ("version", "appVersion"):
        if chart[key] != __version__:
            yield f"Chart.yaml: {key} is {chart[key]}, not {__version__}"
    for name, (extra, _) in LOCKS.items():
        pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / name).read_text(), re.MULTILINE))
        for line in requirements(extra):
            wanted = Requirement(line)
            if pins.get(wanted.name.lower().replace("_", "-"), "0") not in wanted.specifier:
                yield f"{name} does not satisfy {line} of setup.cfg: run `make lock`"


def archive(target: Path, members: Iterable[Member], epoch: int) -> None:
    """Write a tar file that depends only on its members, compressed if its name ends in gz."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content, executable in sorted(members):
            info = tarfile.TarInfo(name)
            info.size, info.mtime, info.mode = len(content), epoch, 0o755 if executable else 0o644
            tar.addfile(info, io.BytesIO(content))
    data = raw.getvalue()
    compressed = target.suffix in (".gz", ".tgz")
    target.write_bytes(gzip.compress(data, mtime=epoch) if compressed else data)


def unpacked(path: Path) -> Iterator[Member]:
    """The files of a tar file."""
    with tarfile.open(path) as tar:
        for info in tar:
            if info.isfile() and (file := tar.extractfile(info)):
                yield info.name, file.read(), bool(info.mode & 0o100)


def python_packages(epoch: int) -> None:
    """Write the wheel and the sdist."""
    run(sys.executable, "-m", "build", "--outdir", DIST, SOURCE_DATE_EPOCH=str(epoch))
    sdist = DIST / f"{NAME}.tar.gz"
    archive(sdist, list(unpacked(sdist)), epoch)


def chart_metadata(project: str) -> str:
    """Chart.yaml with the members that depend on the project's address: home, sources and icon."""
    text = (CHART / "Chart.yaml").read_text()
    if not project:
        return text
    icon = f"{project}/raw/v{__version__}/docs/icon.svg"
    return f"{text}home: {project}\nsources: [{project}]\nicon: {icon}\n"


def chart(epoch: int, project: str) -> None:
    """Write the chart, as `helm package` lays it out."""
    members = []
    for name in run("git", "ls-files", CHART).splitlines():
        path = ROOT / name
        is_metadata = path == CHART / "Chart.yaml"
        content = chart_metadata(project).encode() if is_metadata else path.read_bytes()
        members.append((f"instaslice/{path.relative_to(CHART)}", content, False))
    archive(DIST / f"{NAME}.tgz", members, epoch)


def manifests(image: str, project: str) -> None:
    """Write install.yaml and install-opt-in.yaml, as `make build-installer` does."""
    # The last one written is install.yaml.
    for name, components in (
        ("install-opt-in", "cert-manager opt-in"),
        ("install", "cert-manager"),
    ):
        run("hack/deploy.sh", "build", IMG=image, COMPONENTS=components, PROJECT_URL=project)
        (DIST / "install.yaml").rename(DIST / f"{name}.yaml")
    for path in (DIST / "kustomize").iterdir():
        path.unlink()
    (DIST / "kustomize").rmdir()


def images(epoch: int, revision: str, project: str) -> None:
    """Write an OCI archive for each platform, with buildah."""
    buildah = shlex.split(os.environ.get("BUILDAH", "buildah"))
    options = shlex.split(os.environ.get("BUILD_OPTIONS", ""))
    labels = {"VERSION": __version__, "REVISION": revision, "SOURCE": project}
    arguments = [f"--build-arg={name}={value}" for name, value in labels.items()]
    for platform in PLATFORMS:
        tag = f"{NAME}-{platform}"
        run(
            *(*buildah, "build", "--quiet", "--timestamp", str(epoch), *arguments, *options),
            *("--platform", f"linux/{platform}", "--tag", tag, "--file", "Containerfile", "."),
        )
        with tempfile.TemporaryDirectory() as folder:
            written = Path(folder, "image.tar")
            run(*buildah, "push", "--quiet", tag, f"oci-archive:{written}:{__version__}")
            archive(DIST / f"{NAME}-linux-{platform}.oci.tar", list(unpacked(written)), epoch)


def bill_of_materials(epoch: int) -> dict[str, Any]:
    """The packages that the image adds to its base, from requirements.lock (SPDX 2.3, JSON)."""
    text = (ROOT / "requirements.lock").read_text()
    pins = re.findall(r"^([a-z0-9-]+)==(\S+)((?: \\\n.*)+)", text, re.MULTILINE)
    packages = [
        {
            "SPDXID": f"SPDXRef-{name}",
            "name": name,
            "versionInfo": version,
            "downloadLocation": "NOASSERTION",
            "externalRefs": [
                {
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": f"pkg:pypi/{name}@{version}",
                }
            ],
            "comment": f"wheels: {', '.join(re.findall(r'sha256:[0-9a-f]+', digests))}",
        }
        for name, version, digests in [*pins, ("instaslice", __version__, "")]
    ]
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": NAME,
        "documentNamespace": f"urn:instaslice:{__version__}:{digest}",
        "creationInfo": {"created": moment(epoch), "creators": ["Tool: instaslice-hack-release"]},
        "packages": packages,
        "relationships": [
            {
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": package["SPDXID"],
            }
            for package in packages
        ],
    }


def provenance(revision: str, project: str) -> dict[str, Any]:
    """The sources of the artifacts (in-toto Statement v1, SLSA provenance v1)."""
    containerfile = (ROOT / "Containerfile").read_text()
    defaults = re.findall(r"^ARG ((?:BUILD|BASE)_IMAGE)=(\S+)", containerfile, re.MULTILINE)
    chosen = re.findall(r"((?:BUILD|BASE)_IMAGE)=(\S+)", os.environ.get("BUILD_OPTIONS", ""))
    bases = {**dict(defaults), **dict(chosen)}.values()
    source = {"uri": f"git+{project}" if project else "git", "digest": {"gitCommit": revision}}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": path.name, "digest": {"sha256": sha256(path)}} for path in artifacts()
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:instaslice:make-release",
                "externalParameters": {"version": __version__},
                "resolvedDependencies": [source, *({"uri": base} for base in bases)],
            },
            "runDetails": {"builder": {"id": "urn:instaslice:hack/release.py"}},
        },
    }


def moment(epoch: int) -> str:
    """A time as RFC 3339 has it, in UTC."""
    return run("date", "-u", "-d", f"@{epoch}", "+%Y-%m-%dT%H:%M:%SZ")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def artifacts() -> list[Path]:
    """The files in dist/, sorted by name."""
    return sorted(path for path in DIST.iterdir() if path.is_file())


def write_json(name: str, value: object) -> None:
    (DIST / name).write_text(json.dumps(value, indent=1) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("image", help="where the image will be; install.yaml names it")
    image = parser.parse_args().image
    project = os.environ.get("PROJECT_URL", "")
    try:
        for problem in disagreements():
            raise Refused(problem)
        revision = run("git", "rev-parse", "HEAD")
        epoch = int(run("git", "log", "-1", "--format=%ct"))
        for path in artifacts() if DIST.exists() else []:
            path.unlink()
        DIST.mkdir(exist_ok=True)
        python_packages(epoch)
        chart(epoch, project)
        manifests(image, project)
        images(epoch, revision, project)
        write_json(f"{NAME}.spdx.json", bill_of_materials(epoch))
        write_json(f"{NAME}.provenance.json", provenance(revision, project))
        sums = "".join(f"{sha256(path)}  {path.name}\n" for path in artifacts())
        (DIST / "SHA256SUMS").write_text(sums)
    except Refused as refusal:
        print(f"make release: {refusal}", file=sys.stderr)
        return 1
    print(sums, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
