"""The shared parts of the commands: declarations, common arguments, YAML, terminals."""

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TextIO

from instaslice import profiles
from instaslice.resource_api import VERSIONS
from instaslice.resources import Resources, of_profile, read_mapping
from instaslice.templates import DeviceClaim, claim_of, from_template

if TYPE_CHECKING:
    from instaslice.cli.kube import Client

#: Arguments that several commands have, by how they are typed; each command may change some of it.
SHARED: Final[Mapping[str, Mapping[str, Any]]] = {
    "names": {
        "nargs": "*",
        "metavar": "NAME",
        "help": "a MIG profile, such as 1g.5gb or 1g.10gb+me, a resource that is mapped, or a "
        "template's name (default: all profiles that are known, and what is mapped)",
    },
    "--resource": {
        "action": "append",
        "default": [],
        "metavar": "NAME=DEVICECLASS",
        "help": "a resource that serve maps, beside MIG slices; may be repeated",
    },
    "--resource-api": {"choices": VERSIONS, "metavar": "VERSION"},
    "--namespace": {"metavar": "NS"},
    "--output": {"choices": ("text", "json"), "default": "text"},
    "--kubeconfig": {
        "type": Path,
        "metavar": "FILE",
        "help": "names the cluster (default: $KUBECONFIG, ~/.kube/config, or the pod's "
        "service account)",
    },
    "--context": {"metavar": "NAME", "help": "the kubeconfig's context (default: its current one)"},
}
_SHORT: Final = {"--namespace": ("-n",), "--output": ("-o",)}


class UsageError(Exception):
    """A command that cannot be carried out; `str()` of it says why, in one line."""


class Refused(UsageError):
    """The cluster was asked, and did not take it; `str()` of it says what and why, in one line."""


class Command(NamedTuple):
    """The help text of a command."""

    name: str
    summary: str
    about: str
    examples: Sequence[str]  #: as they are typed, without the program's name
    exit_codes: str = ""  #: what the help ends with


class Wrapped(argparse.HelpFormatter):
    """Wraps paragraphs, and leaves lines that begin with a blank, and what heads them, alone."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = [
            part if "\n  " in part else textwrap.fill(" ".join(part.split()), width)
            for part in text.strip().split("\n\n")
        ]
        return textwrap.indent("\n\n".join(paragraphs), indent)


def add_shared(parser: argparse._ActionsContainer, *names: str, **changes: Any) -> None:
    """Add arguments of `SHARED`. changes: what this command has otherwise."""
    for name in names:
        parser.add_argument(name, *_SHORT.get(name, ()), **{**SHARED[name], **changes})


@contextmanager
def needing(what: str) -> Iterator[None]:
    """Imports that only the extra `cli` brings. Raises UsageError where one is not installed.

    what: who needs which package, "rewrite needs PyYAML".
    """
    try:
        yield
    except ImportError:
        raise UsageError(f"{what}: pip install '.[cli]' in its source") from None


def client(arguments: argparse.Namespace, who: str) -> "Client":
    """The cluster of --kubeconfig and --context; nothing is sent yet. Raises UsageError.

    who: which command needs it, for who lacks the extra.
    """
    with needing(f"{who} needs the kubernetes client"):
        from instaslice.cli.kube import Client
    return Client(arguments.kubeconfig, arguments.context)


def mapping(arguments: argparse.Namespace) -> Resources:
    """The resources of --resource. Raises UsageError."""
    try:
        return read_mapping(arguments.resource)
    except ValueError as error:
        raise UsageError(f"--resource: {error}") from None


def named_claims(arguments: argparse.Namespace, count: int = 1) -> list[DeviceClaim]:
    """Claims of the names that were typed; of all that is known where nothing was.

    count: devices of each; a template's name says by itself how many it asks for.
    Raises UsageError.
    """
    resources = mapping(arguments)
    known = [of_profile(profile) for profile in profiles.known_profiles()]
    if not arguments.names:
        return [claim_of(resource, count) for resource in (*known, *resources.mapped.values())]
    return [_named(name, resources, count) for name in arguments.names]


def _named(name: str, resources: Resources, count: int) -> DeviceClaim:
    profile = profiles.from_name(name)
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


def print_yaml(manifests: Sequence[Any], *command: str | Sequence[str]) -> None:
    """Print manifests as a stream of YAML documents, and the command that made them.

    command: its words; a list is an option and its values, `["--resource", "a=b", "c=d"]`.
    """
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
    words = (
        each if isinstance(each, str) else " ".join(f"{each[0]} {value}" for value in each[1:])
        for each in command
    )
    print(f"# Made by: instaslice {' '.join(filter(None, words))}\n---")
    yaml.dump_all(manifests, sys.stdout, Dumper=Plain, sort_keys=False, width=100)


def wants_colour(stream: TextIO) -> bool:
    """Whether to colour: on a terminal, unless the user is known not to want it (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


def width() -> int:
    """The columns to wrap at; 0 for an output that is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
