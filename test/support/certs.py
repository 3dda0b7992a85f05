"""Throw-away certificates."""

import ssl
from pathlib import Path

import trustme


class Authority:
    """A throw-away certificate authority."""

    def __init__(self) -> None:
        self.ca = trustme.CA()

    @property
    def pem(self) -> bytes:
        """Its own certificate."""
        return self.ca.cert_pem.bytes()

    def mint(self, folder: Path, *names: str) -> Path:
        """Write tls.crt, tls.key and ca.crt into a folder, as in a Secret, and return it.

        names: DNS names and IP addresses; loopback's by default.
        """
        folder.mkdir(parents=True, exist_ok=True)
        leaf = self.ca.issue_cert(*(names or ("127.0.0.1", "localhost")))
        leaf.private_key_pem.write_to_path(folder / "tls.key")
        (folder / "tls.crt").write_bytes(b"".join(each.bytes() for each in leaf.cert_chain_pems))
        (folder / "ca.crt").write_bytes(self.pem)
        return folder

    def trusting(self) -> ssl.SSLContext:
        """A client's context that trusts only this authority."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        return context
