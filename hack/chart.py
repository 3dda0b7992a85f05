"""Part of `make manifests`: write the generated files of the chart.

In charts/instaslice/files, the alert rules, the dashboard and the policies come from config/, and
the known profiles and the matchConditions of each mode come from the code. README.md has a table of
the values with their comments. A test compares all of them.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from instaslice.profiles import known_profiles
from instaslice.webhook_configuration import MODES, webhook_configuration

ROOT = Path(__file__).parent.parent
CHART = ROOT / "charts" / "instaslice"
COMPONENTS = ROOT / "config" / "components"

#: templates/webhook.yaml replaces this by the names of mapped resources.
PLACEHOLDER = "MAPPED"

#: Values that are whole objects of Kubernetes; their members are not values of the chart.
WHOLE = {
    *("resources", "topologySpreadConstraints", "strategy"),
    *("podSecurityContext", "securityContext"),
    *("startupProbe", "livenessProbe", "readinessProbe"),
}

#: The text before the table.
README = ROOT / "hack" / "chart-readme.md"


class Value(NamedTuple):
    """A row of the table."""

    name: str  #: "image.repository"
    default: str  #: as JSON
    comment: str


def values(text: str) -> Iterator[Value]:
    """The values in the text of a values.yaml: keys with a comment that are not groups."""
    defaults = yaml.safe_load(text)
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in text.splitlines():
        stripped = line.strip()
        indent = len(line) - len(line.lstrip())
        if stripped.startswith("#"):
            comment.append(stripped.removeprefix("#").strip())
            continue
        key, colon, inline = stripped.partition(":")
        if not colon or stripped.startswith("- "):
            comment = []
            continue
        while path and path[-1][0] >= indent:
            path.pop()
        path.append((indent, key))
        names = [name for _, name in path]
        if WHOLE & set(names[:-1]):
            continue
        found = at(defaults, names)
        is_group = isinstance(found, dict) and found and not inline and key not in WHOLE
        if comment and not is_group:
            yield Value(".".join(names), json.dumps(found), " ".join(comment))
        comment = []


def at(values: Mapping[str, Any], names: list[str]) -> Any:
    """The value at a path of keys."""
    found: Any = values
    for name in names:
        found = found[name]
    return found


def readme(text: str) -> str:
    """README.md for the text of a values.yaml."""
    rows = "".join(f"| `{v.name}` | {shown(v.default)} | {v.comment} |\n" for v in values(text))
    return README.read_text() + rows


def shown(default: str) -> str:
    """A default, unless it is too long for the table."""
    return f"`{default}`" if len(default) < 60 else "see values.yaml"


def modes() -> str:
    """The differences between the webhook's modes, as JSON."""
    found = {}
    for mode in MODES:
        (webhook,) = webhook_configuration(mode, [PLACEHOLDER])["webhooks"]
        found[mode] = {
            "matchConditions": webhook["matchConditions"],
            "namespace": webhook["namespaceSelector"]["matchExpressions"][1],
        }
    return json.dumps(found, indent=2) + "\n"


def alerts() -> str:
    """The spec of the PrometheusRule of config/, as text."""
    text = (COMPONENTS / "prometheus/alerts.yaml").read_text()
    lines = text.partition("\nspec:\n")[2].splitlines()
    return "".join(f"{line.removeprefix('  ')}\n" for line in lines)


def policies() -> str:
    """The manifests of the component `policies`, as a list in JSON."""
    folder = COMPONENTS / "policies"
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    found = [each for name in names for each in yaml.safe_load_all((folder / name).read_text())]
    return json.dumps(found, indent=2) + "\n"


def files() -> dict[Path, str]:
    """The generated files: path -> text."""
    return {
        CHART / "README.md": readme((CHART / "values.yaml").read_text()),
        CHART / "files/modes.json": modes(),
        CHART / "files/alerts.yaml": alerts(),
        CHART / "files/policies.json": policies(),
        CHART / "files/dashboard.json": (COMPONENTS / "prometheus/dashboard.json").read_text(),
        CHART / "files/profiles.txt": "".join(f"{each.template}\n" for each in known_profiles()),
    }


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
