"""The two sides of the billing walk: appliances with a simulated clock each, and the vendor's back office.

Everything is the product's own but for three things: time, the anchors (the walk's vendor is a production
one), and who uses the appliance: usage records are written into its journal as the gate writes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lotabots_vendor.cli import run as run_vendor
from saying import Telling

from lotabotsd.cli.ctl import lotabotsctl
from lotabotsd.cli.failures import run as run_ctl
from lotabotsd.control.app import control_app
from lotabotsd.control.server import control_server
from lotabotsd.daemon.listeners import control_listener
from lotabotsd.daemon.rooms import Attester, rooms_of
from lotabotsd.daemon.rounds import Rounds
from lotabotsd.daemon.wiring import open_appliance, open_gate
from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.config import parse
from lotabotsd.licence.keyring import parse_anchors
from lotabotsd.usage.journal import Journal
from lotabotsd.usage.records import Outcome, encode_close, encode_open


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return [*self.out.splitlines(), *self.err.splitlines()]

    def some(self, *words: str) -> list[str]:
        """The lines that begin with one of these words, and the fix below each."""
        found: list[str] = []
        matched = False
        for line in self.lines:
            matched = line.strip().startswith((*words, "fix:") if matched else words)
            if matched:
                found.append(line)
        return found

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def _said(work: Any) -> Said:
    """Run a command of this process and keep what it prints."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = work()
    texts = []
    for stream in (out, err):
        stream.flush()
        stream.seek(0)
        texts.append(stream.read())
    return Said(int(code), *texts)


class Vendor:
    """The back office: one directory, one clock."""

    def __init__(self, folder: Path, clock: FixedClock, telling: Telling) -> None:
        self.folder, self.clock, self.telling = folder, clock, telling
        self.directory = folder / "vendor"
        self._passphrase = folder / "passphrase"
        self._passphrase.write_text("a rehearsal needs no secret\n")
        self._passphrase.chmod(0o600)

    def run(self, *words: str, exit_code: int = 0, keys: bool = False, show: Sequence[str] = ()) -> Said:
        """`lotabots-vendor …` with the directory; show the lines of its answer that begin like this."""
        given = [*words, "--dir", str(self.directory)]
        if keys:
            given += ["--passphrase-file", str(self._passphrase)]
        said = _said(lambda: run_vendor(given, self.clock))
        if show:
            self.telling.command("vendor   ", ["lotabots-vendor", *words])
            self.telling.came(said.some(*show))
        if said.code != exit_code:
            self.telling.came(said.lines)
            self.telling.proved(f"it ends with exit code {exit_code}", holds=False)
        return said

    def quietly(self, *words: str, keys: bool = False, exit_code: int = 0) -> Said:
        """The same without showing it."""
        return self.run(*words, keys=keys, exit_code=exit_code)

    def bare(self, *words: str) -> Said:
        """`lotabots-vendor …` without any directory."""
        return _said(lambda: run_vendor(list(words), self.clock))


