"""`instaslice serve`: the admission webhook."""

import argparse
import os
from typing import Any

from instaslice.cli.usage import UsageError, command
from instaslice.serve import settings


def _add(parser: argparse.ArgumentParser) -> None:
    for option in settings.SERVE:
        default = {None: "required", "": "none"}.get(option.default, f"default {option.default}")
        how: dict[str, Any] = {"nargs": "?", "const": "true"} if option.is_switch else {}
        if option.is_list:
            how = {"action": "append"}
        help_ = f"{option.help} ({default}; {option.variable})"
        parser.add_argument(option.flag, **how, dest=option.key, metavar=option.metavar, help=help_)


@command(
    "serve",
    "serve the admission webhook over TLS",
    ("serve --cert-dir /etc/instaslice/tls --provision-templates",),
    "",
    _add,
)
def run(arguments: argparse.Namespace) -> int:
    """Serve the admission webhook over TLS: POST /mutate, and GET /healthz, /readyz and /metrics.
    Each option can be given as an environment variable instead.
    """
    try:
        chosen = settings.read(vars(arguments), os.environ)
    except settings.SettingsError as error:
        raise UsageError(str(error)) from None
    for name in settings.GUNICORN_VARIABLES:
        os.environ.pop(name, None)
    from instaslice.serve import server  # other commands do not need gunicorn

    try:
        server.serve(chosen)
    except server.StartError as error:
        raise UsageError(str(error)) from None
    return 0
