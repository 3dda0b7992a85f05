import datetime
import functools
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

from instaslice.serve.limits import Limits
from instaslice.serve.tls import Certificates, UnusableCertificate
from test.support.certs import Authority

Eager = functools.partial(Certificates, Limits(certificate_check=0.0))


def expiry_of(folder: Path) -> float:
    loaded = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
    return loaded.not_valid_after_utc.timestamp()


def sign_own(folder: Path, begin: datetime.datetime, end: datetime.datetime) -> None:
    """Write a key and a certificate that is valid from `begin` to `end`."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, end)
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "tls.crt").write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    (folder / "tls.key").write_bytes(secret)


@pytest.mark.parametrize("year", [1970, 2025, 2049, 2050, 9026])
def test_the_expiry_is_read_whatever_its_year(year: int, tmp_path: Path) -> None:
    """From 2050 on it has another encoding (RFC 5280, section 4.1.2.5)."""
    moment = datetime.datetime(year, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    sign_own(tmp_path, moment - datetime.timedelta(days=1), moment)
    assert Eager(tmp_path).expiry == moment.timestamp()


@pytest.mark.parametrize(
    "around",
    [
        b"{}",
        b"Certificate:\n  Issuer: CN=M\xfcller\n{}\xff\xfe\n",  # not UTF-8 either
        b"\xef\xbb\xbf{}",
        b"what follows is no -----BEGIN CERTIFICATE----- but:\n{}",
        b"-----BEGIN nothing\n{}",
    ],
)
def test_text_around_a_certificate_is_ignored(around: bytes, cert_dir: Path) -> None:
    expiry = expiry_of(cert_dir)
    certificate = (cert_dir / "tls.crt").read_bytes()
    for name, pem in (("tls.crt", certificate), ("ca.crt", certificate)):
        (cert_dir / name).write_bytes(around.replace(b"{}", pem))
    assert Eager(cert_dir, cert_dir / "ca.crt").expiry == expiry


def test_the_expiry_is_the_leaf_certificates(cert_dir: Path, authority: Authority) -> None:
    """The leaf is first in the file, and the authority's certificate follows."""
    expiry = expiry_of(cert_dir)
    with (cert_dir / "tls.crt").open("ab") as chain:
        chain.write(authority.ca.cert_pem.bytes())
    assert Eager(cert_dir).expiry == expiry


OTHER = Authority().ca.private_key_pem.bytes()


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("tls.crt", b"", "holds no PEM certificate"),
        ("tls.crt", b"\xff\xfe", "holds no PEM certificate"),
        ("tls.crt", OTHER[:100], "holds no PEM certificate"),
        ("tls.crt", ssl.DER_cert_to_PEM_cert(b"abc").encode(), "holds no PEM certificate"),
        ("tls.key", b"", "not a PEM private key"),
        ("tls.key", b"\xff", "not a PEM private key"),
        ("tls.key", OTHER[:100], ""),
        ("tls.key", OTHER, "KEY_VALUES_MISMATCH"),
        ("ca.crt", b"", "holds no PEM certificate"),
        ("ca.crt", b"\xff", "holds no PEM certificate"),
    ],
    ids=range(10),  # the processes of a run must agree, and OTHER differs
)
def test_an_error_names_the_file_with_the_wrong_content(
    file: str, content: bytes, reason: str, cert_dir: Path
) -> None:
    shutil.copy(cert_dir / "tls.crt", cert_dir / "ca.crt")
    (cert_dir / file).write_bytes(content)
    with pytest.raises(UnusableCertificate) as caught:
        Eager(cert_dir, cert_dir / "ca.crt")
    named = f"{cert_dir}/tls.crt and {cert_dir}/tls.key" if "key" in file else f"{cert_dir}/{file}"
    assert str(caught.value).startswith(f"{named}: {reason}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", ["tls.crt", "tls.key", "ca.crt"])
@pytest.mark.parametrize("is_folder", [True, False])
def test_an_error_names_the_file_that_cannot_be_read(
    is_folder: bool, file: str, cert_dir: Path
) -> None:
    shutil.copy(cert_dir / "tls.crt", cert_dir / "ca.crt")
    (cert_dir / file).unlink()
    if is_folder:
        (cert_dir / file).mkdir()
    reason = "Is a directory" if is_folder else "No such file or directory"
    with pytest.raises(UnusableCertificate, match=rf"{file}: {reason}$"):
        Eager(cert_dir, cert_dir / "ca.crt")


