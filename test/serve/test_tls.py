import datetime
import os
import shutil
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from instaslice.serve import tls
from instaslice.serve.tls import Certificates, UnusableCertificate, not_after
from test.support.certs import Authority


def expiry_of(folder: Path) -> float:
    loaded = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
    return loaded.not_valid_after_utc.timestamp()


@pytest.mark.property
@given(
    st.datetimes(datetime.datetime(1951, 1, 2), datetime.datetime(9999, 12, 31)),
    st.integers(1, 2**159),
    st.text("abc", max_size=60),
)
def test_the_expiry_is_read_as_another_library_reads_it(
    moment: datetime.datetime, serial: int, name: str
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name or "x")])
    moment = moment.replace(microsecond=0, tzinfo=datetime.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), serial)
        .not_valid_before(moment - datetime.timedelta(days=1))
        .not_valid_after(moment)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
    assert not_after("junk before\n" + pem) == moment.timestamp()


@pytest.mark.property
@given(st.binary(max_size=80))
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    pem = ssl.DER_cert_to_PEM_cert(data)
    with pytest.raises(ValueError):  # noqa: PT011 - any of its kinds
        not_after(pem)


def rename(folder: Path, new: Path) -> None:
    for name in ("tls.crt", "tls.key"):
        shutil.copy(new / name, folder / f".{name}")
        os.replace(folder / f".{name}", folder / name)


def overwrite(folder: Path, new: Path) -> None:
    for name in ("tls.crt", "tls.key"):
        shutil.copyfile(new / name, folder / name)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "CHECK_INTERVAL", 0.0)


@pytest.fixture
def mounted(authority: Authority, tmp_path: Path) -> Path:
    """A folder laid out as the kubelet lays out a Secret."""
    first = authority.mint(tmp_path / "first")
    (tmp_path / "..data").symlink_to(first)
    folder = tmp_path / "mounted"
    folder.mkdir()
    for name in ("tls.crt", "tls.key"):
        (folder / name).symlink_to(tmp_path / "..data" / name)
    return folder


def swap_data(folder: Path, new: Path) -> None:
    """As the kubelet does: the link that the files are behind is renamed over."""
    link = folder.parent / "..data_tmp"
    link.symlink_to(new)
    os.replace(link, folder.parent / "..data")


@pytest.mark.parametrize("swap", [swap_data, rename, overwrite])
def test_a_new_pair_is_taken_up(
    swap: Callable[[Path, Path], None], mounted: Path, authority: Authority, tmp_path: Path
) -> None:
    expiries: list[float] = []
    certificates = Certificates(mounted)
    certificates.on_load = expiries.append
    before = certificates.context()
    assert certificates.context() is before, "the context is built once"
    swap(mounted, authority.mint(tmp_path / "second"))
    after = certificates.context()
    assert after is not before
    assert certificates.context() is after
    assert expiries == [certificates.expiry] == [expiry_of(mounted)]


def test_a_bad_pair_keeps_the_old_one_and_is_counted_once(
    cert_dir: Path, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[int] = []
    certificates = Certificates(cert_dir)
    certificates.on_failure = lambda: failures.append(1)
    good = certificates.context()
    new = authority.mint(tmp_path / "new")
    whole = (new / "tls.crt").read_bytes()
    steps: list[Callable[[], object]] = [
        lambda: (cert_dir / "tls.crt").write_bytes(whole[:200]),  # half-written
        lambda: (cert_dir / "tls.crt").write_bytes(whole),  # of another key
        lambda: (cert_dir / "tls.key").unlink(),
    ]
    for count, step in enumerate(steps, 1):
        step()
        assert certificates.context() is good
        assert certificates.context() is good
        assert len(failures) == count
    shutil.copy(new / "tls.key", cert_dir)
    assert certificates.context() is not good


def test_the_files_are_not_looked_at_for_every_connection(
    cert_dir: Path, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "CHECK_INTERVAL", 3600.0)
    certificates = Certificates(cert_dir)
    before = certificates.context()
    overwrite(cert_dir, authority.mint(tmp_path / "new"))
    assert certificates.context() is before
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3601)
    assert certificates.context() is not before


def test_an_encrypted_key_is_refused_and_nobody_is_asked(cert_dir: Path) -> None:
    key = serialization.load_pem_private_key((cert_dir / "tls.key").read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (cert_dir / "tls.key").write_bytes(encrypted)
    with pytest.raises(UnusableCertificate, match=r"tls\.key"):
        Certificates(cert_dir)
