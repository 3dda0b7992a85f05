"""Part of `make manifests`: write what the chart has of config/, of the code, of its own values.

charts/instaslice/files has the alert rules, the dashboard and the policies as config/ has them, and
the known profiles and the matchConditions of each mode as the code has them; README.md has a table
of the values with their comments. A test holds all of it equal.
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

#: Stands for the names of mapped resources; templates/webhook.yaml puts them in its place.
PLACEHOLDER = "MAPPED"

#: Values that are whole objects of Kubernetes': what is in them are not values of the chart.
WHOLE = {
    *(
        "resources",
        "topologySpreadConstraints",
        "strategy",
        "podSecurityContext",
        "securityContext",
    ),
    *("startupProbe", "livenessProbe", "readinessProbe"),
}

#: What stands before the table.
README = ROOT / "hack" / "chart-readme.md"


class Value(NamedTuple):
    """A row of the table."""

    name: str  #: "image.repository"
    default: str  #: as JSON
    comment: str


def values(text: str) -> Iterator[Value]:
    """The values in the text of a values.yaml: what has a comment and is not a group of others."""
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
    """A default, unless it is longer than a table can bear."""
    return f"`{default}`" if len(default) < 60 else "see values.yaml"


def modes() -> str:
    """What differs between the webhook's modes, as JSON."""
    found = {}
    for mode in MODES:
        (webhook,) = webhook_configuration(mode, [PLACEHOLDER])["webhooks"]
        found[mode] = {
            "matchConditions": webhook["matchConditions"],
            "namespace": webhook["namespaceSelector"]["matchExpressions"][1],
        }
    return json.dumps(found, indent=2) + "\n"


def alerts() -> str:
    """The spec of the PrometheusRule, as the text of config/ has it."""
    text = (COMPONENTS / "prometheus/alerts.yaml").read_text()
    lines = text.partition("\nspec:\n")[2].splitlines()
    return "".join(f"{line.removeprefix('  ')}\n" for line in lines)


def policies() -> str:
    """What the component `policies` installs, as a list in JSON."""
    folder = COMPONENTS / "policies"
    names = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    found = [each for name in names for each in yaml.safe_load_all((folder / name).read_text())]
    return json.dumps(found, indent=2) + "\n"


def files() -> dict[Path, str]:
    """What is made, by where it is."""
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
