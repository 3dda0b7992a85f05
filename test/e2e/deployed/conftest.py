"""A real node for the tests of this folder, with nothing of InstaSlice's there."""

from collections.abc import Iterator

import pytest

from test.e2e.cluster import Cluster
from test.e2e.node import Node, real_node_of_tests
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
