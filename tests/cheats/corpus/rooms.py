"""The two appliances of the cheats: a usage room by itself, and a whole one under the development root."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from crash_disk import NoSyncs
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from lotabots_vendor.cli import run as run_vendor

from lotabotsd.daemon.appliance import Appliance
from lotabotsd.daemon.status import status_of
from lotabotsd.daemon.wiring import open_appliance, open_gate
from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.chain import GENESIS
from lotabotsd.foundation.clock import NANOSECONDS, FixedClock
from lotabotsd.foundation.config import parse
from lotabotsd.foundation.envelope import PayloadType, parse_envelope, sign
from lotabotsd.foundation.errors import Exit
from lotabotsd.foundation.keys import raw_public
from lotabotsd.usage.drain import Drainer
from lotabotsd.usage.journal import Journal
from lotabotsd.usage.ledger import open_ledger
from lotabotsd.usage.records import Outcome, encode_close, encode_open
from lotabotsd.usage.report import About, Frozen, LicenceFacts, build_report, freeze
from lotabotsd.usage.report_facts import read_facts
from lotabotsd.usage.report_zip import REPORT, companions, pack, unpack
from lotabotsd.usage.windows import row_hash

DAY = 86_400
HOUR = 3_600
NO_SYNCS = NoSyncs()
REPORT_KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes([9]) * 32)
RESEARCH = "org_research"


class UsageRoom:
    """Journal, ledger and reports of one appliance, on disk, without a daemon."""

    def __init__(
        self,
        path: Path,
        clock: FixedClock,
        *,
        licence: Any = None,
        key: Ed25519PrivateKey = REPORT_KEY,
        appliance_id: str = "apl_test",
        names: dict[str, str] | None = None,
    ) -> None:
        """`licence` are claims as the vendor's tool prints them; None is the free tier."""
        self.path, self.clock, self.key, self.appliance_id = path, clock, key, appliance_id
        self.licence = licence
        self.development = False
        self.names = names if names is not None else {RESEARCH: "Research"}
        self.journal_directory = path / "journal"
        if not path.exists():
            self.journal_directory.mkdir(parents=True)
        self.epoch = 0
        self.open()

    def open(self) -> None:
        """Open the ledger and begin a journal; once more for a restart."""
        self.ledger = open_ledger(self.path / "ledger.db", self.clock)
        self.epoch += 1
        self.alive = True
        self.journal = Journal(
            self.journal_directory, 0, bytes(16), self.epoch, 65_536,
            files=NO_SYNCS, in_background=lambda work: None,
        )  # fmt: skip

    def end_worker(self) -> None:
        """Let go of the journal: what it holds is final."""
        if self.alive:
            self.journal.close()
        self.alive = False

    def close(self) -> None:
        """Stop worker and ledger."""
        self.end_worker()
        self.ledger.close()

    def restart(self) -> None:
        """Stop and start; what the worker wrote last is counted then."""
        self.close()
        self.open()

    def use(
        self, inferences: int = 1, organisation: str = RESEARCH, outcome: Outcome = Outcome.SERVED
    ) -> None:
        """Serve one request of that many inferences."""
        opened = self.journal.append(
            encode_open(
                request_id=bytes(16), wall_ns=self.clock.wall_ns(), key_id="k" * 12,
                organisation_id=organisation, model="page_orientation", version="1", window_id=202603,
                reserved=1,
            )
        )  # fmt: skip
        self.journal.append(
            encode_close(
                open_number=opened, wall_ns=self.clock.wall_ns(), outcome=outcome, status=200,
                inferences=inferences, input_bytes=100, output_bytes=10, gate_us=7,
            )
        )  # fmt: skip

    def drain(self) -> int:
        """Count what the journals hold; the barrier of the drain in nanoseconds."""
        drainer = Drainer(
            self.journal_directory, self.ledger, self.clock, batch_records=1_000, files=NO_SYNCS
        )
        return drainer.drain_once().barrier_ns

    def seal(self) -> None:
        """Count, and close the hours that ended."""
        self.ledger.seal(self.drain())

    def hours(self, number: int, inferences: int = 1) -> None:
        """Use the appliance for so many hours, each sealed."""
        for _ in range(number):
            self.use(inferences)
            self.clock.advance(HOUR)
            self.seal()

    def now(self) -> int:
        """Unix seconds."""
        return self.clock.wall_ns() // NANOSECONDS

    def freeze(self) -> Frozen:
        """Fix the next report over everything sealed."""
        return freeze(self.ledger, self.ledger.sealed_until, self.about(), self.now())

    def about(self) -> About:
        """What the report says beside the numbers."""
        facts = self.licence and LicenceFacts(
            self.licence["licence_id"], self.licence["tier"], self.licence["customer"]
        )
        key_id = "k" * 12
        return About(
            self.appliance_id, raw_public(self.key), facts or None, self.development, self.names,
            {key_id: self.names.get("key", "frontend")},
        )  # fmt: skip

    def report(self, inferences: int = 1, hours: int = 1) -> Path:
        """Use the appliance, let hours pass, and write the report over them."""
        self.hours(hours, inferences)
        return self.written(self.freeze())

    def report_until(self, moment: datetime) -> Path:
        """Let time pass and write the report over it."""
        self.clock.set_wall(moment)
        self.seal()
        return self.written(self.freeze())

    def written(self, frozen: Frozen) -> Path:
        """The file of a frozen report."""
        file = self.path / frozen.file_name
        file.write_bytes(build_report(self.ledger, frozen, self.key))
        return file

    def copy(self, name: str) -> UsageRoom:
        """The same machine once more: a cloned or restored disk. Both go on by themselves."""
        self.restart()
        self.drain()
        target = self.path.parent / name
        self.close()
        shutil.copytree(self.path, target)
        self.open()
        made = UsageRoom(
            target, self.clock, licence=self.licence, key=self.key, appliance_id=self.appliance_id
        )
        made.restart()
        return made

    def verdict(self) -> str:
        """What `ledger verify` says: the first fault's name; empty where all is well."""
        verdict = self.ledger.verify()
        fault = verdict.integrity.fault or verdict.completeness.fault
        return fault.value if fault else ""

    def tamper(self, script: str) -> None:
        """What root can do with sqlite3: every trigger dropped, then the script."""
        with self.ledger.reading() as connection:
            tamper(connection, script)

    def rebuild(self, sequence: int) -> None:
        """Chain every row from this one on anew, and forget the head file."""
        with self.ledger.reading() as connection:
            row = connection.execute("SELECT row_hash FROM windows WHERE sequence = ?", (sequence - 1,))
            previous = (row.fetchone() or (GENESIS,))[0]
            for stored in list(self.ledger.rows(sequence)):
                made = row_hash(previous, stored.row)
                connection.execute(
                    "UPDATE windows SET previous_hash = ?, row_hash = ? WHERE sequence = ?",
                    (previous, made, stored.row.sequence),
                )
                previous = made
        (self.path / "ledger.head").unlink(missing_ok=True)


