"""`instaslice rewrite`: manifests in files, rewritten as the webhook rewrites pods."""

import argparse
import os
import sys
from typing import Any

from instaslice.cli.usage import UsageError, needing, wants_colour
from instaslice.resource_api import NEWEST, VERSIONS


def add(commands: Any) -> None:
    """Add the command's parser."""
    parser = commands.add_parser(
        "rewrite",
        help="rewrite manifests as the webhook rewrites pods",
        description="Rewrite the pods and pod templates in files of YAML or JSON, and print the "
        "result. Comments, order and quotes stay, and what does not change stays to the byte.",
        epilog="Exit code: 0; 1 if --check finds something to change; 2 if a file or a document "
        "could not be handled: it is left out of what is printed, and its file is not written.",
    )
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help="a file, or - for standard input (the default)"
    )
    parser.add_argument(
        "--output",
        "-o",
        choices=("yaml", "json", "patch"),
        default="yaml",
        help="what to print: yaml; json, a List if there is more than one document; or patch, "
        "RFC 6902, a line for each document (default yaml)",
    )
    parser.add_argument("--diff", action="store_true", help="print what would change")
    parser.add_argument("--in-place", "-i", action="store_true", help="write the files")
    parser.add_argument("--check", action="store_true", help="only say whether anything changes")
    parser.add_argument(
        "--resource-api",
        choices=VERSIONS,
        default=NEWEST.version,
        metavar="VERSION",
        help=f"the version of resource.k8s.io that the cluster serves: {', '.join(VERSIONS)} "
        f"(default {NEWEST.version})",
    )
    parser.add_argument(
        "--with-templates",
        action="store_true",
        help="append the ResourceClaimTemplates that the result needs and no file defines",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Rewrite the files."""
    with needing("rewrite needs ruamel.yaml"):
        from instaslice.manifests import files

    names = arguments.files or [files.STANDARD_INPUT]
    if arguments.in_place and files.STANDARD_INPUT in names:
        raise UsageError("--in-place needs the names of files, and not standard input")
    if arguments.in_place and arguments.check:
        raise UsageError("--in-place and --check exclude one another")
    options = files.Options(
        api=VERSIONS[arguments.resource_api],
        output=arguments.output,
        diff=arguments.diff,
        check=arguments.check,
        in_place=arguments.in_place,
        with_templates=arguments.with_templates,
        colour=wants_colour(sys.stdout),
    )
    try:
        code = files.run(names, options, sys.stdout, sys.stderr)
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return files.FINE
    return code
