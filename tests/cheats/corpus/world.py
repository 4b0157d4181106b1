"""Where cheats are tried: a vendor with keys, a licence directory, a desk, appliances.

Each part is made when it is first asked for, in the world's own folder. All of them live by one clock.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from lotabots_vendor.cli import run as run_vendor

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.clock import FixedClock, from_ns, rfc3339
from lotabotsd.foundation.envelope import Envelope, PayloadType, sign
from lotabotsd.foundation.errors import Exit
from lotabotsd.foundation.identifiers import b64url
from lotabotsd.foundation.keys import raw_public, thumbprint
from lotabotsd.licence.keyring import Anchors, parse_anchors
from lotabotsd.licence.store import LicenceStore

from .rooms import House, UsageRoom

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
CARD = GOLDEN / "rate-card" / "standard.json"
CUSTOMER = "Example GmbH"


def key(seed: int) -> Ed25519PrivateKey:
    """A key that is the same in every run."""
    return Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)


def keyid(private: Ed25519PrivateKey) -> str:
    """How documents name it."""
    return thumbprint(raw_public(private))


def public(private: Ed25519PrivateKey) -> dict[str, str]:
    """How a keyring names it."""
    return {"keyid": keyid(private), "public": b64url(raw_public(private))}


def sorted_roots(*roots: Ed25519PrivateKey) -> list[dict[str, str]]:
    """The roots of a keyring."""
    return sorted((public(root) for root in roots), key=lambda entry: entry["keyid"])


@dataclass
class Workshop:
    """A vendor's keys in one hand, so that anything can be signed with any of them."""

    root: Ed25519PrivateKey = field(default_factory=lambda: key(1))
    issuing: Ed25519PrivateKey = field(default_factory=lambda: key(2))
    second: Ed25519PrivateKey = field(default_factory=lambda: key(3))  # in no keyring at first
    cards: Ed25519PrivateKey = field(default_factory=lambda: key(4))  # may sign rate cards alone
    old: Ed25519PrivateKey = field(default_factory=lambda: key(5))  # its time ended in 2025
    stranger: Ed25519PrivateKey = field(default_factory=lambda: key(6))
    all_uses: tuple[str, ...] = ("acknowledgement", "licence", "rate-card")

    def entry(self, private: Ed25519PrivateKey, **changes: Any) -> dict[str, Any]:
        """One issuing key of a keyring."""
        return {
            **public(private),
            "uses": list(self.all_uses),
            "not_before": "2025-06-01T00:00:00Z",
            "not_after": "2028-06-01T00:00:00Z",
            **changes,
        }

    def keys(self, *more: dict[str, Any]) -> list[dict[str, Any]]:
        """The issuing keys of the first keyring, and more."""
        old = {"not_before": "2024-01-01T00:00:00Z", "not_after": "2025-12-01T00:00:00Z"}
        return [
            self.entry(self.issuing),
            self.entry(self.cards, uses=["rate-card"]),
            self.entry(self.old, **old),
            *more,
        ]

    def keyring(self, *signers: Ed25519PrivateKey, **changes: Any) -> Envelope:
        """A signed keyring statement; version 1 unless changed."""
        statement = {
            "version": 1,
            "issued_at": "2025-06-01T00:00:00Z",
            "roots": [public(self.root)],
            "threshold": 1,
            "keys": self.keys(),
            "revoked": [],
            **changes,
        }
        return sign(PayloadType.KEYRING, canonical_json(statement), list(signers) or [self.root])

    def anchors(self, **changes: Any) -> Anchors:
        """What a release of this vendor carries."""
        document = {
            "kind": "production",
            "roots": [public(self.root)],
            "threshold": 1,
            "keyring": json.loads(self.keyring().to_json()),
            "built_at": None,
            **changes,
        }
        return parse_anchors(canonical_json(document))

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Well-formed claims of a paid pro licence for 2026, sequence 7."""
        base = json.loads((GOLDEN / "licence" / "pro.json").read_bytes())
        return {**base, "kind": "paid", **changes}

    def licence(self, *, by: Ed25519PrivateKey | None = None, **changes: Any) -> bytes:
        """A signed licence in its JSON form."""
        return self.signed(PayloadType.LICENCE, self.claims(**changes), by or self.issuing)

    def revocations(self, version: int, *licence_ids: str, by: Ed25519PrivateKey | None = None) -> bytes:
        """A signed list of licences taken back."""
        moment = "2026-01-01T00:00:00Z"
        listed = [
            {"licence_id": name, "reason": "not paid", "revoked_at": moment} for name in sorted(licence_ids)
        ]
        body = {"version": version, "issued_at": moment, "licences": listed}
        return self.signed(PayloadType.REVOCATIONS, body, by or self.issuing)

    def signed(self, kind: PayloadType, body: Any, by: Ed25519PrivateKey) -> bytes:
        """Any body under any type by any key."""
        return sign(kind, canonical_json(body), [by]).to_json()


@dataclass(frozen=True)
class Said:
    """What a command of the vendor's printed, and its exit code."""

    exit_code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The answer."""
        return json.loads(self.out)

    @property
    def code(self) -> str:
        """The code of the refusal; empty where it was not refused."""
        return json.loads(self.err)["error"]["code"] if self.err.lstrip().startswith("{") else ""


class Desk:
    """The vendor's command line over a directory with fresh keys and empty books."""

    def __init__(self, folder: Path, clock: FixedClock) -> None:
        self.folder, self.clock = folder, clock
        self.directory = folder / "vendor"
        self.passphrase = folder / "passphrase"
        self.passphrase.write_text("correct horse battery staple\n")
        self.passphrase.chmod(0o600)
        self.run("root", "init", *self.keys)

    @property
    def keys(self) -> tuple[object, ...]:
        """The options of a command that signs."""
        return ("--dir", self.directory, "--passphrase-file", self.passphrase)

    @property
    def anchors(self) -> Anchors:
        """What a release of this vendor carries."""
        return parse_anchors((self.directory / "anchors" / "production.json").read_bytes())

    def ask(self, *arguments: object) -> Said:
        """Run a command with --json; a bug in it fails the test."""
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            exit_code = run_vendor(["--json", *(str(a) for a in arguments)], self.clock)
        texts = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
        assert exit_code != Exit.UNEXPECTED, texts[1]
        return Said(exit_code, *texts)

    def run(self, *arguments: object) -> Said:
        """Run a command that must succeed."""
        said = self.ask(*arguments)
        assert said.exit_code in (Exit.OK, Exit.WARNINGS), said.err or said.out
        return said

    def licence(self, *more: object, tier: str = "pro", customer: str = CUSTOMER) -> Any:
        """Issue a paid licence; its claims."""
        order = ("--tier", tier, "--customer", customer, "--rate-card", CARD)
        return self.run("licence", "issue", *self.keys, *order, *more).json["licence"]

    def verify(self, report: Path) -> Any:
        """What `report verify` says of a file."""
        return self.ask("report", "verify", "--dir", self.directory, report).json

    def finds(self, report: Path, *, severity: str = "error") -> str:
        """The codes of the findings of that severity, with commas."""
        return codes(self.verify(report), severity)

    def answer(self, report: Path, *more: object) -> bytes:
        """Verify and acknowledge a report; the JSON form of the answer."""
        self.verify(report)
        file = report.with_name(f"{report.stem}-{self.clock.wall_ns()}.ack")
        self.run("ack", "issue", *self.keys, "--format", "json", "--output", file, report, *more)
        return file.read_bytes()

    def rate(self, *arguments: object) -> Said:
        """Bill reports."""
        return self.ask("rate", "--dir", self.directory, *arguments)