class Site:
    """One appliance at the customer's, its daemon answering on its control socket."""

    def __init__(
        self, name: str, folder: Path, anchors: bytes, clock: FixedClock, telling: Telling, *, place: str = ""
    ) -> None:
        """`anchors` are those of the release that is installed, which stay when the vendor's go on.

        `place` is what the operator calls the machine; a copied disk brings it along."""
        self.name, self.folder, self.clock, self.telling = name, folder, clock, telling
        self._place = place or f"{name}, of the walk's own making"
        self.ahead = timedelta()  # of its clock against the world's
        self._anchors = anchors
        folder.mkdir(exist_ok=True)
        text = f"""
[appliance]
name = "{name}"
state_directory = "{folder}/state"
run_directory = "{folder}/run"
[licence]
operator_fingerprint = "{self._place.replace(" ", "-")}"
"""
        self._config = parse(text.encode(), "the walk's configuration")
        self.start()

    def start(self) -> None:
        """Start the daemon; also after `stop`, as after a reboot."""
        for path, mode in self._config.paths.directories():
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(mode)
        self.appliance = open_appliance(
            self._config, self.clock, anchors=lambda: parse_anchors(self._anchors)
        )
        open_gate(self.appliance, triton_runs=False)
        self._server = control_server(control_app(rooms_of(self.appliance, Attester(self.appliance))))
        listener = control_listener(self._config)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._server.serve(sockets=[listener])), daemon=True
        )
        self._thread.start()
        self._journal = Journal(
            self._config.paths.journal,
            0,
            bytes(16),
            self.clock.wall_ns(),
            65_536,
            in_background=lambda w: None,
        )
        self.telling.call(self.appliance.appliance_id, f"apl_{self.name}")

    def stop(self) -> None:
        """Stop the daemon; everything is on disk."""
        self._journal.close()
        self.appliance.bookkeeping.drain_and_seal()
        self._server.stop()
        self._thread.join(20)
        self.appliance.publishing.let_go()
        self.appliance.close()

    def copied_to(self, name: str, clock: FixedClock) -> Site:
        """A second machine with a copy of this one's disk. Both run afterwards."""
        self.stop()
        folder = self.folder.with_name(name)
        shutil.copytree(self.folder / "state", folder / "state")
        self.start()
        return Site(name, folder, self._anchors, clock, self.telling, place=self._place)

    def at(self, moment: datetime) -> None:
        """It is that late in the world; the daemon does what it does every hour and on the report's day."""
        self.clock.set_wall(moment + self.ahead)
        self.appliance.bookkeeping.drain_and_seal()
        asyncio.run(Rounds(self.appliance).raise_floor())
        asyncio.run(Rounds(self.appliance).write_due_report())

    def use(self, inferences: int, organisation: str, model: str = "page_orientation") -> None:
        """One request that was served, with so many rows, as the gate records it."""
        wall_ns = self.clock.wall_ns()
        opened = self._journal.append(
            encode_open(
                request_id=bytes(16), wall_ns=wall_ns, key_id="walk00000000", organisation_id=organisation,
                model=model, version="1", window_id=202609, reserved=inferences,
            )
        )  # fmt: skip
        self._journal.append(
            encode_close(
                open_number=opened, wall_ns=wall_ns, outcome=Outcome.SERVED, status=200,
                inferences=inferences, input_bytes=inferences * 1_000, output_bytes=inferences * 40,
                gate_us=500,
            )
        )  # fmt: skip

    def run(self, *words: str, exit_code: int = 0, show: Sequence[str] = ()) -> Said:
        """`lotabotsctl …` against this appliance; show the lines of its answer that begin like this."""
        socket = str(self._config.paths.control_socket)
        said = _said(lambda: run_ctl(lotabotsctl, "lotabotsctl", ("--socket", socket, *words)))
        if show:
            self.telling.command(f"{self.name:<9}", ["lotabotsctl", *words])
            self.telling.came(said.some(*show))
        if said.code != exit_code:
            self.telling.came(said.lines)
            self.telling.proved(f"it ends with exit code {exit_code}", holds=False)
        return said

    def quietly(self, *words: str) -> Said:
        """The same without showing it."""
        return self.run(*words)

    def mail(self, number: int) -> Path:
        """Copy a report out of the outbox, as somebody carries it to the vendor."""
        (report,) = (self.folder / "state" / "outbox").rglob(f"*-{number:06d}.zip")
        copy = self.folder.with_name(f"{self.name}-report-{number}.zip")
        shutil.copyfile(report, copy)
        return copy


class World:
    """The one true time, which everybody's clock follows."""

    def __init__(self, start: datetime) -> None:
        self.now = start
        self.clocks: list[FixedClock] = []
        self.sites: list[Site] = []

    def clock(self) -> FixedClock:
        """A clock for somebody."""
        made = FixedClock(self.now)
        self.clocks.append(made)
        return made

    def until(self, moment: datetime) -> None:
        """Let time pass, an hour at a time where something is due, else a day."""
        while self.now < moment:
            step = timedelta(hours=1) if moment - self.now < timedelta(days=1) else timedelta(days=1)
            self.now = min(self.now + step, moment)
            for clock in self.clocks:
                clock.set_wall(self.now)
            for site in self.sites:
                site.at(self.now)


def day(text: str) -> datetime:
    """`2026-09-01 10:30`, in UTC."""
    return datetime.strptime(text, "%Y-%m-%d %H:%M").replace(tzinfo=UTC)
