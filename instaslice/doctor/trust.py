"""Whether the API server will trust a webhook's certificate. Needs the extra `cli`.

As Go's crypto/tls judges it, which the API server is written in: the certificate, or one that leads
to it, is signed by one of the bundle, and it has the name in its subjectAltName. Its dates are
judged by `doctor`.
"""

import base64
import binascii
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature


class CertificateError(Exception):
    """The certificate cannot be trusted; `str()` of it says why."""


def expiry(pem: str) -> datetime:
    """When the first certificate of a PEM text ends. Raises CertificateError."""
    return _load(pem.encode(), "the certificate")[0].not_valid_after_utc


def verify(pem: str, bundle: str, name: str) -> None:
    """Raise CertificateError unless a bundle trusts a certificate for a name.

    pem: the certificate, then what leads to its issuer. bundle: WebhookClientConfig.caBundle, PEM
    in base64. name: a DNS name or an IP address.
    """
    try:
        roots = _load(base64.b64decode(bundle, validate=True), "the caBundle")
    except binascii.Error:
        raise CertificateError("the caBundle is not base64") from None
    leaf, *others = _load(pem.encode(), "the certificate")
    if name not in _names(leaf):
        raise CertificateError(f"the certificate is not for {name}")
    # Every step leads to another certificate, so there are as many as certificates.
    known, reached = [*others, *roots], [leaf]
    for certificate in reached:
        if certificate in roots:
            return
        reached += [
            issuer for issuer in known if issuer not in reached and _issued(certificate, issuer)
        ]
    raise CertificateError("the caBundle does not hold the CA that signed the certificate")


def _load(pem: bytes, what: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError:
        raise CertificateError(f"{what} is not PEM") from None


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return set()
    addresses = found.get_values_for_type(x509.IPAddress)
    return {*found.get_values_for_type(x509.DNSName), *map(str, addresses)}


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
