"""What a real API server keeps of resource.k8s.io, found out by dry runs."""

from instaslice.cluster import discovery
from instaslice.cluster.gates import find_out
from instaslice.cluster.kubeconfig import from_kubeconfig
from instaslice.resource_api import ALTERNATIVES, DIFFERENT_GPUS, ResourceAPI
from test.e2e.cluster import Cluster
from test.e2e.controlplane import ControlPlane, Version

#: From when on the feature's gate is on by default.
ON_SINCE = {ALTERNATIVES: Version(1, 34), DIFFERENT_GPUS: Version(1, 36)}


def test_features_are_those_whose_gates_are_on(plane: ControlPlane, cluster: Cluster) -> None:
    caller = from_kubeconfig(plane.kubeconfig)
    api = discovery.ask(caller)
    assert isinstance(api, ResourceAPI)
    assert api.version == plane.resource_api
    found = find_out(caller, api, api, "default")
    for feature, since in ON_SINCE.items():
        assert (feature in found.features) == (plane.version >= since), feature
    assert api.features - found.features <= ON_SINCE.keys()
    if plane.resource_api != "v1alpha2":
        assert cluster.find("ResourceClaimTemplate", "instaslice-probe") is None, "none was made"
