"""`make lock`: write requirements.lock, which pins the packages in the image.

pip resolves install_requires of setup.cfg for each platform of the image, with wheels only, and
reports what it would install, without installing it. The lock has the digests of those wheels and
names no index, so it is valid for every index. requirements-cli.lock pins the packages in the image
of the command line, which has the extra `cli`.
"""

import configparser
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent

#: As in the Containerfile: the image's Python, and the machines that it is built for.
PYTHON = "3.13"
MACHINES = ("x86_64", "aarch64")

HEADER = """\
# The packages in the image{}, for linux/amd64 and linux/arm64; written by `make lock`.
"""
#: By lock: the extra of setup.cfg that it includes, and a part of its header.
LOCKS = {
    "requirements.lock": ("", ""),
    "requirements-cli.lock": ("cli", " of the command line"),
}

#: "name==version" to the SHA-256 digests of its wheels.
Pins = dict[str, set[str]]


def requirements(extra: str = "") -> list[str]:
    """install_requires of setup.cfg, and the requirements of an extra."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].splitlines()
    if extra:
        lines += config["options.extras_require"][extra].splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def resolve(wanted: Iterable[str], machine: str) -> Pins:
    """The pins that pip would install on a machine."""
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"),
        *("--only-binary=:all:", "--python-version", PYTHON, "--target", "unused"),
        *("--platform", f"manylinux_2_28_{machine}", "--platform", f"manylinux2014_{machine}"),
        *("--report", "-", *wanted),
    ]
    report = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT).stdout
    return read_report(json.loads(report))


def read_report(report: Mapping[str, list[dict[str, dict[str, object]]]]) -> Pins:
    """The pins in a report of pip (pip's documentation, "Installation Report")."""
    pins: Pins = {}
    for item in report["install"]:
        metadata, info = item["metadata"], item["download_info"]
        archive = info["archive_info"]
        assert isinstance(archive, dict)
        name = re.sub(r"[-_.]+", "-", str(metadata["name"])).lower()  # PEP 503
        pins[f"{name}=={metadata['version']}"] = {archive["hashes"]["sha256"]}
    return pins


def merge(all_pins: Iterable[Pins]) -> Pins:
    """The pins of all platforms together."""
    merged: Pins = {}
    for pins in all_pins:
        for pin, digests in pins.items():
            merged.setdefault(pin, set()).update(digests)
    return merged


def render(pins: Pins, header: str) -> str:
    """The text of a lock."""
    lines = [
        " \\\n    ".join([pin, *(f"--hash=sha256:{digest}" for digest in sorted(digests))])
        for pin, digests in sorted(pins.items())
    ]
    return header + "".join(f"{line}\n" for line in lines)


def main() -> None:
    for name, (extra, what) in LOCKS.items():
        pins = merge(resolve(requirements(extra), machine) for machine in MACHINES)
        (ROOT / name).write_text(render(pins, HEADER.format(what)))


if __name__ == "__main__":
    main()
