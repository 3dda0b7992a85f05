"""Updates of pods: manifests applied again, and pods that were there before InstaSlice."""

import shutil

import pytest

from test.e2e.cluster import Cluster, Json, Refused
from test.e2e.installation import let_in
from test.e2e.pods import claims, container, extended, limits_left, pod, slices


class Applier:
    """`kubectl apply`, client-side or server-side."""

    def __init__(self, cluster: Cluster, *options: str) -> None:
        self._cluster, self._options = cluster, options

    def __call__(self, manifest: Json) -> str:
        """What kubectl prints; fails where kubectl does."""
        printed = self._cluster.kubectl("apply", *self._options, "-f-", stdin=manifest)
        assert printed.returncode == 0, printed.stderr
        assert printed.stderr == ""
        return printed.stdout.strip()

    def refusal(self, manifest: Json) -> str:
        """What kubectl prints where it fails."""
        printed = self._cluster.kubectl("apply", *self._options, "-f-", stdin=manifest)
        assert printed.returncode != 0, printed.stdout
        return printed.stderr


@pytest.fixture(params=["client-side", "server-side"])
def apply(request: pytest.FixtureRequest, namespace: Cluster) -> Applier:
    return Applier(namespace, f"--server-side={request.param == 'server-side'}".lower())


APPLIED: dict[str, Json] = {
    "one slice": pod("p"),
    "slices, profiles and containers": pod(
        "p",
        container("a", {"mig-1g.5gb": 2, "mig-3g.20gb": 1}),
        container("b", {"mig-1g.5gb": "1000m"}),
        container("c"),
        initContainers=[container("i", {"mig-1g.5gb": 1})],
    ),
    "beside other resources": pod(
        "p",
        container(resources={"limits": {"cpu": "1", **extended({"mig-1g.5gb": 1})}}),
    ),
    "none, and one": pod("p", container("a", {"mig-1g.5gb": 0}), container("b", {"mig-1g.5gb": 1})),
    "with requests": pod(
        "p",
        container(resources=dict.fromkeys(("limits", "requests"), extended({"mig-1g.5gb": 1}))),
    ),
}


@pytest.mark.parametrize("case", APPLIED)
def test_a_manifest_can_be_applied_again(namespace: Cluster, apply: Applier, case: str) -> None:
    manifest = APPLIED[case]
    apply(manifest)
    created = namespace.get("Pod", "p")
    apply(manifest)
    labels = {"labels": {"a": "b"}}
    apply({**manifest, "metadata": {**manifest["metadata"], **labels}})
    after = namespace.get("Pod", "p")
    assert after["metadata"]["labels"] == {"a": "b"}
    assert after["spec"] == created["spec"]
    assert any(claims(after).values())


@pytest.mark.skipif(not shutil.which("diff"), reason="kubectl diff needs diff")
@pytest.mark.parametrize("side", ["false", "true"])
def test_a_manifest_that_was_applied_shows_no_difference(namespace: Cluster, side: str) -> None:
    Applier(namespace, f"--server-side={side}")(pod("p"))
    difference = namespace.kubectl("diff", f"--server-side={side}", "-f-", stdin=pod("p"))
    assert (difference.returncode, difference.stdout) == (0, ""), difference.stderr


def test_an_applied_image_is_changed(namespace: Cluster, apply: Applier) -> None:
    apply(pod("p"))
    apply(pod("p", container(limits={"mig-1g.5gb": 1}, image="registry.test/another")))
    changed = namespace.get("Pod", "p")
    assert changed["spec"]["containers"][0]["image"] == "registry.test/another"
    assert slices(changed) == {"main": ["mig-1g.5gb"]}


@pytest.mark.parametrize("limits", [{"mig-1g.5gb": 2}, {"mig-2g.10gb": 1}, {"mig-1g.5gb": 0}])
def test_another_number_of_slices_is_the_api_servers_to_refuse(
    namespace: Cluster, apply: Applier, limits: Json
) -> None:
    apply(pod("p"))
    refusal = apply.refusal(pod("p", container(limits=limits)))
    assert "pod updates may not change fields other than" in refusal
    assert slices(namespace.get("Pod", "p")) == {"main": ["mig-1g.5gb"]}


@pytest.mark.parametrize("earlier", [False, True], ids=["rewritten", "from before InstaSlice"])
def test_changes_by_others(namespace: Cluster, bare_namespace: Cluster, earlier: bool) -> None:
    """What controllers and people do to pods, rewritten ones and those that still have limits."""
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
    team.patch("Pod", "p", {"spec": {"activeDeadlineSeconds": 600}})
    team.patch("Pod", "p", {"spec": {"containers": image}})
    tolerations = {"tolerations": [*before.get("tolerations", []), toleration]}
    team.patch("Pod", "p", {"spec": tolerations}, "merge")
    after = team.get("Pod", "p")
    assert toleration in after["spec"]["tolerations"]
    assert after["spec"].get("resourceClaims") == before.get("resourceClaims")
    assert after["spec"]["containers"][0]["resources"] == before["containers"][0]["resources"]
    assert bool(limits_left(after)) == earlier
    team.delete("Pod", "p")
    team.patch("Pod", "p", {"metadata": {"finalizers": None}}, "merge")
    assert team.find("Pod", "p") is None


@pytest.mark.parametrize("quantity", [0, 1])
@pytest.mark.parametrize("side", ["false", "true"])
def test_an_earlier_pod_applied_again(
    namespace: Cluster, bare_namespace: Cluster, side: str, quantity: int
) -> None:
    apply = Applier(bare_namespace, f"--server-side={side}")
    manifest = pod("p", container(limits={"mig-1g.5gb": quantity}))
    apply(manifest)
    let_in(bare_namespace)
    apply(manifest)
    manifest["metadata"]["labels"] = {"a": "b"}
    apply(manifest)
    after = bare_namespace.get("Pod", "p")
    assert after["metadata"]["labels"] == {"a": "b"}
    assert limits_left(after) == {"main": extended({"mig-1g.5gb": str(quantity)})}


def test_server_side_apply_of_part_of_a_pod(namespace: Cluster) -> None:
    """Another manager's apply, which names nothing of the containers."""
    namespace.create(pod("p"))
    part = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "b"}}}
    after = namespace.apply(part, manager="somebody")
    assert after["metadata"]["labels"] == {"a": "b"}
    assert slices(after) == {"main": ["mig-1g.5gb"]}


def test_a_replaced_pod_is_the_api_servers_to_refuse(namespace: Cluster) -> None:
    """A PUT of the first manifest leaves out the claims, so nothing stands for its limits."""
    namespace.create(pod("p"))
    with pytest.raises(Refused, match="pod updates may not change fields other than"):
        namespace.send("replace", "Pod", body=pod("p"))
