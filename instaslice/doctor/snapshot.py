"""A cluster as `instaslice doctor` sees it, and what it has to say about it. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Final, NamedTuple

from instaslice import profiles
from instaslice.doctor.inventory import Inventory, Supply
from instaslice.patch import Json
from instaslice.profiles import Profile
from instaslice.resource_api import ResourceAPI, Unavailable, template_name

#: The webhook in config/'s MutatingWebhookConfiguration.
WEBHOOK: Final = "rewrite.instaslice.io"


class Unreadable(Exception):
    """A part of the cluster could not be read; `str()` of it says what and why."""


class Probe(NamedTuple):
    """What became of a pod that was created as a dry run."""

    namespace: str
    pod: Json | None
    error: str  #: why it was refused; empty where it was not


@dataclass(frozen=True)
class Snapshot:
    """The parts of a cluster that the checks look at, as decoded JSON."""

    now: datetime
    kubernetes: str  #: "v1.36.3"
    api: ResourceAPI | Unavailable
    #: By name: webhooks, nodes, pods, quotas, slices, claims, templates, classes, endpoints.
    lists: dict[str, list[Json]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)  #: why a part could not be read
    certificate: str = ""  #: PEM, the webhook's own and what it sends with it
    probe: Probe | None = None

    def all(self, name: str) -> list[Json]:
        """A list by its name. Raises Unreadable."""
        if name in self.failures:
            raise Unreadable(f"{name} could not be read: {self.failures[name]}")
        return self.lists.get(name, [])

    @property
    def webhook(self) -> Json | None:
        """InstaSlice's webhook in its MutatingWebhookConfiguration."""
        for configuration in self.all("webhooks"):
            for webhook in configuration.get("webhooks") or []:
                if webhook.get("name") == WEBHOOK:
                    return dict(webhook)
        return None

    @property
    def is_classic(self) -> bool:
        """Whether only the driver knows its devices, as in v1alpha2."""
        return isinstance(self.api, ResourceAPI) and self.api.is_classic

    @cached_property
    def inventory(self) -> Inventory:
        """The driver's devices; none in v1alpha2. Raises Unreadable."""
        if self.is_classic:
            return Inventory([], [])
        return Inventory(self.all("slices"), self.all("claims"), self.lists.get("rules", []))

    @cached_property
    def supply(self) -> dict[str, Supply]:
        """Slices by profile, as the driver prints it; empty in v1alpha2. Raises Unreadable."""
        return self.inventory.supply()


def wanted_limits(pod: Json) -> dict[str, Any]:
    """The MIG resources in a pod's limits, of every container."""
    spec = pod["spec"]
    containers = [*(spec.get("containers") or []), *(spec.get("initContainers") or [])]
    limits = ((container.get("resources") or {}).get("limits") or {} for container in containers)
    return {
        name: amount
        for found in limits
        for name, amount in found.items()
        if profiles.from_resource(name)
    }


def claimed(pod: Json) -> list[Profile]:
    """The profiles that a pod's claims are for, each once."""
    return list(dict.fromkeys(profile for _, profile in mig_claims(pod)))


def mig_claims(pod: Json) -> Iterator[tuple[str, Profile]]:
    """A pod's claims of MIG slices, by name."""
    for claim in pod["spec"].get("resourceClaims") or []:
        profile = profiles.from_template(str(template_name(claim)))
        if profile:
            yield claim["name"], profile


def living(pods: Iterable[Json]) -> Iterator[Json]:
    """The pods that have not ended."""
    for pod in pods:
        if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed"):
            yield pod


def full_name(manifest: Json) -> str:
    """An object as "namespace/name"."""
    return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"
