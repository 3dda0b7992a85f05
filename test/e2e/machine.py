"""A machine within this one: processes, mounts, a network and a cgroup of its own.

A node's programs change the machine that they run on: they mount, they set sysctls, they write
firewall rules, they leave processes behind. Here all of that happens in namespaces (namespaces(7))
which end with one process, and that one ends with the tests, however they end. What no namespace
holds is taken away by hand: the folders of cgroups; and sysctls of the whole machine are covered
by files, so that a program that sets one changes a file.
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

#: What a machine needs on PATH (util-linux, iproute2).
TOOLS: Final = ("ip", "mount", "nsenter", "unshare")

#: The machine's address, of the network that is kept for documentation (RFC 5737).
ADDRESS: Final = "192.0.2.1"

#: What a kubelet sets that is not of a namespace (pkg/kubelet/cm/container_manager_linux.go).
SYSCTLS: Final = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)

#: The name of a machine's cgroup, before the ID of the process that made it.
CGROUP: Final = "/instaslice-e2e-"

#: The first process: it prepares the namespaces, says who it is, and stays. $1 is a folder.
#: Without an interest in its children, the kernel reaps those that it inherits.
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
    """A machine that runs; `machine()` makes it."""

    def __init__(self, pid: int, cgroup: str) -> None:
        """pid: of its first process. cgroup: its own, "/name"."""
        self._pid = pid
        self.cgroup = cgroup

    def command(self, *command: str | Path) -> list[str | Path]:
        """A command line that runs a program in it."""
        target = ("--target", str(self._pid))
        return ["nsenter", *target, "--net", "--mount", "--pid", "--", *command]

    def run(self, *command: str | Path) -> str:
        """Run a program in it; returns what it prints. Raises RuntimeError with its words."""
        done = subprocess.run(self.command(*command), capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr}")
        return done.stdout

    def network(self) -> AbstractContextManager[None]:
        """The calling thread, and what it starts, is in the machine's network meanwhile."""
        return _within(f"/proc/{self._pid}/ns/net")

    def outside(self) -> AbstractContextManager[None]:
        """The calling thread, and what it starts, is back in the network of the tests meanwhile."""
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
    """setns(2), which Python has from 3.12 on. Raises OSError."""
    if _LIBC.setns(network, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def machine(folder: Path) -> Iterator[Machine]:
    """A machine that runs while the context does. folder: is made, for what it needs.

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
            # The kernel ends all of a PID namespace with its first process, and with the last
            # process the mounts and the network go.
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            until(lambda: not Path(f"/proc/{pid}").exists(), "the machine is gone")
    finally:
        holder.kill()
        _remove_cgroups(cgroup)


def missing_tools(tools: Sequence[str]) -> list[str]:
    """Those that are not on PATH."""
    return [tool for tool in tools if shutil.which(tool) is None]


def _cgroup_hierarchies() -> list[Path]:
    """Where hierarchies of cgroups are mounted: one of version 2, or each controller's."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(mount[1]) for mount in mounts if mount[2] in ("cgroup", "cgroup2")]


def _remove_stale_cgroups() -> None:
    """Remove the cgroups of tests that were killed: their process has ended."""
    stale = {
        f"/{path.name}"
        for hierarchy in _cgroup_hierarchies()
        for path in hierarchy.glob(f"{CGROUP[1:]}*")
        if not Path("/proc", path.name.removeprefix(CGROUP[1:])).exists()
    }
    for cgroup in stale:
        _remove_cgroups(cgroup)


def _remove_cgroups(cgroup: str) -> None:
    """Remove a cgroup and those below it, as soon as the kernel lets their last process go."""
    for hierarchy in _cgroup_hierarchies():
        top = Path(f"{hierarchy}{cgroup}")

        def gone(top: Path = top) -> bool:
            for folder, _, _ in os.walk(top, topdown=False):
                with suppress(OSError):  # a process is ending in it
                    os.rmdir(folder)
            return not top.exists()

        until(gone, f"{top} is gone")
