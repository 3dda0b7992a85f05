"""What `config/` deploys: rendered, installed as far as it goes without a network, registered."""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from instaslice.webhook_configuration import ALL, webhook_configuration
from test.e2e.cert_manager import define, definition
from test.e2e.cluster import Cluster, Json, Refused
from test.e2e.controlplane import ControlPlane, Version
from test.e2e.pods import limits_left, pod
from test.e2e.webhook import Webhook
from test.support.process import until

ROOT = Path(__file__).parents[2]
NAMESPACE = "instaslice-system"

#: Kubernetes 1.27 drops matchConditions, so InstaSlice is sent every pod, and fails open.
FIRST_WITH_MATCH_CONDITIONS = Version(1, 28)

#: From here on the API server holds the component `policies`.
FIRST_WITH_POLICIES = Version(1, 30)
POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
#: Who InstaSlice is to the API server.
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:instaslice"

#: What InstaSlice's permissions are made of.
PERMISSIONS = ("Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding")

#: Stands for the definition that NVIDIA's driver of Kubernetes 1.27 to 1.30 brought.
PARAMETERS = definition("MigDeviceClaimParameters", "gpu.resource.nvidia.com", "v1alpha1")


def render(plane: ControlPlane, *components: str, files: Mapping[str, bytes] = {}) -> list[Json]:
    """The objects of config/base with components of config/components, by `kubectl kustomize`.

    files: what a component wants to be brought, by path below config/.
    Raises CalledProcessError.
    """
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "config", Path(folder, "config"))
        for path, data in files.items():
            Path(folder, "config", path).write_bytes(data)
        kustomization = {
            "resources": ["config/base"],
            "components": [f"config/components/{each}" for each in components],
        }
        Path(folder, "kustomization.yaml").write_text(json.dumps(kustomization))
        rendered = subprocess.run(
            [plane.kubectl, "kustomize", folder], capture_output=True, text=True, check=True
        )
    return [document for document in yaml.safe_load_all(rendered.stdout) if document]


@contextmanager
def serving(cluster: Cluster, folder: Path, *resources: str) -> Iterator[Webhook]:
    """InstaSlice, installed as `config/` has it, running and registered.

    folder: is made. resources: that are mapped, "NAME=CLASS".
    """
    kubeconfig = install(cluster, folder, *resources)
    webhook = Webhook(folder, kubeconfig, *(f"--resource={each}" for each in resources))
    try:
        webhook.start()
        names = (each.partition("=")[0] for each in resources)
        register(cluster, webhook.client_config, *names)
        yield webhook
    finally:
        webhook.stop()


def install(cluster: Cluster, folder: Path, *resources: str) -> Path:
    """Create InstaSlice's namespace, service account, role and policies.

    folder, resources: as for `serving`. Returns a kubeconfig with the service account's token,
    which may do what InstaSlice may do in a cluster.
    """
    for manifest in render(cluster.plane):
        if manifest["kind"] in PERMISSIONS:
            cluster.create(manifest)
    if cluster.plane.resource_api == "v1alpha2":
        define_parameters(cluster)
    if cluster.plane.version >= FIRST_WITH_POLICIES:
        add_policies(cluster, *resources)
    return kubeconfig_of(cluster.within(NAMESPACE), "instaslice", folder)


def kubeconfig_of(cluster: Cluster, account: str, folder: Path) -> Path:
    """A kubeconfig with a token of a service account of the namespace. folder: is made."""
    token = cluster.kubectl("create", "token", account, "--duration=2h")
    token.check_returncode()
    kubeconfig = json.loads(cluster.plane.kubeconfig.read_text())
    kubeconfig["users"] = [{"name": "admin", "user": {"token": token.stdout.strip()}}]
    folder.mkdir(parents=True)
    path = folder / "kubeconfig"
    path.write_text(json.dumps(kubeconfig))
    return path


def add_policies(cluster: Cluster, *resources: str) -> None:
    """Create the component `policies`; returns once the API server goes by it."""
    pairs = ",".join("'{}':'{}'".format(*each.split("=")) for each in resources or ["="])
    mapped = f"dyn({{{pairs}}})"
    for manifest in render(cluster.plane, "policies"):
        if manifest["kind"] in POLICIES:
            text = json.dumps(manifest).replace("dyn({'':''})", mapped)
            cluster.create(json.loads(text))

    def holds() -> bool:
        version = f"resource.k8s.io/{cluster.plane.resource_api}"
        bad: Json = {"apiVersion": version, "kind": "DeviceClass", "spec": {}}
        bad |= {"metadata": {"name": "gpu.example.com"}}
        tried = cluster.kubectl("create", f"--as={ACCOUNT}", "--dry-run=server", "-f-", stdin=bad)
        # Where resource.k8s.io is not served, there is nothing to be held.
        held = ("instaslice-service-account", "no matches for kind")
        return any(each in tried.stderr for each in held)

    if cluster.plane.resource_api != "v1alpha2":  # which has no classes
        until(holds, "the policies hold")


def define_parameters(cluster: Cluster) -> None:
    """Create the CustomResourceDefinition of the driver's parameters, and have it served."""
    define(cluster, PARAMETERS)
    # The API server takes two seconds over the first object of a new definition (seen on 1.27).
    first = {"apiVersion": "gpu.resource.nvidia.com/v1alpha1", "kind": "MigDeviceClaimParameters"}
    cluster.create({**first, "metadata": {"name": "first"}}, dry_run=True)


def register(cluster: Cluster, client_config: Json, *resources: str) -> Json:
    """Create the MutatingWebhookConfiguration that `config/` has for this version of Kubernetes.

    client_config: where InstaSlice is, in place of the Service of a cluster that has a network.
    resources: that are sent beside MIG's.
    Returns it, once the API server goes by it.
    """
    components = []
    if cluster.plane.version < FIRST_WITH_MATCH_CONDITIONS:
        components = ["kubernetes-1.27"]
    (configuration,) = (
        manifest
        for manifest in render(cluster.plane, *components)
        if manifest["kind"] == "MutatingWebhookConfiguration"
    )
    for each in configuration["webhooks"]:
        each["clientConfig"] = client_config
        if resources:
            (made,) = webhook_configuration(ALL, resources)["webhooks"]
            each["matchConditions"] = made["matchConditions"]
    cluster.create(configuration)
    until(lambda: is_rewriting(cluster), "InstaSlice is called")
    return configuration


def let_in(cluster: Cluster) -> None:
    """Have a namespace served that opted out: its pods were there before InstaSlice."""
    labels = {"metadata": {"labels": {"instaslice.io/rewrite": None}}}
    cluster.patch("Namespace", cluster.namespace, labels)
    until(lambda: is_rewriting(cluster), "the namespace is served")


def is_rewriting(cluster: Cluster) -> bool:
    """Whether a pod that is created now in the namespace would be rewritten."""
    try:
        return not limits_left(cluster.create(pod("probe"), dry_run=True))
    except Refused as refused:
        # The namespace's service account is not there yet.
        if refused.code == 403:
            return False
        raise
