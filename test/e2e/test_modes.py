"""The pods that the API server sends in each mode. InstaSlice is down, so those are refused."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from instaslice.webhook_configuration import BESIDE, MODES, OPT_IN, webhook_configuration
from test.e2e.cluster import Cluster, Json, Refused, fresh_namespace
from test.e2e.gpus import FIRST_WITH_EXTENDED_RESOURCES
from test.e2e.installation import FIRST_WITH_MATCH_CONDITIONS
from test.e2e.pods import container, extended, pod, wishing
from test.support.process import free_ports, until

#: A label of this module's namespaces.
MINE = "test.instaslice.io/modes"


@pytest.fixture(scope="module")
def cluster(empty_cluster: Cluster) -> Cluster:
    """A separate control plane, since another InstaSlice would rewrite the pods first."""
    return empty_cluster


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[str]:
    """A mode that the API server applies, with an InstaSlice that it cannot reach."""
    version, mode = cluster.plane.version, str(request.param)
    if version < FIRST_WITH_MATCH_CONDITIONS:
        pytest.skip(f"Kubernetes {version} drops matchConditions, and sends every pod")
    if mode == BESIDE and version.minor < FIRST_WITH_EXTENDED_RESOURCES:
        pytest.skip(f"the scheduler of Kubernetes {version} does not serve extended resources")
    (port,) = free_ports(1)
    manifest = webhook_configuration(mode, ["example.com/gpu"])
    manifest["metadata"]["name"] = "modes"
    (webhook,) = manifest["webhooks"]
    webhook["clientConfig"] = {"url": f"https://127.0.0.1:{port}/mutate"}
    only_here = {"key": MINE, "operator": "Exists"}
    webhook["namespaceSelector"]["matchExpressions"].append(only_here)
    cluster.create(manifest)
    try:
        yield mode
    finally:
        cluster.delete("MutatingWebhookConfiguration", "modes")


Namespace = Callable[..., Cluster]


@pytest.fixture
def labelled(cluster: Cluster, mode: str, numbers: Iterator[int]) -> Iterator[Namespace]:
    """A function that creates a namespace, and waits until the API server applies the mode."""
    with ExitStack() as stack:

        def make(served: bool, **labels: str) -> Cluster:
            every = {MINE: "", **{f"instaslice.io/{key}": value for key, value in labels.items()}}
            namespace = stack.enter_context(fresh_namespace(cluster, numbers, every))
            if served:
                until(lambda: is_sent(namespace, ANNOTATED), "the mode is in force")
            return namespace

        yield make


def is_sent(namespace: Cluster, manifest: Json) -> bool:
    """Whether the API server calls InstaSlice for a pod, which it cannot reach."""
    refusal = namespace.refusal(manifest)
    assert not refusal or "failed calling webhook" in refusal
    return bool(refusal)


ANNOTATED = wishing(pod("p"), placement="same-gpu")


def asking(amount: object, count: int = 1) -> Json:
    return pod("p", *(container(f"c{n}", {"mig-1g.5gb": amount}) for n in range(count)))


OTHERS = {f"example.com/{'r' * 40}-{i}": "1" for i in range(30)}


def largest(ours: Json) -> Json:
    """A pod whose limits may exceed the cost budget of conditions, which refuses the pod."""
    limits = OTHERS | extended(ours)
    return pod("p", *(container(f"c{n}", resources={"limits": limits}) for n in range(199)))


#: Pods that only InstaSlice can serve, which are sent in every mode.
MORE: dict[str, Json] = {
    "placement": ANNOTATED,
    "alternatives": wishing(pod("p"), alternatives="1g.5gb or 1g.10gb"),
    "annotated, in an init container": wishing(
        pod("p", container(), initContainers=[container("i", {"mig-1g.5gb": 1})]),
        placement="same-gpu",
    ),
    "33 slices": asking(33),
    "33 slices of a GPU each": asking(1, 33),
    "two profiles, 20 each": pod("p", container(limits={"mig-1g.5gb": 20, "mig-2g.10gb": 20})),
    "init containers, too": pod(
        "p",
        container(limits={"mig-1g.5gb": 32}),
        initContainers=[container("i", {"mig-2g.10gb": 1})],
    ),
    "1k": asking("1k"),
    "the largest pod": largest({f"mig-{n}g.5gb": "1" for n in range(1, 10)}),
    "more than an integer holds": asking("9223372036854775807", 3),
    "33 of what is mapped": pod("p", container(resources={"limits": {"example.com/gpu": "33"}})),
}
#: Pods that the scheduler can serve by itself.
PLAIN: dict[str, Json] = {
    "a slice": pod("p"),
    "32 slices": asking(32),
    "16 and 16": asking(16, 2),
    "another annotation": wishing(pod("p"), other="1"),
    "only an init container": pod(
        "p", container(), initContainers=[container("i", {"mig-1g.5gb": 1})]
    ),
    "an unknown profile": pod("p", container(limits={"mig-9g.999gb": 1})),
    "a GPU that is mapped": pod("p", container(resources={"limits": {"example.com/gpu": "1"}})),
}
NEVER: dict[str, Json] = {
    "no slice": pod("p", container()),
    "the largest pod without slices": largest({}),
    "annotated, and no slice": wishing(pod("p", container()), placement="same-gpu"),
    "33 of something else": pod("p", container(resources={"limits": {"example.com/other": "33"}})),
    "null resources": pod("p", container(resources=None)),
    "null limits": pod("p", container(resources={"limits": None}), initContainers=None),
}


def test_pods_sent_by_mode_and_namespace(mode: str, labelled: Namespace) -> None:
    enabled = labelled(True, rewrite="enabled")
    # The API server applies the mode already, so there is nothing to wait for.
    disabled, silent = labelled(False, rewrite="disabled"), labelled(False)
    assert not is_sent(disabled, ANNOTATED)
    assert is_sent(silent, ANNOTATED) == (mode != OPT_IN)
    sent = {name for name, manifest in (MORE | PLAIN | NEVER).items() if is_sent(enabled, manifest)}
    assert sent == set(MORE if mode == BESIDE else MORE | PLAIN)


def test_updates_of_pods_older_than_the_label(mode: str, labelled: Namespace) -> None:
    labelled(True, rewrite="enabled")
    other = labelled(False, rewrite="disabled")
    old = pod("old")
    other.create(wishing(old, placement="same-gpu"))
    labels = {"metadata": {"labels": {"instaslice.io/rewrite": "enabled"}}}
    other.patch("Namespace", other.namespace, labels)
    until(lambda: is_sent(other, ANNOTATED), "the namespace is served")
    other.patch("Pod", "old", {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(Refused, match="failed calling webhook"):
        other.patch("Pod", "old", {"spec": {"activeDeadlineSeconds": 600}})
