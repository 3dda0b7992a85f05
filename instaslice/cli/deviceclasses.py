"""`instaslice deviceclasses`: a device class for each MIG profile, and what else refers to them."""

import argparse
from typing import Final

from instaslice.cli.usage import Command, UsageError, add_shared, named_claims, print_yaml
from instaslice.patch import Json
from instaslice.resource_api import NEWEST, VERSIONS
from instaslice.resources import Resource
from instaslice.templates import DeviceClaim, device_class

#: Mappings that Kueue takes, and classes in one (kueue, pkg/config/validation.go,
#: `validateDeviceClassMappings`).
MAX_MAPPINGS: Final = 16
MAX_CLASSES: Final = 8

COMMAND: Final = Command(
    "deviceclasses",
    "print the device classes by which slices of each profile are asked for",
    "Print a DeviceClass for each MIG profile. Rewritten pods ask through it, "
    "quotas count by it, and on resource.k8s.io/v1 its extendedResourceName lets the scheduler "
    "of Kubernetes 1.36 and later serve pods that are not rewritten.",
    ("deviceclasses 1g.5gb | kubectl apply -f -", "deviceclasses --kueue 1g.5gb 3g.20gb"),
)


def add(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_shared(parser, "names", "--resource")
    add_shared(
        parser,
        "--resource-api",
        choices=[name for name, api in VERSIONS.items() if not api.is_classic],
        default=NEWEST.version,
        help=f"any but v1alpha2, which has no device classes (default: {NEWEST.version})",
    )
    parser.add_argument(
        "--kueue",
        action="store_true",
        help="print Kueue's deviceClassMappings instead, for its configuration "
        "(ConfigMap kueue-manager-config): one for each of up to 16 resources, beyond that one for "
        "each 8 profiles",
    )
    parser.add_argument(
        "--or-bigger",
        action="store_true",
        help="print classes that also select bigger slices, for pods that are served without "
        "InstaSlice: the scheduler takes any of them, in no order",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the classes."""
    chosen = [_resource(claim) for claim in named_claims(arguments)]
    resources = ["--resource", *arguments.resource]
    if arguments.kueue:
        if arguments.or_bigger:
            raise UsageError("--kueue and --or-bigger do not go together")
        made = _kueue(chosen)
        print_yaml([made], "deviceclasses", resources, "--kueue", *arguments.names)
        return 0
    if arguments.or_bigger and not arguments.names:
        raise UsageError("--or-bigger needs the profiles that pods ask for, such as 1g.5gb")
    api = VERSIONS[arguments.resource_api]
    options = (
        "--or-bigger" if arguments.or_bigger else "",
        "" if api is NEWEST else f"--resource-api {api.version}",
    )
    # The classes of mapped resources are the administrator's.
    slices = [each for each in chosen if each.profile]
    classes = [device_class(api, each, or_bigger=arguments.or_bigger) for each in slices]
    print_yaml(classes, "deviceclasses", resources, *options, *arguments.names)
    return 0


def _resource(claim: DeviceClaim) -> Resource:
    request, *others = claim.requests
    if others or len(request.choices) > 1 or request.count > 1:
        raise UsageError(f"{claim.template!r} is not a MIG profile, such as 1g.5gb or 1g.10gb+me")
    return request.resource


def _kueue(resources: list[Resource]) -> Json:
    """The part of Kueue's configuration that says which quota a device class counts for.

    More profiles than Kueue has mappings for share some: a queue then counts slices from the
    smallest of a mapping to its largest together. Raises UsageError where even these are too many.
    Source: kueue.sigs.k8s.io, "Set Up Dynamic Resource Allocation"; KEP-2941.
    """
    groups = [[each] for each in resources]
    if len(groups) > MAX_MAPPINGS:
        slices = [each for each in resources if each.profile]
        groups = [[each] for each in resources if not each.profile]
        groups += [slices[i : i + MAX_CLASSES] for i in range(0, len(slices), MAX_CLASSES)]
    if len(groups) > MAX_MAPPINGS:
        text = f"Kueue takes at most {MAX_MAPPINGS} mappings, and these would be {len(groups)}"
        raise UsageError(f"--kueue: {text}: name the profiles that your nodes have")
    mappings = [
        {"name": _counted_as(group), "deviceClassNames": [each.device_class for each in group]}
        for group in groups
    ]
    return {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "resources": {"deviceClassMappings": mappings},
    }


def _counted_as(group: list[Resource]) -> str:
    """The name that quotas have for a mapping: instaslice.io/mig-1g.5gb_to_1g.12gb."""
    first, last = group[0], group[-1]
    if first is last:
        return first.name
    return f"instaslice.io/{first.template}_to_{last.template.removeprefix('mig-')}"
