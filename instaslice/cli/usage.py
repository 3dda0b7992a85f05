"""Parts shared by the commands: declarations, common arguments, imports, terminals."""

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
from instaslice.resources import Resources, is_label, read_mapping

if TYPE_CHECKING:
    from instaslice.cli.kube import Client


def name_of(what: str, is_valid: Callable[[str], bool]) -> Callable[[str], str]:
    """The type of an argument that names an object of Kubernetes. what: "pod"."""

    def read(text: str) -> str:
        if not is_valid(text):
            raise argparse.ArgumentTypeError(f"{text!r} is not the name of a {what}")
        return text

    return read


#: Arguments that several commands have, by name; a command may change their settings.
SHARED: Final[Mapping[str, Mapping[str, Any]]] = {
    "names": {
        "nargs": "*",
        "metavar": "NAME",
        "help": "a MIG profile, such as 1g.5gb or 1g.10gb+me, a mapped resource, or a template's "
        "name (default: all known profiles and all mapped resources)",
    },
    "--resource": {
        "action": "append",
        "default": [],
        "metavar": "NAME=DEVICECLASS",
        "help": "a resource that serve rewrites in addition to MIG slices; may be repeated",
    },
    "--resource-api": {"choices": VERSIONS, "metavar": "VERSION"},
    "--namespace": {"metavar": "NS", "type": name_of("namespace", is_label)},
    "--output": {"choices": ("text", "json"), "default": "text"},
    "--kubeconfig": {
        "type": Path,
        "metavar": "FILE",
        "help": "how to reach the cluster (default: $KUBECONFIG, ~/.kube/config, or the pod's "
        "service account)",
    },
    "--context": {"metavar": "NAME", "help": "the kubeconfig's context (default: its current one)"},
}
_SHORT: Final = {"--namespace": ("-n",), "--output": ("-o",)}


class UsageError(Exception):
    """A command that cannot be carried out; `str()` says why, in one line."""


class Refused(UsageError):
    """The cluster refused a request; `str()` says which and why, in one line."""


class Command(NamedTuple):
    """A command: its help text, and the functions behind it."""

    run: Callable[[argparse.Namespace], int]  #: returns the exit code
    name: str
    summary: str
    examples: Sequence[str]  #: without the program's name
    exit_codes: str  #: the last paragraph of the help; may be empty
    add: Callable[[argparse.ArgumentParser], None]  #: adds its arguments


def command(*fields: Any) -> Callable[[Callable[[argparse.Namespace], int]], Command]:
    """Decorate the function that runs a command; its docstring is the command's description.

    fields: those of Command, without `run`.
    """
    return lambda run: Command(run, *fields)


class Wrapped(argparse.HelpFormatter):
    """Wraps paragraphs, except those that have indented lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = [
            part if "\n  " in part else textwrap.fill(" ".join(part.split()), width)
            for part in text.strip().split("\n\n")
        ]
        return textwrap.indent("\n\n".join(paragraphs), indent)


def add_shared(parser: argparse._ActionsContainer, *names: str, **changes: Any) -> None:
    """Add arguments of `SHARED`. changes: the settings that differ for this command."""
    for name in names:
        parser.add_argument(name, *_SHORT.get(name, ()), **{**SHARED[name], **changes})


@contextmanager
def needing(what: str) -> Iterator[None]:
    """Import packages of the extra `cli` in this context. Raises UsageError if one is missing.

    what: the beginning of the message, "rewrite needs PyYAML".
    """
    try:
        yield
    except ImportError:
        raise UsageError(f"{what}: pip install '.[cli]' in its source") from None


def client(arguments: argparse.Namespace, who: str) -> "Client":
    """The client for --kubeconfig and --context; it sends no request yet. Raises UsageError.

    who: the command or option that needs it, for the message if the extra is missing.
    """
    with needing(f"{who} needs the kubernetes client"):
        from instaslice.cli.kube import Client
    return Client(arguments.kubeconfig, arguments.context)


def mapping(arguments: argparse.Namespace) -> Resources:
    """Read the --resource options. Raises UsageError."""
    try:
        return read_mapping(arguments.resource)
    except ValueError as error:
        raise UsageError(f"--resource: {error}") from None


def wants_colour(stream: TextIO) -> bool:
    """Whether to use colours: on a terminal, unless NO_COLOR is set (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


def width() -> int:
    """The columns to wrap at; 0 if the output is not a terminal."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
