"""Reads the API server of a kubeconfig's current context.

A kubeconfig in YAML needs PyYAML (extra `cli`); one in JSON does not.
"""

import base64
import contextlib
import json
from pathlib import Path
from urllib.parse import urlsplit

from instaslice.cluster.client import Cluster, ClusterError, Pem
from instaslice.patch import Json


def from_kubeconfig(path: Path) -> Cluster:
    """Read the API server of a kubeconfig's current context. Raises ClusterError."""
    try:
        config = _read_config(path)
        context = _named(config, "contexts", "context", config["current-context"])
        cluster = _named(config, "clusters", "cluster", context["cluster"])
        user = _named(config, "users", "user", context["user"])
        url = urlsplit(cluster["server"])
        if url.scheme != "https" or not url.hostname:
            raise ValueError("its server is not https")
        if "exec" in user or "auth-provider" in user:
            raise ValueError("its user logs in by a program, which is not supported")
        certificate = _pem(path, user, "client-certificate")
        key = _pem(path, user, "client-key")
        token_file = user.get("tokenFile")
        return Cluster(
            url.hostname,
            url.port or 443,
            _pem(path, cluster, "certificate-authority"),
            path.parent / token_file if token_file else None,
            user.get("token", ""),
            (certificate, key) if certificate and key else None,
            context.get("namespace") or "default",
        )
    except OSError as error:
        raise ClusterError(f"{path}: {error.strerror}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ClusterError(f"{path}: is not a kubeconfig with a current context: {error}") from None
    except ValueError as error:
        raise ClusterError(f"{path}: {error}") from None


def _read_config(path: Path) -> Json:
    text = path.read_text()
    with contextlib.suppress(ValueError):
        config: Json = json.loads(text)
        return config
    try:
        import yaml  # an extra, needed only outside a cluster
    except ImportError:
        raise ValueError("is YAML, which needs: pip install '.[cli]' in its source") from None
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"is not YAML: {' '.join(str(error).split())}") from None
    return config


def _named(config: Json, plural: str, singular: str, name: str) -> Json:
    found: Json = {entry["name"]: entry[singular] for entry in config[plural]}[name]
    return found


def _pem(config: Path, holder: Json, key: str) -> Pem | None:
    """Read the PEM that a kubeconfig names as a file or has inline (`<key>-data`), or None."""
    if key in holder:
        return config.parent / str(holder[key])
    if key + "-data" in holder:
        return base64.b64decode(holder[key + "-data"]).decode("ascii", "ignore")
    return None
