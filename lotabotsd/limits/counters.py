"""What the counters of a gate worker's page in the limits table mean, by their index. Pure.

Frozen with layout 1: an index never gets another meaning. A worker counts with `Table.count`; its successors
go on with its numbers until the next boot. Microseconds are whole and added up over all requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class Counter(IntEnum):
    """One of the 64 counters of each worker; those without a name stay 0."""

    COUNTING = 0  # 1 once this release's counting began: until then the others say nothing
    CONNECTIONS = 1  # accepted
    CONNECTIONS_REFUSED = 2  # closed at once: gate.max_connections
    REQUESTS = 3  # begun, of any route, health included
    ANSWERS_2XX = 4
    ANSWERS_4XX = 5
    ANSWERS_5XX = 6
    UNAUTHENTICATED = 7  # 401
    OVERLOADED = 8  # 503: the line, the byte budget or the decoders were full
    LINE_ENTERED = 9  # requests that had to wait for their turn at Triton
    LINE_LEFT = 10  # with a turn, refused or hung up: entered - left is how many wait now
    LINE_WAIT_US = 11  # together
    UPSTREAM_REQUESTS = 12  # sent to Triton
    UPSTREAM_FAILED = 13  # Triton gave no answer
    UPSTREAM_US = 14  # Triton's time, together
    RECEIVED_BYTES = 15  # of bodies
    SENT_BYTES = 16
    JOURNAL_SYNCS = 17
    JOURNAL_SYNC_US = 18
    LOCK_BUSY = 19  # the lock of the limits was not free within its bound
    DECODED_IMAGES = 20
    DECODER_DEATHS = 21
    CLIENTS_GONE = 22  # hung up before their answer was sent


def summed(workers: Sequence[Sequence[int]]) -> dict[Counter, int]:
    """The sums over all workers that count; empty as long as none does."""
    counting = [cells for cells in workers if cells[Counter.COUNTING]]
    if not counting:
        return {}
    return {counter: sum(cells[counter] for cells in counting) for counter in Counter}
