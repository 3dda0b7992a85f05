"""`instaslice doctor`: what a cluster lacks, or what a pod waits for."""

import argparse
import shutil
import sys
from typing import Any

from instaslice.cli.usage import (
    UsageError,
    add_cluster_options,
    add_command,
    add_mapping,
    client,
    mapping,
    wants_colour,
)
from instaslice.doctor import checks, explain, report, survey
from instaslice.doctor.snapshot import Unreadable


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "doctor",
        "say what a cluster lacks, or what a pod waits for",
        "Check a cluster, and say what to do about what is wrong; or explain one pod. Changes "
        "nothing: reads, and creates a few objects as dry runs.",
        ("doctor", "doctor --namespace ml", "doctor POD --namespace ml --output json"),
        "Exit code: 0; 1 if something is wrong; 2 if the cluster could not be asked.",
    )
    parser.add_argument("pod", nargs="?", metavar="POD", help="explain this pod")
    parser.add_argument(
        "--namespace",
        "-n",
        metavar="NS",
        help="of the pod; without one, where to try a dry run (default: the context's)",
    )
    parser.add_argument("--output", "-o", choices=("text", "json"), default="text", help="how")
    add_mapping(parser)
    add_cluster_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Examine the cluster, or explain a pod."""
    resources = mapping(arguments) if arguments.resource else None
    cluster = client(arguments, "doctor")
    namespace = arguments.namespace or cluster.namespace
    try:
        if arguments.pod:
            found = survey.take_for_pod(cluster, namespace, arguments.pod, resources)
            findings = explain.explain(*found)
        else:
            findings = checks.examine(survey.take(cluster, namespace, resources))
    except Unreadable as error:
        raise UsageError(str(error)) from None
    if arguments.output == "json":
        print(report.as_json(findings), end="")
    else:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        print(report.as_text(findings, colour=wants_colour(sys.stdout), width=width), end="")
    return int(checks.is_wrong(findings))
