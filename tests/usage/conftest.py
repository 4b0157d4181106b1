"""A whole usage room in a temporary directory: journal, drainer, ledger, outbox and a clock that obeys."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.clock import NANOSECONDS, FixedClock
from lotabotsd.foundation.database import open_database
from lotabotsd.foundation.envelope import PayloadType, sign
from lotabotsd.foundation.keys import raw_public, thumbprint
from lotabotsd.usage.acknowledged import Judged, record_acknowledgement
from lotabotsd.usage.acknowledgement import (
    Acknowledgement,
    AckVerdict,
    OpenedAcknowledgement,
    compose_acknowledgement,
    open_acknowledgement,
)
from lotabotsd.usage.drain import Drained, Drainer
from lotabotsd.usage.journal import FileOps, Journal, segment_name
from lotabotsd.usage.ledger import Ledger, Sealed, open_ledger
from lotabotsd.usage.outbox import Outbox
from lotabotsd.usage.records import (
    Outcome,
    SegmentHeader,
    encode_close,
    encode_open,
    encode_segment_header,
    number_record,
)
from lotabotsd.usage.report import About, Frozen, LicenceFacts, freeze
from lotabotsd.usage.schema import APPLICATION_ID, MIGRATIONS

SIMULATORS = Path(__file__).parents[1] / "simulators"


def load_simulator(name: str) -> ModuleType:
    """A module of tests/simulators, loaded once."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, SIMULATORS / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


NO_SYNCS = load_simulator("crash_disk").NoSyncs()
START = datetime(2026, 11, 23, 4, 10, tzinfo=UTC)
ORGANISATION = "org_aaaaaaaaaaaaaaaa"
KEY = "kkkkkkkkkkkk"
VENDOR = Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32)  # signs acknowledgements here
BOOT = bytes(range(16))


@dataclass
class Box:
    """An appliance's usage room."""

    path: Path
    clock: FixedClock
    ledger: Ledger
    key: Ed25519PrivateKey = field(default_factory=lambda: Ed25519PrivateKey.from_private_bytes(bytes(32)))
    files: FileOps = NO_SYNCS

    def __post_init__(self) -> None:
        self.journal = self.path / "journal"

    @property
    def outbox(self) -> Outbox:
        return Outbox(self.path / "outbox")

    def worker(self, worker: int = 0, epoch: int = 1, segment_bytes: int = 65_536) -> Journal:
        """A live journal; nothing happens behind its back."""
        return Journal(
            self.journal, worker, BOOT, epoch, segment_bytes,
            files=self.files, in_background=lambda work: None,
        )  # fmt: skip

    def open(self, journal: Journal, **changes: object) -> int:
        return journal.append(self.open_record(**changes))

    def close(self, journal: Journal, number: int, **changes: object) -> int:
        return journal.append(self.close_record(number, **changes))

    def serve(self, journal: Journal, inferences: int = 1, **changes: object) -> None:
        """One whole request."""
        self.close(journal, self.open(journal, **changes), inferences=inferences)

    def open_record(self, **changes: object) -> bytes:
        fields: dict[str, object] = {
            "request_id": bytes(range(16)),
            "wall_ns": self.clock.wall_ns(),
            "key_id": KEY,
            "organisation_id": ORGANISATION,
            "model": "page_orientation",
            "version": "1",
            "window_id": 202611,
            "reserved": 1,
        }
        return encode_open(**{**fields, **changes})  # type: ignore[arg-type]

    def close_record(self, number: int, **changes: object) -> bytes:
        fields: dict[str, object] = {
            "open_number": number,
            "wall_ns": self.clock.wall_ns(),
            "outcome": Outcome.SERVED,
            "status": 200,
            "inferences": 1,
            "input_bytes": 100,
            "output_bytes": 10,
            "gate_us": 7,
        }
        return encode_close(**{**fields, **changes})  # type: ignore[arg-type]

    def drain(self, batch_records: int = 5_000) -> Drained:
        return Drainer(
            self.journal, self.ledger, self.clock, batch_records=batch_records, files=self.files
        ).drain_once()

    def seal(self, *, cut: bool = False) -> Sealed:
        """Drain, then seal up to the drain's barrier, as the daemon does."""
        return self.ledger.seal(self.drain().barrier_ns, cut=cut)

    def report(self, hours: int = 1) -> Frozen:
        """Use the appliance, let hours pass, and report them."""
        journal = self.worker(epoch=self.now())
        self.serve(journal, inferences=3)
        journal.close()
        self.clock.advance(hours * 3_600)
        return freeze(self.ledger, self.seal().until, self.about(), self.now())

    def answer(self, report: Frozen, **changes: object) -> OpenedAcknowledgement:
        """What the vendor says of a report, signed and verified."""
        fields: dict[str, object] = {
            "appliance_id": "apl_test",
            "sequence": report.sequence,
            "report_hash": report.report_hash,
            "head": report.head,
            "period_from": report.period_from,
            "period_until": report.period_until,
            "verdict": AckVerdict.ACCEPTED,
            "reasons": (),
            "issued_at": self.now(),
        }
        said = Acknowledgement(**{**fields, **changes})  # type: ignore[arg-type]
        signed = sign(PayloadType.ACKNOWLEDGEMENT, compose_acknowledgement(said), [VENDOR])
        trusted = {thumbprint(raw_public(VENDOR)): raw_public(VENDOR)}
        return open_acknowledgement(signed.to_json(), lambda at: trusted, frozenset())

    def accept(self, report: Frozen, **changes: object) -> Judged:
        """Record that the vendor accepted a report."""
        return record_acknowledgement(self.ledger, self.answer(report, **changes), "apl_test", self.now())

    def now(self) -> int:
        return self.clock.wall_ns() // NANOSECONDS

    def about(self, **changes: object) -> About:
        fields: dict[str, object] = {
            "appliance_id": "apl_test",
            "public_key": raw_public(self.key),
            "licence": LicenceFacts("lic_1", "pro", "Example GmbH"),
            "development": False,
            "organisation_names": {ORGANISATION: "Research"},
            "key_names": {KEY: "frontend"},
        }
        return About(**{**fields, **changes})  # type: ignore[arg-type]

    def requests(self) -> dict[str, int]:
        """How many requests ended with which outcome, sealed or not."""
        return {row.outcome: row.meters.requests for row in self.ledger.usage(by=("outcome",))}

    def kinds(self) -> list[str]:
        """The kinds of everything found, the harmless included, without the workers' starts."""
        found = [r.finding.kind.value for r in self.ledger.findings(harmless=True)]
        return [kind for kind in found if kind != "worker_started"]