def tamper(connection: sqlite3.Connection, script: str) -> None:
    """Drop every trigger and check, then run a script."""
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'").fetchall()
    drops = "".join(f'DROP TRIGGER "{name}";' for (name,) in names)
    connection.executescript(f"{drops} PRAGMA ignore_check_constraints = ON; {script}")


def body_of(report: Path) -> Any:
    """What a report says, to be changed."""
    return json.loads(parse_envelope(unpack(report.read_bytes())[REPORT]).body)


def forge(
    report: Path,
    change: Callable[[Any], object],
    *,
    key: Ed25519PrivateKey = REPORT_KEY,
    name: str = "forged.zip",
) -> Path:
    """The report with a changed body, signed with `key`, its CSV and README made to fit."""
    body = body_of(report)
    change(body)
    data = canonical_json(body)
    envelope = sign(PayloadType.USAGE_REPORT, data, [key]).to_json()
    contents = unpack(report.read_bytes())
    csv, readme = contents["usage.focus.csv"], contents["README.txt"]
    with contextlib.suppress(ValueError):  # a body that no reader accepts has no companions either
        csv, readme = companions(read_facts(body, hashlib.sha256(data).hexdigest()))
    file = report.with_name(name)
    file.write_bytes(pack(envelope, csv, readme))
    return file


class House:
    """A whole appliance in a temporary directory, and its vendor, who uses the published development keys."""

    def __init__(self, folder: Path, clock: FixedClock) -> None:
        self.folder, self.clock = folder, clock
        self.books = folder / "books"
        self.books.mkdir()
        text = f"""
[appliance]
state_directory = "{folder}/state"
run_directory = "{folder}/run"
[models]
repository = "{folder}/packages"
enabled = ["missing"]
[usage]
reserve_bytes = 4096
retention_days = 30
"""
        self.config = parse(text.encode(), "cheats")
        for path, mode in self.config.paths.directories():
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(mode)
        self.start()

    def start(self) -> Appliance:
        """Open the appliance; again for what a restart finds."""
        self.appliance = open_appliance(self.config, self.clock)
        open_gate(self.appliance, triton_runs=False)
        return self.appliance

    def close(self) -> None:
        """Stop the appliance."""
        self.appliance.publishing.let_go()
        self.appliance.close()

    def restart(self) -> Appliance:
        """Stop and start."""
        self.close()
        return self.start()

    def run_vendor(self, *arguments: object) -> None:
        """A command of the vendor's that must succeed."""
        assert run_vendor([str(a) for a in arguments], self.clock) in (Exit.OK, Exit.WARNINGS)

    def licence(self, *more: object, tier: str = "pro") -> bytes:
        """A development licence."""
        file = self.folder / f"{tier}-{self.clock.wall_ns()}.licence"
        order = ("--tier", tier, "--customer", "Example GmbH", "--format", "json", "--output", file)
        self.run_vendor("licence", "issue", "--development", *order, *more)
        return file.read_bytes()

    def days(self, days: float) -> None:
        """Let days pass."""
        self.clock.advance(days * DAY)
        self.appliance.bookkeeping.drain_and_seal()

    def report(self) -> Any:
        """Let an hour pass and write the report."""
        self.clock.advance(HOUR)
        (made,) = self.appliance.reports.export("")
        return made

    def answer(self, report: Any, *more: object) -> bytes:
        """The vendor's acknowledgement of a report."""
        self.clock.advance(60)
        file = self.folder / report["name"]
        answer = self.folder / f"{report['name']}-{self.clock.wall_ns()}.ack"
        file.write_bytes(self.appliance.reports.read(report["name"]))
        keys = ("--development", "--dir", self.books)
        self.run_vendor("report", "verify", *keys, file)
        self.run_vendor("ack", "issue", *keys, "--format", "json", "--output", answer, file, *more)
        return answer.read_bytes()

    def warnings(self) -> set[str]:
        """The codes of everything that status tells."""
        return {finding["code"] for finding in status_of(self.appliance)["warnings"]}

    def tamper(self, script: str) -> None:
        """What root can do with sqlite3 on ledger.db."""
        with self.appliance.ledger.reading() as connection:
            tamper(connection, script)
