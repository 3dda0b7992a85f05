"""The command line: `instaslice serve`, and what helps around it.

Whatever is wrong with what was typed is one line on standard error and exit code 2, and so is an
output that cannot be written. Ctrl-C is 130, and an output that nobody reads 141, as in any shell.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

from instaslice import __version__
from instaslice.cli import (
    deviceclasses,
    doctor,
    plan,
    rewrite,
    serve,
    templates,
    webhook_configuration,
)
from instaslice.cli.streams import guarded
from instaslice.cli.usage import UsageError

ABOUT: Final = """\
InstaSlice lets pods that ask for MIG slices as extended resources (nvidia.com/mig-1g.5gb: 1)
have them through Kubernetes' Dynamic Resource Allocation, without a change to any pod spec.
"""

EPILOG: Final = """\
`kubectl instaslice` is the same command. Names are completed on Tab in a shell that was told so:
eval "$(register-python-argcomplete instaslice)" (bash and zsh; from the extra `cli`).
"""

#: Each has `add(commands)`, which adds its parser, and `run(arguments)`, which returns the exit
#: code.
COMMANDS: Final = (serve, templates, deviceclasses, webhook_configuration, rewrite, doctor, plan)


class _Parser(argparse.ArgumentParser):
    def _print_message(self, message: str, file: Any = None) -> None:
        """Write help, or the version; argparse passes over what it cannot write."""
        (file or sys.stderr).write(message)


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    whole = _Parser(prog=_called_as(), description=ABOUT, epilog=EPILOG)
    whole.add_argument("--version", action="version", version=f"instaslice {__version__}")
    commands = whole.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return whole


def _called_as() -> str:
    """The command as it was typed: kubectl runs programs that are named kubectl-*."""
    is_plugin = os.path.basename(sys.argv[0]).startswith("kubectl-")
    return "kubectl instaslice" if is_plugin else "instaslice"


def _complete(whole: argparse.ArgumentParser) -> None:
    """Answer a shell that asks what may follow, and exit; do nothing where none asks."""
    if "_ARGCOMPLETE" in os.environ:
        import argcomplete  # only who asks for it has it

        argcomplete.autocomplete(whole)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return guarded(lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    whole = parser()
    _complete(whole)
    arguments = whole.parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except UsageError as error:
        print(f"instaslice: {error}", file=sys.stderr)
        return 2
