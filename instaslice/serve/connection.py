"""What the loop knows of a client's connection. The loop alone touches it."""

import socket
import ssl
import time
from dataclasses import dataclass, field
from typing import Any

from instaslice.serve.framing import RequestReader
from instaslice.serve.gateway import Memo, Peer
from instaslice.serve.room import FAREWELL_BYTES, Phase


@dataclass(slots=True, eq=False)
class Connection:
    """A TLS connection in one of the phases that `room` lists."""

    sock: ssl.SSLSocket  #: non-blocking
    peer: Peer  #: with its certificate once hands are shaken
    generation: int  #: of the authorities that its certificate is checked by
    phase: Phase = Phase.HANDSHAKE
    since: float = field(default_factory=time.monotonic)  #: in that phase
    used: bool = False  #: whether it has brought a whole request
    events: int = 0  #: what the selector watches for
    reader: RequestReader = field(default_factory=RequestReader)
    memo: Memo = field(default_factory=Memo)
    outbox: bytes = b""  #: not taken by the socket yet
    keep: bool = True  #: whether another request may follow
    to_forget: int = FAREWELL_BYTES  #: bytes that are read at most while it lingers

    def enter(self, phase: Phase) -> None:
        """Begin a phase, and its time."""
        self.phase = phase
        self.since = time.monotonic()

    def learn_certificate(self) -> None:
        """Keep the certificate that the handshake has shown, if any."""
        certificate: Any = self.sock.getpeercert()
        self.peer = self.peer._replace(certificate=certificate)

    def has_bytes(self) -> bool:
        """Whether something has come that is not read yet; that the peer hung up is nothing."""
        try:
            return bool(self.sock.pending() or socket.socket.recv(self.sock, 1, socket.MSG_PEEK))
        except OSError:
            return False
