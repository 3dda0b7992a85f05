"""The command line as a separate process, and tools that only some machines have."""

import os
import shutil
import subprocess
import sys
from typing import NamedTuple

import pytest

#: Seconds for a command, which takes a few at most.
PATIENCE = 60


class Done(NamedTuple):
    """The result of a command."""

    code: int
    out: str
    err: str


def instaslice(*arguments: str, stdin: str = "", **environment: str) -> Done:
    """Run `instaslice` with the packages that are installed."""
    return _run("-m", "instaslice", *arguments, stdin=stdin, environment=environment)


def without(package: str, *arguments: str) -> Done:
    """Run it as if a package were not installed."""
    program = (
        f"import sys; sys.modules[{package!r}] = None; from instaslice.cli.main import main; "
        "sys.exit(main(sys.argv[1:]))"
    )
    return _run("-c", program, *arguments, stdin="", environment={})


def _run(*arguments: str, stdin: str, environment: dict[str, str]) -> Done:
    done = subprocess.run(
        [sys.executable, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | environment,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def find_tool(name: str) -> str:
    """The path of a program. If it is not on PATH, skips the test, or fails it in CI."""
    found = shutil.which(name)
    if found is None and os.environ.get("CI") == "true":
        pytest.fail(f"{name} is not on PATH, and CI must not skip this")
    if found is None:
        pytest.skip(f"{name} is not on PATH")
    return found
