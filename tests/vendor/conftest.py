"""The vendor's command line, run in this process with a clock that stands still."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "vendor"))

from lotabots_vendor.cli import run

from lotabotsd.foundation.clock import NANOSECONDS, FixedClock
from lotabotsd.foundation.keys import raw_public
from lotabotsd.licence.keyring import Anchors, parse_anchors
from lotabotsd.usage.drain import Drainer
from lotabotsd.usage.journal import Journal
from lotabotsd.usage.ledger import Ledger, open_ledger
from lotabotsd.usage.records import Outcome, encode_close, encode_open
from lotabotsd.usage.report import About, LicenceFacts, build_report, freeze

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def problem(self) -> dict[str, Any]:
        """The failure of a command that was asked for JSON."""
        found: dict[str, Any] = json.loads(self.err)["error"]
        return found


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(datetime(2026, 3, 1, 12, tzinfo=UTC))


@pytest.fixture
def vendor(capfd: pytest.CaptureFixture[str], clock: FixedClock) -> Callable[..., Answer]:
    """Run `lotabots-vendor` with these arguments."""

    def called(*arguments: object) -> Answer:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments], clock)
        printed = capfd.readouterr()
        assert "Traceback" not in printed.err
        return Answer(code, printed.out, printed.err)

    return called


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    file = tmp_path / "passphrase"
    file.write_text("correct horse battery staple\n")
    file.chmod(0o600)
    return file


@pytest.fixture
def directory(vendor: Callable[..., Answer], tmp_path: Path, passphrase_file: Path) -> Path:
    """A vendor's directory with fresh keys."""
    made = tmp_path / "vendor"
    answer = vendor("root", "init", "--dir", made, "--passphrase-file", passphrase_file)
    assert answer.code == 0, answer.err
    return made


class Appliance:
    """A ledger of empty hours and the reports over them."""

    def __init__(self, path: Path, clock: FixedClock, licence: LicenceFacts | None) -> None:
        self.path, self.clock, self.licence = path, clock, licence
        path.mkdir()
        self.ledger: Ledger = open_ledger(path / "ledger.db", clock)
        self.development = False

    def report(self, hours: int = 2) -> Path:
        """Let hours pass and write the report over them."""
        self.clock.advance(hours * 3_600)
        self.ledger.seal(self.clock.wall_ns())
        now = self.clock.wall_ns() // NANOSECONDS
        about = About("apl_test", raw_public(KEY), self.licence, self.development, {}, {})
        frozen = freeze(self.ledger, now, about, now)
        file = self.path / frozen.file_name
        file.write_bytes(build_report(self.ledger, frozen, KEY))
        return file


@pytest.fixture
def make_appliance(tmp_path: Path, clock: FixedClock) -> Callable[[str, LicenceFacts | None], Appliance]:
    """An appliance of a name, which is its directory's too."""
    return lambda name, licence: Appliance(tmp_path / name, clock, licence)


@dataclass
class MeteredAppliance:
    """A ledger with a journal before it."""

    path: Path
    clock: FixedClock
    licence: LicenceFacts
    appliance_id: str = "apl_test"
    development: bool = False

    def __post_init__(self) -> None:
        (self.path / "journal").mkdir(parents=True)
        self.ledger: Ledger = open_ledger(self.path / "ledger.db", self.clock)
        self.journal = Journal(
            self.path / "journal", 0, bytes(16), 1, 65_536, in_background=lambda work: None
        )

    def use(
        self, inferences: int, organisation: str = "org_research", model: str = "page_orientation"
    ) -> None:
        """Serve one request of that many inferences."""
        self.finish(self.begin(organisation, model), inferences)

    def begin(self, organisation: str = "org_research", model: str = "page_orientation") -> int:
        return self.journal.append(
            encode_open(
                request_id=bytes(16), wall_ns=self.clock.wall_ns(), key_id="k" * 12,
                organisation_id=organisation, model=model, version="1", window_id=202603, reserved=1,
            )
        )  # fmt: skip

    def finish(self, opened: int, inferences: int, *, wall_ns: int | None = None) -> None:
        self.journal.append(
            encode_close(
                open_number=opened, wall_ns=wall_ns or self.clock.wall_ns(), outcome=Outcome.SERVED,
                status=200, inferences=inferences, input_bytes=100, output_bytes=0, gate_us=7,
            )
        )  # fmt: skip

    def seal(self) -> None:
        drained = Drainer(self.path / "journal", self.ledger, self.clock, batch_records=1_000).drain_once()
        self.ledger.seal(drained.barrier_ns)

    def report(self, until: datetime) -> Path:
        """Let time pass and write the report over it."""
        self.clock.set_wall(until)
        self.seal()
        now = self.clock.wall_ns() // NANOSECONDS
        about = About(
            self.appliance_id,
            raw_public(KEY),
            self.licence,
            self.development,
            {"org_research": "Research"},
            {},
        )
        frozen = freeze(self.ledger, now, about, now)
        file = self.path / frozen.file_name
        file.write_bytes(build_report(self.ledger, frozen, KEY))
        return file


@pytest.fixture
def make_metered(tmp_path: Path, clock: FixedClock) -> Callable[[str, LicenceFacts], MeteredAppliance]:
    """An appliance with that id that serves requests."""
    return lambda name, licence: MeteredAppliance(tmp_path / name, clock, licence, name)


@dataclass
class House:
    """A vendor's directory with several roots."""

    vendor: Callable[..., Answer]
    directory: Path
    passphrase: Path

    def run(self, *arguments: object) -> Any:
        return self.vendor("--json", *arguments)

    def keys(self, *arguments: object) -> Any:
        """A command with the directory and the passphrase."""
        return self.run(*arguments, "--dir", self.directory, "--passphrase-file", self.passphrase)

    def anchors(self) -> Anchors:
        return parse_anchors((self.directory / "anchors" / "production.json").read_bytes())

    def keyring(self, version: int) -> bytes:
        return (self.directory / "keyrings" / f"keyring-{version}.dsse.json").read_bytes()

    def draft(self, output: Path, *arguments: object) -> Any:
        return self.run(
            "keyring", "draft", "--dir", self.directory, "--output", output,
            "--new-passphrase-file", self.passphrase, *arguments,
        )  # fmt: skip

    def sign(self, key: Path, draft: Path) -> Any:
        return self.run("keyring", "sign", "--key", key, "--passphrase-file", self.passphrase, draft)

    def finish(self, *drafts: Path) -> Any:
        return self.run("keyring", "finish", "--dir", self.directory, *drafts)


@pytest.fixture
def make_house(vendor: Callable[..., Answer], passphrase_file: Path) -> Callable[[Path], House]:
    """A vendor's directory that is still to be made."""
    return lambda directory: House(vendor, directory, passphrase_file)


@pytest.fixture
def house(make_house: Callable[[Path], House], tmp_path: Path) -> House:
    """Three roots of which two must sign."""
    made = make_house(tmp_path / "house")
    answer = made.keys("root", "init", "--roots", 3, "--threshold", 2)
    assert answer.code == 0, answer.err
    return made
