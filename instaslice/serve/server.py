"""Runs gunicorn in this process: its settings, its socket, its log.

gunicorn's command line, configuration files and environment variables (`settings`) have no effect.
"""

import contextlib
import errno
import logging
import os
import resource
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from gunicorn.app.base import BaseApplication

from instaslice.cluster.discovery import PATIENCE, Discovery, Served
from instaslice.resource_api import VERSIONS, ResourceAPI
from instaslice.serve import logs
from instaslice.serve.app import Webhook
from instaslice.serve.judge import Judge, prepare_memory
from instaslice.serve.limits import Limits
from instaslice.serve.metrics import Metrics
from instaslice.serve.settings import ANY, Settings
from instaslice.serve.templates import TemplateMaker
from instaslice.serve.tls import Certificates, UnusableCertificate
from instaslice.serve.worker import StallFreeWorker
from instaslice.templates import serves

_log = logging.getLogger("instaslice")

#: A folder in memory for the worker's heartbeat file: the root file system is read-only, and a slow
#: disk can block the heartbeat (gunicorn's FAQ).
_MEMORY: Final = "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108

#: Connections that wait in the kernel: as many as it allows (net.core.somaxconn). A client without
#: a place tries again after 1, 3 and 7 seconds.
_BACKLOG: Final = 65535

#: Files that the server may have open beside its connections.
_OWN_FILES: Final = 64


class StartError(Exception):
    """The server cannot start; `str()` of it says why, in one line."""


def serve(settings: Settings, limits: Limits = Limits()) -> None:  # noqa: B008 - it is frozen
    """Serve until SIGTERM or SIGINT. Raises StartError."""
    Server(settings, limits).run()


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket. gunicorn itself would retry for five seconds. Raises StartError."""
    try:
        if host == ANY:
            listener = _listen_everywhere(port)
        else:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            listener = socket.create_server(address, family=family, backlog=_BACKLOG)
    except OSError as error:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        reason = str(error.strerror).partition(" (while ")[0]  # create_server appends the address
        raise StartError(f"{where}: {reason}") from None
    # A silent connection stays in the kernel for a second; a TLS client speaks first.
    with contextlib.suppress(AttributeError):  # only Linux has it
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
    return listener


def _listen_everywhere(port: int) -> socket.socket:
    with contextlib.suppress(ValueError):  # the kernel has no IPv6
        try:
            family, address = socket.AF_INET6, (ANY, port)
            return socket.create_server(
                address, family=family, backlog=_BACKLOG, dualstack_ipv6=True
            )
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:  # sysctl disables IPv6
                raise
    everywhere = ("0.0.0.0", port)  # noqa: S104 - every address is the point
    return socket.create_server(everywhere, backlog=_BACKLOG)


def _raise_file_limit() -> int:
    """Allow as many open files as the system permits; returns how many these are."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # macOS reports "unlimited" but allows 10,240
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return files if files != resource.RLIM_INFINITY else sys.maxsize


class Server(BaseApplication):
    """InstaSlice as gunicorn runs it."""

    def __init__(self, settings: Settings, limits: Limits = Limits()) -> None:  # noqa: B008
        """Open the log, the certificate and the socket. Raises StartError."""
        self._settings = settings
        self._log = logs.configure(settings.log_format, settings.log_level, limits)
        try:
            self._certificates = Certificates(limits, settings.cert_dir, settings.client_ca)
        except UnusableCertificate as error:
            raise StartError(str(error)) from None
        files = _raise_file_limit() - _OWN_FILES
        silent = min(limits.silent, files // 3)
        connections = min(limits.connections, files - silent)
        self._limits = replace(limits, connections=connections, silent=silent)
        self._listener = listen(settings.host, settings.port).detach()  # gunicorn closes it
        self._judge = Judge(limits.judging)
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's settings. gunicorn calls it."""
        limits = self._limits

        def equip(worker: StallFreeWorker) -> None:
            worker.generation = self._certificates.generation
            worker.limits = limits

        values: dict[str, Any] = {
            "bind": f"fd://{self._listener}",
            "worker_class": StallFreeWorker,
            "worker_connections": limits.connections,
            # Two workers on one core served 4 % less than one. Replicas add capacity.
            "workers": 1,
            "threads": self._settings.threads,
            "graceful_timeout": limits.grace,
            "timeout": limits.heartbeat,
            "worker_tmp_dir": _MEMORY,
            "control_socket_disable": True,
            "errorlog": None,  # `logs.configure` has set the handler
            "proc_name": "instaslice",
            "ssl_context": lambda config, default: self._certificates.context(),
            "post_worker_init": equip,
            # A thread that waits for the process would delay the worker's exit.
            "worker_exit": lambda server, worker: self._judge.kill(),
            # gunicorn serves TLS only if a file is named; `ssl_context` replaces it.
            "certfile": str(self._settings.cert_dir / "tls.crt"),
        }
        for key, value in values.items():
            self.cfg.set(key, value)

    def load(self) -> Any:
        """Make the application. gunicorn calls it in each worker."""
        prepare_memory()
        settings, limits, ensure = self._settings, self._limits, None
        self._metrics = metrics = Metrics(settings.resources, limits.metrics)
        metrics.certificate_expiry.set_function(lambda: self._certificates.expiry)
        self._certificates.on_failure = metrics.certificate_failures.inc
        self._log.on_drop = metrics.log_lines_dropped.inc
        if settings.provision_templates and settings.cluster:
            maker = TemplateMaker(settings.cluster, metrics, settings.resources, limits)
            maker.start()
            ensure = maker.ensure
        return Webhook(
            self._resource_api(),
            metrics,
            ensure,
            settings.client_names if settings.client_ca else None,
            settings.resources,
            self._judge.decide,
            self._log.info,
            limits,
        )

    def _resource_api(self) -> Callable[[], Served]:
        """A function that returns the version of resource.k8s.io, which is fixed or discovered."""
        cluster, version = self._settings.cluster, self._settings.resource_api
        if version == "auto" and cluster:
            asking, pauses = replace(cluster, deadline=PATIENCE), self._limits.discovery
            discovery = Discovery(asking, self._on_change, cluster.namespace, pauses)
            discovery.start()
            return discovery.current
        api = VERSIONS[version].without_proof
        self._metrics.show_resource_api(api)
        return lambda: api

    def _on_change(self, api: Served) -> None:
        """Show the version in metrics, and log mapped resources that it cannot serve."""
        self._metrics.show_resource_api(api)
        if isinstance(api, ResourceAPI):
            for resource in self._settings.resources.mapped.values():
                if not serves(api, resource):
                    fields = {"resource": resource.name, "resource_api": api.version}
                    _log.error("a mapped resource is refused", extra={"fields": fields})
