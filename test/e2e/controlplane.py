"""A Kubernetes control plane for one run: loopback, free ports, throw-away certificates.

The binaries kube-apiserver, etcd and kubectl come from one folder, which `setup-envtest` fills and
KUBEBUILDER_ASSETS names. If the folder has kube-controller-manager and kube-scheduler, they run,
too. `DRA` has what a version of Kubernetes needs to serve resource.k8s.io.
"""

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from test.support.certs import Authority
from test.support.process import free_ports, running, until


class Version(NamedTuple):
    """A version of Kubernetes: (1, 34)."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


#: The versions of resource.k8s.io to switch on, together with the feature gate, by the minor
#: version of Kubernetes. From 1.34 on, DRA needs no flag.
DRA: Final = {
    27: ("v1alpha2",),
    28: ("v1alpha2",),
    29: ("v1alpha2",),
    30: ("v1alpha2",),
    31: ("v1alpha3",),
    32: ("v1beta1",),
    33: ("v1beta1", "v1beta2"),
}

#: Without a kubelet, no program renews a node's lease.
WITHOUT_NODES: Final = "*,-nodelifecycle"

#: The addresses of Services; the first is the API server's.
SERVICES: Final = "10.0.0.0/24"
API_SERVICE: Final = "10.0.0.1"


@dataclass(frozen=True)
class ControlPlane:
    """A running control plane."""

    version: Version
    url: str  #: of the API server
    ca: Path  #: PEM, of the API server's certificate
    kubeconfig: Path  #: of an administrator
    admin: Path  #: PEM, the administrator's certificate and key
    kubectl: Path
    has_controllers: bool
    has_scheduler: bool

    @property
    def resource_api(self) -> str:
        """The newest version of resource.k8s.io that is served."""
        return DRA.get(self.version.minor, ("v1",))[-1]


@contextmanager
def control_plane(
    assets: Path,
    folder: Path,
    *,
    controllers: bool = True,
    address: str = "127.0.0.1",
    gates: Mapping[int, str] = MappingProxyType({}),
    has_dra: bool = True,
) -> Iterator[ControlPlane]:
    """Run a control plane inside the context.

    assets: the binaries. folder: created, for data, certificates and logs.
    controllers: whether kube-controller-manager and kube-scheduler may run, too.
    address: the API server's, for pods and kubelets.
    gates: feature gates to switch on, by the minor version of Kubernetes.
    has_dra: whether resource.k8s.io is served.
    Raises RuntimeError, with the end of a log, and TimeoutError.
    """
    apiserver, etcd, kubectl = (assets / name for name in ("kube-apiserver", "etcd", "kubectl"))
    manager = _optional(assets, "kube-controller-manager") if controllers else None
    scheduler = _optional(assets, "kube-scheduler") if controllers else None
    version = _version_of(apiserver)
    has_nodes = address != "127.0.0.1"
    gate_flags = _feature_gates(version, gates)

    folder.mkdir(parents=True)
    client_port, peer_port, secure_port = free_ports(3)
    database = f"http://127.0.0.1:{client_port}"
    url = f"https://127.0.0.1:{secure_port}"
    _write_credentials(folder, url, address)
    kubeconfig, admin, key = folder / "kubeconfig", folder / "admin.pem", folder / "tls.key"

    def serves(path: str) -> bool:
        asked = [str(kubectl), f"--kubeconfig={kubeconfig}", "get", f"--raw={path}"]
        return subprocess.run(asked, capture_output=True).returncode == 0

    with ExitStack() as stack:

        def start(binary: Path, *flags: str) -> Callable[[], None]:
            """Start a program, and return a function that raises if it has ended."""
            log = folder / f"{binary.name}.log"
            return stack.enter_context(running([binary, *flags], log)).check

        etcd_lives = start(
            etcd,
            f"--data-dir={folder / 'etcd'}",
            f"--listen-client-urls={database}",
            f"--advertise-client-urls={database}",
            f"--listen-peer-urls=http://127.0.0.1:{peer_port}",
            "--unsafe-no-fsync",
        )
        apiserver_lives = start(
            apiserver,
            f"--etcd-servers={database}",
            f"--bind-address={'0.0.0.0' if has_nodes else address}",
            f"--advertise-address={address}",
            # Loopback cannot be a Service's endpoint.
            *([] if has_nodes else ["--endpoint-reconciler-type=none"]),
            f"--kubelet-client-certificate={admin}",
            f"--kubelet-client-key={admin}",
            "--kubelet-preferred-address-types=InternalIP",  # the node has no DNS name
            f"--secure-port={secure_port}",
            f"--tls-cert-file={folder / 'tls.crt'}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={folder / 'ca.crt'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            # Without the controller that creates service accounts, pods have none.
            *([] if manager else ["--disable-admission-plugins=ServiceAccount"]),
            *gate_flags,
            *_runtime_config(version, has_dra),
        )
        lives = (etcd_lives, apiserver_lives)
        until(lambda: serves("/readyz"), f"the API server is ready, {folder}", *lives, seconds=90)

        client_flags = (
            f"--kubeconfig={kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
            *gate_flags,
        )
        if manager:
            manager_lives = start(
                manager,
                *client_flags,
                f"--controllers={'*' if has_nodes else WITHOUT_NODES}",
                f"--service-account-private-key-file={key}",
                f"--root-ca-file={folder / 'ca.crt'}",
            )
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            until(lambda: serves(account), f"controllers work, {folder}", manager_lives, seconds=90)
        if scheduler:
            start(scheduler, *client_flags)
        yield ControlPlane(
            version=version,
            url=url,
            ca=folder / "ca.crt",
            kubeconfig=kubeconfig,
            admin=admin,
            kubectl=kubectl,
            has_controllers=manager is not None,
            has_scheduler=scheduler is not None,
        )


def _optional(assets: Path, name: str) -> Path | None:
    return assets / name if (assets / name).is_file() else None


def _version_of(apiserver: Path) -> Version:
    """The version that `kube-apiserver --version` prints ("Kubernetes v1.34.1")."""
    printed = subprocess.run([apiserver, "--version"], capture_output=True, text=True, check=True)
    _, minor, *_ = re.findall(r"\d+", printed.stdout)
    return Version(1, int(minor))


#: The gate of counters that devices share (KEP-4815), which the tests' devices need, by the minor
#: version of Kubernetes; from 1.36 on it is on by default.
COUNTERS: Final = dict.fromkeys((34, 35), "DRAPartitionableDevices")


def _feature_gates(version: Version, more: Mapping[int, str]) -> list[str]:
    """The flags for DRA of every program of Kubernetes. more: gates by minor version."""
    gates = ["DynamicResourceAllocation"] if version.minor in DRA else []
    gates += [more[version.minor]] if version.minor in more else []
    return [f"--feature-gates={gate}=true" for gate in gates]


def _runtime_config(version: Version, has_dra: bool) -> list[str]:
    """The flags with which the API server serves resource.k8s.io, or does not."""
    versions = DRA.get(version.minor, () if has_dra else ("v1",))
    served = [f"resource.k8s.io/{each}={str(has_dra).lower()}" for each in versions]
    return [f"--runtime-config={','.join(served)}"] if served else []


def _write_credentials(folder: Path, url: str, address: str) -> None:
    """Write the credentials ca.crt, tls.crt, tls.key and admin.pem, and kubeconfig."""
    admin_pem = folder / "admin.pem"
    authority = Authority()
    authority.mint(folder, *sorted({"127.0.0.1", address, API_SERVICE, "localhost"}))
    # Go refuses a certificate without any name besides the subject.
    admin = authority.ca.issue_cert(
        "admin.test", common_name="admin", organization_name="system:masters"
    )
    admin.private_key_and_cert_chain_pem.write_to_path(admin_pem)
    cluster = {"server": url, "certificate-authority": str(folder / "ca.crt")}
    user = {"client-certificate": str(admin_pem), "client-key": str(admin_pem)}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "e2e", "cluster": cluster}],
        "users": [{"name": "admin", "user": user}],
        "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "admin"}}],
        "current-context": "e2e",
    }
    (folder / "kubeconfig").write_text(json.dumps(kubeconfig))
