"""A real node for the tests of this folder, with nothing of InstaSlice's there."""

from collections.abc import Iterator

import pytest

from test.e2e.cluster import Cluster
from test.e2e.load import Load, load
from test.e2e.node import Node, real_node_of_tests
from test.e2e.pods import pod
from test.image import build

IMAGE = "registry.test/instaslice:1"


@pytest.fixture(scope="package")
def real_node() -> Iterator[Node]:
    """A cluster of one node. Tests of this folder are in its network."""
    with real_node_of_tests(Node) as node:
        yield node


@pytest.fixture(scope="package")
def cluster(real_node: Node) -> Cluster:
    return real_node.cluster


@pytest.fixture(scope="package")
def image(real_node: Node, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image, in the node's store as if it had been pulled."""
    if lacks := build.missing():
        pytest.skip(lacks)
    archive = tmp_path_factory.mktemp("image") / "instaslice.tar"
    # Packages come from the network, which the node has not.
    storage = build.storage(tmp_path_factory.mktemp("buildah"))
    with real_node.machine.outside(), storage as buildah:
        name = buildah.build(build.NATIVE, buildah.build_image())
        build.Image(buildah, name).export(archive, IMAGE)
    real_node.ctr("images", "import", archive)
    archive.unlink()
    return IMAGE


@pytest.fixture(scope="module")
def webhook(deployed: Cluster) -> None:
    """The one that serves the namespaces of the tests; each module deploys it in its own way."""


@pytest.fixture
def under_load(namespace: Cluster) -> Iterator[Load]:
    """Pods with slices are created all the time; not one may be refused, or be left as it was."""
    with load(namespace, pod("p")) as seen:
        seen.goes_on()
        yield seen
    assert seen.failures == []
    print(f"\n{seen.rewritten} pods, the slowest in {seen.slowest:.2f} s")
