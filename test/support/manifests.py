"""What tests of manifests share: kubectl's kustomize, and ways to look into what it renders."""

import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from test.support.command import find_tool

Json = dict[str, Any]
#: Manifests by kind and name.
Manifests = Mapping[tuple[str, str], Json]

#: The versions of Kubernetes by whose published schemas manifests are held.
OLDEST: Final = "1.27"
NEWEST: Final = "1.37"
#: Kinds that no published schema of Kubernetes' has.
CUSTOM: Final = frozenset(
    {
        ("cert-manager.io/v1", "Issuer"),
        ("cert-manager.io/v1", "Certificate"),
        ("monitoring.coreos.com/v1", "ServiceMonitor"),
        ("monitoring.coreos.com/v1", "PrometheusRule"),
    }
)


def kustomize(folder: Path) -> str:
    """What `kubectl kustomize` prints."""
    done = subprocess.run(
        [find_tool("kubectl"), "kustomize", folder], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def by_kind_and_name(manifests: Iterable[Json]) -> Manifests:
    """Manifests by kind and name, of which each has its own."""
    found: dict[tuple[str, str], Json] = {}
    for manifest in manifests:
        key = manifest["kind"], manifest["metadata"]["name"]
        assert key not in found, f"{key} is there twice"
        found[key] = manifest
    return found


def at(value: Any, path: str) -> Any:
    """The value at a path such as "spec.containers.0.name"; None where there is none."""
    for step in filter(None, path.split(".")):
        if value is None:
            return None
        if isinstance(value, list):
            value = value[int(step)] if int(step) < len(value) else None
        else:
            value = value.get(step)
    return value