@dataclass
class Image:
    """Segments as a worker leaves them on disk, made without one."""

    journal: Path
    worker: int = 0
    epoch: int = 1
    segments: list[bytearray] = field(default_factory=list)
    next_number: int = 1
    size: int = 2_048
    shown: int = 0  # segments that were on disk before; one that is gone was freed

    def append(self, record: bytes) -> tuple[int, int, int]:
        """Returns the segment, and where in it the record begins and ends."""
        if not self.segments or len(self.segments[-1]) + len(record) > self.size:
            self.begin_segment()
        start = len(self.segments[-1])
        self.segments[-1] += number_record(record, self.next_number)
        self.next_number += 1
        return len(self.segments) - 1, start, len(self.segments[-1])

    def begin_segment(self) -> None:
        header = SegmentHeader(BOOT, self.worker, self.epoch, len(self.segments), self.next_number)
        self.segments.append(bytearray(encode_segment_header(header)))

    def path(self, segment: int) -> Path:
        return self.journal / str(self.worker) / segment_name(self.epoch, segment)

    def write(self, *, only: int | None = None) -> None:
        """Put the segments on disk, filled with zeros, unlocked."""
        (self.journal / str(self.worker)).mkdir(exist_ok=True)
        for number, content in enumerate(self.segments):
            if only is None or number == only:
                self.path(number).write_bytes(bytes(content).ljust(self.size, b"\0"))

    def lock(self, segment: int) -> int:
        """Hold a segment as its living worker does; close the descriptor to die."""
        descriptor = os.open(self.path(segment), os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor


@pytest.fixture(scope="session")
def crash_disk() -> ModuleType:
    """The disk that loses power."""
    return load_simulator("crash_disk")


@pytest.fixture(scope="session")
def failing_files() -> ModuleType:
    """A disk on which single calls fail."""
    return load_simulator("failing_files")


@pytest.fixture(scope="session")
def worker_life() -> ModuleType:
    """Requests in the real order, and what a ledger must say of them."""
    return load_simulator("worker_life")


@pytest.fixture(scope="session")
def crash_database(crash_disk: ModuleType) -> ModuleType:
    """SQLite on the disk that loses power."""
    return load_simulator("crash_database")


@pytest.fixture(scope="session")
def make_box(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Box]:
    """Fresh boxes, also for properties; the ledger is in memory, except where its file matters."""

    def make(*, on_disk: bool = False) -> Box:
        path = tmp_path_factory.mktemp("box")
        (path / "journal").mkdir()
        clock = FixedClock(START)
        if on_disk:
            return Box(path, clock, open_ledger(path / "ledger.db", clock))
        database = open_database(Path(":memory:"), application_id=APPLICATION_ID, migrations=MIGRATIONS)
        return Box(path, clock, Ledger(database, clock, path / "ledger.head"))

    return make


@pytest.fixture(scope="session")
def make_image() -> Callable[[Box], Image]:
    """Segments of a worker that never was, for a box."""
    return lambda box: Image(box.journal)


@pytest.fixture
def box(make_box: Callable[..., Box]) -> Iterator[Box]:
    made = make_box()
    yield made
    made.ledger.close()


@pytest.fixture
def disk_box(make_box: Callable[..., Box]) -> Iterator[Box]:
    made = make_box(on_disk=True)
    yield made
    made.ledger.close()


@pytest.fixture
def image(box: Box) -> Image:
    """What a dead worker 0 left behind, to be filled and written."""
    return Image(box.journal)


@pytest.fixture
def faults_in_focus() -> Callable[[Path], set[str]]:
    """The rules of FOCUS that the FinOps Foundation's validator finds broken in a file."""
    program = shutil.which(os.environ.get("LOTABOTS_FOCUS_VALIDATOR", "focus-validator"))
    if program is None:
        pytest.skip(
            "no focus-validator here; enable it: python3.12 -m venv DIR, DIR/bin/pip install "
            "focus-validator==2.2.1 'pyarrow<20', then LOTABOTS_FOCUS_VALIDATOR=DIR/bin/focus-validator"
        )

    def faults(file: Path) -> set[str]:
        # Release 2.2.1 looks for its list of currencies below the working directory.
        [packages] = Path(program).parents[1].glob("lib/python3*/site-packages")
        run = subprocess.run(
            [program, "--data-file", str(file), "--validate-version", "1.2.0.1", "--block-download",
             "--focus-dataset", "CostAndUsage"],
            cwd=packages, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert re.search(r"Total: [0-9]+ \| Pass: [1-9][0-9]", run.stdout), run.stdout + run.stderr
        return set(re.findall(r"([A-Za-z]+-[A-Z]-[0-9]{3}-[A-Z]): FAIL ", run.stdout))

    return faults
