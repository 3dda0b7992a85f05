"""One control plane and one InstaSlice for the whole suite, and a namespace for each test."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from test.e2e import gpus, nvidia
from test.e2e.cluster import Cluster, fresh_namespace
from test.e2e.controlplane import COUNTERS, ControlPlane, control_plane
from test.e2e.installation import serving
from test.e2e.node import Node, missing
from test.e2e.webhook import Webhook

NO_ASSETS = (
    "needs a Kubernetes: export KUBEBUILDER_ASSETS=$(setup-envtest use -p path 1.34), "
    "of sigs.k8s.io/controller-runtime/tools/setup-envtest"
)


def pytest_runtest_setup(item: pytest.Function) -> None:
    """Skip from here, so that pytest shows one line for all tests."""
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    planes = {"plane", "empty_cluster", "alone", "cluster_without_dra", "real_node"}
    if planes & {*item.fixturenames} and not assets:
        pytest.skip(NO_ASSETS)
    if "real_node" in item.fixturenames:
        lacks = missing(Path(assets or ""))
        if not lacks and nvidia.wanted() is not Node:
            lacks = nvidia.missing()
        if lacks:
            pytest.skip(lacks)


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    assets = Path(os.environ["KUBEBUILDER_ASSETS"])
    folder = tmp_path_factory.mktemp("e2e") / "plane"
    with control_plane(assets, folder, gates=COUNTERS) as running:
        yield running


@pytest.fixture(scope="session")
def cluster(plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """The API server, with an administrator's rights."""
    return Cluster(plane, tmp_path_factory.mktemp("client") / "discovery")


@contextmanager
def another(factory: pytest.TempPathFactory, **options: Any) -> Iterator[Cluster]:
    """The API server of another control plane. options: of `control_plane`."""
    assets, folder = Path(os.environ["KUBEBUILDER_ASSETS"]), factory.mktemp("another")
    with control_plane(assets, folder / "plane", **options) as running:
        yield Cluster(running, folder / "discovery")


@pytest.fixture(scope="module")
def empty_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster without InstaSlice, for one module."""
    with another(tmp_path_factory) as cluster:
        if not cluster.plane.has_controllers:
            pytest.skip("needs kube-controller-manager, which creates the pods of Deployments")
        yield cluster


@pytest.fixture
def cluster_without_dra(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that does not serve resource.k8s.io."""
    with another(tmp_path_factory, controllers=False, has_dra=False) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def webhook(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Webhook]:
    """InstaSlice, installed from `config/`, running and registered."""
    folder = tmp_path_factory.mktemp("e2e") / "webhook"
    with serving(cluster, folder, *gpus.MAPPINGS) as webhook:
        yield webhook


@pytest.fixture(scope="session")
def numbers() -> Iterator[int]:
    return count(1)


@pytest.fixture
def namespace(cluster: Cluster, webhook: Webhook, numbers: Iterator[int]) -> Iterator[Cluster]:
    """A fresh namespace that InstaSlice serves."""
    with fresh_namespace(cluster, numbers, {}) as namespace:
        yield namespace


@pytest.fixture
def bare_namespace(cluster: Cluster, numbers: Iterator[int]) -> Iterator[Cluster]:
    """A fresh namespace that InstaSlice ignores, as if it were not installed."""
    with fresh_namespace(cluster, numbers, {"instaslice.io/rewrite": "disabled"}) as namespace:
        yield namespace


@pytest.fixture(scope="module")
def devices(cluster: Cluster) -> Iterator[None]:
    """A node with two A100s, unless a module overrides it; removed, since other modules count."""
    with gpus.a100s(cluster):
        yield


@pytest.fixture
def team(devices: None, namespace: Cluster) -> Iterator[Cluster]:
    """A namespace whose pods may use the devices; its pods are deleted afterwards."""
    yield namespace
    gpus.clear(namespace)
