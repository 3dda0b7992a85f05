"""The shared parts of the commands: declarations, common arguments, YAML, terminals."""

import argparse
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TextIO

from instaslice.resource_api import VERSIONS
from instaslice.resources import Resources, read_mapping

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
    """A command: its help text, and the functions behind it."""

    name: str
    summary: str
    about: str
    examples: Sequence[str]  #: as they are typed, without the program's name
    exit_codes: str  #: what the help ends with, or empty
    add: Callable[[argparse.ArgumentParser], None]  #: adds its arguments
    run: Callable[[argparse.Namespace], int]  #: returns the exit code


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


def wants_colour(stream: TextIO) -> bool:
    """Whether to colour: on a terminal, unless the user is known not to want it (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


def width() -> int:
    """The columns to wrap at; 0 for an output that is no terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
