"""The machine within this one: what happens in it stays there, however it ends.

Needs no Kubernetes.
"""

import os
import signal
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from test.e2e.machine import (
    ADDRESS,
    CGROUP,
    SYSCTLS,
    TOOLS,
    cgroup_hierarchies,
    machine,
    missing_tools,
)
from test.support.process import Process, until

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or bool(missing_tools(TOOLS)),
    reason=f"needs, for a machine of its own, root's rights and {', '.join(TOOLS)}",
)

#: What a node's programs do, in short: they set sysctls, mount, leave processes, fill cgroups.
#: $1: a folder, $2: the cgroup.
CHANGES = """
set -e
echo 7 >/proc/sys/kernel/panic
test "$(cat /proc/sys/kernel/panic)" = 7
mkdir -p "$1/mounted"
mount -t tmpfs tmpfs "$1/mounted"
ip link add changed type bridge
for hierarchy in $(awk '$3 ~ /^cgroup/ { print $2 }' /proc/self/mounts); do
  mkdir -p "$hierarchy$2/below/further"
done
setsid sh -c 'touch "$1/left"; while sleep 1; do :; done' sh "$1" >/dev/null 2>&1 &
until test -e "$1/left"; do sleep 0.01; done
"""


def footprint(folder: Path, *pids: int) -> dict[str, object]:
    """What of this machine tests change that work in `folder`. pids: of those tests."""
    tops = [Path(f"{top}{CGROUP}{pid}") for top in cgroup_hierarchies() for pid in pids]
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    return {
        "sysctls": {name: Path("/proc/sys", name).read_text() for name in SYSCTLS},
        "mounts": [line for line in mounts if str(folder) in line],
        "links": {"changed", "node"} & {*os.listdir("/sys/class/net")},
        "cgroups": [top for top in tops if top.exists()],
        "processes": [pid for pid in os.listdir("/proc") if str(folder) in command_line(pid)],
    }


def command_line(pid: str) -> str:
    """Empty for a process that does not exist, or not any more, or is this one."""
    if pid == str(os.getpid()):
        return ""
    try:
        return Path("/proc", pid, "cmdline").read_text()
    except OSError:
        return ""


def change(folder: Path, *, fails: bool = False) -> None:
    """Do all that in a machine; fails: and fail while there is something to be taken away."""
    with machine(folder / "machine") as own:
        own.run("sh", "-c", CHANGES, "sh", folder, own.cgroup)
        with own.network():
            shown = subprocess.run(["ip", "address"], capture_output=True, text=True, check=True)
        assert ADDRESS in shown.stdout
        there = footprint(folder, os.getpid())
        assert there["processes"]
        assert there["cgroups"]
        if fails:
            own.run("sh", "-c", "echo too bad >&2; exit 3")


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_is_left(tmp_path: Path, fails: bool) -> None:
    before = footprint(tmp_path, os.getpid())
    with pytest.raises(RuntimeError, match="too bad") if fails else nullcontext():
        change(tmp_path, fails=fails)
    assert footprint(tmp_path, os.getpid()) == before
    assert list((tmp_path / "mounted").iterdir()) == []


def test_nothing_runs_on_when_the_tests_are_killed(tmp_path: Path) -> None:
    """Empty folders of cgroups are left then; the next start removes them."""
    program = (
        "import sys, time; from pathlib import Path; from test.e2e.machine import machine\n"
        "folder = Path(sys.argv[1])\n"
        "with machine(folder / 'machine') as own:\n"
        "    own.run('sh', '-c', sys.argv[2], 'sh', folder, own.cgroup)\n"
        "    (folder / 'up').touch()\n"
        "    time.sleep(1000)\n"
    )
    before = footprint(tmp_path, 0)
    process = Process([sys.executable, "-c", program, tmp_path, CHANGES], tmp_path / "log")
    try:
        until((tmp_path / "up").exists, "it is up", process.check)
        assert footprint(tmp_path, process.pid)["processes"]
    finally:
        process.send_signal(signal.SIGKILL)
        process.kill()
    until(lambda: footprint(tmp_path, 0) == before, "all is gone")
    change(tmp_path / "next")
    assert footprint(tmp_path, process.pid, os.getpid()) == before
