"""Applies templates to namespaces, server-side, with the `kubernetes` client (extra `cli`)."""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import DynamicApiError, ResourceNotFoundError

from instaslice.cluster import discovery
from instaslice.cluster.client import Answer, ClusterError
from instaslice.patch import Json
from instaslice.profiles import Profile
from instaslice.resource_api import ResourceAPI, Unavailable
from instaslice.templates import templates

#: Who owns the fields that are applied (metav1.ManagedFieldsEntry.manager).
FIELD_MANAGER: Final = "instaslice"


class ApplyError(Exception):
    """The cluster did not take it; `str()` of it says what and why, in one line."""


class Applier:
    """A cluster to apply templates to.

    kubeconfig: the file to use; None for $KUBECONFIG, ~/.kube/config or a pod's service account.
    Raises ApplyError, as all of its methods do.
    """

    def __init__(self, kubeconfig: Path | None = None) -> None:
        try:
            config.load_config(config_file=str(kubeconfig) if kubeconfig else None)
            self._api = client.ApiClient()
            self._dynamic = DynamicClient(self._api)
        except config.ConfigException as error:
            raise ApplyError(f"kubeconfig: {error}") from None
        except Exception as error:
            raise _error(error) from None

    def version(self) -> ResourceAPI:
        """The version of resource.k8s.io that the cluster serves."""
        try:
            served = discovery.ask(self)
        except ClusterError as error:
            raise ApplyError(str(error)) from None
        if isinstance(served, Unavailable):
            raise ApplyError(served.reason)
        return served

    def call(self, method: str, path: str, body: Json | None = None) -> Answer:
        """One request, as `discovery.ask` wants it. Raises ClusterError."""
        url = self._api.configuration.host + path
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        self._api.update_params_for_auth(headers, [], ["BearerToken"], url, method, None)
        try:
            response = self._api.call_api(method, url, headers, body)
            return Answer(response.status, json.loads(response.read()))
        except ApiException as error:
            return Answer(error.status or 0, _body(error.body))
        except (urllib3.exceptions.HTTPError, ValueError) as error:
            raise ClusterError(str(_error(error))) from None

    def namespaces(self) -> list[str]:
        """The cluster's namespaces that are not being deleted."""
        try:
            found = client.CoreV1Api(self._api).list_namespace().items
        except Exception as error:
            raise _error(error) from None
        return [item.metadata.name for item in found if item.status.phase != "Terminating"]

    def apply(
        self, api: ResourceAPI, profiles: Sequence[Profile], namespaces: Iterable[str]
    ) -> Iterator[str]:
        """Apply every profile's template in every namespace; yields a line about each object."""
        for namespace in namespaces:
            for profile in profiles:
                for manifest in templates(api, profile, namespace):
                    done = self._apply(manifest)
                    yield f"{namespace}: {manifest['kind']} {manifest['metadata']['name']} {done}"

    def _apply(self, manifest: Json) -> str:
        name, namespace = manifest["metadata"]["name"], manifest["metadata"]["namespace"]
        try:
            resource = self._dynamic.resources.get(
                api_version=manifest["apiVersion"], kind=manifest["kind"]
            )
            before = self._revision(resource, name, namespace)
            after = self._dynamic.server_side_apply(
                resource,
                body=manifest,
                name=name,
                namespace=namespace,
                field_manager=FIELD_MANAGER,
                force_conflicts=True,
            ).metadata.resourceVersion
        except ResourceNotFoundError:
            what = f"{manifest['apiVersion']} {manifest['kind']}"
            raise ApplyError(f"the cluster does not serve {what}") from None
        except Exception as error:
            raise ApplyError(f"{namespace}: {manifest['kind']} {name}: {_error(error)}") from None
        if before is None:
            return "created"
        return "unchanged" if after == before else "configured"

    def _revision(self, resource: Any, name: str, namespace: str) -> str | None:
        try:
            found = self._dynamic.get(resource, name=name, namespace=namespace)
        except DynamicApiError as error:
            if error.status == 404:
                return None
            raise
        return str(found.metadata.resourceVersion)


def _body(data: bytes | str | None) -> Json:
    try:
        found = json.loads(data or "")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _error(error: Exception) -> ApplyError:
    """What a client library raised, as one line."""
    if isinstance(error, ApplyError):
        return error
    if isinstance(error, ApiException | DynamicApiError):
        message = _body(error.body).get("message") or error.reason
        return ApplyError(f"{error.status} {message}")
    reason = getattr(error, "reason", None) or error  # urllib3's MaxRetryError wraps the cause
    return ApplyError(" ".join(str(reason).split()) or type(error).__name__)
