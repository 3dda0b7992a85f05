"""`instaslice templates`: the ResourceClaimTemplates that rewritten pods use."""

import argparse
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from instaslice.cli.usage import (
    Command,
    UsageError,
    add_shared,
    client,
    named_claims,
    print_yaml,
)
from instaslice.patch import Json
from instaslice.resource_api import NEWEST, VERSIONS, ResourceAPI
from instaslice.templates import DeviceClaim, objects, why_not

COMMAND: Final = Command(
    "templates",
    "print or apply the ResourceClaimTemplates that rewritten pods use",
    "Print the manifests of the templates, or apply them to namespaces. "
    "With serve --provision-templates they are made as they are needed.",
    ("templates 1g.5gb 3g.20gb", "templates --apply --namespace ml 1g.5gb"),
    "Exit code: 0; with --apply, 1 if the cluster refused something, 2 if it could not be asked.",
)
#: Options that need --apply.
_OF_A_CLUSTER: Final = ("namespace", "all_namespaces", "kubeconfig", "context")


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_shared(parser, "names", "--resource")
    help_ = "devices that each template asks for, at most 32 (default: 1)"
    parser.add_argument("--count", type=int, default=1, metavar="N", help=help_)
    known = ", ".join(VERSIONS)
    help_ = f"{known} (default: {NEWEST.version}; with --apply, the cluster's)"
    add_shared(parser, "--resource-api", help=help_)
    parser.add_argument("--apply", action="store_true", help="apply them instead of printing them")
    help_ = "their namespace; may be repeated (default: the context's)"
    add_shared(parser, "--namespace", action="append", help=help_)
    parser.add_argument("--all-namespaces", "-A", action="store_true", help="use every namespace")
    add_shared(parser, "--kubeconfig", "--context")


def run(arguments: argparse.Namespace) -> int:
    """Print the templates, or apply them."""
    claims = named_claims(arguments, arguments.count)
    if arguments.count < 1:
        raise UsageError(f"--count {arguments.count}: must be at least 1")
    api = VERSIONS.get(arguments.resource_api)
    if not arguments.apply:
        for name in _OF_A_CLUSTER:
            if getattr(arguments, name):
                raise UsageError(f"--{name.replace('_', '-')} means nothing without --apply")
        api = api or NEWEST
        count = ["--count", str(arguments.count)] if arguments.count > 1 else ""
        options = ("--resource-api", api.version, count, ["--resource", *arguments.resource])
        print_yaml(list(_manifests(api, claims)), "templates", *options, *arguments.names)
        return 0
    if arguments.namespace and arguments.all_namespaces:
        raise UsageError("--namespace and --all-namespaces exclude one another")
    cluster = client(arguments, "--apply")
    api = api or cluster.version()
    namespaces = arguments.namespace or [cluster.namespace]
    if arguments.all_namespaces:
        namespaces = cluster.namespaces()
    for manifest in _manifests(api, claims, namespaces):
        print(cluster.apply(manifest))
    return 0


def _manifests(
    api: ResourceAPI, claims: Sequence[DeviceClaim], namespaces: Iterable[str | None] = (None,)
) -> Iterator[Json]:
    """Everything that the claims need, each object once. Raises UsageError."""
    for claim in claims:
        if why := why_not(api, claim):
            raise UsageError(f"{claim.template}: {why}")
    made = set()
    for namespace in namespaces:
        for claim in claims:
            for manifest in objects(api, claim, namespace):
                metadata = manifest["metadata"]
                key = (manifest["kind"], metadata["name"], metadata.get("namespace"))
                if key not in made:
                    made.add(key)
                    yield manifest
