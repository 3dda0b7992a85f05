"""Builds the pods of these tests, and reads fields of pods."""

from typing import Any

from test.e2e.cluster import Json

PREFIX = "nvidia.com/"


def container(name: str = "main", limits: Json | None = None, **more: Any) -> Json:
    """A container. limits: {"mig-1g.5gb": 1} for nvidia.com/mig-1g.5gb."""
    resources = {"resources": {"limits": extended(limits)}} if limits else {}
    return {"name": name, "image": "registry.test/image", **resources, **more}


def extended(amounts: Json) -> Json:
    """Amounts of extended resources: mig-1g.5gb becomes nvidia.com/mig-1g.5gb."""
    return {name if "/" in name else PREFIX + name: n for name, n in amounts.items()}


def pod(name: str, *containers: Json, **spec: Any) -> Json:
    """A pod; without containers, one that requests one slice of 1g.5gb."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {"containers": list(containers) or [container(limits={"mig-1g.5gb": 1})], **spec},
    }


def wishing(manifest: Json, **annotations: str) -> Json:
    """The pod with more annotations, those of InstaSlice."""
    metadata = manifest["metadata"]
    wishes = {f"instaslice.io/{key}": value for key, value in annotations.items()}
    annotated = {**metadata.get("annotations", {}), **wishes}
    return {**manifest, "metadata": {**metadata, "annotations": annotated}}


def native(manifest: Json) -> Json:
    """The pod with the label that leaves it to the scheduler."""
    labels = {"instaslice.io/rewrite": "disabled"}
    return {**manifest, "metadata": {**manifest["metadata"], "labels": labels}}


def workload(kind: str, name: str, **spec: Any) -> Json:
    """A Deployment or a StatefulSet of one such pod, or of the pod `template`."""
    labels = {"app": name}
    template = spec.pop("template", None) or pod(name)
    metadata = {key: each for key, each in template["metadata"].items() if key != "name"}
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {**metadata, "labels": labels}, "spec": template["spec"]},
            **({"serviceName": name} if kind == "StatefulSet" else {}),
            **spec,
        },
    }


def job(name: str) -> Json:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"template": {"spec": {**pod(name)["spec"], "restartPolicy": "Never"}}},
    }


def cron_job(name: str) -> Json:
    """A CronJob that runs every minute."""
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": name},
        "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": job(name)["spec"]}},
    }


def all_containers(pod: Json) -> list[Json]:
    """Init containers, then containers."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def limits_left(pod: Json) -> dict[str, Json]:
    """Container -> its remaining MIG limits and requests; without containers that have none."""
    left = {}
    for each in all_containers(pod):
        resources = each.get("resources", {})
        amounts = {**resources.get("requests", {}), **resources.get("limits", {})}
        mig = {name: n for name, n in amounts.items() if name.startswith(PREFIX + "mig-")}
        if mig:
            left[each["name"]] = mig
    return left


def templates(pod: Json) -> dict[str, str]:
    """Claim -> template, for every claim of the pod; in either shape of the API."""
    return {
        claim["name"]: claim.get("source", claim)["resourceClaimTemplateName"]
        for claim in pod["spec"].get("resourceClaims", [])
    }


def claims(pod: Json) -> dict[str, list[str]]:
    """Container -> the names of the claims that it uses."""
    return {
        each["name"]: [claim["name"] for claim in each.get("resources", {}).get("claims", [])]
        for each in all_containers(pod)
    }


def slices(pod: Json) -> dict[str, list[str]]:
    """Container -> for each of its slices, the template for one such slice; sorted.

    Fails if the pod has MIG limits left, since no pod may be rewritten in part.
    """
    assert limits_left(pod) == {}
    by_claim = templates(pod)
    return {
        name: sorted(slice_ for claim in own for slice_ in each_slice(by_claim[claim]))
        for name, own in claims(pod).items()
    }


def each_slice(template: str) -> list[str]:
    """The slices of a claim: ["mig-1g.5gb", "mig-1g.5gb"] for mig-1g.5gb.x2."""
    one, _, number = template.partition(".x")
    return [one] * int(number or 1)
