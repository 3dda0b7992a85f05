"""Every number that bounds what a source can make the server do, hold, or leave queued.

A value that is passed in: whoever needs other numbers makes another one. Seconds and bytes.
"""

from dataclasses import dataclass
from typing import Final

from instaslice.cluster import discovery
from instaslice.containers import MAX_DEVICES
from instaslice.profiles import PROFILES_BY_GPU

_MIB: Final = 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """See each field."""

    #: The largest review: two objects (the new and the old one) of 3 MB, which is twice what etcd
    #: takes of one (1.5 MB), and 1 MB of envelope; as controller-runtime derives it.
    body: int = 7 * _MIB
    #: Bytes that its lists and objects may take once they are decoded: any object of 3 MiB,
    #: whatever it holds, and two of them that are not mostly brackets.
    decoded: int = 160 * _MIB
    #: The longest header section; the API server's has a few hundred bytes.
    headers: int = 32 * 1024

    # -- a connection ----------------------------------------------------------------------------

    #: Connections. The API server keeps a few dozen; the rest is room for those who stall.
    connections: int = 2000
    #: Those that have sent nothing yet; most of them wait in the kernel until they have.
    silent: int = 1000
    #: Raw bytes taken from a connection at once: a full TLS record (RFC 8446, section 5.2), or 600
    #: of those that carry nothing, each 25 us of OpenSSL's.
    raw: int = 16 * 1024 + 512
    #: How often that is done in a turn where it is data: to decrypt 16 KiB takes 20 us.
    parts: int = 8
    #: Raw bytes that carry nothing, before the connection is closed: many times what a handshake
    #: with a chain of certificates takes.
    dataless: int = 64 * 1024
    #: Raw bytes that a byte of data may take beside those: in a record of its own it takes 30.
    wrapping: int = 64
    #: The longest ClientHello; one with post-quantum keys has 2 KiB. OpenSSL sets aside what is
    #: announced, up to 128 KiB.
    hello: int = 16 * 1024
    #: Handshakes that have begun: 40 MiB, by what OpenSSL sets aside for one.
    handshakes: int = 256
    #: For a handshake, for a request to arrive whole, for a reply to be taken: longer than the API
    #: server's timeout (5 s as deployed), after which nobody waits for the answer any more.
    arrival: float = 6.0
    #: After that long what is not done is taken to be stalled, where room is scarce.
    prompt: float = 1.0
    #: For a ClientHello to follow its connection, before others may take the place.
    silence: float = 0.05
    #: The API server keeps idle connections for 90 s (Go's http.Transport, IdleConnTimeout). The
    #: server keeps them longer, so that it never closes one that is about to be used.
    keep_alive: int = 120
    #: For which a connection that is closed is still read, so that the peer gets the reply before
    #: it learns that the rest of its request went nowhere (RFC 9112, section 9.6).
    farewell: float = 2.0
    farewell_bytes: int = 14 * _MIB

    # -- all of them -----------------------------------------------------------------------------

    #: Bytes of requests that are here, whole or not.
    pending: int = 64 * _MIB
    #: A body that may take long: only what decodes and judges within 30 ms is done in the loop.
    light: int = 128 * 1024
    #: Bytes of larger bodies that may be under way, from their headers to their answers. Others are
    #: not read meanwhile.
    large: int = 48 * _MIB
    #: Bytes of requests that wait in the pool, for the API server, without the large ones.
    waiting: int = 14 * _MIB
    #: Bytes of replies that are not taken. A reply has a few KiB, and sockets take megabytes: more
    #: than this is somebody who asks and does not listen.
    unsent: int = 32 * _MIB

    # -- a turn of the loop ----------------------------------------------------------------------

    #: For accepting, and for new handshakes, a millisecond each.
    newcomers: float = 0.005
    #: For what comes on connections that are known, and for large bodies: who begins a connection
    #: meanwhile waits for three turns.
    reading: float = 0.010
    reading_large: float = 0.002
    #: For answers, whose replies are held back to be sent together: that wakes up their receiver
    #: once and not for each of them, a third more requests a second on 16 connections.
    answering: float = 0.002
    #: And for each that waits, since ordering them takes as long.
    ordering: float = 3e-6
    #: Between two looks for those whose time is up.
    sweep: float = 0.5
    #: How often Python may hand over to the loop while the pool answers those that had to wait.
    switch: float = 0.0005

    # -- whose turn it is ------------------------------------------------------------------------

    #: What is left, after a sweep, of the seconds of processor that an address has used: half after
    #: a second.
    memory: float = 0.7
    #: Addresses that have used more seconds than this are equal: or the busiest, the API server,
    #: would stand aside for as long while a newcomer makes up for it.
    heavy_user: float = 0.1
    #: The least that a byte of a request costs, and all that is expected on a new connection: it
    #: must not stand behind hundreds that are known to be dear.
    byte: float = 1e-7
    #: Requests that cost less are equal: a round of 2,000 of them is short.
    cheap: float = 0.0005
    #: After that long the one that waits longest is answered, whatever it costs, once in a turn; a
    #: large one after longer, since nothing else is judged beside it meanwhile.
    starving: float = 0.1
    starving_large: float = 1.0

    # -- templates, as `serve.templates` makes them ------------------------------------------------

    #: That an admission waits for all that its pod needs; the API server gives it five.
    template_patience: float = 1.0
    #: For which something is taken to be there: someone may have deleted it since.
    template_memory: float = 600.0
    #: Between two looks at something known, and between two looks at anything.
    template_recheck: float = 1.0
    template_spacing: float = 0.05
    #: Before the second attempt, doubled with each, and the longest pause.
    first_pause: float = 1.0
    longest_pause: float = 300.0
    #: Templates that are remembered: namespaces are what users make.
    templates_known: int = 10_000
    #: Bytes of what waits to be made, or to be looked at, 1 KiB for a name.
    templates_waiting: int = 2 * _MIB
    #: Templates that a process makes in a namespace for pods: as many as one pod may need (R8).
    #: One device of a profile that is known, or mapped, is not counted: there are some 80 of those.
    templates_counted: int = MAX_DEVICES
    #: Of these, with a profile that no known GPU has: all of one new GPU, by two numbers each.
    templates_unknown: int = 2 * max(map(len, PROFILES_BY_GPU.values()))
    #: CEL selectors in a template. Each costs the API server about 2 ms whenever it is created.
    template_selectors: int = 64

    # -- the log ---------------------------------------------------------------------------------

    #: Bytes of lines that wait to be written: some 10,000, or more than a second of the most that a
    #: core answers, and little beside the Deployment's memory.
    log: int = 4 * _MIB
    #: For which a process that ends waits for its last lines to be written.
    log_flush: float = 1.0
    #: For which lines are gathered, once all before them are written. To be woken up for each cost
    #: a seventh of an admission, and every hundredth of a second still a twentieth.
    log_gather: float = 0.05

    # -- the process -----------------------------------------------------------------------------

    #: For requests in flight after SIGTERM: the webhook's timeout of 5 s, doubled.
    grace: int = 10
    #: For taking in new connections then: the backlog, and who has not heard of it.
    last_call: float = 0.3
    #: Of the grace period, kept for requests in flight: an admission waits at most one for its
    #: templates, and a second is a long time for the rest.
    wrap_up: float = 2.0
    #: Without a sign of life after which gunicorn replaces the worker. The loop gives two a second.
    heartbeat: int = 30
    #: Between two looks at the certificate's files, a few stat() calls. cert-manager renews weeks
    #: ahead, so this only bounds how long a person who watches has to wait.
    certificate_check: float = 1.0
    #: For which rendered metrics are shown again.
    metrics: float = 1.0
    #: Between questions for the API version, once it is known, and while it is not.
    discovery: tuple[float, float] = (discovery.INTERVAL, discovery.RETRY)
