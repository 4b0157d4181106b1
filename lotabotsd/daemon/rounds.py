"""What the daemon does in each of its loops, one round a function, and how often."""

from __future__ import annotations

import asyncio
import logging

from lotabotsd.attestation.evidence import Image
from lotabotsd.foundation.clock import NANOSECONDS
from lotabotsd.foundation.errors import LotaBotsError
from lotabotsd.foundation.sockets import sd_notify, watchdog_seconds
from lotabotsd.licence.standing import Standing
from lotabotsd.policy.publish import Published

from .appliance import Appliance
from .loops import Loop
from .models import EnabledModel, wanted_of
from .reminders import Reminders

log = logging.getLogger("lotabots.daemon")

POLICY_SECONDS = 1.0
FLOOR_SECONDS = 60.0
GPU_SECONDS = 10.0
LEASE_PARTS = 4  # the lease is renewed four times within its life, at least once a minute
LONGEST_RENEWAL_SECONDS = 60.0
WATCHDOG_SECONDS = 5.0  # without a service manager it only logs
ROUND_SECONDS = 30.0  # how long a round may take before the daemon counts as stuck
REPORT_SECONDS = 300.0
FORGET_SECONDS = 60.0
VERIFY_SECONDS = 6 * 3_600.0  # a walk reads the whole ledger: some 20 000 rows a second
WALK_SECONDS = 3_600.0
Serving = tuple[frozenset[str], Image | None]  # the models that answer, and the image that they run in
Seen = tuple[Standing, tuple[EnabledModel, ...], Serving]


class Rounds:
    """The daemon's rounds. Blocking work runs in threads, so that the event loop always answers."""

    def __init__(self, appliance: Appliance) -> None:
        self._appliance = appliance
        self._published: Seen | None = None  # what the last publication was made of
        self._reminders = Reminders()

    def loops(self) -> tuple[Loop, ...]:
        """Every loop with its period and its bound, in seconds."""
        config = self._appliance.config
        renewal = min(config.gate.policy_lease_seconds / LEASE_PARTS, LONGEST_RENEWAL_SECONDS)
        load_seconds = config.runtime.start_timeout_seconds + config.runtime.stop_timeout_seconds
        return (
            Loop("drain", config.usage.drain_seconds, ROUND_SECONDS, self.count_usage),
            Loop("supervise", config.runtime.probe_seconds, load_seconds + ROUND_SECONDS, self.supervise),
            Loop("policy", POLICY_SECONDS, load_seconds + ROUND_SECONDS, self.keep_policy),
            Loop("lease", renewal, ROUND_SECONDS, self.renew_lease),
            Loop("floor", FLOOR_SECONDS, ROUND_SECONDS, self.raise_floor),
            Loop("gpus", GPU_SECONDS, ROUND_SECONDS, self.look_at_gpus),
            Loop("receipts", FORGET_SECONDS, ROUND_SECONDS, self.forget_receipts),
            Loop("report", REPORT_SECONDS, REPORT_SECONDS, self.write_due_report),
            Loop("ledger", VERIFY_SECONDS, WALK_SECONDS, self.verify_ledger),
        )

    async def count_usage(self) -> None:
        """Journals into the ledger; at the end of an hour also its windows."""
        await asyncio.to_thread(self._appliance.bookkeeping.drain_and_seal)

    async def supervise(self) -> None:
        """Look at Triton and act at most once; tell the gate at once when what serves changed.

        Which image it is, is asked before the models of a new run are loaded.
        """
        before = self._serving()
        await self._appliance.image.look(await self._appliance.supervisor.one_round())
        if self._serving() != before:
            await asyncio.to_thread(self._appliance.publishing.publish)

    def _serving(self) -> Serving:
        run_id = self._appliance.supervisor.seen.run_id
        return self._appliance.ready(), self._appliance.image.of(run_id)

    async def keep_policy(self) -> None:
        """Publish where the licence's standing changed by itself, and serve as many models as it allows."""
        standing = await asyncio.to_thread(self._appliance.licence.standing)
        self._reminders.look(standing)
        if await asyncio.to_thread(self._appliance.models.allow, standing.models_live):
            self._appliance.supervisor.want(wanted_of(self._appliance.models()))
        seen = (standing, self._appliance.models(), self._serving())
        if seen != self._published:
            published = await asyncio.to_thread(self._appliance.publishing.publish)
            self._published = seen
            _tell(published)

    async def renew_lease(self) -> None:
        """Let the gate believe the policy for another lease."""
        now_ns = self._appliance.clock.wall_ns()
        await asyncio.to_thread(self._appliance.publisher.renew_lease, now_ns)

    async def raise_floor(self) -> None:
        """Remember how late it is, so that setting the clock back does not lengthen a licence."""
        sealed_ns = self._appliance.ledger.sealed_until * NANOSECONDS
        await asyncio.to_thread(self._appliance.licence.raise_floor, sealed_ns)
        await asyncio.to_thread(self._appliance.bookkeeping.keep_reserve)

    async def forget_receipts(self) -> None:
        """Remove the receipts that are too old, or too many."""
        await asyncio.to_thread(self._appliance.receipts.forget_old, self._appliance.clock.wall_ns())

    async def look_at_gpus(self) -> None:
        """Ask the driver how the GPUs are."""
        await asyncio.to_thread(self._appliance.gpus.look)

    async def write_due_report(self) -> None:
        """Write the usage report whose time has come or was missed; file away what was acknowledged."""
        await asyncio.to_thread(self._appliance.acknowledging.file_away)
        await asyncio.to_thread(self._appliance.reports.write_due, self._appliance.report_rule)

    async def verify_ledger(self) -> None:
        """Walk the ledger's chain; status tells of a fault."""
        verdict = await asyncio.to_thread(self._appliance.ledger_watch.look)
        if not verdict.integrity.ok:
            log.error("the ledger is damaged: %s", verdict.integrity.text)

    async def on_alarm(self) -> None:
        """The timetable's alarm; what fails is tried again by the loop of the same name."""
        try:
            await self.write_due_report()
        except LotaBotsError as failure:
            self._appliance.health.failed("report", failure)


async def feed_watchdog(appliance: Appliance, stop: asyncio.Event) -> None:
    """Tell the service manager that the daemon lives, as long as no loop is stuck."""
    period = watchdog_seconds()
    pause = WATCHDOG_SECONDS if period is None else period / 3
    told: list[str] = []
    while not stop.is_set():
        stuck = appliance.health.stuck()
        if stuck != told and stuck:
            log.error("no progress in: %s", ", ".join(stuck))
        told = stuck
        if period is not None and not stuck:
            sd_notify(f"WATCHDOG=1\nSTATUS=Triton is {appliance.supervisor.seen.state}")
        try:
            await asyncio.wait_for(stop.wait(), timeout=pause)
        except TimeoutError:
            continue


def _tell(published: Published) -> None:
    if published.changed:
        log.info("policy generation %d published", published.generation)
