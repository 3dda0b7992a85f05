"""Attacks on a server; each goes on until its process is killed.

python -m test.support.attacks NAME PORT
"""

import collections
import contextlib
import ctypes
import itertools
import json
import selectors
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

from test.support.process import HOST, ROOT
from test.support.reviews import pod_review
from test.support.serving import HELLO

_MIB = 1024 * 1024


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


TRUST = _context()


def post(body: bytes) -> bytes:
    head = "POST /mutate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def review(containers: int, inits: int, size: int = 0) -> bytes:
    """A review of a pod whose containers each ask for a slice, filled up to `size` bytes."""
    limits = {"resources": {"limits": {"nvidia.com/mig-1g.5gb": "1"}}}
    spec = {
        "containers": [{"name": f"c{i}", **limits} for i in range(containers)],
        "initContainers": [{"name": f"i{i}", **limits} for i in range(inits)],
    }
    pod = {"metadata": {"name": "x", "namespace": "default"}, "spec": spec}
    body = json.dumps(pod_review(pod), separators=(",", ":"))
    if size > len(body):  # volumes: ordinary lists and objects
        volume = '{"name":"v","emptyDir":{}},'
        many = volume * ((size - len(body)) // len(volume))
        body = body.replace('"containers"', f'"volumes":[{many[:-1]}],"containers"', 1)
    return body.encode()


def connect(port: int, context: ssl.SSLContext = TRUST) -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection((HOST, port), 30), server_hostname=HOST)


def flood(port: int, number: int, request: bytes) -> None:
    """Send a small request on `number` connections, and again after each answer."""
    selector = selectors.DefaultSelector()

    def begin() -> None:
        with contextlib.suppress(OSError):
            connection = connect(port)
            connection.sendall(request)
            selector.register(connection, selectors.EVENT_READ)

    for _ in range(number):
        begin()
    while True:
        for key, _ in selector.select(1):
            connection: ssl.SSLSocket = key.fileobj  # type: ignore[assignment]
            try:
                if not connection.recv(1 << 16):
                    raise OSError
                connection.sendall(request)
            except OSError:
                selector.unregister(connection)
                connection.close()
                begin()


def large(port: int, number: int, body: bytes) -> None:
    """Send large requests, with a thread for each connection."""
    request = post(body)

    def run() -> None:
        while True:
            with contextlib.suppress(OSError), connect(port) as connection:
                while True:
                    connection.sendall(request)
                    if not connection.recv(1 << 16):
                        break

    for _ in range(number):
        threading.Thread(target=run, daemon=True).start()
    time.sleep(3600)


def dense(port: int) -> None:
    """Send the reviews that take the most memory."""
    from test.support import worst

    large(port, 16, worst.dense())


def key_updates(port: int) -> None:
    """Send 5.4 MB of TLS 1.3 messages that carry no data (RFC 8446, section 4.6.3) at once."""
    # Importing the server's code takes longer than the other attacks need to begin.
    from test.support.loop import BufferedTLS

    # Python's ssl has no call for them; its object holds OpenSSL's behind a count and two pointers.
    library = ctypes.CDLL("libssl.so.3")
    while True:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 30) as plain:
            client = BufferedTLS(plain, TRUST)
            inner = id(vars(client.tls)["_sslobj"])
            pointer = ctypes.c_void_p.from_address(inner + 3 * ctypes.sizeof(ctypes.c_void_p))
            for _ in range(200_000):
                library.SSL_key_update(pointer, 0)
                library.SSL_do_handshake(pointer)
            client.flush()
            plain.recv(1)


def renegotiation(port: int) -> None:
    """Ask for one TLS 1.2 handshake after another on a connection, with openssl's s_client."""
    while True:
        process = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"{HOST}:{port}", "-tls1_2"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        with contextlib.suppress(OSError):
            assert process.stdin
            for _ in range(200_000):
                process.stdin.write(b"R\n")
                process.stdin.flush()
        process.kill()
        process.wait()


def hellos(port: int) -> None:
    """Send the beginning of a ClientHello that announces 131,396 bytes, on 1,990 connections."""
    held = []
    for _ in range(1990):
        with contextlib.suppress(OSError):
            plain = socket.create_connection((HOST, port), 30)
            plain.sendall(b"\x16\x03\x01\x40\x00\x01\x02\x01\x44\x03\x03")
            held.append(plain)
    time.sleep(3600)


def connects(port: int) -> None:
    """Open connections as fast as possible, and send nothing."""
    held: list[socket.socket] = []
    for number in itertools.count():
        with contextlib.suppress(OSError):
            held.append(socket.create_connection((HOST, port), 1))
        if len(held) > 500:
            held[number % 500].close()
            held[number % 500] = held.pop()


def replay(port: int, data: bytes, source: str = HOST, keep: int = 1) -> None:
    """Send the same bytes on one new connection after another, and keep the newest open."""
    held: collections.deque[socket.socket] = collections.deque()
    while True:
        with contextlib.suppress(OSError):
            held.append(socket.create_connection((HOST, port), 5, (source, 0)))
            held[-1].sendall(data)
        if len(held) > keep:
            held.popleft().close()


def handshakes(port: int) -> None:
    """Do handshakes, and nothing else, on 16 threads."""

    def run() -> None:
        while True:
            with contextlib.suppress(OSError):
                connect(port).close()

    for _ in range(16):
        threading.Thread(target=run, daemon=True).start()
    time.sleep(3600)


#: A record that TLS 1.3 ignores during a handshake (RFC 8446, appendix D.4).
CHANGE_CIPHER_SPEC = b"\x14\x03\x03\x00\x01\x01"
GET = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"

ATTACKS: dict[str, Callable[[int], None]] = {
    "KeyUpdate records": key_updates,
    "renegotiation": renegotiation,
    "400 expensive reviews of 7 KB": lambda port: flood(port, 400, post(review(56, 60))),
    "1,900 x /metrics": lambda port: flood(port, 1900, GET),
    "600 reviews of 30 KiB": lambda port: flood(port, 600, post(review(56, 56, 30 * 1024))),
    "60 reviews of 1 MiB": lambda port: large(port, 60, review(56, 56, _MIB)),
    "16 reviews of 7 MiB": lambda port: large(port, 16, review(56, 56, 7 * _MIB - 4096)),
    "16 dense reviews of 7 MiB": dense,
    "hellos of 128 KiB": hellos,
    "ChangeCipherSpec records": lambda port: replay(port, HELLO + 100_000 * CHANGE_CIPHER_SPEC),
    "ClientHellos": lambda port: replay(port, HELLO),
    "ClientHellos of another address": lambda port: replay(port, HELLO, "127.0.0.2", 400),
    "handshakes": handshakes,
    "connect()": connects,
}


@contextlib.contextmanager
def attack(name: str, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Attack a server from another process, which has begun, until the block ends."""
    command = [sys.executable, "-m", "test.support.attacks", name, str(port)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()


if __name__ == "__main__":
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print("begins", flush=True)
    ATTACKS[sys.argv[1]](int(sys.argv[2]))
