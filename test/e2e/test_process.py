"""Nothing that this suite starts outlives it. These tests need no Kubernetes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from test.e2e.controlplane import control_plane
from test.e2e.installation import ROOT
from test.support.process import running, wait_for

#: Writes its process id into a file, and then does nothing for long.
SLEEP = ["sh", "-c", 'echo $$ > "$0"; exec sleep 600']


def started(pid_file: Path) -> int:
    return int(wait_for("the process", lambda: pid_file.exists() and pid_file.read_text().strip()))


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Killed, and not yet noticed by whoever is its parent now.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_after_a_failure(tmp_path: Path) -> None:
    def fail() -> None:
        with running([*SLEEP, tmp_path / "pid"], tmp_path / "log"):
            started(tmp_path / "pid")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert is_gone(started(tmp_path / "pid"))


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is of Linux")
def test_after_this_process_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from test.support.process import Process\n"
        "Process(sys.argv[2:], Path(sys.argv[1])); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path / "log", *SLEEP, tmp_path / "pid"], cwd=ROOT
    )
    try:
        pid = started(tmp_path / "pid")
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    wait_for("its child is gone, too", lambda: is_gone(pid))


def test_a_program_that_ignores_the_request_to_end(tmp_path: Path) -> None:
    deaf = ["sh", "-c", 'trap "" TERM; echo $$ > "$0"; while :; do sleep 600; done']
    with running([*deaf, tmp_path / "pid"], tmp_path / "log", grace=0.1):
        pid = started(tmp_path / "pid")
    assert is_gone(pid)


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
    assert is_gone(started(tmp_path / "pid"))


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
