"""InstaSlice's pods with certificates that cert-manager issues and renews."""

import ssl
from collections.abc import Iterator

import pytest

from test.e2e import cert_manager
from test.e2e.background import Load
from test.e2e.checkout import Checkout
from test.e2e.cluster import Cluster
from test.e2e.installation import NAMESPACE, is_rewriting
from test.e2e.runs import PATIENCE, ready
from test.support.process import until

PORT = 8443
SECRET = "instaslice-tls"


@pytest.fixture(scope="module")
def deployed(issuer: None, checkout: Checkout, cluster: Cluster) -> Iterator[Cluster]:
    """InstaSlice's namespace after `make deploy` with its defaults."""
    done = checkout.make("deploy")
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: is_rewriting(cluster), "InstaSlice is called")
    yield cluster.within(NAMESPACE)
    assert checkout.make("undeploy").returncode == 0


def served(deployed: Cluster) -> set[str]:
    """The certificates that the pods serve, PEM."""
    addresses = [each["status"]["podIP"] for each in ready(deployed).values()]
    return {ssl.get_server_certificate((address, PORT)) for address in addresses}


def mounted(deployed: Cluster, under_load: Load) -> None:
    """Wait until every pod serves the Secret's certificate, and more pods are created."""
    (first, *_) = cert_manager.secret(deployed, SECRET)["tls.crt"].decode().split("\n\n")
    leaf = first[: first.index("-----END CERTIFICATE-----")]

    def current() -> bool:
        return all(each.startswith(leaf) for each in served(deployed))

    until(current, "the pods serve the Secret's certificate", seconds=2 * PATIENCE, every=0.5)
    under_load.goes_on()


def test_certificate_renewals_refuse_no_pod(deployed: Cluster, under_load: Load) -> None:
    for _ in range(2):
        cert_manager.renew(deployed, "instaslice", SECRET)
        mounted(deployed, under_load)


def test_ca_renewal_refuses_no_pod(deployed: Cluster, under_load: Load) -> None:
    """The CA keeps its key, so certificates from before and after the renewal are trusted."""
    cert_manager.renew(deployed, "instaslice-ca", "instaslice-ca")
    cert_manager.renew(deployed, "instaslice", SECRET)
    mounted(deployed, under_load)


def test_deleted_secret_is_recreated(deployed: Cluster, under_load: Load) -> None:
    before = cert_manager.secret(deployed, SECRET)["tls.crt"]
    deployed.kubectl("delete", "secret", SECRET).check_returncode()
    until(
        lambda: cert_manager.secret(deployed, SECRET).get("tls.crt") not in (None, before),
        "the certificate is issued again",
        seconds=PATIENCE,
        every=0.5,
    )
    mounted(deployed, under_load)
