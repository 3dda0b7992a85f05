"""Throw-away certificates."""

import ssl
from pathlib import Path

import trustme


class Authority:
    """A throw-away certificate authority that can mint pairs into folders."""

    def __init__(self) -> None:
        self.ca = trustme.CA()

    def mint(self, folder: Path) -> Path:
        """Write tls.crt and tls.key for 127.0.0.1 into a folder, and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        certificate = self.ca.issue_cert("127.0.0.1", "localhost")
        certificate.private_key_pem.write_to_path(str(folder / "tls.key"))
        chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
        (folder / "tls.crt").write_bytes(chain)
        return folder

    def trusting(self) -> ssl.SSLContext:
        """A client's context that trusts what this authority signed, and nothing else."""
        context = ssl.create_default_context()
        self.ca.configure_trust(context)
        return context


def pem(leaf: trustme.LeafCert) -> str:
    """A certificate and what leads to its issuer, as one text."""
    return b"".join(blob.bytes() for blob in leaf.cert_chain_pems).decode()
