import base64
import datetime

import pytest
import trustme

from instaslice.doctor.trust import CertificateError, expiry, verify
from test.support.certs import pem

NAME = "instaslice.instaslice-system.svc"


def bundle(*parts: bytes) -> str:
    return base64.b64encode(b"".join(parts)).decode()


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


def test_what_the_bundle_trusts(ca: trustme.CA) -> None:
    leaf, other = ca.issue_cert(NAME, "10.0.0.1"), trustme.CA()
    for name in (NAME, "10.0.0.1"):
        verify(pem(leaf), bundle(ca.cert_pem.bytes()), name)
        verify(pem(leaf), bundle(other.cert_pem.bytes(), ca.cert_pem.bytes()), name)
    # A certificate that is in the bundle itself, as a self-signed one is.
    verify(pem(leaf), bundle(leaf.cert_chain_pems[0].bytes()), NAME)


def test_a_chain(ca: trustme.CA) -> None:
    between = ca.create_child_ca()
    leaf = between.issue_cert(NAME)
    verify(pem(leaf), bundle(ca.cert_pem.bytes()), NAME)
    alone = leaf.cert_chain_pems[0].bytes().decode()
    with pytest.raises(CertificateError, match="does not hold the CA"):
        verify(alone, bundle(ca.cert_pem.bytes()), NAME)


def test_what_it_does_not(ca: trustme.CA) -> None:
    leaf, trusted = ca.issue_cert(NAME), bundle(ca.cert_pem.bytes())
    for text, roots, name, reason in [
        (pem(leaf), bundle(trustme.CA().cert_pem.bytes()), NAME, "does not hold the CA"),
        (pem(leaf), trusted, "instaslice.other.svc", "is not for instaslice.other.svc"),
        (pem(leaf), "?", NAME, "the caBundle is not base64"),
        (pem(leaf), bundle(b"text"), NAME, "the caBundle is not PEM"),
        ("text", trusted, NAME, "the certificate is not PEM"),
    ]:
        with pytest.raises(CertificateError, match=reason):
            verify(text, roots, name)


def test_expiry(ca: trustme.CA) -> None:
    ends = datetime.datetime(2030, 1, 2, tzinfo=datetime.UTC)
    assert expiry(pem(ca.issue_cert(NAME, not_after=ends))) == ends
