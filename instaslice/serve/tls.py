"""The server's certificate, as cert-manager mounts it, reloaded without a restart.

A Secret's volume holds tls.crt and tls.key behind a symlink that the kubelet swaps; other tools
rename or overwrite the files. So this module compares their content. The TLS context is built once
for each pair. If a pair cannot be loaded, because it is half-written or does not match, the old one
stays in use; the failure is logged once and counted, and loading is tried again.

The file of authorities for client certificates is handled in the same way. Each connection keeps
the number (generation) of the authorities that checked its certificate.
"""

import contextlib
import logging
import os
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISREG
from typing import Any, Final, NamedTuple

from instaslice.serve.limits import Limits

_log = logging.getLogger("instaslice")

#: The largest file, in bytes: about a hundred certificates.
_MAX_FILE: Final = 1024 * 1024

#: X509_V_FLAG_NO_CHECK_TIME (OpenSSL's x509_vfy.h).
_NO_CHECK_TIME: Final = 0x200000


class UnusableCertificate(Exception):
    """The certificate cannot be served; `str()` of it says which file and why, in one line."""


class _Loaded(NamedTuple):
    """Files that can be served. Times are in seconds since 1970."""

    files: list[bytes]  #: the content of each
    context: ssl.SSLContext
    begin: float  #: when the certificate begins to be valid
    expiry: float


class Certificates:
    """The TLS context for the pair in a folder, kept up to date.

    folder: holds tls.crt (leaf first) and tls.key, both PEM.
    client_ca: PEM file of authorities for client certificates; None asks for none. A certificate is
    optional here, since the kubelet's probes have none.
    Raises UnusableCertificate if the first pair cannot be used.
    """

    def __init__(self, limits: Limits, folder: Path, client_ca: Path | None = None) -> None:
        self._limits = limits
        self._paths = [folder / "tls.crt", folder / "tls.key", *([client_ca] if client_ca else [])]
        #: Called for each pair that cannot be used.
        self.on_failure: Callable[[], None] = lambda: None
        self._used = _load(self._paths, _read(self._paths))
        self._failed: tuple[list[bytes], str] | None = None  #: the files, and why
        self._generation = 0
        self._uses = 0  #: of the context
        self._next_check = time.monotonic() + self._limits.certificate_check

    @property
    def expiry(self) -> float:
        """When the certificate in use expires, in seconds since 1970."""
        return self._used.expiry

    def context(self) -> ssl.SSLContext:
        """The context for a new connection."""
        self._look()
        self._uses += 1
        if self._uses >= self._limits.context_uses:
            self._uses = 0
            with contextlib.suppress(UnusableCertificate):  # there may be no free descriptor
                self._used = _load(self._paths, self._used.files)
        return self._used.context

    def generation(self) -> int:
        """A number that grows when the authorities in `client_ca` change.

        A connection with a smaller number is to be closed, so that its client's certificate is
        checked again. The call is cheap enough for every reply.
        """
        self._look()
        return self._generation

    def _look(self) -> None:
        """Check the files, if the next check is due."""
        if time.monotonic() < self._next_check:
            return
        self._next_check = time.monotonic() + self._limits.certificate_check
        before, now = self._used, time.time()
        files: list[bytes] = []
        try:
            files = _read(self._paths)
            if files == before.files:
                return
            new = _load(self._paths, files)
            if not new.begin <= now < new.expiry and now < before.expiry:
                what = "has expired" if now >= new.expiry else "is not valid yet"
                raise UnusableCertificate(f"{self._paths[0]}: {what}, and the one in use has not")
        except UnusableCertificate as error:
            failed = (files, str(error))
            if failed != self._failed:  # otherwise it was said already
                self._failed = failed
                self.on_failure()
                fields = {"reason": str(error)}
                _log.error("the certificate on disk is not served", extra={"fields": fields})
            return
        self._generation += files[2:] != before.files[2:]
        self._used, self._failed = new, None
        until = datetime.fromtimestamp(new.expiry, UTC).isoformat()
        _log.info("a new certificate is served", extra={"fields": {"expires": until}})


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a FIFO would block until it has a writer


def _read(paths: list[Path]) -> list[bytes]:
    """Read files without blocking. Raises UnusableCertificate."""
    found = []
    for path in paths:
        try:
            with open(path, "rb", opener=_open) as file:
                stat = os.fstat(file.fileno())
                if not S_ISREG(stat.st_mode):
                    raise UnusableCertificate(f"{path}: is not a file")
                if stat.st_size > _MAX_FILE:
                    raise UnusableCertificate(f"{path}: is over {_MAX_FILE} bytes")
                found.append(file.read(_MAX_FILE))
        except OSError as error:
            raise UnusableCertificate(f"{path}: {error.strerror}") from None
    return found


def _load(paths: list[Path], files: list[bytes]) -> _Loaded:
    """Make a context from the content of the files. Raises UnusableCertificate."""
    certificate, key, *client_ca = paths
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _trust(asking, certificate, files[0])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        with _in_memory(files[0]) as chain, _in_memory(files[1]) as secret:
            # Without a password, OpenSSL would ask for one on the terminal.
            context.load_cert_chain(chain, secret, password="")
        begin, expiry = _validity(context, asking)
    except ssl.SSLError as error:
        reason = error.reason or "not a PEM private key"
        raise UnusableCertificate(f"{certificate} and {key}: {reason}") from None
    except (OSError, ValueError) as error:
        raise UnusableCertificate(f"{certificate}: {getattr(error, 'strerror', error)}") from None
    if client_ca:
        _trust(context, client_ca[0], files[2])
        context.verify_mode = ssl.CERT_OPTIONAL
    return _Loaded(files, context, begin, expiry)


def _trust(context: ssl.SSLContext, path: Path, pem: bytes) -> None:
    """Have a context trust the certificates in a file. Raises UnusableCertificate."""
    try:
        # Only comments around the PEM can be something else than ASCII; OpenSSL skips them.
        context.load_verify_locations(cadata=pem.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):
        raise UnusableCertificate(f"{path}: holds no PEM certificate") from None


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """The name of a file in memory: `load_cert_chain` only reads files."""
    memory = getattr(os, "memfd_create", None)  # only Linux has it
    with open(memory("pem"), "wb") if memory else tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


def _validity(serving: ssl.SSLContext, asking: ssl.SSLContext) -> tuple[float, float]:
    """When a server's certificate begins and ends to be valid, in seconds since 1970.

    The standard library only decodes a peer's verified certificate. So this does a handshake in
    memory with `asking`, a client that trusts the chain and ignores the clock. Raises SSLError.
    """
    asking.check_hostname = False
    asking.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(to_client, to_server)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client):  # hello; hello and certificate; finished
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    shown: Any = client.getpeercert()
    return ssl.cert_time_to_seconds(shown["notBefore"]), ssl.cert_time_to_seconds(shown["notAfter"])
