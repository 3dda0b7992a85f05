"""`instaslice rewrite`: rewrites manifests in files as the webhook rewrites pods."""

import argparse
import sys
from typing import Final

from instaslice.annotations import NONE, read_alternatives
from instaslice.cli.usage import UsageError, add_shared, command, mapping, needing, wants_colour
from instaslice.resource_api import NEWEST, VERSIONS
from instaslice.resources import Resources

#: Pairs of options that cannot be used together.
_EXCLUSIVE: Final = (
    ("in_place", "check"),
    ("reverse", "with_templates"),
    ("reverse", "templates_to"),
    ("with_templates", "templates_to"),
    ("reverse", "strict"),
)


def _add(parser: argparse.ArgumentParser) -> None:
    help_ = "a file, a folder of YAML and JSON, or - for standard input (the default)"
    parser.add_argument("files", nargs="*", metavar="FILE", help=help_)
    shown = parser.add_argument_group("what to do with the result")
    add_shared(
        shown,
        "--output",
        choices=("yaml", "json", "patch"),
        default="yaml",
        help="what to print: yaml; json, a List if there is more than one document; or patch, "
        "RFC 6902, one line for each document (default yaml)",
    )
    shown.add_argument("--diff", action="store_true", help="print what would change")
    shown.add_argument("--in-place", "-i", action="store_true", help="write the files")
    help_ = "only report whether anything would change"
    shown.add_argument("--check", action="store_true", help=help_)
    help_ = "append the ResourceClaimTemplates that the result needs and no file defines"
    shown.add_argument("--with-templates", action="store_true", help=help_)
    help_ = "append them to this file instead"
    shown.add_argument("--templates-to", metavar="FILE", default="", help=help_)
    task = parser.add_argument_group("how to rewrite")
    add_shared(
        task,
        "--resource-api",
        default=NEWEST.version,
        help=f"the version of resource.k8s.io that the cluster serves: {', '.join(VERSIONS)} "
        f"(default {NEWEST.version})",
    )
    add_shared(
        task,
        "--resource",
        metavar="NAME=CLASS",
        help="also rewrite this extended resource, to ask for devices of a class, or of a MIG "
        "profile (nvidia.com/gpu=gpu.nvidia.com, nvidia.com/gpu=mig-1g.5gb); may be repeated",
    )
    task.add_argument(
        "--alternatives",
        default=NONE,
        metavar="CHAINS",
        help="the alternatives for pods without that annotation, like the webhook's option "
        'of this name ("1g.5gb or bigger")',
    )
    task.add_argument(
        "--kinds",
        action="append",
        default=[],
        metavar="GROUP/KIND=PATH",
        help="also rewrite the pod templates at this path of a custom resource whose schema keeps "
        "claims (argoproj.io/Rollout=spec.template, "
        "ray.io/RayCluster=spec.workerGroupSpecs[*].template); may be repeated",
    )
    task.add_argument(
        "--strict", action="store_true", help="treat a limit that is not rewritten as an error"
    )
    help_ = "turn claims back into limits, to return to NVIDIA's MIG manager"
    task.add_argument("--reverse", action="store_true", help=help_)


@command(
    "rewrite",
    "rewrite manifests as the webhook rewrites pods",
    ("rewrite --diff pod.yaml", "rewrite --check manifests/*.yaml", "rewrite --in-place pod.yaml"),
    "Exit code: 0; with --check, 1 if something would change, 3 if limits remain that are not "
    "rewritten; 2 if a file or a document could not be handled: it is omitted from the output, "
    "and its file is not written. If several apply, 2 comes before 3, and 3 before 1.",
    _add,
)
def run(arguments: argparse.Namespace) -> int:
    """Rewrite the pods and pod templates in files of YAML or JSON, and print the result. All other
    bytes stay the same, and the same input gives the same output. A warning names each limit that
    is not rewritten, and what happens to it.
    """
    with needing("rewrite needs PyYAML"):
        from instaslice.manifests import documents, files, workloads

    names = arguments.files or [files.STANDARD_INPUT]
    if arguments.in_place and files.STANDARD_INPUT in names:
        raise UsageError("--in-place needs file names: it cannot write standard input")
    for pair in _EXCLUSIVE:
        if all(getattr(arguments, name) for name in pair):
            flags = (f"--{name.replace('_', '-')}" for name in pair)
            raise UsageError(f"{' and '.join(flags)} cannot be used together")
    try:
        default = arguments.alternatives
        alternatives = read_alternatives(default) if default not in ("", NONE) else {}
    except ValueError as error:
        raise UsageError(f"--alternatives: {error}") from None
    try:
        kinds = workloads.read_kinds(arguments.kinds)
    except ValueError as error:
        raise UsageError(f"--kinds: {error}") from None
    task = documents.Task(
        api=VERSIONS[arguments.resource_api],
        resources=Resources(mapping(arguments).mapped, alternatives),
        kinds=kinds,
        is_reverse=arguments.reverse,
        is_strict=arguments.strict,
        needs_values=arguments.output == "json",
        needs_operations=arguments.output == "patch",
    )
    options = files.Options(
        task=task,
        output=arguments.output,
        diff=arguments.diff,
        check=arguments.check,
        in_place=arguments.in_place,
        with_templates=arguments.with_templates,
        templates_to=arguments.templates_to,
        colour=wants_colour(sys.stdout),
    )
    return files.run(names, options, sys.stdout.buffer, sys.stderr)
