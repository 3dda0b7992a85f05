"""`instaslice webhook-configuration`: what makes the API server send pods to InstaSlice."""

import argparse
from typing import Any

from instaslice.cli.usage import add_command, add_mapping, mapping, print_yaml
from instaslice.webhook_configuration import ALL, MODES, NAMESPACE, webhook_configuration


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "webhook-configuration",
        "print the MutatingWebhookConfiguration that fits a mode and a mapping",
        "Print the MutatingWebhookConfiguration, without a caBundle, which "
        "cert-manager or the administrator puts in.",
        ("webhook-configuration --mode opt-in > webhook.yaml",),
    )
    parser.add_argument(
        "--mode",
        choices=MODES,
        default=ALL,
        help="which pods are sent: all that InstaSlice can rewrite; those of namespaces labelled "
        "instaslice.io/rewrite=enabled; or what the scheduler of Kubernetes 1.36 cannot do "
        "by itself (default: all)",
    )
    add_mapping(parser)
    parser.add_argument(
        "--namespace",
        "-n",
        metavar="NS",
        default=NAMESPACE,
        help=f"of InstaSlice's Service (default: {NAMESPACE})",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the configuration."""
    names = mapping(arguments).mapped
    manifest = webhook_configuration(arguments.mode, names, arguments.namespace)
    command = ["webhook-configuration", "--mode", arguments.mode]
    for each in arguments.resource:
        command += ["--resource", each]
    if arguments.namespace != NAMESPACE:
        command += ["--namespace", arguments.namespace]
    print_yaml([manifest], " ".join(command))
    return 0
