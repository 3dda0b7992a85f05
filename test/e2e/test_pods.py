"""Pods that are created and updated: how they are rewritten, and which are refused."""

import re
import shutil
from datetime import UTC, datetime, timedelta

import pytest
import yaml

from instaslice.resource_api import ALTERNATIVES, SAME_GPU, VERSIONS
from test.e2e.cluster import Cluster, Json, Refused
from test.e2e.installation import ROOT, let_in
from test.e2e.pods import (
    claims,
    container,
    cron_job,
    extended,
    job,
    limits_left,
    pod,
    slices,
    wishing,
    workload,
)
from test.support.process import until

MIG = "nvidia.com/mig-1g.5gb"
UNCHANGED = {"main": {MIG: "1"}}
ONE = {"main": ["mig-1g.5gb"]}


# Created


@pytest.mark.parametrize(
    ("manifest", "number"),
    [
        (workload("Deployment", "d", replicas=2), 2),
        (workload("StatefulSet", "s", replicas=2, podManagementPolicy="Parallel"), 2),
        (job("j"), 1),
        (cron_job("c"), 1),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else "",
)
def test_pods_of_workloads_are_rewritten(namespace: Cluster, manifest: Json, number: int) -> None:
    if not namespace.plane.has_controllers:
        pytest.skip("needs kube-controller-manager, beside kube-apiserver")
    before = namespace.create(manifest)["spec"]
    kind, name = manifest["kind"], manifest["metadata"]["name"]
    if kind == "CronJob":
        # With the last run two minutes ago, the next one is due now, not at the next full minute.
        past = (datetime.now(UTC) - timedelta(minutes=2)).strftime("%Y-%m-%dT%H:%M:%SZ")
        namespace.patch("CronJob/status", name, {"status": {"lastScheduleTime": past}}, "merge")
    until(lambda: len(namespace.list("Pod")) >= number, f"{number} pods")
    for each in namespace.list("Pod"):
        assert slices(each) == ONE
    assert namespace.get(kind, name)["spec"] == before, "the template stays as it is"


CREATED: dict[str, tuple[Json, dict[str, list[str]]]] = {
    "the sample": (
        yaml.safe_load((ROOT / "samples" / "sample.yaml").read_text()),
        {"busybox": ["mig-1g.5gb"]},
    ),
    "containers, profiles and spellings": (
        pod(
            "p",
            container("a", {"mig-1g.5gb": "1e0", "mig-3g.20gb": "2000m"}),
            container("b", {"mig-1g.5gb.me": "0.001k"}),
            container("c"),
        ),
        {"a": ["mig-1g.5gb", *["mig-3g.20gb"] * 2], "b": ["mig-1g.5gb.me"], "c": []},
    ),
    "the most": (pod("p", container(limits={"mig-1g.5gb": 112})), {"main": ["mig-1g.5gb"] * 112}),
}


@pytest.mark.parametrize("case", CREATED)
def test_pod_gets_the_expected_claims(namespace: Cluster, case: str) -> None:
    manifest, expected = CREATED[case]
    created = namespace.create(manifest)
    assert slices(created) == expected
    names = [claim["name"] for claim in created["spec"].get("resourceClaims", [])]
    assert sorted(names) == sorted({name for own in claims(created).values() for name in own})


def test_other_resources_and_claims_stay(namespace: Cluster) -> None:
    limits = {MIG: 1, "cpu": "1", "example.com/a": "1"}
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
        ("mig-9g.99gb", {}, ": InstaSlice knows no GPU with the MIG profile 9g.99gb"),
        (
            "mig-1g.5gb.shared",
            {"main": {f"{MIG}.shared": "1"}},
            " is left as it is: it is not a MIG profile such as mig-1g.5gb",
        ),
    ],
)
def test_user_gets_a_warning(namespace: Cluster, resource: str, left: Json, warning: str) -> None:
    manifest = pod("p", container(limits={resource: 1}))
    created, warnings = namespace.create_aloud(manifest)
    assert limits_left(created) == left
    assert warnings == [f"nvidia.com/{resource}{warning}"]
    manifest["metadata"]["name"] = "q"
    assert f"Warning: {warnings[0]}\n" in namespace.kubectl("create", "-f-", stdin=manifest).stderr


