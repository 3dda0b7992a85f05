"""Renders `config/`, installs what needs no cluster network, and registers the webhook."""

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

#: Kubernetes 1.27 drops matchConditions, so InstaSlice receives every pod, and fails open.
FIRST_WITH_MATCH_CONDITIONS = Version(1, 28)

#: The first API server that supports the component `policies`.
FIRST_WITH_POLICIES = Version(1, 30)
POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
#: InstaSlice's user name for the API server.
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:instaslice"

#: The kinds of the objects that give InstaSlice its permissions.
PERMISSIONS = ("Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding")

#: A stand-in for the definition of NVIDIA's driver for Kubernetes 1.27 to 1.30.
PARAMETERS = definition("MigDeviceClaimParameters", "gpu.resource.nvidia.com", "v1alpha1")


def render(plane: ControlPlane, *components: str, files: Mapping[str, bytes] = {}) -> list[Json]:
    """The objects of config/base with components of config/components, by `kubectl kustomize`.

    files: those that a component expects from its user, by path below config/.
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
    """InstaSlice, installed from `config/`, running and registered.

    folder: created. resources: mappings, "NAME=CLASS".
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
    which has InstaSlice's permissions.
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
    """A kubeconfig with a token of a service account in the namespace. folder: created."""
    token = cluster.kubectl("create", "token", account, "--duration=2h")
    token.check_returncode()
    kubeconfig = json.loads(cluster.plane.kubeconfig.read_text())
    kubeconfig["users"] = [{"name": "admin", "user": {"token": token.stdout.strip()}}]
    folder.mkdir(parents=True)
    path = folder / "kubeconfig"
    path.write_text(json.dumps(kubeconfig))
    return path


def add_policies(cluster: Cluster, *resources: str) -> None:
    """Create the component `policies`, and wait until the API server enforces it."""
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
        # Without resource.k8s.io there is nothing to enforce.
        held = ("instaslice-service-account", "no matches for kind")
        return any(each in tried.stderr for each in held)

    if cluster.plane.resource_api != "v1alpha2":  # which has no classes
        until(holds, "the policies hold")


def define_parameters(cluster: Cluster) -> None:
    """Create the CustomResourceDefinition of the driver's parameters; wait until it is served."""
    define(cluster, PARAMETERS)
    # The API server needs two seconds for the first object of a new definition (seen on 1.27).
    first = {"apiVersion": "gpu.resource.nvidia.com/v1alpha1", "kind": "MigDeviceClaimParameters"}
    cluster.create({**first, "metadata": {"name": "first"}}, dry_run=True)


def register(cluster: Cluster, client_config: Json, *resources: str) -> Json:
    """Create the MutatingWebhookConfiguration that `config/` has for this version of Kubernetes.

    client_config: InstaSlice's address, since there is no cluster network for a Service.
    resources: those to match besides MIG's.
    Returns it, once the API server applies it.
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
    """Let InstaSlice serve a namespace that opted out, whose pods are older than InstaSlice."""
    labels = {"metadata": {"labels": {"instaslice.io/rewrite": None}}}
    cluster.patch("Namespace", cluster.namespace, labels)
    until(lambda: is_rewriting(cluster), "the namespace is served")


def is_rewriting(cluster: Cluster) -> bool:
    """Whether InstaSlice rewrites new pods in the namespace."""
    try:
        return not limits_left(cluster.create(pod("probe"), dry_run=True))
    except Refused as refused:
        # The namespace's service account does not exist yet.
        if refused.code == 403:
            return False
        raise
