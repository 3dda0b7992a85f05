"""The server's certificate, as cert-manager mounts it, reloaded without a restart.

A Secret's volume holds tls.crt and tls.key behind a symlink that the kubelet swaps; other tools
rename or overwrite the files. In each case inode, size or time of change differ, which is what this
module checks. The TLS context is built once for each pair. If a pair cannot be loaded, because it
is half-written or does not match, the old one stays in use; the failure is logged once and counted,
and loading is tried again.

The file of authorities for client certificates is handled in the same way. Each connection keeps
the number (generation) of the authorities that checked its certificate.
"""

import contextlib
import errno
import logging
import os
import ssl
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any, Final

from instaslice.serve.limits import Limits

_log = logging.getLogger("instaslice")

#: The largest file, in bytes: about a hundred certificates.
_MAX_FILE: Final = 1024 * 1024

#: X509_V_FLAG_NO_CHECK_TIME (OpenSSL's x509_vfy.h).
_NO_CHECK_TIME: Final = 0x200000

_Signature = tuple[tuple[int, int, int], ...]


class UnusableCertificate(Exception):
    """The certificate cannot be served; `str()` of it says which file and why, in one line."""


class Certificates:
    """The TLS context for the pair in a folder, kept up to date.

    folder: holds tls.crt (leaf first) and tls.key, both PEM.
    client_ca: PEM file of authorities for client certificates; None asks for none. A certificate is
    optional here, since the kubelet's probes have none.
    Raises UnusableCertificate if the first pair cannot be used.
    """

    #: Called with the expiry (seconds since 1970) of each new pair in use.
    on_load: Callable[[float], None]
    #: Called for each pair that cannot be used.
    on_failure: Callable[[], None]

    def __init__(
        self,
        folder: Path,
        client_ca: Path | None = None,
        limits: Limits = Limits(),  # noqa: B008 - it is frozen
    ) -> None:
        self._limits = limits
        self._paths = [folder / "tls.crt", folder / "tls.key"]
        self._client_ca = client_ca
        if client_ca:
            self._paths.append(client_ca)
        self.on_load = lambda expiry: None
        self.on_failure = lambda: None
        self._lock = threading.Lock()
        self._signature = self._sign()
        self._failed: _Signature | None = None
        self._authorities = b""
        self._generation = 0
        self._uses = 0  #: of the context
        self._files = self._read()
        self._context, (_, self.expiry) = self._load(self._files)
        self._next_check = time.monotonic() + self._limits.certificate_check

    def context(self) -> ssl.SSLContext:
        """The context for a new connection."""
        self._look()
        self._uses += 1
        if self._uses >= self._limits.context_uses:
            self._uses = 0
            with contextlib.suppress(UnusableCertificate):
                self._context, _ = self._load(self._files)
        return self._context

    def generation(self) -> int:
        """A number that grows when the authorities in `client_ca` change.

        A connection with a smaller number is to be closed, so that its client's certificate is
        checked again. The call is cheap enough for every reply.
        """
        self._look()
        return self._generation

    def _look(self) -> None:
        """Check the files, if the next check is due."""
        now = time.monotonic()
        if now >= self._next_check and self._lock.acquire(blocking=False):
            try:
                self._next_check = now + self._limits.certificate_check
                self._refresh()
            finally:
                self._lock.release()

    def _refresh(self) -> None:
        try:
            signature = self._sign()
            if signature == self._signature:
                return
            files = self._read()
            context, (begin, expiry) = self._load(files)
            now = time.time()
            if not begin <= now < expiry and now < self.expiry:
                what = "has expired" if now >= expiry else "is not valid yet"
                raise UnusableCertificate(f"{self._paths[0]}: {what}, and the one in use has not")
        except UnusableCertificate as error:
            self._fail(str(error))
            return
        self._signature, self._failed = signature, None
        self._context, self.expiry, self._files = context, expiry, files
        self.on_load(expiry)
        until = datetime.fromtimestamp(expiry, UTC).isoformat()
        _log.info("a new certificate is served", extra={"fields": {"expires": until}})

    def _fail(self, why: str) -> None:
        try:
            signature: _Signature = self._sign()
        except UnusableCertificate:
            signature = ()
        if signature == self._failed:
            return  # said already
        self._failed = signature
        self.on_failure()
        _log.error("the certificate on disk is not served", extra={"fields": {"reason": why}})

    def _sign(self) -> _Signature:
        """The identity of the files on disk, which differs for each new version."""
        signature = []
        for path in self._paths:
            try:
                stat = os.stat(path)
            except OSError as error:
                raise UnusableCertificate(f"{path}: {error.strerror}") from None
            signature.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return tuple(signature)

    def _read(self) -> list[bytes]:
        """The content of the files. Each is read once, since it may be replaced at any time."""
        try:
            return [_read(path) for path in self._paths]
        except OSError as error:
            raise UnusableCertificate(
                f"{error.filename or self._paths[0]}: {error.strerror}"
            ) from None

    def _load(self, read: list[bytes]) -> tuple[ssl.SSLContext, tuple[float, float]]:
        """The context for the content of the files, and the validity of the certificate."""
        certificate, key = self._paths[:2]
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_RENEGOTIATION
        try:
            _require_certificate(certificate, read[0])
            with _in_memory(read[0]) as chain, _in_memory(read[1]) as secret:
                context.load_cert_chain(chain, secret, password=_no_password)
            times = _validity(context, read[0])
        except ssl.SSLError as error:
            reason = error.reason or "not a PEM private key"
            raise UnusableCertificate(f"{certificate} and {key}: {reason}") from None
        except OSError as error:
            raise UnusableCertificate(f"{certificate}: {error.strerror}") from None
        except ValueError as error:
            raise UnusableCertificate(f"{certificate}: {error}") from None
        if self._client_ca:
            _require_certificate(self._client_ca, read[2])
            context.load_verify_locations(cadata=_ascii(read[2]))
            context.verify_mode = ssl.CERT_OPTIONAL
            if read[2] != self._authorities:
                self._authorities = read[2]
                self._generation += 1
        return context, times


