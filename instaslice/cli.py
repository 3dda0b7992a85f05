"""The command line: `instaslice serve`, and what helps around it.

Whatever is wrong with what was typed is one line on standard error and exit code 2.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, TextIO

from instaslice import MEMORY, __version__, profiles, settings
from instaslice.profiles import Profile
from instaslice.resource_api import NEWEST, VERSIONS
from instaslice.settings import UsageError
from instaslice.templates import device_classes, templates

ABOUT: Final = """\
InstaSlice lets pods that ask for MIG slices as extended resources (nvidia.com/mig-1g.5gb: 1)
have them through Kubernetes' Dynamic Resource Allocation, without a change to any pod spec.
"""


_PROFILES: Final = "such as 1g.5gb or 1g.10gb+me (default: all that are known)"


def _serve(arguments: argparse.Namespace) -> int:
    values = settings.read(vars(arguments), os.environ)
    if values["workers"] > 1:
        # Where workers add up their metrics. prometheus_client reads it as it is imported.
        memory = MEMORY if os.path.isdir(MEMORY) else None
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="instaslice-", dir=memory)
    from instaslice import server  # gunicorn is for serving only

    host, port = values.pop("bind")
    try:
        server.serve(server.Settings(host=host, port=port, **values))
    except server.StartError as error:
        raise UsageError(str(error)) from None
    return 0


def _named_profiles(names: Sequence[str]) -> list[Profile]:
    """Profiles in any of their spellings; all that are known where none is named."""
    found = []
    for name in names:
        bare = name.removeprefix("nvidia.com/").removeprefix("mig-")
        profile = profiles.from_attribute(bare) or profiles.from_template("mig-" + bare)
        if profile is None:
            raise UsageError(f"{name!r} is not a MIG profile, such as 1g.5gb or 1g.10gb+me")
        found.append(profile)
    return found or profiles.known_profiles()


def _print_yaml(manifests: Sequence[dict[str, Any]], command: str) -> None:
    try:
        import yaml
    except ImportError:
        raise UsageError("this needs PyYAML: pip install 'instaslice[cli]'") from None

    class Plain(yaml.SafeDumper):
        """Writes an object out again rather than refer to it by an alias."""

        def ignore_aliases(self, data: object) -> bool:
            return True

    print(f"# Made by: instaslice {command}\n---")
    yaml.dump_all(manifests, sys.stdout, Dumper=Plain, sort_keys=False, width=100)


def _templates(arguments: argparse.Namespace) -> int:
    chosen = _named_profiles(arguments.profiles)
    version = arguments.resource_api
    if not arguments.apply:
        api = VERSIONS[version or NEWEST.version]
        manifests = [manifest for profile in chosen for manifest in templates(api, profile)]
        command = ["templates", "--resource-api", api.version, *arguments.profiles]
        _print_yaml(manifests, " ".join(command))
        return 0
    if bool(arguments.namespace) == arguments.all_namespaces:
        raise UsageError("--apply needs --namespace NS, or --all-namespaces")
    try:
        from instaslice.apply import Applier, ApplyError
    except ImportError:
        needs = "--apply needs the kubernetes client: pip install 'instaslice[cli]'"
        raise UsageError(needs) from None
    try:
        applier = Applier(arguments.kubeconfig)
        api = VERSIONS[version] if version else applier.version()
        namespaces = arguments.namespace or applier.namespaces()
        for line in applier.apply(api, chosen, namespaces):
            print(line)
    except ApplyError as error:
        print(f"instaslice: {error}", file=sys.stderr)
        return 1
    return 0


def _device_classes(arguments: argparse.Namespace) -> int:
    chosen = _named_profiles(arguments.profiles)
    _print_yaml(device_classes(chosen), " ".join(["deviceclasses", *arguments.profiles]))
    return 0


def _add_templates(commands: Any) -> None:
    parser = commands.add_parser(
        "templates",
        help="print or apply the ResourceClaimTemplates that rewritten pods use",
        description="Print the manifests of the templates, or apply them to namespaces. "
        "With serve --provision-templates they are made as they are needed.",
    )
    parser.add_argument("profiles", nargs="*", metavar="PROFILE", help=_PROFILES)
    parser.add_argument(
        "--resource-api",
        choices=VERSIONS,
        metavar="VERSION",
        help=f"{', '.join(VERSIONS)} (default: {NEWEST.version}; with --apply, the cluster's)",
    )
    parser.add_argument("--apply", action="store_true", help="apply them, and do not print them")
    parser.add_argument(
        "--namespace", "-n", action="append", metavar="NS", help="where; may be repeated"
    )
    parser.add_argument("--all-namespaces", "-A", action="store_true", help="in every namespace")
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="how to reach the cluster")
    parser.set_defaults(run=_templates)


def _add_device_classes(commands: Any) -> None:
    parser = commands.add_parser(
        "deviceclasses",
        help="print DeviceClasses by which the scheduler does without InstaSlice (1.36 and later)",
        description="Print a DeviceClass for each profile, with its extendedResourceName.",
    )
    parser.add_argument("profiles", nargs="*", metavar="PROFILE", help=_PROFILES)
    parser.set_defaults(run=_device_classes)


def _rewrite(arguments: argparse.Namespace) -> int:
    try:
        from instaslice import files
    except ImportError:
        raise UsageError("rewrite needs ruamel.yaml: pip install 'instaslice[cli]'") from None

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


def _add_rewrite(commands: Any) -> None:
    rewrite = commands.add_parser(
        "rewrite",
        help="rewrite manifests as the webhook rewrites pods",
        description="Rewrite the pods and pod templates in files of YAML or JSON, and print the "
        "result. Comments, order and quotes stay, and what does not change stays to the byte.",
        epilog="Exit code: 0; 1 if --check finds something to change; 2 if a file or a document "
        "could not be handled: it is left out of what is printed, and its file is not written.",
    )
    rewrite.add_argument(
        "files", nargs="*", metavar="FILE", help="a file, or - for standard input (the default)"
    )
    rewrite.add_argument(
        "--output",
        "-o",
        choices=("yaml", "json", "patch"),
        default="yaml",
        help="what to print: yaml; json, a List if there is more than one document; or patch, "
        "RFC 6902, a line for each document (default yaml)",
    )
    rewrite.add_argument("--diff", action="store_true", help="print what would change")
    rewrite.add_argument("--in-place", "-i", action="store_true", help="write the files")
    rewrite.add_argument("--check", action="store_true", help="only say whether anything changes")
    rewrite.add_argument(
        "--resource-api",
        choices=VERSIONS,
        default=NEWEST.version,
        metavar="VERSION",
        help=f"the version of resource.k8s.io that the cluster serves: {', '.join(VERSIONS)} "
        f"(default {NEWEST.version})",
    )
    rewrite.add_argument(
        "--with-templates",
        action="store_true",
        help="append the ResourceClaimTemplates that the result needs and no file defines",
    )
    rewrite.set_defaults(run=_rewrite)


def _doctor(arguments: argparse.Namespace) -> int:
    try:
        from instaslice import doctor, explain, report, survey
        from instaslice.apply import Applier, ApplyError
    except ImportError:
        needs = "doctor needs the kubernetes client: pip install 'instaslice[cli]'"
        raise UsageError(needs) from None
    try:
        cluster = Applier(arguments.kubeconfig)
        if arguments.pod:
            found = survey.take_for_pod(cluster, arguments.namespace, arguments.pod)
            findings = explain.explain(*found)
        else:
            findings = doctor.examine(survey.take(cluster, arguments.namespace))
    except (ApplyError, survey.SurveyError) as error:
        raise UsageError(str(error)) from None
    if arguments.output == "json":
        print(report.as_json(findings), end="")
    else:
        print(report.as_text(findings, colour=wants_colour(sys.stdout)), end="")
    return int(doctor.is_wrong(findings))


def _add_doctor(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor",
        help="say what a cluster lacks, or what a pod waits for",
        description="Check a cluster, and say what to do about what is wrong; or explain one pod. "
        "Only reads, and creates one pod as a dry run.",
        epilog="Exit code: 0; 1 if something is wrong; 2 if the cluster could not be asked.",
    )
    parser.add_argument("pod", nargs="?", metavar="POD", help="explain this pod")
    parser.add_argument(
        "--namespace",
        "-n",
        metavar="NS",
        default="default",
        help="of the pod; without one, where to try a dry run (default: default)",
    )
    parser.add_argument("--output", "-o", choices=("text", "json"), default="text", help="how")
    parser.add_argument("--kubeconfig", type=Path, metavar="FILE", help="how to reach the cluster")
    parser.set_defaults(run=_doctor)


def wants_colour(stream: TextIO) -> bool:
    """Whether to colour: on a terminal, unless the user is known not to want it (no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return stream.isatty() and not plain


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="instaslice", description=ABOUT)
    parser.add_argument("--version", action="version", version=f"instaslice {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    serve = commands.add_parser(
        "serve",
        help="serve the admission webhook over TLS",
        description="Serve the admission webhook over TLS: POST /mutate, and GET /healthz, "
        "/readyz and /metrics. Each option can be given as an environment variable instead.",
    )
    for option in settings.SERVE:
        default = {None: "required", "": "none"}.get(option.default, f"default {option.default}")
        switch: dict[str, Any] = {"nargs": "?", "const": "true"} if option.is_switch else {}
        serve.add_argument(
            option.flag,
            **switch,
            metavar=option.metavar,
            help=f"{option.help} ({default}; {option.variable})",
        )
    serve.set_defaults(run=_serve)

    _add_templates(commands)
    _add_device_classes(commands)
    _add_rewrite(commands)
    _add_doctor(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except UsageError as error:
        print(f"instaslice: {error}", file=sys.stderr)
        return 2
