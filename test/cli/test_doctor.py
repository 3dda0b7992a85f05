"""`instaslice doctor`, as a user types it."""

import subprocess
import sys
from typing import Any


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "instaslice", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_no_cluster_is_one_line(tmp_path: Any) -> None:
    done = run("--kubeconfig", str(tmp_path / "missing"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("instaslice: kubeconfig: ")
    assert done.stderr.count("\n") == 1


def test_the_extra_is_named_where_it_is_missing() -> None:
    program = (
        "import sys; sys.modules['kubernetes'] = None; from instaslice.cli.main import main; "
        "sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    line = "instaslice: doctor needs the kubernetes client: pip install 'instaslice[cli]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)
