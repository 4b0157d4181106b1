"""The control API over real rooms in a temporary directory; only what the daemon adds is made up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from lotabotsd.attestation.keyset import Keyset
from lotabotsd.attestation.request import Issued
from lotabotsd.control.app import control_app
from lotabotsd.control.peers import SCOPE_KEY, Admins
from lotabotsd.control.rooms import Acknowledged, Rooms, Spread, Walking
from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.database import open_database
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.sockets import Peer
from lotabotsd.identity.records import IdentityCaps
from lotabotsd.identity.schema import APPLICATION_ID, MIGRATIONS
from lotabotsd.identity.store import IdentityStore
from lotabotsd.licence.keyring import load_anchors
from lotabotsd.licence.store import LicenceStore
from lotabotsd.usage.bill import Bill, bill_of
from lotabotsd.usage.bill_export import Account
from lotabotsd.usage.ledger import open_ledger
from lotabotsd.usage.rating import Plan
from lotabotsd.usage.windows import Meters

OWN_UID = 4_242
GROUP = 77
ROOT = Peer(1, 0, frozenset())
GOLDEN_CARD = Path(__file__).resolve().parents[1] / "golden" / "rate-card" / "standard.json"
BASE = "http://localhost/control/v1"


@dataclass
class Daemon:
    """What the control API asks of the daemon, and what it was asked."""

    published: int = 0
    refused: list[tuple[Peer, str]] = field(default_factory=list)
    spread: Spread = field(default_factory=lambda: Spread(generation=7, workers=2, applied=2))
    walks: list[Walking] = field(default_factory=list)
    taken: list[bytes] = field(default_factory=list)
    purgeable: dict[str, Any] | None = None
    purged_for: list[str] = field(default_factory=list)
    damage: bool = False
    compared: dict[str, int] = field(
        default_factory=lambda: {"requests": 0, "inferences": 0, "since_ns": 1, "until_ns": 2}
    )
    caps: IdentityCaps = field(default_factory=lambda: IdentityCaps(organisations=2, members=3))

    def publish(self) -> Spread:
        self.published += 1
        return self.spread

    def attest(self, nonce: str | None, audience: str | None) -> Issued:
        if nonce == "short":
            raise LotaBotsError(Code.NONCE_INVALID)
        return Issued(f"token for {nonce} {audience}")

    def receipt(self, receipt_id: str) -> dict[str, Any]:
        if receipt_id != "known":
            raise LotaBotsError(Code.NOT_FOUND)
        return {"id": receipt_id, "key": "K", "receipt": "a.b.c"}

    def bill(self, month: str) -> Bill:
        if month != "2026-03":
            raise LotaBotsError(Code.NOT_FOUND, "no rate card: there is no licence", hint="ask for one")
        usage = {("org_a", "m"): Meters(1, 60_000, 100, 0, 5)}
        account = Account("Example", {"org_a": "Research"})
        return bill_of(
            usage, GOLDEN_CARD.read_bytes(), Plan("pro", 0), 202603, "apl_1",
            account=account, development=True, counted=(1_772_323_200, 1_773_000_000),
        )  # fmt: skip

    async def lines(self) -> list[str]:
        return ["I0317 ready", "E0317 \x1b[2J gone"]

    def walking(self) -> Walking:
        return self.walks.pop(0)

    def acknowledge(self, data: bytes, *, really: bool = False) -> Acknowledged:
        if data == b"wrong":
            raise LotaBotsError(Code.ACKNOWLEDGEMENT_UNKNOWN, "there is no report 7")
        self.taken += [data] if really else []
        value = {"report": "r.zip", "sequence": 7, "verdict": "accepted", "head": "00", "issued_at": 1}
        licence = None if data == b"alone" else data
        return Acknowledged({**value, "known": False}, licence)

    def purge(self, who: str) -> dict[str, Any] | None:
        if self.damage:
            raise LotaBotsError(Code.LEDGER_DAMAGED, "GAP at row 3")
        self.purged_for.append(who)
        return self.purgeable

    def fail(self) -> dict[str, Any]:
        raise RuntimeError("a bug with a secret in it")


@pytest.fixture
def daemon() -> Daemon:
    return Daemon()


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 3, 17, 10, 30, tzinfo=UTC))


@pytest.fixture
def rooms(tmp_path: Path, clock: FixedClock, daemon: Daemon) -> Iterator[Rooms]:
    database = open_database(tmp_path / "state.db", application_id=APPLICATION_ID, migrations=MIGRATIONS)
    ledger = open_ledger(tmp_path / "ledger.db", clock)
    (tmp_path / "licence").mkdir()
    models = [{"name": name, "ready": True} for name in ("beta", "alpha")]
    yield Rooms(
        clock=clock,
        admins=Admins(OWN_UID, GROUP),
        identity=IdentityStore(database, clock, bytes(32)),
        licence=LicenceStore(tmp_path / "licence", load_anchors(), clock),
        licence_request=lambda note: {"short_code": "0000-0000-0000-0000", "note": note},
        ledger=ledger,
        verify_ledger=ledger.verify,
        begin_verification=lambda: Walking(running=True),
        verification=daemon.walking,
        reconciliation=lambda: daemon.compared,
        keyset=Keyset.load_or_create(tmp_path, tmp_path / "receipt.key"),
        caps=lambda: daemon.caps,
        publish=daemon.publish,
        status=lambda: {"warnings": []},
        bill=daemon.bill,
        metrics=lambda: "# TYPE up gauge\nup 1\n",
        count_usage=lambda: None,
        models=lambda: models,
        gpus=daemon.fail,
        runtime_lines=daemon.lines,
        attest=daemon.attest,
        receipt=daemon.receipt,
        preview=lambda: {"rows": 0},
        export=lambda until: [{"name": f"report-{until or 'hour'}.zip", "sequence": 1}],
        reports=list,
        report_bytes=lambda name: f"zip {name}".encode(),
        look_at_acknowledgement=daemon.acknowledge,
        acknowledge=lambda data: daemon.acknowledge(data, really=True),
        duty=lambda: {"state": "not_due"},
        purgeable=lambda: daemon.purgeable,
        purge=daemon.purge,
        refused=lambda peer, request: daemon.refused.append((peer, request)),
    )
    ledger.close()
    database.close()


Ask = Callable[..., httpx.Response]


@pytest.fixture
def ask(rooms: Rooms) -> Ask:
    """`ask(method, path, json=…)` as root; another `peer` with peer=…."""
    app = control_app(rooms)

    def ask(method: str, path: str, *, peer: Peer | None = ROOT, **more: Any) -> httpx.Response:
        async def with_peer(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, SCOPE_KEY: peer} if peer else scope, receive, send)

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(with_peer, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
                return await client.request(method, path, **more)

        return asyncio.run(send())

    return ask
