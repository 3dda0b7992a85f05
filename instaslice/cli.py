"""The command line: `instaslice serve`, and what helps around it.

Whatever is wrong with what was typed is one line on standard error and exit code 2.
"""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from instaslice import __version__
from instaslice.resource_api import VERSIONS

ABOUT: Final = """\
InstaSlice lets pods that ask for MIG slices as extended resources (nvidia.com/mig-1g.5gb: 1)
have them through Kubernetes' Dynamic Resource Allocation, without a change to any pod spec.
"""


class UsageError(Exception):
    """What was typed cannot be done; `str()` of it says why, in one line."""


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise ValueError("is not HOST:PORT")
    return host.removeprefix("[").removesuffix("]") or "0.0.0.0", int(port)  # noqa: S104


def _folder(text: str) -> Path:
    if not text:
        raise ValueError("is not the name of a folder")
    return Path(text)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 0 < int(text[:4]) <= 512:
        raise ValueError("is not a number from 1 to 512")
    return int(text)


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"is not one of {', '.join(words)}")
        return text

    return parse


class Option(NamedTuple):
    """A setting of `serve`: a flag, and an environment variable for who has no command line."""

    flag: str
    default: str | None  #: as it would be typed; None where it must be given
    parse: Callable[[str], Any]  #: raises ValueError, "is not ..."
    metavar: str
    help: str

    @property
    def variable(self) -> str:
        return "INSTASLICE_" + self.flag.removeprefix("--").replace("-", "_").upper()

    @property
    def key(self) -> str:
        return self.flag.removeprefix("--").replace("-", "_")


SERVE: Final = (
    Option("--bind", "0.0.0.0:8443", _address, "HOST:PORT", "where to listen"),
    Option(
        "--cert-dir",
        None,
        _folder,
        "DIR",
        "holds tls.crt and tls.key, PEM, as cert-manager's Secret mounts them; "
        "a new pair is taken up without a restart",
    ),
    Option(
        "--resource-api",
        "v1",
        _one_of(*VERSIONS),
        "VERSION",
        f"the version of resource.k8s.io that the cluster serves: {', '.join(VERSIONS)}",
    ),
    Option("--log-format", "json", _one_of("json", "text"), "FORMAT", "json, or text for people"),
    Option("--workers", "1", _number, "N", "processes; one serves thousands of pods a second"),
    Option("--threads", "4", _number, "N", "admissions that one worker works on at once"),
)


def _settings(arguments: argparse.Namespace, environment: Mapping[str, str]) -> dict[str, Any]:
    """The values of SERVE's options, from the command line or else the environment."""
    values = {}
    for option in SERVE:
        typed, origin = getattr(arguments, option.key), option.flag
        if typed is None and environment.get(option.variable):
            typed, origin = environment[option.variable], option.variable
        if typed is None:
            typed = option.default
        if typed is None:
            raise UsageError(f"{option.flag} (or {option.variable}) is missing")
        try:
            values[option.key] = option.parse(typed)
        except ValueError as error:
            raise UsageError(f"{origin}: {typed!r} {error}") from None
    return values


def _serve(arguments: argparse.Namespace) -> int:
    from instaslice import server  # gunicorn is for serving only

    values = _settings(arguments, os.environ)
    host, port = values.pop("bind")
    try:
        server.serve(server.Settings(host=host, port=port, **values))
    except server.StartError as error:
        raise UsageError(str(error)) from None
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="instaslice", description=ABOUT)
    parser.add_argument("--version", action="version", version=f"instaslice {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    serve = commands.add_parser(
        "serve",
        help="serve the admission webhook over TLS",
        description="Serve the admission webhook over TLS: POST /mutate, and GET /healthz, "
        "/readyz and /metrics. Each option can be given as an environment variable instead.",
    )
    for option in SERVE:
        default = "required" if option.default is None else f"default {option.default}"
        serve.add_argument(
            option.flag,
            metavar=option.metavar,
            help=f"{option.help} ({default}; {option.variable})",
        )
    serve.set_defaults(run=_serve)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except UsageError as error:
        print(f"instaslice: {error}", file=sys.stderr)
        return 2
