"""`instaslice plan`: what a change-over to DRA meets in a cluster, and its steps there and back."""

import argparse
from typing import Any

from instaslice.cli.usage import (
    UsageError,
    add_cluster_options,
    add_mapping,
    client,
    mapping,
)
from instaslice.doctor import plan, plan_report, survey
from instaslice.doctor.snapshot import Unreadable
from instaslice.doctor.steps import steps


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "plan",
        help="plan the change-over from the device plugin to DRA",
        description="Say which workloads ask for which slices, what the nodes offer, what quotas "
        "and other policies become, and print the steps for this cluster, there and back. Only "
        "reads, and creates a few objects as dry runs; nothing need be installed.",
        epilog="Exit code: 0; 2 if the cluster could not be asked.",
    )
    parser.add_argument(
        "--output",
        "-o",
        choices=("text", "json", "markdown"),
        default="text",
        help="how (default: text)",
    )
    add_mapping(parser)
    add_cluster_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read the cluster, and print the plan."""
    resources = mapping(arguments) if arguments.resource else None
    cluster = client(arguments, "plan")
    try:
        made = plan.make(survey.take_for_plan(cluster, cluster.namespace, resources))
    except Unreadable as error:
        raise UsageError(str(error)) from None
    printers = {
        "text": plan_report.as_text,
        "json": plan_report.as_json,
        "markdown": plan_report.as_markdown,
    }
    print(printers[arguments.output](made, steps(made)), end="")
    return 0
