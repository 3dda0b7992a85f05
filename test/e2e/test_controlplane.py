"""A control plane that cannot start says why and leaves nothing. This needs no Kubernetes."""

from pathlib import Path

import pytest

from test.e2e.controlplane import control_plane


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    """Programs of the right names: etcd works, and the API server gives up."""
    folder = tmp_path / "assets"
    folder.mkdir()
    version = 'case "$1" in --version) echo Kubernetes v1.34.0; exit;; esac'
    programs = {
        "etcd": f'echo $$ > "{tmp_path}/pid"; exec sleep 600',
        "kube-apiserver": f"{version}; until [ -s {tmp_path}/pid ]; do :; done; "
        "echo cannot bind >&2; exit 3",
        "kubectl": "exit 1",
    }
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    return folder


def test_a_control_plane_that_does_not_start(assets: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"kube-apiserver ended with 3:\ncannot bind"),
        control_plane(assets, tmp_path / "plane"),
    ):
        pass
    etcd = int((tmp_path / "pid").read_text())
    assert not Path(f"/proc/{etcd}").exists()


def test_a_folder_without_the_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = "has kube-apiserver and etcd and kubectl"
    with pytest.raises(RuntimeError, match=missing), control_plane(tmp_path, tmp_path / "plane"):
        pass


def test_a_kubernetes_before_dra(assets: Path, tmp_path: Path) -> None:
    (assets / "kube-apiserver").write_text("#!/bin/sh\necho Kubernetes v1.25.3\n")
    with (
        pytest.raises(RuntimeError, match=r"is of Kubernetes 1\.25; DRA begins with 1\.27"),
        control_plane(assets, tmp_path / "plane"),
    ):
        pass
