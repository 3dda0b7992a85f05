"""A Kubernetes control plane for one run: loopback, free ports, throw-away certificates.

The binaries come from one folder, as `setup-envtest` fills it and names it in KUBEBUILDER_ASSETS:
kube-apiserver, etcd and kubectl, or else from PATH. Where kube-controller-manager and
kube-scheduler lie in the folder, they run too. What a version of Kubernetes needs to serve
resource.k8s.io is in `DRA`; nothing else here depends on the version.
"""

import json
import re
import shutil
import ssl
import subprocess
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
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


OLDEST: Final = Version(1, 27)

#: The versions of resource.k8s.io to switch on, together with the feature gate, by the minor
#: version of Kubernetes. From 1.34 on, DRA is there without a flag.
DRA: Final = {
    27: ("v1alpha2",),
    28: ("v1alpha2",),
    29: ("v1alpha2",),
    30: ("v1alpha2",),
    31: ("v1alpha3",),
    32: ("v1beta1",),
    33: ("v1beta1", "v1beta2"),
}

#: A node without a kubelet has nobody who would renew its lease.
WITHOUT_NODES: Final = "*,-nodelifecycle"

#: The addresses of Services; the first is the API server's.
SERVICES: Final = "10.0.0.0/24"
API_SERVICE: Final = "10.0.0.1"

#: Straight to loopback, whatever the environment says of proxies.
_NO_PROXY: Final = urllib.request.ProxyHandler({})


@dataclass(frozen=True)
class ControlPlane:
    """A control plane that answers."""

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
    """A control plane that runs while the context does.

    assets: where the binaries are. folder: is made, for data, certificates and logs.
    controllers: whether kube-controller-manager and kube-scheduler may run, too.
    address: where pods and kubelets reach the API server, where there are any.
    gates: feature gates to switch on, by the minor version of Kubernetes.
    has_dra: whether resource.k8s.io is served.
    Raises RuntimeError, with the end of a log, and TimeoutError.
    """
    apiserver, etcd, kubectl = _needed(assets, "kube-apiserver", "etcd", "kubectl")
    manager = _optional(assets, "kube-controller-manager") if controllers else None
    scheduler = _optional(assets, "kube-scheduler") if controllers else None
    version = _version_of(apiserver)
    has_nodes = address != "127.0.0.1"
    gate_flags = _feature_gates(version, gates)

    folder.mkdir(parents=True)
    client_port, peer_port, secure_port = free_ports(3)
    database = f"http://127.0.0.1:{client_port}"
    url = f"https://127.0.0.1:{secure_port}"
    files = _write_credentials(folder, url, address)
    with ExitStack() as stack:

        def start(binary: Path, *flags: str) -> Callable[[], None]:
            """Start a program; returns what raises once it has ended by itself."""
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
            f"--kubelet-client-certificate={files.admin}",
            f"--kubelet-client-key={files.admin}",
            "--kubelet-preferred-address-types=InternalIP",  # no DNS knows the node
            f"--secure-port={secure_port}",
            f"--tls-cert-file={files.certificate}",
            f"--tls-private-key-file={files.key}",
            f"--client-ca-file={files.ca}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={files.key}",
            f"--service-account-signing-key-file={files.key}",
            f"--service-cluster-ip-range={SERVICES}",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            # Service accounts are made by a controller; without it, pods must do without.
            *([] if manager else ["--disable-admission-plugins=ServiceAccount"]),
            *gate_flags,
            *_runtime_config(version, has_dra),
        )
        serves = partial(_answers, files, url)
        lives = (etcd_lives, apiserver_lives)
        until(lambda: serves("/readyz"), f"the API server is ready, {folder}", *lives, seconds=90)

        client_flags = (
            f"--kubeconfig={files.kubeconfig}",
            "--leader-elect=false",
            "--secure-port=0",
            *gate_flags,
        )
        if manager:
            manager_lives = start(
                manager,
                *client_flags,
                f"--controllers={'*' if has_nodes else WITHOUT_NODES}",
                f"--service-account-private-key-file={files.key}",
                f"--root-ca-file={files.ca}",
            )
            account = "/api/v1/namespaces/default/serviceaccounts/default"
            until(lambda: serves(account), f"controllers work, {folder}", manager_lives, seconds=60)
        if scheduler:
            start(scheduler, *client_flags)
        yield ControlPlane(
            version=version,
            url=url,
            ca=files.ca,
            kubeconfig=files.kubeconfig,
            admin=files.admin,
            kubectl=kubectl,
            has_controllers=manager is not None,
            has_scheduler=scheduler is not None,
        )


