"""Helpers for tests of manifests: render them with kustomize, and inspect them."""

import functools
import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import yaml

from instaslice import __version__
from test.support.command import find_tool
from test.support.process import ROOT

Json = dict[str, Any]
#: Manifests by kind and name.
Manifests = Mapping[tuple[str, str], Json]

#: Versions of Kubernetes: manifests must satisfy their published schemas.
OLDEST: Final = "1.27"
NEWEST: Final = "1.37"
#: Groups whose kinds Kubernetes' schemas do not have.
CUSTOM: Final = ("cert-manager.io/", "monitoring.coreos.com/")
#: Kinds that OLDEST lacks: resource.k8s.io/v1 is from 1.34, and the policies are from 1.30.
POLICIES: Final = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
_NEWER: Final = ("DeviceClass", *POLICIES)


def validate(manifests: Iterable[Json]) -> None:
    """Check manifests by the schemas of the oldest and of the newest Kubernetes that has them."""
    for manifest in manifests:
        if not manifest["apiVersion"].startswith(CUSTOM):
            if manifest["kind"] not in _NEWER:
                _validate(json.dumps(manifest), OLDEST)
            _validate(json.dumps(manifest), NEWEST)


@functools.cache
def _validate(text: str, kubernetes: str) -> None:
    """Check a manifest once: most appear in many renderings."""
    kubernetes_validate.validate(json.loads(text), kubernetes, strict=True)


def expectations() -> Json:
    """test/expectations.yaml: what config/ and the chart must render."""
    text = (ROOT / "test/expectations.yaml").read_text().replace("VERSION", __version__)
    (found,) = documents(text)
    return found


def documents(text: str) -> list[Json]:
    """The documents of a text that are not empty, read by libyaml, which is ten times faster."""
    return [each for each in yaml.load_all(text, yaml.CSafeLoader) if each]


def kustomize(folder: Path) -> str:
    """The output of `kubectl kustomize`."""
    done = subprocess.run(
        [find_tool("kubectl"), "kustomize", folder], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def by_kind_and_name(manifests: Iterable[Json]) -> Manifests:
    """Manifests by kind and name, which must be unique."""
    found: dict[tuple[str, str], Json] = {}
    for manifest in manifests:
        key = manifest["kind"], manifest["metadata"]["name"]
        assert key not in found, f"{key} occurs twice"
        found[key] = manifest
    return found


def as_expected(manifests: Manifests, expected: Json) -> Json:
    """The actual values, in the form of test/expectations.yaml."""
    found: Json = {}
    for name, paths in expected.items():
        kind, _, bare = name.partition(" ")
        manifest = manifests.get((kind, bare))
        if paths is None or manifest is None:
            found[name] = manifest
        else:
            found[name] = {path: at(manifest, path) for path in paths}
    return found


def at(value: Any, path: str) -> Any:
    """The value at a path such as "POD.containers.0.name"; None if there is none."""
    path = path.replace("CONTAINER", "POD.containers.0").replace("POD", "spec.template.spec")
    for step in filter(None, path.split(".")):
        if value is None:
            return None
        if isinstance(value, list):
            value = value[int(step)] if int(step) < len(value) else None
        else:
            value = value.get(step)
    return value
