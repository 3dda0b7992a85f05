"""A Service with one pod behind it, which receives calls only while it is ready."""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from test.support.process import HOST, free_port, until

#: Seconds between two readiness probes: the kubelet's periodSeconds.
PERIOD = 0.05


class Service:
    """Forwards connections to a port while is_ready(), and otherwise refuses them.

    kube-proxy and the kubelet do the same: a pod whose readiness probe fails is not an endpoint,
    and a connection to a Service without endpoints is refused.
    """

    def __init__(self, target: int, is_ready: Callable[[], bool]) -> None:
        self.port = free_port()
        self._target = target
        self._is_ready = is_ready
        self._listener: socket.socket | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._probe)

    def __enter__(self) -> "Service":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._close()

    def wait(self) -> None:
        """Wait until the pod is an endpoint."""
        until(lambda: self._listener is not None, "the pod is ready")

    def _probe(self) -> None:
        while not self._stop.wait(PERIOD):
            ready = self._is_ready()
            if ready and self._listener is None:
                self._listener = socket.create_server((HOST, self.port))
                threading.Thread(target=self._accept, args=[self._listener], daemon=True).start()
            elif not ready:
                self._close()

    def _close(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)  # otherwise accept() goes on
            listener.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client = listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._forward, args=[client], daemon=True).start()

    def _forward(self, client: socket.socket) -> None:
        with client, socket.create_connection((HOST, self._target)) as pod:
            back = threading.Thread(target=_pump, args=[pod, client])
            back.start()
            _pump(client, pod)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    """Forward all bytes, and then the end."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
