"""What the commands share: mistakes of who types, optional packages, clusters, profiles, YAML."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from instaslice import profiles
from instaslice.profiles import Profile

if TYPE_CHECKING:
    from instaslice.cli.kube import Client

#: Help for arguments that name profiles.
PROFILES: Final = "such as 1g.5gb or 1g.10gb+me (default: all that are known)"


class UsageError(Exception):
    """What was typed cannot be done; `str()` of it says why, in one line."""


@contextmanager
def needing(what: str) -> Iterator[None]:
    """Imports that only the extra `cli` brings. Raises UsageError where one is not installed.

    what: who needs which package, "rewrite needs ruamel.yaml".
    """
    try:
        yield
    except ImportError:
        raise UsageError(f"{what}: pip install 'instaslice[cli]'") from None


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
        from instaslice.cli.kube import Client
    from instaslice.cli.contexts import KubeconfigError

    try:
        return Client(arguments.kubeconfig, arguments.context)
    except KubeconfigError as error:
        raise UsageError(f"kubeconfig: {error}") from None


def named_profiles(names: Sequence[str]) -> list[Profile]:
    """Profiles in any of their spellings; all that are known where none is named.

    Raises UsageError.
    """
    found = []
    for name in names:
        bare = name.removeprefix("nvidia.com/").removeprefix("mig-")
        profile = profiles.from_attribute(bare) or profiles.from_template("mig-" + bare)
        if profile is None:
            raise UsageError(f"{name!r} is not a MIG profile, such as 1g.5gb or 1g.10gb+me")
        found.append(profile)
    return found or profiles.known_profiles()


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
