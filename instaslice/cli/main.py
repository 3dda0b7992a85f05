"""The command line: `instaslice serve` and the other commands.

Wrong usage, a cluster that does not answer and an output that cannot be written each print one line
on standard error and end with exit code 2. As in a shell, the exit code is 130 after Ctrl-C, and
141 after the reader of the output has gone.
"""

import argparse
import difflib
import errno
import inspect
import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NoReturn

from instaslice import __version__
from instaslice.cli import doctor, plan, printing, rewrite, serve
from instaslice.cli.usage import Refused, UsageError, Wrapped
from instaslice.cluster.client import ClusterError

ABOUT: Final = """\
InstaSlice lets pods that ask for MIG slices as extended resources (nvidia.com/mig-1g.5gb: 1)
get them through Kubernetes' Dynamic Resource Allocation, without a change to any pod spec.
"""

EPILOG: Final = """\
examples:
  instaslice plan
  instaslice doctor
  instaslice rewrite --diff pod.yaml
  instaslice help rewrite

`kubectl instaslice` is the same command. To complete names on Tab in bash or zsh, run:
eval "$(register-python-argcomplete instaslice)" (from the extra `cli`).
"""

COMMANDS: Final = (
    *(serve.run, printing.templates, printing.deviceclasses, printing.configuration),
    *(rewrite.run, doctor.run, plan.run),
)

#: Exit codes. For a program that a signal ended, a shell reports 128 plus the signal's number.
INTERRUPTED: Final = 128 + 2  # SIGINT
CUT: Final = 128 + 13  # SIGPIPE
FAILED: Final = 2
REFUSED: Final = 1  #: by the cluster


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line, with a suggestion."""

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write help or the version; argparse would ignore write errors."""
        (file or sys.stderr).write(message)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        names = list(action.choices or ())
        if names and value not in names:
            hint = _meant(value, names) or f"; choose from {', '.join(names)}"
            raise argparse.ArgumentError(
                action if action.option_strings else None, f"invalid choice {value!r}{hint}"
            )

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with a line that names the help to read."""
        raise UsageError(f"{message} (see {self.prog} --help)")

    def unknown(self, words: Sequence[str]) -> NoReturn:
        """Raise UsageError for words that are neither options nor arguments."""
        options = [name for action in self._actions for name in action.option_strings]
        word = next((each for each in words if each.startswith("-")), words[0])
        hint = _meant(word.partition("=")[0], options) if word.startswith("-") else ""
        self.error(f"unknown argument {word!r}{hint}")


def _meant(word: str, names: Sequence[str]) -> str:
    """A suggestion for a misspelt word, "; did you mean doctor?"; may be empty."""
    close = difflib.get_close_matches(word, names, 1)
    return f"; did you mean {close[0]}?" if close else ""


def parsers() -> tuple[_Parser, dict[str, _Parser]]:
    """Make the parser of the whole command line, and those of the commands."""
    # kubectl runs programs named kubectl-* as plugins.
    is_plugin = os.path.basename(sys.argv[0]).startswith("kubectl-")
    name = "kubectl instaslice" if is_plugin else "instaslice"
    whole = _Parser(prog=name, description=ABOUT, epilog=EPILOG, formatter_class=Wrapped)
    whole.add_argument("--version", action="version", version=f"instaslice {__version__}")
    commands = whole.add_subparsers(metavar="COMMAND", dest="command")
    for command in COMMANDS:
        examples = "\n".join(f"  instaslice {example}" for example in command.examples)
        parser = commands.add_parser(
            command.name,
            help=command.summary,
            description=inspect.getdoc(command.run),
            epilog=f"examples:\n{examples}\n\n{command.exit_codes}",
            formatter_class=Wrapped,
        )
        parser.set_defaults(run=command.run)
        command.add(parser)
    return whole, commands.choices


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line, and return the exit code."""
    _open_what_is_closed()
    try:
        try:
            return _run(list(sys.argv[1:] if argv is None else argv))
        finally:
            # At its end, the interpreter would report errors in its own words.
            sys.stdout.flush()
            sys.stderr.flush()
    except SystemExit as end:  # help or the version was printed
        return int(end.code or 0)
    except Refused as error:
        return _end(str(error), REFUSED)
    except (UsageError, ClusterError) as error:
        return _end(str(error), FAILED)
    except BrokenPipeError:
        return _end("", CUT)  # as after `| head`: end silently
    except KeyboardInterrupt:
        return _end("interrupted", INTERRUPTED)
    except OSError as error:
        where = error.filename if isinstance(error.filename, str) else "standard output"
        reason = "is closed" if error.errno == errno.EBADF else error.strerror or str(error)
        return _end(f"{where}: {reason}", FAILED)
    except Exception as error:
        if os.environ.get("INSTASLICE_DEBUG"):
            raise
        what = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return _end(f"internal error: {what} (INSTASLICE_DEBUG=1 shows where)", FAILED)


def _run(words: list[str]) -> int:
    whole, commands = parsers()
    if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions
        import argcomplete  # an optional package

        argcomplete.autocomplete(whole)
    while words[:1] in ([], ["help"]):
        words = [*words[1:2], "--help"]
    if words[:1] == ["version"]:
        words = ["--version", *words[1:]]
    arguments, rest = whole.parse_known_args(words, argparse.Namespace(words=words))
    if rest or not arguments.command:
        commands.get(arguments.command, whole).unknown(rest or words)
    return int(arguments.run(arguments))


def _open_what_is_closed() -> None:
    """Reopen standard streams that the shell closed, so that no other file gets their numbers.

    Python sets a closed stream to None; it is replaced by one whose writes fail.
    """
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # it gets the lowest free number
    sys.stdout = sys.stdout or io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8")
    sys.stderr = sys.stderr or io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8")


def _end(line: str, code: int) -> int:
    """Print a line, if possible, discard unwritten output, and return the exit code."""
    with suppress(OSError):
        if line:
            print(f"instaslice: {' '.join(line.splitlines())}", file=sys.stderr, flush=True)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code
