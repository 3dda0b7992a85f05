"""InstaSlice's pods with certificates that cert-manager mounts, renews and issues anew."""

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
    """InstaSlice's namespace, where `make deploy` has deployed it as it does by default."""
    done = checkout.make("deploy")
    assert done.returncode == 0, done.stdout + done.stderr
    until(lambda: is_rewriting(cluster), "InstaSlice is called")
    yield cluster.within(NAMESPACE)
    assert checkout.make("undeploy").returncode == 0


def served(deployed: Cluster) -> set[str]:
    """The certificates that the pods show, PEM."""
    addresses = [each["status"]["podIP"] for each in ready(deployed).values()]
    return {ssl.get_server_certificate((address, PORT)) for address in addresses}


def mounted(deployed: Cluster, under_load: Load) -> None:
    """Returns once every pod serves what is in the Secret, and pods were created by it."""
    (first, *_) = cert_manager.secret(deployed, SECRET)["tls.crt"].decode().split("\n\n")
    leaf = first[: first.index("-----END CERTIFICATE-----")]

    def current() -> bool:
        return all(each.startswith(leaf) for each in served(deployed))

    until(current, "the pods serve the Secret's certificate", seconds=2 * PATIENCE, every=0.5)
    under_load.goes_on()


def test_renewals_of_the_certificate_refuse_nobody(deployed: Cluster, under_load: Load) -> None:
    for _ in range(2):
        cert_manager.renew(deployed, "instaslice", SECRET)
        mounted(deployed, under_load)


def test_a_renewal_of_the_ca_refuses_nobody(deployed: Cluster, under_load: Load) -> None:
    """Its key is the same, so that the certificates on both sides of it are trusted."""
    cert_manager.renew(deployed, "instaslice-ca", "instaslice-ca")
    cert_manager.renew(deployed, "instaslice", SECRET)
    mounted(deployed, under_load)


def test_a_secret_that_is_deleted_comes_back(deployed: Cluster, under_load: Load) -> None:
    before = cert_manager.secret(deployed, SECRET)["tls.crt"]
    deployed.kubectl("delete", "secret", SECRET).check_returncode()
    until(
        lambda: cert_manager.secret(deployed, SECRET).get("tls.crt") not in (None, before),
        "it is issued again",
        seconds=PATIENCE,
        every=0.5,
    )
    mounted(deployed, under_load)
