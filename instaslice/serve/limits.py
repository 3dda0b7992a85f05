"""Every number that bounds what one source can make the server do, hold, or leave queued.

Limits are passed in as a value, so a test can use its own. Times are in seconds, sizes in bytes.
"""

from dataclasses import dataclass
from typing import Final

from instaslice.cluster import discovery
from instaslice.containers import MAX_DEVICES
from instaslice.profiles import PROFILES_BY_GPU

_MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """The comment above a field gives the reason for its value."""

    # The largest review: the new and the old object at 3 MB each, twice what etcd stores of one
    # (1.5 MB), and 1 MB of envelope. controller-runtime derives its limit in the same way.
    body: int = 7 * _MIB
    # Memory for the lists and objects of a decoded body. This is enough for any object of 3 MiB,
    # whatever it holds, and for two that are not mostly brackets.
    decoded: int = 160 * _MIB
    # The longest header section; the API server sends a few hundred bytes.
    headers: int = 32 * 1024

    # -- one connection --------------------------------------------------------------------------

    # The API server keeps a few dozen connections; the rest is room for stalled clients.
    connections: int = 2000
    # More connections whose handshake has not begun, and how many of these one address may have:
    # more than the API server has mutating requests in flight (200 by default).
    silent: int = 1000
    silent_of_one: int = 500
    # Raw bytes read from a connection at once: one full TLS record (RFC 8446, section 5.2), or 600
    # records without data, which cost OpenSSL 25 us each.
    raw: int = 16 * 1024 + 512
    # The same before the end of the handshake; a longer ClientHello takes several reads.
    raw_handshake: int = 2 * 1024
    # Reads from one connection per turn while it sends data: decrypting 16 KiB takes 20 us.
    parts: int = 8
    # Raw bytes without data before the connection is closed: many times a handshake with a chain of
    # certificates. Each byte of data allows `wrapping` more; one in its own record takes 30.
    dataless: int = 64 * 1024
    wrapping: int = 64
    # The longest ClientHello; one with post-quantum keys has 2 KiB. OpenSSL allocates the announced
    # length, up to 128 KiB.
    hello: int = 16 * 1024
    # Unfinished handshakes: OpenSSL allocates about 160 KiB for each, 40 MiB in all.
    handshakes: int = 256
    # Connections that share a TLS context. For clients of TLS 1.2 without tickets, OpenSSL keeps up
    # to 20,480 sessions in one, 1 to 7 KiB each.
    context_uses: int = 4096
    # Time for a handshake, for a whole request to arrive, and for a reply to be received. It is
    # longer than the API server waits for an answer (5 s as deployed).
    arrival: float = 6.0
    # Where room is scarce, a connection without progress for this long counts as stalled.
    prompt: float = 1.0
    # The API server closes idle connections after 90 s (Go's http.Transport, IdleConnTimeout). The
    # server keeps them longer, so it never closes one that is about to be used.
    keep_alive: int = 120
    # After the last reply the server still reads this long and this much, so that the client gets
    # the reply before a reset for the rest of its request (RFC 9112, section 9.6).
    farewell: float = 2.0
    farewell_bytes: int = 14 * _MIB

    # -- all connections -------------------------------------------------------------------------

    # Received bytes of all requests, whole or not, and the buffers of OpenSSL and Python for each.
    pending: int = 48 * _MIB
    buffers: int = 32 * 1024
    # The largest body that the loop decides on itself, within 30 ms.
    light: int = 128 * 1024
    # Received bytes of larger bodies until they are answered. Beyond it, one at a time is read.
    large: int = 24 * _MIB
    # How long a decision on one of these may take: many times that on the worst body.
    judging: float = 20.0
    # Bytes of smaller requests that wait in the pool for the API server.
    waiting: int = 14 * _MIB
    # Bytes of replies not yet received. A reply has a few KiB and a socket buffers megabytes, so
    # only clients that never read get this far.
    unsent: int = 32 * _MIB

    # -- one turn of the loop --------------------------------------------------------------------

    # Time to accept connections, and again for new handshakes, which take a millisecond each.
    newcomers: float = 0.010
    # Time to read from established connections, and from those that send a large body.
    reading: float = 0.010
    reading_large: float = 0.002
    # Processor time to answer requests. The replies are sent together: waking the client once gives
    # a third more requests a second on 16 connections.
    answering: float = 0.005
    # Between two searches for connections whose time is up.
    sweep: float = 0.5
    # Python's switch interval: how soon the loop gets the processor back from a pool thread.
    switch: float = 0.0005

    # -- whose turn it is ------------------------------------------------------------------------

    # The part of an address's processor time that each sweep keeps: half is gone after a second.
    memory: float = 0.7
    # Addresses that used more processor time than this rank equally. Otherwise the busiest one, the
    # API server, would wait until a newcomer has used as much.
    heavy_user: float = 0.1
    # The assumed cost of a request per byte. On a new connection nothing else is known, and it must
    # not wait behind hundreds of requests that are known to be expensive.
    byte: float = 1e-7
    # Requests that cost less than this rank equally: 2,000 of them take a second.
    cheap: float = 0.0005

    # -- templates (see serve.templates) ---------------------------------------------------------

    # How long an admission waits for the templates of its pod; the API server waits 5 s for it.
    template_patience: float = 1.0
    # Admissions of one namespace that wait at the same time: a quarter of the pool by default, so a
    # namespace cannot keep others out of it.
    template_waiters: int = 2
    # How long a template counts as present after it was seen; somebody may delete it.
    template_memory: float = 600.0
    # Between two checks of the same known template, and between any two checks.
    template_recheck: float = 1.0
    template_spacing: float = 0.05
    # The pause before the second attempt doubles with each one, up to the longest.
    first_pause: float = 1.0
    longest_pause: float = 300.0
    # Templates that are remembered: users can create any number of namespaces.
    templates_known: int = 10_000
    # Memory for templates in a queue, at 1 KiB a name.
    templates_waiting: int = 2 * _MIB
    # Templates that one process creates in a namespace on demand: as many as one pod may need (R8).
    # One device of a known profile or a mapped resource is not counted; there are about 80.
    templates_counted: int = MAX_DEVICES
    # Of these, templates for profiles that no known GPU has: all profiles of one new GPU, each for
    # two different counts.
    templates_unknown: int = 2 * max(map(len, PROFILES_BY_GPU.values()))
    # CEL selectors in one template: each costs the API server about 2 ms per creation.
    template_selectors: int = 64

    # -- the log ---------------------------------------------------------------------------------

    # Bytes of lines that wait to be written: about 10,000 lines, more than one core logs a second.
    log: int = 4 * _MIB
    # How long a process waits at exit for its last lines to be written.
    log_flush: float = 1.0
    # How long lines are collected before they are written. Waking the writer for each line costs a
    # seventh of an admission; every 10 ms still costs a twentieth.
    log_gather: float = 0.05

    # -- the process -----------------------------------------------------------------------------

    # Time for requests in flight after SIGTERM: twice the webhook's timeout of 5 s.
    grace: int = 10
    # How long new connections are accepted after SIGTERM, from the backlog and from clients that do
    # not know yet.
    last_call: float = 0.3
    # The end of the grace period, in which idle connections are closed and only requests in flight
    # go on. An admission waits at most 1 s for its templates.
    wrap_up: float = 2.0
    # gunicorn replaces a worker that gave no sign of life for this long; the loop gives two a
    # second.
    heartbeat: int = 30
    # Between two checks of the certificate files, which are read. cert-manager renews weeks ahead.
    certificate_check: float = 1.0
    # How long rendered metrics are served again.
    metrics: float = 1.0
    # Between two requests for the API version, by what is known (see `discovery`).
    discovery: tuple[float, float, float] = discovery.PAUSES
