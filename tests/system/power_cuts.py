"""Lives of an appliance on one disk, each ended by a power cut; what the ledger must say in the next one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from guest_root import make_file_system
from power_cut_appliance import KEYS, MODELS, key_of, model_of, rows_of
from virtual_machine import Machine, running_machine
from volatile_disk import HOW, Cut, ServedDisk, VolatileDisk

DISK_BYTES = 64 << 20
LAST_SECONDS = 2.0  # twice: then power fails, however little there is to lose
PROGRAM = "power_cut_guest.py"
# What unsynced records that were lost may leave behind (docs/durability.md).
ALLOWED = frozenset(
    {"worker_started", "torn_tail", "damage", "header_damaged", "missing_records", "orphan_close"}
)
Request = tuple[str, str]  # model and key


def what_is_wrong(told: dict[str, Any], answered: dict[Request, int], before: dict[Request, Any]) -> str:
    """What the ledger of a life should not say, or "". Pure.

    `answered`: the inferences of every request of any life whose last byte left. `before`: what the ledger of
    the life before said.
    """
    if "unmountable" in told:
        return f"the file system is gone: {told['unmountable']}"
    counted: dict[Request, tuple[str, int, int]] = {}
    for model, key, outcome, requests, inferences in told["counted"]:
        if (model, key) in counted or requests != 1:
            return f"counted twice: {model} {key} {outcome}"
        counted[model, key] = (outcome, requests, inferences)
    missing = [r for r, rows in answered.items() if counted.get(r) != ("served", 1, rows)]
    if missing:
        return f"answered and not counted: {len(missing)} of {len(answered)}, as {missing[0]}"
    changed = [request for request, was in before.items() if counted.get(request) != was]
    if changed:
        return f"counted before and not now: {changed}"
    if told["integrity"] or told["found_again"] or told["problems"]:
        return f"integrity {told['integrity']!r}, again {told['found_again']}, problems {told['problems']}"
    if unexpected := set(told["findings"]) - ALLOWED:
        return f"findings {unexpected}"
    harmless = set(told["findings"]) <= {"worker_started", "torn_tail"}
    if bool(told["completeness"]) == harmless:
        return f"completeness {told['completeness']!r} with findings {set(told['findings'])}"
    return ""


@dataclass
class PowerCuts:
    """A disk, and one life after the other on it."""

    kernel: Path
    root: Path
    seed: int
    spoiled: tuple[str, ...] = ()  # on purpose, life by life; the last one goes on
    mount_options: str = ""
    honest_disk: bool = True
    answers: int = 400  # at most, before power may fail
    how: tuple[str, ...] = HOW  # power cuts take writes, by turns
    cuts: list[Cut] = field(default_factory=list)
    answered: dict[Request, int] = field(default_factory=dict)
    refused: int = 0
    flushes: int = 0
    recoveries: int = 0
    machine: dict[str, str] = field(default_factory=dict)
    _before: dict[Request, Any] = field(default_factory=dict)

    def look(self, enough: int) -> str:
        """So many power cuts; what was wrong first, or ""."""
        return asyncio.run(self._look(enough))

    async def _look(self, enough: int) -> str:
        chance = random.Random(self.seed)  # noqa: S311 - the same cuts every time, as far as time allows
        disk = VolatileDisk(make_file_system(DISK_BYTES), honest=self.honest_disk)
        served = ServedDisk(disk, chance)
        for life in range(1, enough + 2):
            if wrong := await self._live(life, served, chance if life <= enough else None):
                return f"after power cut {life - 1} ({self.cuts[-1:]}): {wrong}"
            if life <= enough:
                self.cuts.append(disk.cut(chance, self.how[(life - 1) % len(self.how)]))
                self.flushes = disk.flushes
        return ""

    async def _live(self, life: int, served: ServedDisk, chance: random.Random | None) -> str:
        """One life: look, then serve until the power fails; without chance it only looks."""
        asked = {
            "life": life,
            "seed": self.seed + life,
            "serve": chance is not None,
            "spoiled": "".join(self.spoiled[:life][-1:]),
            "options": self.mount_options,
        }
        with tempfile.TemporaryDirectory(prefix="lotabots-disk-") as folder:
            socket = Path(folder) / "nbd.sock"
            server = await served.serve(socket)
            async with running_machine(self.kernel, self.root, PROGRAM, asked, socket) as machine:
                await machine.said(1)
                told = json.loads(machine.lines[0])
                self.recoveries += "recovery complete" in machine.last_words()
                if wrong := what_is_wrong(told, self.answered, self._before):
                    return wrong
                self._before = {(m, k): tuple(rest) for m, k, *rest in told["counted"]}
                self.machine = {name: str(told[name]) for name in ("kernel", "python", "mounted", "cache")}
                if chance is not None:
                    await self._serve_until_the_cut(machine, served, chance)
                    self._hear(machine, life)
            server.close()
        return ""

    async def _serve_until_the_cut(self, machine: Machine, served: ServedDisk, chance: random.Random) -> None:
        """Power fails some answers and some requests of the disk later, when it has something to lose."""
        await machine.said(1 + chance.randint(20, self.answers))
        left, wanted = chance.randint(1, 30), chance.choice((1, 1, 2, 2, 3, 4))
        reached = asyncio.Event()

        def count() -> None:
            nonlocal left
            left -= 1
            if left <= 0 and served.disk.cached >= wanted and not reached.is_set():
                served.freeze()
                reached.set()

        served.on_request = count
        for _ in range(2):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reached.wait(), LAST_SECONDS)
            wanted = 1  # so much does not come together: less will do
        served.freeze()
        served.on_request = lambda: None
        await machine.cut_power()

    def _hear(self, machine: Machine, life: int) -> None:
        for line in machine.lines[1:]:
            number, status = map(int, line.split())
            assert number < MODELS * KEYS
            if status == 200:
                self.answered[model_of(life, number), key_of(number)] = rows_of(number)
            else:
                self.refused += 1