def codes(value: Any, severity: str) -> str:
    """The codes of a verdict's findings of that severity, sorted, each once."""
    return ",".join(sorted({f["code"] for f in value["findings"] if f["severity"] == severity}))


class World:
    """Everything that a cheat may touch."""

    def __init__(self, folder: Path, clock: FixedClock) -> None:
        self.folder, self.clock = folder, clock
        self._rooms: list[UsageRoom] = []

    @cached_property
    def workshop(self) -> Workshop:
        """The vendor's keys in one hand."""
        return Workshop()

    @cached_property
    def desk(self) -> Desk:
        """The vendor's tool, with keys of its own."""
        return Desk(self.folder, self.clock)

    @cached_property
    def house(self) -> House:
        """A whole appliance under the development root, and its vendor."""
        made = self.folder / "house"
        made.mkdir()
        return House(made, self.clock)

    @property
    def licence_directory(self) -> Path:
        """Where `store` keeps its files."""
        made = self.folder / "licence"
        made.mkdir(exist_ok=True)
        return made

    def store(self, *, anchors: Anchors | None = None, here: Mapping[str, str] | None = None) -> LicenceStore:
        """Open the licence directory; once more for what a restart finds. `here` is this machine."""
        return LicenceStore(
            self.licence_directory,
            anchors or self.workshop.anchors(),
            self.clock,
            components=lambda: here or {},
        )

    def room(self, name: str = "room", **more: Any) -> UsageRoom:
        """An appliance's usage room: journal, ledger, reports."""
        made = UsageRoom(self.folder / name, self.clock, **more)
        self._rooms.append(made)
        return made

    def billed_room(self, name: str = "room", *more: object) -> UsageRoom:
        """A usage room whose licence is in the desk's books."""
        return self.room(name, licence=self.desk.licence(*more))

    def now(self) -> str:
        """The moment as documents write it."""
        return rfc3339(from_ns(self.clock.wall_ns()))

    def close(self) -> None:
        """Let go of every file."""
        for room in self._rooms:
            room.close()
        if "house" in self.__dict__:
            self.house.close()


@contextlib.contextmanager
def world_in(folder: Path, clock: FixedClock) -> Iterator[World]:
    """A world, closed at the end."""
    made = World(folder, clock)
    try:
        yield made
    finally:
        made.close()


Change = Callable[[Any], object]
