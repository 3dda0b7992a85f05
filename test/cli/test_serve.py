"""`instaslice serve`, as a user types it; what it does then is in test/serve."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from instaslice.serve import settings


def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "instaslice", "serve", "--resource-api", "v1", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env=os.environ | environment,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("ignored", [(), settings.GUNICORN_VARIABLES])
def test_a_server_that_cannot_start_says_why_in_one_line(
    ignored: tuple[str, ...], tmp_path: Path
) -> None:
    """Whatever gunicorn would read from the environment, too."""
    environment = dict.fromkeys(ignored, "1")
    line = f"instaslice: {tmp_path}/tls.crt: No such file or directory\n"
    assert run("--cert-dir", str(tmp_path), "--bind", "127.0.0.1:0", **environment) == (2, "", line)


def test_a_setting_that_means_nothing_is_one_line(tmp_path: Path) -> None:
    line = "instaslice: --bind: 'here' is not HOST:PORT\n"
    assert run("--cert-dir", str(tmp_path), "--bind", "here") == (2, "", line)
