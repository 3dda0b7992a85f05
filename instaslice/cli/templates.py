"""`instaslice templates`: the ResourceClaimTemplates that rewritten pods use."""

import argparse
import sys
from typing import Any

from instaslice.cli.usage import (
    PROFILES,
    UsageError,
    add_cluster_options,
    client,
    named_profiles,
    print_yaml,
)
from instaslice.resource_api import NEWEST, VERSIONS
from instaslice.resources import of_profile
from instaslice.templates import claim_of, objects


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "templates",
        help="print or apply the ResourceClaimTemplates that rewritten pods use",
        description="Print the manifests of the templates, or apply them to namespaces. "
        "With serve --provision-templates they are made as they are needed.",
    )
    parser.add_argument("profiles", nargs="*", metavar="PROFILE", help=PROFILES)
    parser.add_argument(
        "--resource-api",
        choices=VERSIONS,
        metavar="VERSION",
        help=f"{', '.join(VERSIONS)} (default: {NEWEST.version}; with --apply, the cluster's)",
    )
    parser.add_argument("--apply", action="store_true", help="apply them, and do not print them")
    parser.add_argument(
        "--namespace",
        "-n",
        action="append",
        metavar="NS",
        help="where; may be repeated (default: the context's)",
    )
    parser.add_argument("--all-namespaces", "-A", action="store_true", help="in every namespace")
    add_cluster_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the templates, or apply them."""
    chosen = [claim_of(of_profile(profile)) for profile in named_profiles(arguments.profiles)]
    version = arguments.resource_api
    if not arguments.apply:
        api = VERSIONS[version or NEWEST.version]
        manifests = [manifest for claim in chosen for manifest in objects(api, claim)]
        command = ["templates", "--resource-api", api.version, *arguments.profiles]
        print_yaml(manifests, " ".join(command))
        return 0
    if arguments.namespace and arguments.all_namespaces:
        raise UsageError("--namespace and --all-namespaces exclude one another")
    cluster = client(arguments, "--apply")
    from instaslice.cli.kube import ApplyError

    try:
        api = VERSIONS[version] if version else cluster.version()
        namespaces = arguments.namespace or [cluster.namespace]
        if arguments.all_namespaces:
            namespaces = cluster.namespaces()
        for namespace in namespaces:
            for claim in chosen:
                for manifest in objects(api, claim, namespace):
                    print(cluster.apply(manifest))
    except ApplyError as error:
        print(f"instaslice: {error}", file=sys.stderr)
        return 1
    return 0
