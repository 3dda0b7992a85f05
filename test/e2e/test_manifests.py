"""The API server accepts the repository's manifests with strict validation."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from test.e2e.cluster import Cluster, Json
from test.e2e.installation import FIRST_WITH_POLICIES, NAMESPACE, ROOT, render
from test.e2e.webhook import Webhook
from test.support.certs import Authority

#: API groups whose definitions are not installed here, and one whose objects are files only.
LEFT_OUT = {"cert-manager.io", "monitoring.coreos.com", "kind.x-k8s.io"}


@pytest.fixture
def installed(cluster: Cluster, webhook: Webhook) -> Cluster:
    """InstaSlice's own namespace."""
    return cluster.within(NAMESPACE)


def accept(cluster: Cluster, manifests: list[Json]) -> set[str]:
    """Create objects by strict server-side dry runs, and return their kinds."""
    tried = []
    for manifest in manifests:
        group, _, version = manifest["apiVersion"].rpartition("/")
        of_another_version = group == "resource.k8s.io" and version != cluster.plane.resource_api
        classic = group == "gpu.resource.nvidia.com" and cluster.plane.resource_api != "v1alpha2"
        if group not in LEFT_OUT and not of_another_version and not classic:
            # Under another name, since some objects are installed.
            metadata = {**manifest["metadata"], "name": f"{manifest['metadata']['name']}-too"}
            tried.append({**manifest, "metadata": metadata})
    created = cluster.kubectl(
        *("create", "--dry-run=server", "--validate=strict", "-f-"),
        stdin={"apiVersion": "v1", "kind": "List", "items": tried},
    )
    assert created.returncode == 0, created.stderr
    assert created.stderr == "", "not even a warning"
    return {manifest["kind"] for manifest in tried}


def own_certificate(folder: Path) -> Mapping[str, bytes]:
    Authority().mint(folder, "instaslice.instaslice-system.svc")
    return {
        f"components/own-certificates/{each.name}": each.read_bytes() for each in folder.iterdir()
    }


#: Sets of components in config/components that are installed together.
INSTALLATIONS = [
    ["cert-manager"],
    ["cert-manager", "prometheus"],
    ["cert-manager", "no-api"],
    ["cert-manager", "kubernetes-1.27"],
    ["cert-manager", "beside-the-scheduler"],
    ["cert-manager", "opt-in"],
    ["cert-manager", "doctor", "policies"],
    ["own-certificates"],
]


@pytest.mark.parametrize("components", INSTALLATIONS, ids="+".join)
def test_every_installation_is_accepted(
    installed: Cluster, components: list[str], tmp_path: Path
) -> None:
    if "policies" in components and installed.plane.version < FIRST_WITH_POLICIES:
        pytest.skip(f"ValidatingAdmissionPolicies begin with Kubernetes {FIRST_WITH_POLICIES}")
    files = own_certificate(tmp_path / "tls") if "own-certificates" in components else {}
    manifests = render(installed.plane, *components, files=files)
    kinds = accept(installed, manifests)
    assert {"Deployment", "MutatingWebhookConfiguration", "NetworkPolicy"} <= kinds


def test_every_component_is_tried() -> None:
    there = {path.name for path in (ROOT / "config" / "components").iterdir()}
    assert there == {component for components in INSTALLATIONS for component in components}