def test_mirror_and_opted_out_pods(namespace: Cluster, bare_namespace: Cluster) -> None:
    """InstaSlice ignores mirror pods, and pods and namespaces that opt out by a label."""
    mirror = pod("mirror", nodeName="somewhere", automountServiceAccountToken=False)
    mirror["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "hash"}
    labelled = pod("labelled")
    labelled["metadata"]["labels"] = {"instaslice.io/rewrite": "disabled"}
    for where, each in ((namespace, mirror), (namespace, labelled), (bare_namespace, pod("p"))):
        assert limits_left(where.create(each)) == UNCHANGED


# Updated


class Applier:
    """`kubectl apply`, client-side or server-side."""

    def __init__(self, cluster: Cluster, side: str) -> None:
        self._cluster, self._option = cluster, f"--server-side={side}"

    def __call__(self, manifest: Json, verb: str = "apply", *options: str) -> str:
        """Run kubectl, which must succeed without warnings; returns its output."""
        printed = self._cluster.kubectl(verb, self._option, *options, "-f-", stdin=manifest)
        assert (printed.returncode, printed.stderr) == (0, "")
        return printed.stdout

    def refusal(self, manifest: Json) -> str:
        """Run kubectl, which must fail; returns its message."""
        printed = self._cluster.kubectl("apply", self._option, "-f-", stdin=manifest)
        assert printed.returncode != 0, printed.stdout
        return printed.stderr


@pytest.fixture(params=["false", "true"], ids=["client-side", "server-side"])
def side(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def apply(side: str, namespace: Cluster) -> Applier:
    return Applier(namespace, side)


APPLIED: dict[str, Json] = {
    "one slice": pod("p"),
    "slices, profiles and containers": pod(
        "p",
        container("a", {"mig-1g.5gb": 2, "mig-3g.20gb": 1}),
        container("b", {"mig-1g.5gb": "1000m"}),
        container("c"),
        initContainers=[container("i", {"mig-1g.5gb": 1})],
    ),
    "beside other resources": pod("p", container(resources={"limits": {"cpu": "1", MIG: 1}})),
    "none, and one": pod("p", container("a", {"mig-1g.5gb": 0}), container("b", {"mig-1g.5gb": 1})),
    "with annotations": wishing(
        pod("p", container("a", {"mig-1g.5gb": 2}), container("b", {"mig-3g.20gb": 1})),
        alternatives="3g.20gb or 4g.20gb",
        placement="same-gpu",
    ),
    "with requests": pod("p", container(resources={"limits": {MIG: 1}, "requests": {MIG: 1}})),
}


@pytest.mark.parametrize("case", APPLIED)
def test_a_manifest_can_be_applied_again(namespace: Cluster, apply: Applier, case: str) -> None:
    manifest, features = APPLIED[case], VERSIONS[namespace.plane.resource_api].features
    if case == "with annotations" and not {ALTERNATIVES, SAME_GPU} <= features:
        pytest.skip("this version can claim neither")
    apply(manifest)
    created = namespace.get("Pod", "p")
    apply(manifest)
    if shutil.which("diff"):
        assert apply(manifest, "diff") == ""
    apply({**manifest, "metadata": {**manifest["metadata"], "labels": {"a": "b"}}})
    after = namespace.get("Pod", "p")
    assert after["metadata"]["labels"] == {"a": "b"}
    assert after["spec"] == created["spec"]
    assert any(claims(after).values())


@pytest.mark.parametrize("limits", [{"mig-1g.5gb": 2}, {"mig-2g.10gb": 1}, {"mig-1g.5gb": 0}])
def test_api_server_refuses_another_number_of_slices(
    namespace: Cluster, apply: Applier, limits: Json
) -> None:
    apply(pod("p"))
    refusal = apply.refusal(pod("p", container(limits=limits)))
    assert "pod updates may not change fields other than" in refusal
    assert slices(namespace.get("Pod", "p")) == ONE


@pytest.mark.parametrize("earlier", [False, True], ids=["rewritten", "from before InstaSlice"])
def test_changes_by_others(namespace: Cluster, bare_namespace: Cluster, earlier: bool) -> None:
    """Changes by controllers and people to rewritten pods, and to pods with limits."""
    team = bare_namespace if earlier else namespace
    manifest = pod("p", container(limits={"mig-1g.5gb": 1}))
    manifest["metadata"]["finalizers"] = ["example.com/wait"]
    team.create(manifest)
    if earlier:
        let_in(team)
    before = team.get("Pod", "p")["spec"]
    toleration = {"key": "a", "operator": "Exists"}
    image = [{"name": "main", "image": "registry.test/another"}]
    team.patch("Pod", "p", {"metadata": {"labels": {"a": "b"}}})
    team.patch("Pod", "p", {"metadata": {"ownerReferences": []}}, "merge")
    team.patch("Pod", "p", {"spec": {"activeDeadlineSeconds": 600, "containers": image}})
    tolerations = {"tolerations": [*before.get("tolerations", []), toleration]}
    team.patch("Pod", "p", {"spec": tolerations}, "merge")
    # Another manager's apply, which names no containers.
    part = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"c": "d"}}}
    after = team.apply(part, manager="somebody")
    assert toleration in after["spec"]["tolerations"]
    assert after["spec"]["containers"][0]["image"] == "registry.test/another"
    assert after["spec"].get("resourceClaims") == before.get("resourceClaims")
    assert after["spec"]["containers"][0]["resources"] == before["containers"][0]["resources"]
    assert bool(limits_left(after)) == earlier
    if not earlier:
        # A PUT of the first manifest lacks the claims, so nothing replaces its limits.
        with pytest.raises(Refused, match="pod updates may not change fields other than"):
            team.send("replace", "Pod", body=pod("p"))
    team.delete("Pod", "p")
    team.patch("Pod", "p", {"metadata": {"finalizers": None}}, "merge")
    assert team.find("Pod", "p") is None


