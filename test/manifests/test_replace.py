"""What `--in-place` keeps, and what it leaves behind when it fails."""

import os
import stat
from pathlib import Path

import pytest

from instaslice.cli.main import main

POD = "kind: Pod\nspec: {containers: [{resources: {limits: {nvidia.com/mig-1g.5gb: 1}}}]}\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "pod.yaml"
    path.write_text(POD)
    return path


def rewritten(*paths: Path, more: tuple[str, ...] = ()) -> int:
    code = main(["rewrite", "--in-place", *more, *map(str, paths)])
    for path in paths:
        # Nothing is left beside it.
        assert not list(path.parent.glob(".*"))
    return code


def test_mode_and_attributes_stay(file: Path) -> None:
    file.chmod(0o2751)
    try:
        os.setxattr(file, "user.note", b"mine")
        attributes = True
    except OSError:  # not every file system has them
        attributes = False
    inode = file.stat().st_ino
    assert rewritten(file) == 0
    assert "resourceClaims" in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o2751
    assert file.stat().st_ino != inode
    if attributes:
        assert os.getxattr(file, "user.note") == b"mine"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_owner_stays(file: Path) -> None:
    os.chown(file, 12345, 54321)
    assert rewritten(file) == 0
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 54321)


def test_the_owner_stays_where_it_cannot_be_given(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    inode = file.stat().st_ino
    assert rewritten(file) == 0
    assert "resourceClaims" in file.read_text()
    assert file.stat().st_ino == inode, "the file itself is written"


def test_links_stay(file: Path) -> None:
    other, symbolic = file.with_name("other.yaml"), file.with_name("symbolic.yaml")
    other.hardlink_to(file)
    symbolic.symlink_to(file.name)
    assert rewritten(symbolic) == 0
    assert symbolic.is_symlink()
    assert file.stat().st_nlink == 2
    assert other.read_text() == file.read_text() != POD
    # A text that gets shorter ends where it ends.
    assert rewritten(file, more=("--reverse",)) == 0
    assert other.read_text() == POD


def test_a_full_disk_takes_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    file.with_name("other.yaml").hardlink_to(file)
    monkeypatch.setattr(os, "posix_fallocate", full)
    assert rewritten(file) == 2
    assert file.read_text() == POD
    assert capsys.readouterr().err.startswith(f"instaslice: {file}: No space left on device\n")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(file: Path) -> None:
    file.parent.chmod(0o500)
    try:
        assert rewritten(file) == 0
        assert "resourceClaims" in file.read_text()
    finally:
        file.parent.chmod(0o700)


def test_what_is_no_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewrite", "-i", "/dev/null"]) == 2
    line = "instaslice: /dev/null: is not a regular file, which --in-place needs\n"
    assert capsys.readouterr().err == line


def test_templates_are_appended_to_the_file_that_needs_them_first(file: Path) -> None:
    other = file.with_name("other.yaml")
    other.write_text(POD.rstrip("\n"))
    same = file.with_name("same.yaml")
    same.write_text("kind: ConfigMap")
    assert rewritten(same, other, file, more=("--with-templates",)) == 0
    assert same.read_text() == "kind: ConfigMap"
    assert other.read_text().count("\n---\n") == 2
    assert "kind: ResourceClaimTemplate\n" in other.read_text()
    assert "---" not in file.read_text()
    # So they are there already.
    assert rewritten(other, file, same, more=("--with-templates", "--diff")) == 0


def test_ctrl_c_leaves_no_copy(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    assert rewritten(file) == 130
    assert file.read_text() == POD
