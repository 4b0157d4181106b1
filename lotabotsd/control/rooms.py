"""What the control API is given: the rooms it speaks for, and what only the daemon can do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.request import Issued
from lotabotsd.foundation.clock import Clock
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.sockets import Peer
from lotabotsd.identity.records import IdentityCaps
from lotabotsd.identity.store import IdentityStore
from lotabotsd.licence.store import LicenceStore
from lotabotsd.usage.bill import Bill
from lotabotsd.usage.ledger import Ledger
from lotabotsd.usage.verification import Verdict

from .peers import Admins


@dataclass(frozen=True, slots=True)
class Spread:
    """How far a change of policy got: the generation, the live gate workers, and those that applied it."""

    generation: int
    workers: int
    applied: int

    @property
    def complete(self) -> bool:
        """Whether every live worker judges by it."""
        return self.applied >= self.workers

    def to_dict(self) -> dict[str, Any]:
        """For answers."""
        return {
            "generation": self.generation,
            "workers": self.workers,
            "applied": self.applied,
            "complete": self.complete,
        }


@dataclass(frozen=True, slots=True)
class Walking:
    """A walk along the ledger: under way at `row` of `last`, ended in verdict or failure, or never begun."""

    running: bool = False
    row: int = 0
    last: int = 0
    verdict: Verdict | None = None
    failure: LotaBotsError | None = None


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """What an acknowledgement did, or would do."""

    value: dict[str, Any]  # for answers: report, verdict, reasons, what changed
    licence: bytes | None  # the renewed licence that came with it


@dataclass(frozen=True, slots=True)
class Rooms:
    """Everything that the routes need. The callables are the daemon's; they raise LotaBotsError."""

    clock: Clock
    admins: Admins
    identity: IdentityStore
    licence: LicenceStore
    licence_request: Callable[[str], dict[str, Any]]  # with a note; VALUE_INVALID
    ledger: Ledger
    verify_ledger: Callable[[], Verdict]
    begin_verification: Callable[[], Walking]
    verification: Callable[[], Walking]
    reconciliation: Callable[[], dict[str, Any]]  # Triton's counters compared with the ledger
    keyset: Keyset
    caps: Callable[[], IdentityCaps]
    publish: Callable[[], Spread]  # compile, publish, and wait until the workers applied it
    status: Callable[[], dict[str, Any]]
    metrics: Callable[[], str]  # in Prometheus' text format; DATABASE_DAMAGED
    count_usage: Callable[[], object]  # carry the journals into the ledger now
    models: Callable[[], list[dict[str, Any]]]
    gpus: Callable[[], dict[str, Any]]
    runtime_lines: Callable[[], Awaitable[list[str]]]  # Triton's last ones; HELPER_UNAVAILABLE
    attest: Callable[[str | None, str | None], Issued]  # nonce, audience
    receipt: Callable[[str], dict[str, Any]]  # by id; NOT_FOUND, VALUE_INVALID
    preview: Callable[[], dict[str, Any]]  # the next usage report
    export: Callable[[str], list[dict[str, Any]]]  # until when (a moment, or empty: the last whole hour)
    reports: Callable[[], list[dict[str, Any]]]
    report_bytes: Callable[[str], bytes]  # by name; NOT_FOUND
    bill: Callable[[str], Bill]  # of a month (as in 2026-11, or empty: the running one); NOT_FOUND and others
    look_at_acknowledgement: Callable[[bytes], Acknowledged]  # whether it fits; changes nothing
    acknowledge: Callable[[bytes], Acknowledged]
    duty: Callable[[], dict[str, Any]]  # how the usage reports that the licence asks for stand
    purgeable: Callable[[], dict[str, Any] | None]  # what a purge would take out of the ledger now
    purge: Callable[[str], dict[str, Any] | None]  # on whose behalf; LEDGER_DAMAGED
    refused: Callable[[Peer, str], None]  # a peer was turned away
