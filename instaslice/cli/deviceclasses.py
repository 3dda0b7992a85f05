"""`instaslice deviceclasses`: DeviceClasses by which the scheduler serves extended resources."""

import argparse
from typing import Any

from instaslice.cli.usage import PROFILES, named_profiles, print_yaml
from instaslice.resource_api import NEWEST
from instaslice.resources import of_profile
from instaslice.templates import device_class


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "deviceclasses",
        help="print DeviceClasses by which the scheduler does without InstaSlice (1.36 and later)",
        description="Print a DeviceClass for each profile, with its extendedResourceName.",
    )
    parser.add_argument("profiles", nargs="*", metavar="PROFILE", help=PROFILES)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the classes."""
    chosen = named_profiles(arguments.profiles)
    manifests = [device_class(NEWEST, of_profile(profile)) for profile in chosen]
    print_yaml(manifests, " ".join(["deviceclasses", *arguments.profiles]))
    return 0
