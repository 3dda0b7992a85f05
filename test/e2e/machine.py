"""A machine within this one, with separate processes, mounts, network and cgroup.

A node's programs change the machine on which they run: they mount, set sysctls, write firewall
rules, and leave processes behind. Here they do so in namespaces (namespaces(7)), which end with one
process, and that process ends with the tests, however they end. Two things are not in namespaces:
the folders of cgroups, which are removed explicitly, and sysctls of the whole machine, which are
covered by files, so that a program that sets one changes a file.
"""

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Final

from test.support.process import Process, until

#: The programs that a machine needs on PATH (util-linux, iproute2).
TOOLS: Final = ("ip", "mount", "nsenter", "unshare")

#: The machine's address, in the network reserved for documentation (RFC 5737).
ADDRESS: Final = "192.0.2.1"

#: Sysctls outside namespaces that a kubelet sets (pkg/kubelet/cm/container_manager_linux.go).
SYSCTLS: Final = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)

#: The prefix of a machine's cgroup, before the ID of the process that created it.
CGROUP: Final = "/instaslice-e2e-"

#: The first process: it prepares the namespaces, writes its ID, and stays. $1 is a folder.
#: It ignores SIGCHLD, so the kernel reaps the children that it inherits.
_FIRST: Final = f"""
set -e
read -r pid rest </proc/self/stat
mount -t proc proc /proc
mount --make-rshared /
mount -t tmpfs tmpfs /run
for sysctl in {" ".join(SYSCTLS)}; do
  mount --bind "$1/sysctl/$sysctl" "/proc/sys/$sysctl"
done
ip link set lo up
ip link add node type bridge
ip address add {ADDRESS}/24 dev node
ip link set node up
ip route add default dev node
echo "$pid" >"$1/pid.new"
mv "$1/pid.new" "$1/pid"
trap '' CHLD
exec sleep infinity
"""

_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h


class Machine:
    """A running machine, which `machine()` creates."""

    def __init__(self, pid: int, cgroup: str) -> None:
        """pid: of its first process. cgroup: "/name"."""
        self._pid = pid
        self.cgroup = cgroup

    def command(self, *command: str | Path) -> list[str | Path]:
        """A command line that runs a program in it."""
        target = ("--target", str(self._pid))
        return ["nsenter", *target, "--net", "--mount", "--pid", "--", *command]

    def run(self, *command: str | Path) -> str:
        """Run a program in it, and return its output. Raises RuntimeError with its message."""
        done = subprocess.run(self.command(*command), capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def network(self) -> AbstractContextManager[None]:
        """Move the calling thread, and what it starts, to the machine's network meanwhile."""
        return _within(f"/proc/{self._pid}/ns/net")

    def outside(self) -> AbstractContextManager[None]:
        """Move the calling thread, and what it starts, to the tests' network meanwhile."""
        return _within(f"/proc/{os.getppid()}/ns/net")


@contextmanager
def _within(network: str) -> Iterator[None]:
    with open("/proc/thread-self/ns/net") as before:
        with open(network) as other:
            _enter(other.fileno())
        try:
            yield
        finally:
            _enter(before.fileno())


def _enter(network: int) -> None:
    """Call setns(2), which Python has only from 3.12 on. Raises OSError."""
    if _LIBC.setns(network, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """Run a machine inside the context. folder: created, for its files.

    Raises RuntimeError and TimeoutError.
    """
    for sysctl in SYSCTLS:
        copy = folder / "sysctl" / sysctl
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(Path("/proc/sys", sysctl).read_text())
    _remove_stale_cgroups()
    cgroup = f"{CGROUP}{os.getpid()}"
    namespaces = ("--net", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private")
    first = ("sh", "-c", _FIRST, "sh", folder)
    holder = Process(["unshare", *namespaces, *first], folder / "machine.log")
    try:
        for hierarchy in _cgroup_hierarchies():
            Path(f"{hierarchy}{cgroup}").mkdir()
        pid_file = folder / "pid"
        until(pid_file.exists, "the machine is up", holder.check)
        pid = int(pid_file.read_text())
        try:
            yield Machine(pid, cgroup)
        finally:
            # When the first process ends, the kernel ends all others in its PID namespace, and
            # with them the mounts and the network.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            until(lambda: not Path(f"/proc/{pid}").exists(), "the machine is gone")
    finally:
        holder.kill()
        _remove_cgroups(cgroup)


def missing_tools(tools: Sequence[str]) -> list[str]:
    """The tools that are not on PATH."""
    return [tool for tool in tools if shutil.which(tool) is None]


def _cgroup_hierarchies() -> list[Path]:
    """The mount points of cgroups: one for version 2, or one for each controller."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(mount[1]) for mount in mounts if mount[2] in ("cgroup", "cgroup2")]


def _remove_stale_cgroups() -> None:
    """Remove the cgroups of killed tests, whose process has ended."""
    stale = {
        f"/{path.name}"
        for hierarchy in _cgroup_hierarchies()
        for path in hierarchy.glob(f"{CGROUP[1:]}*")
        if not Path("/proc", path.name.removeprefix(CGROUP[1:])).exists()
    }
    for cgroup in stale:
        _remove_cgroups(cgroup)


def _remove_cgroups(cgroup: str) -> None:
    """Remove a cgroup and those below it, as soon as their last process has ended."""
    for hierarchy in _cgroup_hierarchies():
        top = Path(f"{hierarchy}{cgroup}")

        def gone(top: Path = top) -> bool:
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):  # a process in it is still ending
                    os.rmdir(folder)
            return not top.exists()

        until(gone, f"{top} is gone")
