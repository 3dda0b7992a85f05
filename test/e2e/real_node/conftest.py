"""One real node and one InstaSlice for the tests of this folder; the rest is as for all of e2e."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from test.e2e import installation
from test.e2e.cluster import Cluster
from test.e2e.controlplane import ControlPlane
from test.e2e.node import Node, missing, node
from test.e2e.webhook import Webhook


def pytest_runtest_setup(item: pytest.Function) -> None:
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    lacks = missing(Path(assets)) if assets and "real_node" in item.fixturenames else ""
    if lacks:
        pytest.skip(lacks)  # from here, so that pytest shows one line for all tests


@pytest.fixture(scope="package")
def real_node() -> Iterator[tuple[Node, Cluster]]:
    """A cluster of one node. Tests of this folder are in its network."""
    # Not pytest's own folder: the path of a Unix socket has at most 107 bytes (unix(7)).
    folder = Path(tempfile.mkdtemp(prefix="node-"))
    try:
        with node(Path(os.environ["KUBEBUILDER_ASSETS"]), folder) as made:
            yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="package")
def the_node(real_node: tuple[Node, Cluster]) -> Node:
    return real_node[0]


@pytest.fixture(scope="package")
def plane(the_node: Node) -> ControlPlane:
    return the_node.plane


@pytest.fixture(scope="package")
def cluster(real_node: tuple[Node, Cluster]) -> Cluster:
    return real_node[1]


@pytest.fixture(scope="package")
def webhook(cluster: Cluster, the_node: Node) -> Iterator[Webhook]:
    """InstaSlice, installed as `config/` has it, running beside the node and registered."""
    folder = the_node.folder / "webhook"
    kubeconfig = installation.install(cluster, folder)
    webhook = Webhook(folder, f"--kubeconfig={kubeconfig}", "--provision-templates")
    try:
        webhook.start()
        installation.register(cluster, webhook.client_config)
        yield webhook
    finally:
        webhook.stop()
