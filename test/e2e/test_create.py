"""What pods become when they are created, by whatever creates them."""

from datetime import UTC, datetime, timedelta

import pytest
import yaml

from test.e2e.cluster import Cluster, Json
from test.e2e.installation import FIRST_WITH_MATCH_CONDITIONS, ROOT
from test.e2e.pods import (
    all_containers,
    claims,
    container,
    cron_job,
    extended,
    job,
    limits_left,
    pod,
    slices,
    workload,
)
from test.e2e.webhook import Webhook
from test.support.process import until


@pytest.fixture
def controlled(namespace: Cluster) -> Cluster:
    """A namespace whose workloads get pods."""
    if not namespace.plane.has_controllers:
        pytest.skip("needs kube-controller-manager, beside kube-apiserver")
    return namespace


def pods_of(cluster: Cluster, number: int) -> list[Json]:
    """The pods of the namespace, once there are so many."""

    def found() -> list[Json]:
        pods = cluster.list("Pod")
        return pods if len(pods) >= number else []

    return until(found, f"{number} pods")


def test_the_sample_asks_for_a_claim_instead(namespace: Cluster) -> None:
    sample = yaml.safe_load((ROOT / "samples" / "sample.yaml").read_text())
    namespace.create(sample)
    created = namespace.get("Pod", sample["metadata"]["name"])
    assert slices(created) == {"busybox": ["mig-1g.5gb"]}
    resources = created["spec"]["containers"][0]["resources"]
    assert resources.keys() == {"claims"}
    assert created["spec"]["containers"][0]["command"] == ["sh", "-c", "sleep 5"]


