"""`instaslice serve`, as a user types it; what it does then is in test/serve."""

from pathlib import Path

import pytest

from instaslice.serve import settings
from test.support.command import instaslice

SERVE = ("serve", "--resource-api", "v1", "--cert-dir")


@pytest.mark.parametrize("ignored", [(), settings.GUNICORN_VARIABLES])
def test_a_server_that_cannot_start_says_why_in_one_line(
    ignored: tuple[str, ...], tmp_path: Path
) -> None:
    """Whatever gunicorn would read from the environment, too."""
    environment = dict.fromkeys(ignored, "1")
    line = f"instaslice: {tmp_path}/tls.crt: No such file or directory\n"
    done = instaslice(*SERVE, str(tmp_path), "--bind", "127.0.0.1:0", **environment)
    assert done == (2, "", line)


def test_a_setting_that_means_nothing_is_one_line(tmp_path: Path) -> None:
    line = "instaslice: --bind: 'here' is not HOST:PORT\n"
    assert instaslice(*SERVE, str(tmp_path), "--bind", "here") == (2, "", line)
