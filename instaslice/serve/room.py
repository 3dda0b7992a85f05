"""How long a connection may take, how much all may hold, and who goes first. Functions of numbers.

1. A connection is in one phase, since some moment. In each it has so much time (`patience`):

   handshake -> idle -> arriving -> working -> writing -> idle -> ... -> lingering -> closed

   handshake  TLS is being agreed on                   ARRIVAL
   idle       no byte of a (next) request is here      as long as gunicorn's `keepalive` says
   arriving   a request is here in part                ARRIVAL, from its first byte on
   working    it is whole, and answered or waited for  no limit here: the application has its own
   writing    the reply is not taken yet               ARRIVAL
   lingering  the last reply is; the end is awaited    FAREWELL

2. Idle is not stalled: the API server dials ahead, and a connection may be used a minute later.
3. Connections, and bytes that they hold, are bounded in every phase. Where there is no room left,
   the one goes that is missed least (`rank`), and of those that are equal the one that has been in
   its phase longest. Nobody is dropped who is answered: if all are, the newcomer is.
"""

from enum import IntEnum
from typing import Final

from instaslice.serve.app import MAX_BODY


class Phase(IntEnum):
    """What a connection is waiting for."""

    HANDSHAKE = 0
    IDLE = 1
    ARRIVING = 2
    WORKING = 3
    WRITING = 4
    LINGERING = 5
    CLOSED = 6


#: Seconds for a handshake, for a request to arrive whole, for a reply to be taken: longer than the
#: API server's timeout (5 s as deployed), after which nobody waits for the answer any more.
ARRIVAL: Final = 6.0
#: Seconds after which what is not done yet is taken to be stalled, where room is scarce.
PROMPT: Final = 1.0
#: Seconds, and bytes, for which a connection that is closed is still read, so that the peer gets
#: the reply before it learns that the rest of its request went nowhere (RFC 9112, section 9.6).
FAREWELL: Final = 2.0
FAREWELL_BYTES: Final = 2 * MAX_BODY
#: Seconds of the grace period that are kept for requests in flight: an admission waits at most one
#: for its templates (`provision`), and a second is a long time for the rest.
WRAP_UP: Final = 2.0

#: Bytes of unfinished requests in all: nine of the largest. They come whole within milliseconds, so
#: more than this is somebody stalling.
MAX_PENDING: Final = 64 * 1024 * 1024
#: Bytes of whole requests that wait to be answered, before no more large ones are read: one of the
#: largest. So what keeps the loop for long is answered one a turn, and others have theirs between.
MAX_WHOLE: Final = MAX_BODY
#: Bytes of the requests whose answers wait for the API server, and of those answers. That a request
#: counts, too, though it is not kept, is how many may wait at all.
MAX_WAITING: Final = 2 * MAX_BODY
#: Bytes of replies that are not taken, in all. A reply has a few KiB, and sockets take megabytes:
#: more than this is somebody who asks and does not listen.
MAX_UNSENT: Final = 32 * 1024 * 1024


def patience(phase: Phase, keepalive: float) -> float:
    """The seconds that a connection may spend in a phase; keepalive: those for an idle one."""
    if phase == Phase.IDLE:
        return keepalive
    if phase == Phase.WORKING:
        return float("inf")
    return FAREWELL if phase == Phase.LINGERING else ARRIVAL


def rank(phase: Phase, age: float, used: bool) -> int | None:
    """How much a connection is missed, the least first; None where it must not be dropped.

    age: seconds in its phase. used: whether a request has been answered on it.
    """
    if phase in (Phase.WORKING, Phase.CLOSED):
        return None
    if age <= PROMPT:
        return 4  # it has just begun, or just been of use
    if phase == Phase.IDLE:
        return 3 if used else 1
    return 0 if phase == Phase.LINGERING else 2


def idle_until(stopping_since: float, grace: float) -> float:
    """When a server that was told to stop closes what is idle; grace: seconds to be gone in."""
    return stopping_since + max(0.0, grace - WRAP_UP)
