"""A Deployment whose two containers have a slice each, the head of its patches, and its slices."""

from typing import Any

from instaslice.profiles import from_template
from instaslice.resource_api import template_name

Json = dict[str, Any]

BASE = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: server}
spec:
  selector: {matchLabels: {app: server}}
  template:
    metadata: {labels: {app: server}}
    spec:
      containers:
      - name: model
        image: registry.example.com/model
        resources:
          limits:
            nvidia.com/mig-1g.5gb: 1
      - name: embed
        image: registry.example.com/embed
        resources:
          limits:
            nvidia.com/mig-1g.5gb: 1
"""
PATCH = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: server}
spec:
  template:
    spec:
      containers:
"""


def slices(manifest: Json) -> Json:
    """The number of slices of each container by profile, from limits or claims."""
    spec = manifest["spec"]["template"]["spec"]
    declared = {claim["name"]: template_name(claim) for claim in spec.get("resourceClaims") or []}
    found: dict[str, dict[str, int]] = {}
    used = set()
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        resources = container.get("resources") or {}
        has = found[container["name"]] = {}
        for name, count in (resources.get("limits") or {}).items():
            if name.startswith("nvidia.com/mig-"):
                has[name.removeprefix("nvidia.com/mig-")] = int(count)
        for claim in resources.get("claims") or []:
            used.add(claim["name"])
            profile, _, count = str(declared[claim["name"]]).removeprefix("mig-").partition(".x")
            has[profile] = has.get(profile, 0) + int(count or 1)
            assert from_template(f"mig-{profile}")
    assert used == set(declared), "a claim is unused or undeclared"
    return found
