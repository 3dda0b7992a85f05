"""One real node and one InstaSlice for the tests of this folder."""

from collections.abc import Iterator

import pytest

from test.e2e.cluster import Cluster
from test.e2e.gpus import MAPPING
from test.e2e.installation import serving
from test.e2e.node import Node
from test.e2e.nvidia import cluster as cluster
from test.e2e.nvidia import real_node as real_node
from test.e2e.webhook import Webhook
from test.support.process import until


@pytest.fixture(scope="package")
def webhook(real_node: Node) -> Iterator[Webhook]:
    """InstaSlice, running outside the node and registered; it rewrites whole GPUs, too."""
    with serving(real_node.cluster, real_node.folder / "webhook", MAPPING) as webhook:
        yield webhook


@pytest.fixture
def namespace(namespace: Cluster) -> Iterator[Cluster]:
    """A fresh namespace that InstaSlice serves; its devices are freed afterwards."""
    yield namespace
    kinds = "deployments,statefulsets,jobs,pods"
    # Deleting the whole namespace would take longer.
    deleted = namespace.kubectl("delete", kinds, "--all", "--timeout=50s")
    assert deleted.returncode == 0, deleted.stderr
    until(lambda: not namespace.list("ResourceClaim"), "the claims are gone")
