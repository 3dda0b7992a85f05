"""`instaslice templates`: the ResourceClaimTemplates that rewritten pods use."""

import argparse
import sys
from collections.abc import Iterable
from typing import Any

from instaslice.cli.usage import (
    UsageError,
    add_cluster_options,
    add_command,
    add_resource_options,
    client,
    named_claims,
    print_yaml,
)
from instaslice.cluster.client import ClusterError
from instaslice.patch import Json
from instaslice.resource_api import NEWEST, VERSIONS, ResourceAPI
from instaslice.templates import DeviceClaim, objects, why_not


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = add_command(
        commands,
        "templates",
        "print or apply the ResourceClaimTemplates that rewritten pods use",
        "Print the manifests of the templates, or apply them to namespaces. "
        "With serve --provision-templates they are made as they are needed.",
        ("templates 1g.5gb 3g.20gb", "templates --apply --namespace ml 1g.5gb"),
        "Exit code: 0; with --apply, 1 if the cluster refused something, 2 if it could not be "
        "asked.",
    )
    add_resource_options(parser)
    parser.add_argument(
        "--count",
        type=int,
        default=1,
        metavar="N",
        help="devices that each template asks for, at most 32 (default: 1)",
    )
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
    chosen = named_claims(arguments, arguments.count)
    version = arguments.resource_api
    if arguments.count < 1:
        raise UsageError(f"--count {arguments.count}: must be at least 1")
    if not arguments.apply:
        given = {
            "--namespace": arguments.namespace,
            "--all-namespaces": arguments.all_namespaces,
            "--kubeconfig": arguments.kubeconfig,
            "--context": arguments.context,
        }
        if idle := next((flag for flag, value in given.items() if value), None):
            raise UsageError(f"{idle} means nothing without --apply")
        api = VERSIONS[version or NEWEST.version]
        print_yaml(list(_manifests(api, chosen)), " ".join(_command(api, arguments)))
        return 0
    if arguments.namespace and arguments.all_namespaces:
        raise UsageError("--namespace and --all-namespaces exclude one another")
    cluster = client(arguments, "--apply")
    from instaslice.cli.kube import Refused

    try:
        api = VERSIONS[version] if version else cluster.version()
        namespaces = arguments.namespace or [cluster.namespace]
        if arguments.all_namespaces:
            namespaces = cluster.namespaces()
        for manifest in _manifests(api, chosen, namespaces):
            print(cluster.apply(manifest))
    except Refused as error:
        print(f"instaslice: {error}", file=sys.stderr)
        return 1
    except ClusterError as error:
        raise UsageError(str(error)) from None
    return 0


def _manifests(
    api: ResourceAPI, claims: Iterable[DeviceClaim], namespaces: Iterable[str | None] = (None,)
) -> Iterable[Json]:
    """Everything that the claims need, each object once. Raises UsageError."""
    made = set()
    claims = list(claims)
    for claim in claims:
        if why := why_not(api, claim):
            raise UsageError(f"{claim.template}: {why}")
    for namespace in namespaces:
        for claim in claims:
            for manifest in objects(api, claim, namespace):
                key = (manifest["kind"], manifest["metadata"]["name"], namespace)
                if manifest["kind"] == "DeviceClass":
                    key = (*key[:2], None)
                if key not in made:
                    made.add(key)
                    yield manifest


def _command(api: ResourceAPI, arguments: argparse.Namespace) -> Iterable[str]:
    """What was typed, but for what is printed."""
    yield from ("templates", "--resource-api", api.version)
    if arguments.count > 1:
        yield f"--count {arguments.count}"
    yield from (f"--resource {each}" for each in arguments.resource)
    yield from arguments.names
