"""The tests' access to the API server: the `kubernetes` client, with objects as dicts."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any, NamedTuple

from kubernetes import client, config, dynamic
from kubernetes.dynamic.exceptions import DynamicApiError

from test.e2e.controlplane import ControlPlane
from test.support.process import until

Json = dict[str, Any]

#: The API version of each kind. The version for `DRA_KINDS` depends on the cluster.
API_VERSIONS = {
    **dict.fromkeys(("ConfigMap", "LimitRange", "Namespace", "Node", "Pod", "Secret"), "v1"),
    **dict.fromkeys(("ResourceQuota", "ServiceAccount"), "v1"),
    **dict.fromkeys(("Deployment", "StatefulSet"), "apps/v1"),
    **dict.fromkeys(("Job", "CronJob"), "batch/v1"),
    "MutatingWebhookConfiguration": "admissionregistration.k8s.io/v1",
    "MigDeviceClaimParameters": "gpu.resource.nvidia.com/v1alpha1",
}
DRA_KINDS = ("ResourceClaim", "ResourceClaimTemplate", "ResourceSlice", "DeviceClass")


class Refused(Exception):
    """An error from the API server; `str()` of it is its message."""

    def __init__(self, error: DynamicApiError) -> None:
        self.code: int = error.status
        assert error.body is not None  # the API server always says why
        status = json.loads(error.body)
        self.reason: str = status.get("reason", "")
        self.causes: list[Json] = status.get("details", {}).get("causes", [])
        super().__init__(status["message"])


class Answer(NamedTuple):
    """The response to a request, with the warnings that kubectl would print."""

    body: Json
    warnings: list[str]


class Cluster:
    """The API server, and one namespace.

    Every method raises Refused if the response is an error.
    """

    def __init__(self, plane: ControlPlane, cache: Path) -> None:
        self.plane = plane
        self.namespace = "default"
        configuration = client.Configuration()
        config.load_kube_config(str(plane.kubeconfig), client_configuration=configuration)
        configuration.proxy = None  # overrides the environment's, since the server is on loopback
        api = client.ApiClient(configuration)
        self._client = dynamic.DynamicClient(api, cache_file=str(cache))
        self._api_versions = API_VERSIONS | dict.fromkeys(
            DRA_KINDS, f"resource.k8s.io/{plane.resource_api}"
        )

    @property
    def where(self) -> list[str]:
        """The options of kubectl and `instaslice` for this API server and namespace."""
        return [f"--kubeconfig={self.plane.kubeconfig}", f"--namespace={self.namespace}"]

    def within(self, namespace: str) -> "Cluster":
        """The same API server with another namespace."""
        other = copy(self)
        other.namespace = namespace
        return other

    def send(self, verb: str, kind: str, api_version: str = "", **parameters: Any) -> Answer:
        """Call the client.

        verb: a method of DynamicClient: "create", "get", "patch", ...
        kind: "Pod", or with a subresource "CronJob/status".
        """
        kind, _, subresource = kind.partition("/")
        version = api_version or self._api_versions[kind]
        resource = self._client.resources.get(api_version=version, kind=kind)
        if resource.namespaced:
            own = parameters.get("body", {}).get("metadata", {}).get("namespace")
            parameters.setdefault("namespace", own or self.namespace)
        target = resource.subresources[subresource] if subresource else resource
        try:
            answer = getattr(self._client, verb)(target, serialize=False, **parameters)
        except DynamicApiError as error:
            raise Refused(error) from None
        return Answer(json.loads(answer.data), _warnings(answer.headers.getlist("Warning")))

    def create(self, manifest: Json, *, dry_run: bool = False) -> Json:
        """Create an object, and return it as the API server stored it."""
        return self.create_aloud(manifest, dry_run=dry_run).body

    def make(self, kind: str, name: str, **fields: Json) -> Json:
        """Create an object by kind and name. fields: its other ones; "labels" go to metadata."""
        labels = {"labels": found} if (found := fields.pop("labels", None)) else {}
        metadata = {"name": name, **labels}
        version = self._api_versions[kind]
        return self.create({"apiVersion": version, "kind": kind, "metadata": metadata, **fields})

    def create_aloud(self, manifest: Json, *, dry_run: bool = False) -> Answer:
        """Create an object, and return it with the warnings."""
        dry = {"dry_run": "All"} if dry_run else {}
        return self.send("create", manifest["kind"], manifest["apiVersion"], body=manifest, **dry)

    def refusal(self, manifest: Json) -> str:
        """Why the API server refuses an object; empty if it accepts it."""
        try:
            self.create(manifest, dry_run=True)
        except Refused as refused:
            return str(refused)
        return ""

    def get(self, kind: str, name: str) -> Json:
        return self.send("get", kind, name=name).body

    def find(self, kind: str, name: str) -> Json | None:
        """The object, or None if it does not exist."""
        try:
            return self.get(kind, name)
        except Refused as refused:
            if refused.code == 404:
                return None
            raise

    def list(self, kind: str, **selectors: str) -> list[Json]:
        items: list[Json] = self.send("get", kind, **selectors).body["items"]
        return items

    def patch(self, kind: str, name: str, patch: Json, how: str = "strategic-merge") -> Json:
        """Patch an object; how: "strategic-merge", "merge"."""
        content_type = f"application/{how}-patch+json"
        return self.send("patch", kind, name=name, body=patch, content_type=content_type).body

    def apply(self, manifest: Json, manager: str) -> Json:
        """Apply an object on the server side, as a field manager."""
        kind, version = manifest["kind"], manifest["apiVersion"]
        options = {"body": manifest, "field_manager": manager}
        return self.send("server_side_apply", kind, version, **options).body

    def delete(self, kind: str, name: str) -> None:
        """Delete an object without a grace period."""
        self.send("delete", kind, name=name, body={"gracePeriodSeconds": 0})

    def kubectl(self, *arguments: str, stdin: object = None) -> subprocess.CompletedProcess[str]:
        """Run kubectl. stdin: its input, to be encoded as JSON."""
        return subprocess.run(
            [self.plane.kubectl, *self.where, *arguments],
            input=None if stdin is None else json.dumps(stdin),
            capture_output=True,
            text=True,
            timeout=60,
        )


def _warnings(headers: list[str]) -> list[str]:
    """The texts of Warning headers, `299 - "text"` (RFC 7234, section 5.5)."""
    return [json.loads(header.split(" ", 2)[2]) for header in headers]


@contextmanager
def fresh_namespace(
    cluster: Cluster, numbers: Iterator[int], labels: dict[str, str]
) -> Iterator[Cluster]:
    """A namespace for one test only. numbers: for its name."""
    name = f"test-{next(numbers)}"
    cluster.make("Namespace", name, labels=labels)
    namespace = cluster.within(name)
    if cluster.plane.has_controllers:
        # Pods are refused until a controller has created their service account.
        until(lambda: namespace.find("ServiceAccount", "default"), "the service account")
    yield namespace
    # Pods that wait for devices would take those of the next test.
    cluster.delete("Namespace", name)
