"""The features of resource.k8s.io that a real API server keeps, detected by dry runs."""

import pytest

from instaslice.cluster import discovery
from instaslice.cluster.gates import GATES, ask, find_out
from instaslice.cluster.kubeconfig import from_kubeconfig
from instaslice.resource_api import ALTERNATIVES, DIFFERENT_GPUS, ResourceAPI
from test.e2e.cluster import Cluster, Json
from test.e2e.controlplane import Version
from test.e2e.installation import ACCOUNT, FIRST_WITH_POLICIES
from test.e2e.webhook import Webhook

#: The first version in which the feature's gate is on by default.
ON_SINCE = {ALTERNATIVES: Version(1, 34), DIFFERENT_GPUS: Version(1, 36)}


@pytest.mark.parametrize("account", ["administrator", "InstaSlice"])
def test_features_equal_the_enabled_gates(cluster: Cluster, webhook: Webhook, account: str) -> None:
    """InstaSlice's account can detect them, although the component `policies` restricts it."""
    plane = cluster.plane
    path = plane.kubeconfig if account == "administrator" else webhook.kubeconfig
    caller = from_kubeconfig(path)
    api = discovery.ask(caller)
    assert isinstance(api, ResourceAPI)
    assert api.version == plane.resource_api
    if plane.resource_api == "v1":
        for name in (name for name, gate in GATES.items() if gate.feature):
            assert ask(caller, api, name, "default").why == ""
    found = find_out(caller, api, api, "default")
    for feature, since in ON_SINCE.items():
        assert (feature in found.features) == (plane.version >= since), feature
    assert api.features - found.features <= ON_SINCE.keys()
    if plane.resource_api != "v1alpha2":
        assert cluster.find("ResourceClaimTemplate", "instaslice-probe") is None, "none was created"


def test_policies_refuse_a_probe_with_admin_access(namespace: Cluster) -> None:
    plane = namespace.plane
    if plane.version < FIRST_WITH_POLICIES or plane.resource_api != "v1":
        pytest.skip("needs the component `policies`, and resource.k8s.io/v1")
    exactly = {"deviceClassName": "gpu.nvidia.com", "adminAccess": True}
    probe: Json = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": "instaslice-probe"},
        "spec": {"spec": {"devices": {"requests": [{"name": "any", "exactly": exactly}]}}},
    }
    label = {"metadata": {"labels": {"resource.kubernetes.io/admin-access": "true"}}}
    namespace.patch("Namespace", namespace.namespace, label)
    done = namespace.kubectl("create", f"--as={ACCOUNT}", "-f-", stdin=probe)
    assert "instaslice-service-account" in done.stderr
