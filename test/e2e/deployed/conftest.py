"""A real node for the tests of this folder, with nothing of InstaSlice's there."""

from collections.abc import Iterator

import pytest

from test.e2e.cluster import Cluster
from test.e2e.node import Node, real_node_of_tests


@pytest.fixture(scope="package")
def real_node() -> Iterator[Node]:
    """A cluster of one node. Tests of this folder are in its network."""
    with real_node_of_tests() as node:
        yield node


@pytest.fixture(scope="package")
def cluster(real_node: Node) -> Cluster:
    return real_node.cluster
