"""Steps 5, 7 and 8: one OPEN and exactly one CLOSE per request, and the limits settled with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lotabotsd.foundation.clock import Clock, month_window
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.limits.scope import Ticket
from lotabotsd.limits.table import Table
from lotabotsd.policy.grant import Grant
from lotabotsd.usage.journal import Journal
from lotabotsd.usage.records import CHARGED, Outcome, encode_close, encode_open, encode_receipt

from .durability import GroupCommit


@dataclass(slots=True)
class Measured:
    """What the answer turned out to be."""

    outcome: Outcome
    status: int = 0
    output_bytes: int = 0
    delivered: bool = True
    inferences: int | None = None  # that ran, where these are not all that were asked for


@dataclass(slots=True)
class OpenRequest:
    """A request between its OPEN and its CLOSE."""

    number: int
    request_id: bytes
    key_id: str
    organisation_id: str
    rows: int
    input_bytes: int
    started_ns: int  # monotonic
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Closed:
    """A CLOSE that was written: wait for `number` to be durable. `receipt` is a JWS, where one was made."""

    number: int
    receipt: str | None = None


# Makes the receipt of a request out of the number of its CLOSE and the microseconds it took.
MakeReceipt = Callable[[int, int], str]


class Meter:
    """Writes the records of requests and settles their tickets."""

    def __init__(self, journal: Journal, table: Table, commit: GroupCommit, clock: Clock) -> None:
        self._journal = journal
        self._table = table
        self._commit = commit
        self._clock = clock
        self.open_requests = 0

    def open(
        self,
        grant: Grant,
        model: str,
        version: str,
        request_id: bytes,
        rows: int,
        input_bytes: int,
        window_id: int | None = None,
    ) -> OpenRequest:
        """Step 5: put the request on record, with the month its ticket is charged to.

        Raises JOURNAL_UNAVAILABLE.
        """
        wall_ns = self._clock.wall_ns()
        number = self._journal.append(
            encode_open(
                request_id=request_id,
                wall_ns=wall_ns,
                key_id=grant.key_id,
                organisation_id=grant.organisation_id,
                model=model,
                version=version,
                window_id=month_window(wall_ns) if window_id is None else window_id,
                reserved=rows,
            )
        )
        self.open_requests += 1
        return OpenRequest(
            number,
            request_id,
            grant.key_id,
            grant.organisation_id,
            rows,
            input_bytes,
            self._clock.monotonic_ns(),
        )

    def close(
        self,
        request: OpenRequest,
        measured: Measured,
        ticket: Ticket | None,
        make_receipt: MakeReceipt | None = None,
    ) -> Closed:
        """Step 7, first half, and step 8: write the CLOSE, settle the ticket, write the receipt if asked.

        Raises JOURNAL_UNAVAILABLE. When it is for the CLOSE, the ticket is refunded: nothing can be charged.
        """
        request.closed = True
        self.open_requests -= 1
        charged = CHARGED[measured.outcome]
        ran = request.rows if measured.inferences is None else measured.inferences
        gate_us = (self._clock.monotonic_ns() - request.started_ns) // 1_000
        if ticket is not None and charged:  # a worker that dies right behind the CLOSE has charged it
            self._table.closing(ticket, ran, self._journal.next_number)
        try:
            number = self._journal.append(
                encode_close(
                    open_number=request.number,
                    wall_ns=self._clock.wall_ns(),
                    outcome=measured.outcome,
                    status=measured.status,
                    inferences=ran if charged else 0,
                    input_bytes=request.input_bytes,
                    output_bytes=measured.output_bytes,
                    gate_us=gate_us,
                    delivered=measured.delivered,
                )
            )
        except LotaBotsError:
            charged = False
            raise
        finally:
            if ticket is not None and charged:
                self._table.commit(ticket, ran)
            elif ticket is not None:
                self._table.refund(ticket)
        if make_receipt is None:
            return Closed(number)
        return self._write_receipt(request, number, make_receipt(number, gate_us))

    def _write_receipt(self, request: OpenRequest, close_number: int, text: str) -> Closed:
        record = encode_receipt(
            close_number=close_number,
            wall_ns=self._clock.wall_ns(),
            request_id=request.request_id,
            key_id=request.key_id,
            organisation_id=request.organisation_id,
            text=text,
        )
        try:
            return Closed(self._journal.append(record), text)
        except LotaBotsError:  # the request is on record, and ran: it is answered, without its receipt
            return Closed(close_number)

    def refuse(
        self,
        grant: Grant,
        model: str,
        request_id: bytes,
        measured: Measured,
        make_receipt: MakeReceipt | None = None,
    ) -> Closed:
        """A refusal of a known key goes on record too; nobody waits for the disk."""
        return self.close(self.open(grant, model, "", request_id, 0, 0), measured, None, make_receipt)

    async def durable(self, number: int) -> None:
        """Wait until a record survives a power cut. Raises JOURNAL_UNAVAILABLE."""
        await self._commit.durable(number, alone=self.open_requests <= 1)