def test_new_authorities_change_the_generation(
    cert_dir: Path, authority: Authority, tmp_path: Path
) -> None:
    file = tmp_path / "client-ca.crt"
    authority.ca.cert_pem.write_to_path(str(file))
    certificates = Eager(cert_dir, file)
    first = certificates.generation()
    overwrite(cert_dir, authority.mint(tmp_path / "new"))
    assert certificates.generation() == first, "only the server's certificate is new"
    os.utime(file, (1, 1))
    assert certificates.generation() == first, "the content is the same"
    file.write_bytes(b"half-wri")
    assert certificates.generation() == first, "the file is unusable"
    Authority().ca.cert_pem.write_to_path(str(file))
    assert certificates.generation() == first + 1, "seen without a new connection"
    assert certificates.context().cert_store_stats()["x509_ca"] == 1
    assert certificates.generation() == first + 1


def rename(folder: Path, new: Path) -> None:
    for name in ("tls.crt", "tls.key"):
        shutil.copy(new / name, folder / f".{name}")
        os.replace(folder / f".{name}", folder / name)


def overwrite(folder: Path, new: Path) -> None:
    for name in ("tls.crt", "tls.key"):
        shutil.copyfile(new / name, folder / name)


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
    """Replace the link to the folder of the files, as the kubelet does."""
    link = folder.parent / "..data_tmp"
    link.symlink_to(new)
    os.replace(link, folder.parent / "..data")


@pytest.mark.parametrize("swap", [swap_data, rename, overwrite])
def test_a_new_pair_is_served(
    swap: Callable[[Path, Path], None], mounted: Path, authority: Authority, tmp_path: Path
) -> None:
    certificates = Eager(mounted)
    before = certificates.context()
    assert certificates.context() is before, "the context is built once"
    swap(mounted, authority.mint(tmp_path / "second"))
    after = certificates.context()
    assert after is not before
    assert certificates.context() is after
    assert certificates.expiry == expiry_of(mounted)


def test_a_bad_pair_leaves_the_old_one_and_is_counted_once(
    cert_dir: Path, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failures: list[int] = []
    certificates = Eager(cert_dir)
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


@pytest.mark.parametrize(("days", "why"), [((-9, -1), "has expired"), ((1, 9), "is not valid yet")])
def test_a_pair_that_is_not_valid_now_does_not_replace_a_valid_one(
    days: tuple[int, int], why: str, cert_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = Eager(cert_dir)
    good = certificates.context()
    now = datetime.datetime.now(datetime.UTC)
    sign_own(cert_dir, *(now + datetime.timedelta(days=each) for each in days))
    assert certificates.context() is good
    assert why in caplog.records[-1].__dict__["fields"]["reason"]
    assert Eager(cert_dir).context() is not good, "it is served if there is no other"


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "ca.crt"])
def test_a_fifo_or_a_large_file_does_not_block(name: str, cert_dir: Path) -> None:
    shutil.copy(cert_dir / "tls.crt", cert_dir / "ca.crt")
    certificates = Eager(cert_dir, cert_dir / "ca.crt")
    good = certificates.context()
    with (cert_dir / name).open("ab") as file:
        file.write(b" " * 1024 * 1024)
    assert certificates.context() is good
    (cert_dir / name).unlink()
    os.mkfifo(cert_dir / name)
    assert certificates.context() is good


def test_the_files_are_not_checked_for_every_connection(
    cert_dir: Path, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = Certificates(Limits(certificate_check=3600.0), cert_dir)
    before = certificates.context()
    overwrite(cert_dir, authority.mint(tmp_path / "new"))
    assert certificates.context() is before
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 3601)
    assert certificates.context() is not before


def test_a_context_is_replaced_after_many_connections(cert_dir: Path) -> None:
    """It remembers their sessions."""
    certificates = Certificates(Limits(context_uses=3), cert_dir)
    first, second, third = (certificates.context() for _ in range(3))
    assert first is second is not third


def test_an_encrypted_key_is_refused_without_a_prompt(cert_dir: Path) -> None:
    key = serialization.load_pem_private_key((cert_dir / "tls.key").read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (cert_dir / "tls.key").write_bytes(encrypted)
    with pytest.raises(UnusableCertificate, match=r"tls\.key"):
        Eager(cert_dir)
