"""LimitRanges on MIG resources: pods get the same devices with and without InstaSlice."""

import pytest

from test.e2e.cluster import Cluster, Json
from test.e2e.pods import PREFIX, claims, container, each_slice, extended, native, pod, templates
from test.support.process import until

MIG = PREFIX + "mig-1g.5gb"


FIFTY = {"mig-1g.5gb": 50}


def limit(cluster: Cluster, **limits: int) -> None:
    """Create a LimitRange of type Container, and wait until the API server applies it."""
    item = {key: extended({"mig-1g.5gb": str(n)}) for key, n in limits.items()}
    cluster.make("LimitRange", "l", spec={"limits": [{"type": "Container", **item}]})

    def applies() -> bool:
        """Whether a pod gets the default, or is refused above the maximum."""
        if "max" in limits:
            return "maximum" in cluster.refusal(native(pod("probe", container(limits=FIFTY))))
        made = cluster.create(native(pod("probe", container())), dry_run=True)
        return MIG in made["spec"]["containers"][0].get("resources", {}).get("limits", {})

    until(applies, "the LimitRange applies")


def has(created: Json) -> dict[str, int]:
    """Container -> the number of slices in its claims."""
    by_claim = templates(created)
    return {
        name: sum(len(each_slice(by_claim[claim])) for claim in own)
        for name, own in claims(created).items()
    }


ASKS: dict[str, Json] = {
    "nothing": container(),
    "zero": container(limits={"mig-1g.5gb": 0}),
    "one": container(limits={"mig-1g.5gb": 1}),
    "three": container(limits={"mig-1g.5gb": 3}),
}

#: LimitRange -> amount that a container requests -> its slices. A maximum implies a default.
CASES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "default": ({"default": 2}, {"nothing": 2, "zero": 0, "one": 1, "three": 3}),
    "default 0": ({"default": 0}, {"nothing": 0, "zero": 0, "one": 1, "three": 3}),
    "max": ({"max": 4}, {"nothing": 4, "zero": 0, "one": 1, "three": 3}),
    "max with default": (
        {"max": 4, "default": 1, "defaultRequest": 1},
        {"nothing": 1, "zero": 0, "one": 1, "three": 3},
    ),
    "max with default 0": ({"max": 4, "default": 0}, {"nothing": 0, "zero": 0, "one": 1}),
    "defaultRequest": (
        {"default": 2, "defaultRequest": 2},
        {"nothing": 2, "zero": 0, "one": 1, "three": 3},
    ),
}


@pytest.mark.parametrize("side", ["false", "true"])
@pytest.mark.parametrize("case", CASES)
def test_container_gets_its_request_or_the_default_even_if_applied_twice(
    namespace: Cluster, case: str, side: str
) -> None:
    limits, wanted = CASES[case]
    limit(namespace, **limits)
    for asks, slices in wanted.items():
        for _ in range(2):
            apply = ("apply", f"--server-side={side}", "-f-")
            done = namespace.kubectl(*apply, stdin=pod(asks, ASKS[asks]))
            assert (done.returncode, done.stderr) == (0, ""), asks
            assert has(namespace.get("Pod", asks)) == {"main": slices}, asks


def test_pods_without_a_gpu_start_beside_a_maximum(namespace: Cluster) -> None:
    """A pod with several containers, of which one requests a GPU."""
    limit(namespace, max=4, default=0)
    created = namespace.create(pod("p", container("a", {"mig-1g.5gb": 2}), container("b")))
    assert has(created) == {"a": 2, "b": 0}