@pytest.mark.parametrize(
    ("manifest", "number"),
    [
        (workload("Deployment", "d", replicas=2), 2),
        (workload("StatefulSet", "s", replicas=2, podManagementPolicy="Parallel"), 2),
        (job("j"), 1),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_the_pods_of_a_workload(controlled: Cluster, manifest: Json, number: int) -> None:
    controlled.create(manifest)
    for each in pods_of(controlled, number):
        assert slices(each) == {"main": ["mig-1g.5gb"]}
    created = controlled.get(manifest["kind"], manifest["metadata"]["name"])
    (template,) = created["spec"]["template"]["spec"]["containers"]
    assert template["resources"]["limits"] == extended({"mig-1g.5gb": "1"}), "it stays as it is"


def test_the_pods_of_a_cron_job(controlled: Cluster) -> None:
    controlled.create(cron_job("c"))
    # Its last run was two minutes ago: the next one is due now, and not at the next full minute.
    past = (datetime.now(UTC) - timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
    controlled.patch("CronJob/status", "c", {"status": {"lastScheduleTime": past}}, "merge")
    for each in pods_of(controlled, 1):
        assert slices(each) == {"main": ["mig-1g.5gb"]}


def test_dry_run_shows_what_would_be_created(namespace: Cluster) -> None:
    assert slices(namespace.create(pod("p"), dry_run=True)) == {"main": ["mig-1g.5gb"]}
    assert namespace.find("Pod", "p") is None
    shown = namespace.kubectl(
        *("create", "--dry-run=server", "-o=jsonpath={.spec.containers[0].resources}", "-f-"),
        stdin=pod("p"),
    )
    assert shown.returncode == 0, shown.stderr
    assert "claims" in shown.stdout
    assert "limits" not in shown.stdout


CREATED: dict[str, tuple[Json, dict[str, list[str]]]] = {
    "containers and profiles": (
        pod(
            "p",
            container("a", {"mig-1g.5gb": 1, "mig-3g.20gb": 2}),
            container("b", {"mig-1g.5gb.me": 1, "mig-1g.5gb": 1}),
            container("c"),
        ),
        {
            "a": ["mig-1g.5gb", "mig-3g.20gb", "mig-3g.20gb"],
            "b": ["mig-1g.5gb", "mig-1g.5gb.me"],
            "c": [],
        },
    ),
    "only in an init container": (
        pod("p", container("a"), initContainers=[container("i", {"mig-1g.5gb": 2})]),
        {"i": ["mig-1g.5gb"] * 2, "a": []},
    ),
    "quantities of many spellings": (
        pod(
            "p",
            container("a", {"mig-1g.5gb": "2000m"}),
            container("b", {"mig-1g.5gb": "1e0"}),
            container("c", {"mig-1g.5gb": "0.001k"}),
        ),
        {"a": ["mig-1g.5gb"] * 2, "b": ["mig-1g.5gb"], "c": ["mig-1g.5gb"]},
    ),
    "the most": (pod("p", container(limits={"mig-1g.5gb": 112})), {"main": ["mig-1g.5gb"] * 112}),
}


@pytest.mark.parametrize("case", CREATED)
def test_what_a_pod_becomes(namespace: Cluster, case: str) -> None:
    manifest, expected = CREATED[case]
    namespace.create(manifest)
    created = namespace.get("Pod", "p")
    assert slices(created) == expected
    names = [claim["name"] for claim in created["spec"].get("resourceClaims", [])]
    used = {name for own in claims(created).values() for name in own}
    assert set(names) == used
    assert len(names) == len(used)


def test_a_limit_of_0_stays_as_it_is(namespace: Cluster) -> None:
    created = namespace.create(pod("p", container(limits={"mig-1g.5gb": 0})))
    assert limits_left(created) == {"main": extended({"mig-1g.5gb": "0"})}
    assert "resourceClaims" not in created["spec"]


def test_an_init_container_uses_the_claim_of_its_container(namespace: Cluster) -> None:
    init = [container("i", {"mig-1g.5gb": 1})]
    created = namespace.create(pod("p", initContainers=init))
    assert slices(created) == {"i": ["mig-1g.5gb"], "main": ["mig-1g.5gb"]}
    assert claims(created)["i"] == claims(created)["main"]


def test_a_sidecar_has_a_claim_of_its_own(namespace: Cluster) -> None:
    if namespace.plane.version < (1, 29):
        pytest.skip("Kubernetes has sidecars from 1.29 on")
    sidecar = container("side", {"mig-1g.5gb": 1}, restartPolicy="Always")
    created = namespace.create(pod("p", initContainers=[sidecar]))
    assert slices(created) == {"side": ["mig-1g.5gb"], "main": ["mig-1g.5gb"]}
    assert claims(created)["side"] != claims(created)["main"]


def test_other_resources_and_claims_stay(namespace: Cluster) -> None:
    limits = {"nvidia.com/mig-1g.5gb": 1, "cpu": "1", "example.com/a": "1"}
    theirs: Json = {"name": "theirs", "resourceClaimName": "shared"}
    if namespace.plane.resource_api == "v1alpha2":
        theirs = {"name": "theirs", "source": {"resourceClaimName": "shared"}}
    resources = {"limits": limits, "claims": [{"name": "theirs"}]}
    manifest = pod("p", container(resources=resources), resourceClaims=[theirs])
    created = namespace.create(manifest)["spec"]
    assert created["resourceClaims"][0] == theirs
    kept = created["containers"][0]["resources"]
    assert kept["limits"] == kept["requests"] == {"cpu": "1", "example.com/a": "1"}
    assert kept["claims"][0] == {"name": "theirs"}
    assert len(kept["claims"]) == len(created["resourceClaims"]) == 2


@pytest.mark.parametrize(
    ("resource", "left", "warning"),
    [
        (
            "mig-9g.99gb",
            {},
            "nvidia.com/mig-9g.99gb: InstaSlice knows no GPU with the MIG profile 9g.99gb",
        ),
        (
            "mig-1g.5gb.shared",
            {"main": {"nvidia.com/mig-1g.5gb.shared": "1"}},
            "nvidia.com/mig-1g.5gb.shared is left as it is: "
            "it is not spelt like a MIG profile, as mig-1g.5gb is",
        ),
    ],
)
def test_a_user_is_warned(namespace: Cluster, resource: str, left: Json, warning: str) -> None:
    manifest = pod("p", container(limits={resource: 1}))
    created, warnings = namespace.create_aloud(manifest)
    assert limits_left(created) == left
    assert warnings == [warning]
    manifest["metadata"]["name"] = "q"
    assert f"Warning: {warning}\n" in namespace.kubectl("create", "-f-", stdin=manifest).stderr


def test_a_mirror_pod_is_left_alone(namespace: Cluster) -> None:
    mirror = pod("p", nodeName="somewhere", automountServiceAccountToken=False)
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "hash"}
    assert limits_left(namespace.create(mirror)) == {"main": extended({"mig-1g.5gb": "1"})}


OTHER_PODS: dict[str, Json] = {
    "plain": pod("p", container()),
    "other resources": pod(
        "p", container(resources={"limits": {"cpu": "1", "example.com/gpu": "1"}})
    ),
    "null resources": pod("p", container(resources=None)),
    "null limits": pod("p", container(resources={"limits": None, "requests": None})),
    "empty limits": pod("p", container(resources={"limits": {}})),
    "init containers": pod("p", container(), initContainers=[container("i")]),
    "a name that only contains it": pod(
        "p", container(resources={"limits": {"example.com/nvidia.com-mig-1g.5gb": "1"}})
    ),
}


@pytest.mark.parametrize("case", OTHER_PODS)
def test_a_pod_without_mig_is_created_as_ever(
    namespace: Cluster, bare_namespace: Cluster, webhook: Webhook, case: str
) -> None:
    before = webhook.admissions()
    with_it = namespace.create(OTHER_PODS[case], dry_run=True)
    if namespace.plane.version >= FIRST_WITH_MATCH_CONDITIONS:
        assert webhook.admissions() == before, "InstaSlice is not asked"
    without_it = bare_namespace.create(OTHER_PODS[case], dry_run=True)
    assert portable(with_it) == portable(without_it)


def portable(pod: Json) -> Json:
    """A pod's spec, without the volume of its token, which has a random name."""
    spec: Json = {**pod["spec"], "volumes": None}
    containers = [{**each, "volumeMounts": None} for each in all_containers(pod)]
    return {**spec, "containers": containers, "initContainers": None}


def test_who_opts_out_is_left_alone(namespace: Cluster, bare_namespace: Cluster) -> None:
    unchanged = {"main": extended({"mig-1g.5gb": "1"})}
    assert limits_left(bare_namespace.create(pod("p"))) == unchanged
    labelled = pod("p")
    labelled["metadata"]["labels"] = {"instaslice.io/rewrite": "disabled"}
    assert limits_left(namespace.create(labelled)) == unchanged
