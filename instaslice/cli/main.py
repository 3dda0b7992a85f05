"""The command line: `instaslice serve`, and what helps around it.

Whatever is wrong with what was typed is one line on standard error and exit code 2, and so is an
output that cannot be written. Ctrl-C is 130, and an output that nobody reads 141, as in any shell.
"""

import argparse
import difflib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NoReturn

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
from instaslice.cli.usage import UsageError, Wrapped

ABOUT: Final = """\
InstaSlice lets pods that ask for MIG slices as extended resources (nvidia.com/mig-1g.5gb: 1)
have them through Kubernetes' Dynamic Resource Allocation, without a change to any pod spec.
"""

EPILOG: Final = """\
examples:
  instaslice plan
  instaslice doctor
  instaslice rewrite --diff pod.yaml
  instaslice help rewrite

`kubectl instaslice` is the same command. Names are completed on Tab in a shell that was told so:
eval "$(register-python-argcomplete instaslice)" (bash and zsh; from the extra `cli`).
"""

#: Each has `add(commands)`, which adds its parser, and `run(arguments)`, which returns the exit
#: code.
COMMANDS: Final = (serve, templates, deviceclasses, webhook_configuration, rewrite, doctor, plan)


class _Parser(argparse.ArgumentParser):
    """Says a mistake in one line, and what may have been meant."""

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write help, or the version; argparse passes over what it cannot write."""
        (file or sys.stderr).write(message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            names = [str(each) for each in action.choices]
            hint = meant(str(value), names) or f"; there is {', '.join(names)}"
            raise argparse.ArgumentError(
                action if action.option_strings else None, f"there is no {value!r}{hint}"
            )

    def error(self, message: str) -> NoReturn:
        """Raise UsageError: its line names the help to read."""
        raise UsageError(f"{message} (see {self.prog} --help)")

    def unknown(self, words: Sequence[str]) -> NoReturn:
        """Raise UsageError for what no option and no argument takes."""
        options = [name for action in self._actions for name in action.option_strings]
        word = next((each for each in words if each.startswith("-")), words[0])
        hint = meant(word.partition("=")[0], options) if word.startswith("-") else ""
        self.error(f"{word!r} is not understood{hint}")


def meant(word: str, names: Iterable[str]) -> str:
    """What may have been meant by a word, "; did you mean doctor?"; empty for nothing."""
    close = difflib.get_close_matches(word, list(names), 1)
    return f"; did you mean {close[0]}?" if close else ""


def parser() -> argparse.ArgumentParser:
    """The parser of the whole command line."""
    return _parsers()[0]


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    """The parser of the whole, and those of the commands."""
    whole = _Parser(prog=_called_as(), description=ABOUT, epilog=EPILOG, formatter_class=Wrapped)
    whole.add_argument("--version", action="version", version=f"instaslice {__version__}")
    commands = whole.add_subparsers(metavar="COMMAND", dest="command")
    for command in COMMANDS:
        command.add(commands)
    return whole, commands.choices


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
    whole, commands = _parsers()
    _complete(whole)
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if not words or words[0] == "help":
            return _help(whole, commands, words[1:])
        if words == ["version"]:
            words = ["--version"]
        arguments, rest = whole.parse_known_args(words)
        if rest:
            commands.get(arguments.command, whole).unknown(rest)
        if arguments.command is None:
            return _help(whole, commands, [])
        return int(arguments.run(arguments))
    except UsageError as error:
        print(f"instaslice: {error}", file=sys.stderr)
        return 2


def _help(whole: _Parser, commands: Mapping[str, _Parser], names: Sequence[str]) -> int:
    """Print the help of the whole, or of a command. Raises UsageError."""
    if names and names[0] not in commands:
        hint = meant(names[0], commands)
        whole.error(f"there is no {names[0]!r}{hint}")
    (commands[names[0]] if names else whole).print_help(sys.stdout)
    return 0
