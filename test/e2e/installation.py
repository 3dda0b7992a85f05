"""What `config/` deploys, rendered, and the webhook of it registered."""

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from .cluster import Cluster, Refused
from .controlplane import ControlPlane, Version
from .pods import limits_left, pod
from .process import wait_for

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]

#: Kubernetes 1.27 drops matchConditions, so InstaSlice is sent every pod, and fails open.
FIRST_WITH_MATCH_CONDITIONS = Version(1, 28)


def render(plane: ControlPlane, *components: str) -> list[Json]:
    """The objects of config/base with components of config/components, by `kubectl kustomize`.

    Raises CalledProcessError.
    """
    with tempfile.TemporaryDirectory() as folder:
        # kustomize takes no absolute paths, and resolves symbolic links in its own.
        config = Path(os.path.relpath(ROOT / "config", Path(folder).resolve()))
        kustomization = {
            "resources": [str(config / "base")],
            "components": [str(config / "components" / each) for each in components],
        }
        Path(folder, "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        rendered = subprocess.run(
            [plane.kubectl, "kustomize", folder], capture_output=True, text=True, check=True
        )
    return [document for document in yaml.safe_load_all(rendered.stdout) if document]


def webhook_configuration(plane: ControlPlane, client_config: Json) -> Json:
    """The MutatingWebhookConfiguration that `config/` deploys on this version of Kubernetes.

    client_config: where InstaSlice is, in place of the Service of a cluster that has a network.
    """
    components = [] if plane.version >= FIRST_WITH_MATCH_CONDITIONS else ["kubernetes-1.27"]
    (configuration,) = (
        each
        for each in render(plane, *components)
        if each["kind"] == "MutatingWebhookConfiguration"
    )
    for each in configuration["webhooks"]:
        each["clientConfig"] = client_config
    return configuration


def register(cluster: Cluster, configuration: Json) -> None:
    """Create a MutatingWebhookConfiguration, and wait until the API server knows of it."""
    cluster.create(configuration)
    wait_for("InstaSlice is called", lambda: is_rewriting(cluster))


def unregister(cluster: Cluster, configuration: Json) -> None:
    """Take it away again, and wait until the API server knows of that."""
    cluster.delete(configuration["kind"], configuration["metadata"]["name"])
    wait_for("InstaSlice is not called", lambda: not is_rewriting(cluster))


def is_rewriting(cluster: Cluster) -> bool:
    """Whether a pod that is created now in the namespace would be rewritten."""
    try:
        return not limits_left(cluster.create(pod("probe"), dry_run=True))
    except Refused as refused:
        # The namespace's service account is not there yet, or the webhook is not.
        if refused.code in (403, 500):
            return False
        raise


def install_into(namespace: Cluster) -> None:
    """Have a namespace served that opted out: its pods were there before InstaSlice."""
    labels = {"metadata": {"labels": {"instaslice.io/rewrite": None}}}
    namespace.patch("Namespace", namespace.namespace, labels)
    wait_for("the namespace is served", lambda: is_rewriting(namespace))