def _read(path: Path) -> bytes:
    """Read a file without blocking. Raises OSError and UnusableCertificate."""
    # Without O_NONBLOCK, opening a FIFO blocks until it has a writer.
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        stat = os.fstat(fd)
        if S_ISDIR(stat.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not S_ISREG(stat.st_mode):
            raise UnusableCertificate(f"{path}: is not a file")
        if stat.st_size > _MAX_FILE:
            raise UnusableCertificate(f"{path}: is over {_MAX_FILE} bytes")
        return os.read(fd, _MAX_FILE)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """The name of a file in memory: `load_cert_chain` only reads files."""
    with contextlib.ExitStack() as stack:
        if hasattr(os, "memfd_create"):
            file: Any = stack.enter_context(open(os.memfd_create("pem"), "wb"))
        else:
            file = stack.enter_context(tempfile.TemporaryFile())
        file.write(data)
        file.flush()
        file.seek(0)
        yield f"/dev/fd/{file.fileno()}"


def _ascii(pem: bytes) -> str:
    # Only comments around the PEM can be something else; OpenSSL skips them.
    return pem.decode("ascii", "ignore")


def _no_password() -> str:
    """An empty password; without it, OpenSSL would ask on the terminal."""
    return ""


def _require_certificate(path: Path, pem: bytes) -> None:
    """Raises UnusableCertificate unless the content of a file holds a certificate."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=_ascii(pem))
    except (ssl.SSLError, ValueError):
        raise UnusableCertificate(f"{path}: holds no PEM certificate") from None


def _validity(context: ssl.SSLContext, chain: bytes) -> tuple[float, float]:
    """When a server's certificate begins and ends to be valid, in seconds since 1970.

    The standard library only decodes a peer's verified certificate. So this does a handshake in
    memory with a client that trusts the chain and ignores the clock. Raises ssl.SSLError.
    """
    asking = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    asking.check_hostname = False
    asking.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | _NO_CHECK_TIME
    asking.load_verify_locations(cadata=_ascii(chain))
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(to_client, to_server)
    server = context.wrap_bio(to_server, to_client, server_side=True)
    for side in (client, server, client):  # hello; hello and certificate; finished
        with contextlib.suppress(ssl.SSLWantReadError):
            side.do_handshake()
    shown: Any = client.getpeercert()
    return ssl.cert_time_to_seconds(shown["notBefore"]), ssl.cert_time_to_seconds(shown["notAfter"])
