"""`instaslice plan`: plan the migration of a cluster, or of a folder of manifests, to DRA."""

import argparse
from collections.abc import Iterator
from pathlib import Path

from instaslice.cli.usage import UsageError, add_shared, client, command, mapping, needing, width
from instaslice.doctor import plan, reading


def _add(parser: argparse.ArgumentParser) -> None:
    outputs = ("text", "json", "markdown")
    add_shared(parser, "--output", choices=outputs, help="the format (default: text)")
    help_ = "list the workloads in a folder's YAML and JSON, without a cluster"
    parser.add_argument("--files", type=Path, metavar="DIR", help=help_)
    add_shared(parser, "--resource", "--kubeconfig", "--context")


@command(
    "plan",
    "plan the migration from the device plugin to DRA",
    ("plan", "plan --output markdown > ticket.md", "plan --files manifests/"),
    "Exit code: 0; 2 if the cluster or the folder could not be read.",
    _add,
)
def run(arguments: argparse.Namespace) -> int:
    """Show which workloads request which slices, what the nodes offer, how quotas and other
    policies are affected, what blocks the migration, what you have to decide, and which section of
    docs/migrate.md applies to which node and namespace. It changes nothing: it reads, and creates a
    few objects as dry runs. InstaSlice need not be installed.
    """
    resources = mapping(arguments)
    if arguments.files:
        if arguments.kubeconfig or arguments.context:
            raise UsageError("--files uses no cluster: omit --kubeconfig and --context")
        failures: dict[str, str] = {}
        result = plan.of_files(_documents(arguments.files, failures), failures, resources)
    else:
        cluster = client(arguments, "plan")
        given = resources if arguments.resource else None
        result = plan.Plan(reading.take(cluster, cluster.namespace, given, tries_pods=False))
    if arguments.output == "text":
        text = result.as_text(width())
    else:
        text = result.as_json() if arguments.output == "json" else result.as_markdown()
    print(text, end="")
    return 0


def _documents(folder: Path, failures: dict[str, str]) -> Iterator[tuple[str, object]]:
    """Yield the documents of a folder's files, each with its relative path. Raises UsageError.

    failures: receives the reason why a file cannot be read, by path.
    """
    with needing("plan --files needs PyYAML"):
        import yaml

        from instaslice.manifests.files import in_folder
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    def stop(error: OSError) -> None:
        raise UsageError(f"{error.filename}: {error.strerror}")

    for path in in_folder(folder, stop):
        short = str(path.relative_to(folder))
        try:
            for document in yaml.load_all(path.read_bytes(), loader):
                yield short, document
        except OSError as error:
            failures[short] = error.strerror or "it cannot be read"
        except RecursionError:
            failures[short] = "it is nested too deeply"
        except (yaml.YAMLError, ValueError) as error:
            mark = getattr(error, "problem_mark", None)
            line = f", line {mark.line + 1}" if mark else ""
            failures[short] = f"it is not YAML{line} (render templates first)"