@pytest.mark.parametrize("quantity", [0, 1])
def test_an_earlier_pod_applied_again(
    namespace: Cluster, bare_namespace: Cluster, side: str, quantity: int
) -> None:
    apply = Applier(bare_namespace, side)
    manifest = pod("p", container(limits={"mig-1g.5gb": quantity}))
    apply(manifest)
    let_in(bare_namespace)
    apply(manifest)
    manifest["metadata"]["labels"] = {"a": "b"}
    apply(manifest)
    after = bare_namespace.get("Pod", "p")
    assert after["metadata"]["labels"] == {"a": "b"}
    assert limits_left(after) == {"main": extended({"mig-1g.5gb": str(quantity)})}


def test_server_side_apply_of_a_client_side_applied_pod_conflicts_once(namespace: Cluster) -> None:
    """As docs/operations.md says. The API server finds it before it calls InstaSlice."""
    manifest = pod("p", container(limits={"mig-1g.5gb": "1"}))
    Applier(namespace, "false")(manifest)
    server_side = Applier(namespace, "true")
    refusal = server_side.refusal(manifest)
    assert 'conflicts with "kubectl-client-side-apply"' in refusal
    assert f'.spec.containers[name="main"].resources.limits.{MIG}' in refusal
    server_side(manifest, "apply", "--force-conflicts")
    server_side(manifest)
    assert slices(namespace.get("Pod", "p")) == ONE


# Refused

LIMITS = "spec.containers[0].resources.limits"
REQUESTS = "spec.containers[0].resources.requests"

#: Resources, and the lines of the refusal.
REFUSED: dict[str, tuple[Json, list[str]]] = {
    "a fraction": (
        {"limits": {MIG: "500m"}},
        [f'{LIMITS}[{MIG}]: Invalid value: "500m": must be an integer'],
    ),
    "a negative fraction": (
        {"limits": {MIG: "-500m"}},
        [
            f'{LIMITS}[{MIG}]: Invalid value: "-500m": must be greater than or equal to 0',
            f'{LIMITS}[{MIG}]: Invalid value: "-500m": must be an integer',
        ],
    ),
    "a request, and a limit of none": (
        {"limits": {MIG: 0}, "requests": {MIG: 1}},
        [f'{REQUESTS}: Invalid value: "1": must be equal to {MIG} limit of 0'],
    ),
    "only a request": (
        {"requests": {MIG: 1}},
        [f"{LIMITS}: Required value: Limit must be set for non overcommitable resources"],
    ),
    "two mistakes": (
        {"limits": {MIG: "1500m"}, "requests": {MIG: 1}},
        [
            f'{LIMITS}[{MIG}]: Invalid value: "1500m": must be an integer',
            f'{REQUESTS}: Invalid value: "1": must be equal to {MIG} limit of 1500m',
        ],
    ),
}


def refusal(cluster: Cluster, manifest: Json) -> Refused:
    with pytest.raises(Refused) as caught:
        cluster.create(manifest)
    assert (caught.value.code, caught.value.reason) == (422, "Invalid")
    return caught.value


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_equal_the_api_servers(
    namespace: Cluster, bare_namespace: Cluster, case: str
) -> None:
    resources, lines = REFUSED[case]
    manifest = pod("p", container(resources=resources))
    assert lines_of(refusal(namespace, manifest)) == lines
    # It has the same errors for the requests, which it copies from the limits.
    of_api_server = lines_of(refusal(bare_namespace, manifest))
    assert [line for line in of_api_server if not line.startswith(REQUESTS + "[")] == lines
    printed = namespace.kubectl("create", "-f-", stdin=manifest)
    assert printed.returncode == 1
    if len(lines) == 1:
        assert printed.stderr == f'The Pod "p" is invalid: {lines[0]}\n'


def lines_of(refused: Refused) -> list[str]:
    """The lines of a refusal."""
    return [f"{cause['field']}: {plain(cause['message'])}" for cause in refused.causes]


def plain(message: str) -> str:
    """A message with quantities as typed, since old API servers print Go structures."""
    return re.sub(r'resource\.Quantity\{.*? s:("[^"]*").*?\}', r"\1", message)


@pytest.mark.parametrize("quantity", [113, "1k", "1e18"])
def test_more_slices_than_a_machine_has(namespace: Cluster, quantity: object) -> None:
    refused = refusal(namespace, pod("p", container(limits={"mig-1g.5gb": quantity})))
    assert "must be less than or equal to 112, 16 GPUs of 7 slices" in str(refused)
    assert str(refused).startswith('admission webhook "rewrite.instaslice.io" denied the request: ')
    (cause,) = refused.causes
    assert cause["field"] == f"{LIMITS}[{MIG}]"