def _needed(assets: Path, *names: str) -> list[Path]:
    """Programs from the folder or else from PATH. Raises RuntimeError."""
    found = {name: _optional(assets, name) or shutil.which(name) for name in names}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise RuntimeError(f"neither {assets} nor PATH has {' and '.join(missing)}")
    return [Path(path) for path in found.values() if path]


def _optional(assets: Path, name: str) -> Path | None:
    return assets / name if (assets / name).is_file() else None


def _version_of(apiserver: Path) -> Version:
    """The version that `kube-apiserver --version` prints ("Kubernetes v1.34.1")."""
    printed = subprocess.run([apiserver, "--version"], capture_output=True, text=True, check=True)
    match = re.match(r"Kubernetes v(\d+)\.(\d+)", printed.stdout)
    if match is None:
        raise RuntimeError(f"{apiserver} --version printed {printed.stdout!r}")
    version = Version(int(match[1]), int(match[2]))
    if version < OLDEST:
        raise RuntimeError(f"{apiserver} is of Kubernetes {version}; DRA begins with {OLDEST}")
    return version


#: What the tests' own devices need, and older versions have behind a gate: counters that devices
#: share (KEP-4815; on by default from 1.36 on). By the minor version of Kubernetes.
COUNTERS: Final = dict.fromkeys((34, 35), "DRAPartitionableDevices")


def _feature_gates(version: Version, more: Mapping[int, str]) -> list[str]:
    """What every program of Kubernetes must be told for DRA; more: by minor version."""
    gates = ["DynamicResourceAllocation"] if version.minor in DRA else []
    gates += [more[version.minor]] if version.minor in more else []
    return [f"--feature-gates={gate}=true" for gate in gates]


def _runtime_config(version: Version, has_dra: bool) -> list[str]:
    """What the API server must be told to serve resource.k8s.io, or not to."""
    versions = DRA.get(version.minor, () if has_dra else ("v1",))
    served = [f"resource.k8s.io/{each}={str(has_dra).lower()}" for each in versions]
    return [f"--runtime-config={','.join(served)}"] if served else []


class _Files(NamedTuple):
    """What proves who is who; all PEM, but for the kubeconfig."""

    ca: Path
    certificate: Path  #: the API server's
    key: Path  #: of that certificate, and for the tokens of service accounts
    admin: Path  #: the administrator's certificate and key
    kubeconfig: Path


def _write_credentials(folder: Path, url: str, address: str) -> _Files:
    files = _Files(
        ca=folder / "ca.crt",
        certificate=folder / "tls.crt",
        key=folder / "tls.key",
        admin=folder / "admin.pem",
        kubeconfig=folder / "kubeconfig",
    )
    authority = Authority()
    authority.mint(folder, *sorted({"127.0.0.1", address, API_SERVICE, "localhost"}))
    # Without any name beside the subject, Go refuses the certificate.
    admin = authority.ca.issue_cert(
        "admin.test", common_name="admin", organization_name="system:masters"
    )
    admin.private_key_and_cert_chain_pem.write_to_path(files.admin)
    cluster = {"server": url, "certificate-authority": str(files.ca)}
    user = {"client-certificate": str(files.admin), "client-key": str(files.admin)}
    kubeconfig = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "e2e", "cluster": cluster}],
        "users": [{"name": "admin", "user": user}],
        "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "admin"}}],
        "current-context": "e2e",
    }
    files.kubeconfig.write_text(json.dumps(kubeconfig))
    return files


def _answers(files: _Files, url: str, path: str) -> bool:
    """Whether the administrator's GET of a path succeeds."""
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_cert_chain(files.admin)
    opener = urllib.request.build_opener(_NO_PROXY, urllib.request.HTTPSHandler(context=context))
    try:
        with opener.open(url + path, timeout=10) as answer:
            return bool(answer.status == 200)
    except OSError:  # urllib's errors are of its kind
        return False
