"""A real node on which `make` deploys InstaSlice, for the tests of this folder."""

from collections.abc import Iterator

import pytest

from test.e2e import cert_manager
from test.e2e.background import Load, load
from test.e2e.checkout import Checkout
from test.e2e.cluster import Cluster
from test.e2e.node import Node
from test.e2e.nvidia import cluster as cluster
from test.e2e.nvidia import real_node as real_node
from test.e2e.pods import pod
from test.image import build

IMAGE = "registry.test/instaslice:1"


@pytest.fixture(scope="package")
def image(real_node: Node, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The image, in the node's store as if it had been pulled."""
    if lacks := build.missing():
        pytest.skip(lacks)
    archive = tmp_path_factory.mktemp("image") / "instaslice.tar"
    # Packages come from the network, which the node does not have.
    storage = build.storage(tmp_path_factory.mktemp("buildah"))
    with real_node.machine.outside(), storage as buildah:
        name = buildah.build(build.NATIVE, buildah.build_image())
        build.Image(buildah, name).export(archive, IMAGE)
    real_node.ctr("images", "import", archive)
    archive.unlink()
    return IMAGE


@pytest.fixture(scope="package")
def checkout(cluster: Cluster, image: str, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which `make` deploys that image."""
    return Checkout(cluster.plane, tmp_path_factory.mktemp("checkout"), image)


@pytest.fixture(scope="package")
def issuer(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Run cert-manager."""
    if lacks := cert_manager.missing():
        pytest.skip(lacks)
    with cert_manager.cert_manager(cluster, tmp_path_factory.mktemp("cert-manager")):
        yield


@pytest.fixture(scope="module")
def webhook(deployed: Cluster) -> None:
    """The webhook for the tests' namespaces, which each module deploys differently."""


@pytest.fixture
def under_load(namespace: Cluster) -> Iterator[Load]:
    """Create pods with slices all the time; every one must be accepted and rewritten."""
    with load(namespace, pod("p")) as seen:
        seen.goes_on()
        yield seen
    assert seen.failures == []
    print(f"\n{seen.rewritten} pods, the slowest in {seen.slowest:.2f} s")
