"""What the commands share: mistakes of who types, optional packages, clusters, profiles, YAML."""

import argparse
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from instaslice import profiles
from instaslice.resources import Resources, of_profile, read_mapping
from instaslice.templates import DeviceClaim, claim_of, from_template

if TYPE_CHECKING:
    from instaslice.cli.kube import Client

#: Help for arguments that name what is asked for.
NAMES: Final = (
    "a MIG profile, such as 1g.5gb or 1g.10gb+me, a resource that is mapped, or a template's name "
    "(default: all profiles that are known, and what is mapped)"
)


class UsageError(Exception):
    """What was typed cannot be done; `str()` of it says why, in one line."""


@contextmanager
def needing(what: str) -> Iterator[None]:
    """Imports that only the extra `cli` brings. Raises UsageError where one is not installed.

    what: who needs which package, "rewrite needs PyYAML".
    """
    try:
        yield
    except ImportError:
        raise UsageError(f"{what}: pip install '.[cli]' in its source") from None


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which cluster to ask."""
    parser.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="how to reach the cluster (default: $KUBECONFIG, ~/.kube/config, or the pod's "
        "service account)",
    )
    parser.add_argument(
        "--context", metavar="NAME", help="of the kubeconfig (default: its current-context)"
    )


def client(arguments: argparse.Namespace, who: str) -> "Client":
    """The cluster of `add_cluster_options`; nothing is sent yet. Raises UsageError.

    who: which command needs it, for who lacks the extra.
    """
    with needing(f"{who} needs the kubernetes client"):
        from instaslice.cli.kube import Client, KubeconfigError

    try:
        return Client(arguments.kubeconfig, arguments.context)
    except KubeconfigError as error:
        raise UsageError(f"kubeconfig: {error}") from None


def add_command(
    commands: Any, name: str, summary: str, about: str, examples: Sequence[str], more: str = ""
) -> argparse.ArgumentParser:
    """Add a command, and return its parser.

    examples: as they are typed, without the program's name. more: what the help ends with.
    """
    lines = "\n".join(f"  instaslice {example}" for example in examples)
    epilog = f"examples:\n{lines}" + (f"\n\n{more}" if more else "")
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=about, epilog=epilog, formatter_class=Wrapped
    )
    return parser


class Wrapped(argparse.HelpFormatter):
    """Wraps paragraphs, and leaves lines that begin with a blank, and what heads them, alone."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = [
            part if "\n  " in part else textwrap.fill(" ".join(part.split()), width)
            for part in text.strip().split("\n\n")
        ]
        return textwrap.indent("\n\n".join(paragraphs), indent)


def add_resource_options(parser: argparse.ArgumentParser) -> None:
    """Add the names of what is asked for, and the mapping of what is not a MIG slice."""
    parser.add_argument("names", nargs="*", metavar="NAME", help=NAMES)
    add_mapping(parser)


def add_mapping(parser: argparse.ArgumentParser) -> None:
    """Add the option that maps resources, as `serve` has it."""
    parser.add_argument(
        "--resource",
        action="append",
        default=[],
        metavar="NAME=DEVICECLASS",
        help="a resource that serve maps, beside MIG slices; may be repeated",
    )


def mapping(arguments: argparse.Namespace) -> Resources:
    """The resources of `add_mapping`. Raises UsageError."""
    try:
        return read_mapping(arguments.resource)
    except ValueError as error:
        raise UsageError(f"--resource: {error}") from None


def named_claims(arguments: argparse.Namespace, count: int = 1) -> list[DeviceClaim]:
    """Claims of what `add_resource_options` has named; of all that is known where nothing is.

    count: devices of each; a template's name says by itself how many it asks for.
    Raises UsageError.
    """
    resources = mapping(arguments)
    known = [of_profile(profile) for profile in profiles.known_profiles()]
    every = [*known, *resources.mapped.values()]
    if not arguments.names:
        return [claim_of(resource, count) for resource in every]
    return [_named(name, resources, count) for name in arguments.names]


def _named(name: str, resources: Resources, count: int) -> DeviceClaim:
    bare = name.removeprefix("nvidia.com/").removeprefix("mig-")
    profile = profiles.from_attribute(bare) or profiles.from_template("mig-" + bare)
    resource = of_profile(profile) if profile else resources.find(name)
    if resource:
        return claim_of(resource, count)
    claim = from_template(name, resources)
    if claim is None:
        mapped = f"; {' and '.join(resources.mapped)} may be named too" if resources.mapped else ""
        raise UsageError(f"{name!r} is not a MIG profile, such as 1g.5gb or 1g.10gb+me{mapped}")
    if count > 1:
        raise UsageError(f"{name!r} says by itself how many it asks for: --count is too much")
    return claim


def print_yaml(manifests: Sequence[dict[str, Any]], command: str) -> None:
    """Print manifests as a stream of YAML documents, and the command that made them."""
    with needing("this needs PyYAML"):
        import yaml

    class Plain(yaml.SafeDumper):
        """Writes an object out again rather than refer to it by an alias."""

        def ignore_aliases(self, data: object) -> bool:
            return True

    def block(dumper: Any, text: str) -> Any:
        """Text of several lines as it is, in a literal block."""
        style = "|" if "\n" in text else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Plain.add_representer(str, block)
    print(f"# Made by: instaslice {command}\n---")
    yaml.dump_all(manifests, sys.stdout, Dumper=Plain, sort_keys=False, width=100)


def wants_colour(stream: TextIO) -> bool:
    """Whether to colour: on a terminal, unless the user is known not to want it (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain
