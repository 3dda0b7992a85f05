"""The commands that print manifests: templates, device classes, the webhook's configuration."""

import argparse
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from instaslice import profiles
from instaslice.cli.usage import UsageError, add_shared, client, command, mapping, needing
from instaslice.invalid import printable
from instaslice.patch import Json
from instaslice.profiles import Resource
from instaslice.resource_api import NEWEST, VERSIONS, ResourceAPI
from instaslice.resources import Resources
from instaslice.templates import (
    DeviceClaim,
    claim_of,
    device_class,
    from_template,
    objects,
    why_not,
)
from instaslice.webhook_configuration import ALL, MODES, NAMESPACE, webhook_configuration

#: The most mappings that Kueue accepts, and the most classes in one (kueue,
#: pkg/config/validation.go, `validateDeviceClassMappings`).
MAX_MAPPINGS: Final = 16
MAX_CLASSES: Final = 8
#: Options of `templates` that need --apply.
_OF_A_CLUSTER: Final = ("namespace", "all_namespaces", "kubeconfig", "context")


def _add_templates(parser: argparse.ArgumentParser) -> None:
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


@command(
    "templates",
    "print or apply the ResourceClaimTemplates that rewritten pods use",
    ("templates 1g.5gb 3g.20gb", "templates --apply --namespace ml 1g.5gb"),
    "Exit code: 0; with --apply, 1 if the cluster refused an object, 2 if it did not answer.",
    _add_templates,
)
def templates(arguments: argparse.Namespace) -> int:
    """Print the manifests of the templates, or apply them to namespaces. With serve
    --provision-templates, InstaSlice creates them when they are needed.
    """
    claims = _named_claims(arguments, arguments.count)
    if arguments.count < 1:
        raise UsageError(f"--count {arguments.count}: must be at least 1")
    api = VERSIONS.get(arguments.resource_api)
    if not arguments.apply:
        for name in _OF_A_CLUSTER:
            if getattr(arguments, name):
                raise UsageError(f"--{name.replace('_', '-')} needs --apply")
        _print_yaml(_manifests(api or NEWEST, claims), arguments)
        return 0
    if arguments.namespace and arguments.all_namespaces:
        raise UsageError("--namespace and --all-namespaces cannot be used together")
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
    """The objects that the claims need, each once. Raises UsageError."""
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


def _add_deviceclasses(parser: argparse.ArgumentParser) -> None:
    add_shared(parser, "names", "--resource")
    versions = [name for name, api in VERSIONS.items() if not api.is_classic]
    help_ = f"any but v1alpha2, which has no device classes (default: {NEWEST.version})"
    add_shared(parser, "--resource-api", choices=versions, default=NEWEST.version, help=help_)
    help_ = (
        "print Kueue's deviceClassMappings instead, for its configuration (ConfigMap "
        "kueue-manager-config): one for each resource; with more than 16, one for every 8 "
        "profiles"
    )
    parser.add_argument("--kueue", action="store_true", help=help_)
    help_ = (
        "print classes that also select bigger slices, for pods that are served without "
        "InstaSlice: the scheduler takes any of them, in no order"
    )
    parser.add_argument("--or-bigger", action="store_true", help=help_)


@command(
    "deviceclasses",
    "print the device classes that select the slices of each profile",
    ("deviceclasses 1g.5gb | kubectl apply -f -", "deviceclasses --kueue 1g.5gb 3g.20gb"),
    "",
    _add_deviceclasses,
)
def deviceclasses(arguments: argparse.Namespace) -> int:
    """Print a DeviceClass for each MIG profile. Rewritten pods use it, quotas count by it, and on
    resource.k8s.io/v1 its extendedResourceName lets the scheduler of Kubernetes 1.36 and later
    serve pods that are not rewritten.
    """
    chosen = []
    for claim in _named_claims(arguments):
        request, *others = claim.requests
        if others or len(request.choices) > 1 or request.count > 1:
            text = f"{claim.template!r} is not a MIG profile, such as 1g.5gb or 1g.10gb+me"
            raise UsageError(text)
        chosen.append(request.resource)
    or_bigger = arguments.or_bigger
    if arguments.kueue:
        if or_bigger:
            raise UsageError("--kueue and --or-bigger cannot be used together")
        made = [_kueue(chosen)]
    else:
        if or_bigger and not arguments.names:
            raise UsageError("--or-bigger needs the profiles that pods ask for, such as 1g.5gb")
        api = VERSIONS[arguments.resource_api]
        # The administrator creates the classes of mapped resources.
        slices = [each for each in chosen if each.profile]
        made = [device_class(api, each, or_bigger=or_bigger) for each in slices]
    _print_yaml(made, arguments)
    return 0


def _kueue(resources: list[Resource]) -> Json:
    """Make the part of Kueue's configuration that maps device classes to quotas.

    If there are more profiles than Kueue accepts mappings, several profiles share a mapping, and a
    queue counts their slices together. Raises UsageError if even that needs too many mappings.
    Source: kueue.sigs.k8s.io, "Set Up Dynamic Resource Allocation"; KEP-2941.
    """
    groups = [[each] for each in resources]
    if len(groups) > MAX_MAPPINGS:
        slices = [each for each in resources if each.profile]
        groups = [[each] for each in resources if not each.profile]
        groups += [slices[i : i + MAX_CLASSES] for i in range(0, len(slices), MAX_CLASSES)]
    if len(groups) > MAX_MAPPINGS:
        text = f"Kueue accepts at most {MAX_MAPPINGS} mappings, but these need {len(groups)}"
        raise UsageError(f"--kueue: {text}: name only the profiles that your nodes have")
    mappings = []
    for group in groups:
        name = group[0].name
        if len(group) > 1:  # for quotas: instaslice.io/mig-1g.5gb_to_1g.12gb
            last = group[-1].template.removeprefix("mig-")
            name = f"instaslice.io/{group[0].template}_to_{last}"
        classes = [each.device_class for each in group]
        mappings.append({"name": name, "deviceClassNames": classes})
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "resources": {"deviceClassMappings": mappings},
    }


def _add_webhook_configuration(parser: argparse.ArgumentParser) -> None:
    help_ = (
        "which pods are sent: all that InstaSlice can rewrite; those of namespaces labelled "
        "instaslice.io/rewrite=enabled; or those that the scheduler of Kubernetes 1.36 cannot "
        "serve itself (default: all)"
    )
    parser.add_argument("--mode", choices=MODES, default=ALL, help=help_)
    add_shared(parser, "--resource")
    help_ = f"the namespace of InstaSlice's Service (default: {NAMESPACE})"
    add_shared(parser, "--namespace", default=NAMESPACE, help=help_)


@command(
    "webhook-configuration",
    "print the MutatingWebhookConfiguration that fits a mode and a mapping",
    ("webhook-configuration --mode opt-in > webhook.yaml",),
    "",
    _add_webhook_configuration,
)
def configuration(arguments: argparse.Namespace) -> int:
    """Print the MutatingWebhookConfiguration without a caBundle, which cert-manager or the
    administrator adds.
    """
    mapped = mapping(arguments).mapped
    _print_yaml([webhook_configuration(arguments.mode, mapped, arguments.namespace)], arguments)
    return 0


def _named_claims(arguments: argparse.Namespace, count: int = 1) -> list[DeviceClaim]:
    """Make claims for the names on the command line, or for all known resources without names.

    count: devices of each claim; a template's name has its own count.
    Raises UsageError.
    """
    resources = mapping(arguments)
    if not arguments.names:
        every = (*profiles.known_profiles(), *resources.mapped.values())
        return [claim_of(resource, count) for resource in every]
    return [_named(name, resources, count) for name in arguments.names]


def _named(name: str, resources: Resources, count: int) -> DeviceClaim:
    if resource := profiles.from_name(name) or resources.find(name):
        return claim_of(resource, count)
    claim = from_template(name, resources)
    if claim is None:
        mapped = f"; {' and '.join(resources.mapped)} may be named too" if resources.mapped else ""
        raise UsageError(f"{name!r} is not a MIG profile, such as 1g.5gb or 1g.10gb+me{mapped}")
    if count > 1:
        raise UsageError(f"{name!r} is a template, which has a fixed count: omit --count")
    return claim


def _print_yaml(manifests: Iterable[Json], arguments: argparse.Namespace) -> None:
    """Print manifests as a stream of YAML documents, after the command that generates them."""
    with needing("this needs PyYAML"):
        import yaml

    class Plain(yaml.SafeDumper):
        """Writes repeated objects in full, without aliases."""

        def ignore_aliases(self, data: object) -> bool:
            return True

    def block(dumper: Any, text: str) -> Any:
        """Write text of several lines as a literal block."""
        style = "|" if "\n" in text else None
        return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    Plain.add_representer(str, block)
    made = list(manifests)  # an error comes before any output
    print(f"# Made by: instaslice {printable(shlex.join(arguments.words))}\n---")
    yaml.dump_all(made, sys.stdout, Dumper=Plain, sort_keys=False, width=100)
