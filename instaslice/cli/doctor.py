"""`instaslice doctor`: find what is wrong with a cluster, or why a pod is pending."""

import argparse
import sys

from instaslice.cli.usage import add_shared, client, command, mapping, name_of, wants_colour, width
from instaslice.doctor import checks, explain, reading, report
from instaslice.resources import is_subdomain


def _add(parser: argparse.ArgumentParser) -> None:
    pod = name_of("pod", is_subdomain)
    parser.add_argument("pod", nargs="?", type=pod, metavar="POD", help="explain this pod")
    help_ = "the namespace of the pod or of the dry runs (default: the context's)"
    add_shared(parser, "--namespace", help=help_)
    add_shared(parser, "--output", help="the format of the report")
    add_shared(parser, "--resource", "--kubeconfig", "--context")


@command(
    "doctor",
    "find what is wrong with a cluster, or why a pod is pending",
    ("doctor", "doctor --namespace ml", "doctor POD --namespace ml --output json"),
    "Exit code: 0; 1 if something is wrong; 2 if the cluster could not be read.",
    _add,
)
def run(arguments: argparse.Namespace) -> int:
    """Check a cluster, and say how to fix what is wrong; or explain one pod. It changes nothing: it
    reads, and creates a few objects as dry runs.
    """
    resources = mapping(arguments) if arguments.resource else None
    cluster = client(arguments, "doctor")
    namespace = arguments.namespace or cluster.namespace
    if arguments.pod:
        found = reading.take_for_pod(cluster, namespace, arguments.pod, resources)
        findings = explain.explain(*found)
    else:
        findings = checks.examine(reading.take(cluster, namespace, resources))
    if arguments.output == "json":
        print(report.as_json(findings), end="")
    else:
        print(report.as_text(findings, colour=wants_colour(sys.stdout), width=width()), end="")
    return int(report.is_wrong(findings))
