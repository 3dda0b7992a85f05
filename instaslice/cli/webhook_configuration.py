"""`instaslice webhook-configuration`: what makes the API server send pods to InstaSlice."""

import argparse
from typing import Final

from instaslice.cli.usage import Command, add_shared, mapping, print_yaml
from instaslice.webhook_configuration import ALL, MODES, NAMESPACE, webhook_configuration

COMMAND: Final = Command(
    "webhook-configuration",
    "print the MutatingWebhookConfiguration that fits a mode and a mapping",
    "Print the MutatingWebhookConfiguration, without a caBundle, which "
    "cert-manager or the administrator puts in.",
    ("webhook-configuration --mode opt-in > webhook.yaml",),
)


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--mode",
        choices=MODES,
        default=ALL,
        help="which pods are sent: all that InstaSlice can rewrite; those of namespaces labelled "
        "instaslice.io/rewrite=enabled; or what the scheduler of Kubernetes 1.36 cannot do "
        "by itself (default: all)",
    )
    add_shared(parser, "--resource")
    help_ = f"the namespace of InstaSlice's Service (default: {NAMESPACE})"
    add_shared(parser, "--namespace", default=NAMESPACE, help=help_)


def run(arguments: argparse.Namespace) -> int:
    """Print the configuration."""
    mode, namespace = arguments.mode, arguments.namespace
    manifest = webhook_configuration(mode, mapping(arguments).mapped, namespace)
    options = ["--mode", mode, ["--resource", *arguments.resource]]
    if namespace != NAMESPACE:
        options += ["--namespace", namespace]
    print_yaml([manifest], COMMAND.name, *options)
    return 0
