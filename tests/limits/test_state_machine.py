"""Workers killed or stopped at any write, settled and succeeded, in any order: the accounts stay exact."""

from __future__ import annotations

import mmap
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from interrupted_lives import NEVER, Impatient, Killed, Life, Memory, Request

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.limits.assign import tag_of
from lotabotsd.limits.table import Busy, Refusal, Scope, Stale, Table, Ticket, Totals, create_table

BOOT = b"0123456789abcdef"
WORKERS = 3
SECOND_NS = 1_000_000_000
MONTH_NS = 40 * SECOND_NS  # months of the test are short
SCOPES = (
    Scope("licence", 0, tag_of("licence"), quota=300, quota_hard=False),
    Scope("organisation", 1, tag_of("organisation"), quota=40, concurrency=5),
    Scope("key", 2, tag_of("key"), rate_per_minute=120, burst=6, concurrency=3),
    Scope("model", 3, tag_of("model"), quota=30),
)


Interruption = tuple[str, int, int] | None
# Nothing, or killed or stopped before some write
INTERRUPTIONS: Any = st.one_of(
    st.none(),
    st.none(),
    st.tuples(st.sampled_from(["kill", "stop"]), st.integers(0, 20), st.sampled_from([0, 1, 9, 70])),
)
CHOSEN: Any = st.sampled_from([(0, 1), (0, 1, 2), (0, 1, 2, 3), (0, 2), (3, 0)])


class Workers(RuleBasedStateMachine):
    """Three workers, a parent that settles the dead, and what everybody should know in the end."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "limits.table"
        create_table(self.path, slots=4, workers=WORKERS, boot_id=BOOT, fill=[])
        self.parent = Table.open(self.path, None, boot_id=BOOT, make_lock=Impatient)
        self.lives: dict[int, Life] = {}
        self.dead: dict[int, Life] = {}  # not settled yet, by number
        self.requests: list[Request] = []
        self.admissions: list[int] = []  # of the scope with a rate, surely
        self.epoch = 0
        self.generation = 0
        self.now = 1_000 * SECOND_NS
        for number in range(WORKERS):
            self.start(number)

    def teardown(self) -> None:
        if not hasattr(self, "lives"):
            return
        for number in list(self.lives):
            self.kill(number)
        for number in range(WORKERS):
            self.settle(number)
        self.everything_is_as_the_journals_say()
        self.parent.close()
        self.directory.cleanup()

    # -- processes
    def running(self) -> list[int]:
        return [number for number, life in self.lives.items() if life.thread is None]

    def stopped(self) -> list[int]:
        return [number for number, life in self.lives.items() if life.thread is not None]

    @rule(number=st.integers(0, WORKERS - 1))
    def start(self, number: int) -> None:
        """A successor; while the number's process exists, running or stopped, there can be none."""
        if number in self.lives:
            with pytest.raises(LotaBotsError) as caught:
                Table.open(self.path, number, boot_id=BOOT)
            assert caught.value.code is Code.LIMITS_UNAVAILABLE
            return
        memories: list[Memory] = []

        def map_file(descriptor: int, length: int) -> mmap.mmap:
            memories.append(Memory(descriptor, length))
            return memories[0]

        table = Table.open(self.path, number, boot_id=BOOT, map_file=map_file, make_lock=Impatient)
        if isinstance(table.settle_worker(number, self.recorded(number)), Busy):
            assert self.parent.is_entered()
            table.close()
            return
        self.note_settled(number)
        self.epoch += 1
        table.begin(self.epoch)
        self.lives[number] = Life(table, memories[0], self.epoch)

    @rule(number=st.integers(0, WORKERS - 1))
    def kill(self, number: int) -> None:
        if number in self.lives:
            life = self.lives.pop(number)
            life.die()
            assert number not in self.dead
            self.dead[number] = life

    @precondition(lambda self: self.stopped())
    @rule(which=st.integers(0, 8))
    def resume(self, which: int) -> None:
        """What it was about to write comes late, and does no harm."""
        stopped = self.stopped()
        self.lives[stopped[which % len(stopped)]].go_on()

    def recorded(self, number: int) -> Callable[[int, int], bool]:
        def ask(epoch: int, record: int) -> bool:
            assert self.dead[number].epoch == epoch
            return record in self.dead[number].journal

        return ask

    @rule(number=st.integers(0, WORKERS - 1))
    def settle(self, number: int) -> None:
        answer = self.parent.settle_worker(number, self.recorded(number))
        if number in self.lives:
            assert isinstance(answer, Busy)
        elif isinstance(answer, Busy):
            assert self.parent.is_entered()
        else:
            self.note_settled(number)

    def note_settled(self, number: int) -> None:
        life = self.dead.pop(number, None)
        for request in life.requests if life else ():
            request.settled = True

    # -- what a worker does, perhaps interrupted
    def act(self, life: Life, interruption: Interruption, what: Callable[[], None]) -> None:
        if interruption is None:
            what()
            return
        kind, left, torn = interruption
        life.memory.interrupt(left, torn, kills=kind == "kill")
        if kind == "kill":
            try:
                what()
            except Killed:
                self.kill(next(number for number, one in self.lives.items() if one is life))
            life.memory.left = NEVER
            return
        ended: list[BaseException | None] = []

        def run() -> None:
            try:
                what()
                ended.append(None)
            except Killed:
                ended.append(None)  # it was stopped, and then killed
            except (AssertionError, LotaBotsError) as error:  # shown by the main thread
                ended.append(error)
            life.memory.left = NEVER
            life.memory.reached.set()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        life.memory.reached.wait()
        if not ended:
            life.thread, life.ended = thread, ended
            return
        thread.join()
        assert ended == [None]

    def someone(self, which: int) -> Life | None:
        """A worker that runs; dead ones get their successor first. None while nobody can start."""
        for number in range(WORKERS):
            if number not in self.lives:
                self.start(number)
        running = self.running()
        return self.lives[running[which % len(running)]] if running else None

    @rule(which=st.integers(0, 8), chosen=CHOSEN, rows=st.integers(0, 5), interruption=INTERRUPTIONS)
    def reserve(self, which: int, chosen: tuple[int, ...], rows: int, interruption: Interruption) -> None:
        life = self.someone(which)
        if life is not None:
            self.reserve_in(life, chosen, rows, self.generation, interruption)

    @rule(which=st.integers(0, 8), chosen=CHOSEN)
    def reserve_by_an_older_policy(self, which: int, chosen: tuple[int, ...]) -> None:
        life = self.someone(which)
        if life is not None:
            before = len(life.open)
            self.reserve_in(life, chosen, 1, self.generation - 1, None)
            assert len(life.open) == before

    def reserve_in(
        self, life: Life, chosen: tuple[int, ...], rows: int, generation: int, interruption: Interruption
    ) -> None:
        scopes = tuple(SCOPES[index] for index in chosen)

        def work() -> None:
            request = Request(scopes, rows, sure=False)
            life.requests.append(request)
            self.requests.append(request)
            now = self.now  # a stopped worker goes on with the time that it asked with
            answer = life.table.reserve(scopes, rows, now, now // MONTH_NS, generation=generation)
            if isinstance(answer, Ticket):
                request.sure, request.window_id = True, answer.window_id
                life.open.append((answer, request))
                if SCOPES[2] in scopes:
                    self.admissions.append(now)
                return
            self.requests.remove(request)
            life.requests.remove(request)
            assert isinstance(answer, Refusal | Stale) or (isinstance(answer, Busy) and self.stopped())

        self.act(life, interruption, work)

    @rule(
        which=st.integers(0, 8),
        chosen=CHOSEN,
        rows=st.integers(0, 5),
        times=st.integers(1, 4),
        interruption=INTERRUPTIONS,
    )
    def serve(
        self, which: int, chosen: tuple[int, ...], rows: int, times: int, interruption: Interruption
    ) -> None:
        """Some requests are admitted and answered; the last answer is interrupted."""
        for left in reversed(range(times)):
            life = self.someone(which)
            if life is not None:
                self.reserve_in(life, chosen, rows, self.generation, None)
                if life.open:
                    self.end_in(life, *life.open.pop(), rows, None if left else interruption)

    @rule(
        which=st.integers(0, 1 << 16),
        charged=st.one_of(st.none(), st.integers(0, 5)),
        interruption=INTERRUPTIONS,
    )
    def end(self, which: int, charged: int | None, interruption: Interruption) -> None:
        """A request is answered: its CLOSE is written between the note and the commit. None: it failed."""
        busy = [self.lives[number] for number in self.running() if self.lives[number].open]
        if busy:
            life = busy[which % len(busy)]
            self.end_in(life, *life.open.pop(which % len(life.open)), charged, interruption)

    def end_in(
        self, life: Life, ticket: Ticket, request: Request, charged: int | None, interruption: Interruption
    ) -> None:
        def work() -> None:
            if charged is None:
                request.state = "ended"
                request.settled = life.table.refund(ticket)
                return
            record = len(life.journal) + 1
            life.table.closing(ticket, charged, record)
            request.state, request.charged = "recorded", charged
            life.journal.add(record)
            request.settled = life.table.commit(ticket, charged)

        self.act(life, interruption, work)

    @rule(which=st.integers(0, 8))
    def beat(self, which: int) -> None:
        life = self.someone(which)
        if life is None:
            return
        life.table.beat(self.now, self.generation)
        if not life.table.settle_late():
            for request in life.requests:
                request.settled = request.settled or request.state in ("recorded", "ended")

    @rule(passed=st.sampled_from([SECOND_NS // 10, SECOND_NS, MONTH_NS]))
    def time_passes(self, passed: int) -> None:
        self.now += passed

    @rule()
    def announce(self) -> None:
        self.generation += 1
        self.parent.set_generation(self.generation)

    # -- what must hold
    def totals(self, scope: Scope) -> Totals | None:
        found = self.parent.totals(scope.slot)
        if isinstance(found, Busy):
            assert self.stopped(), "only a stopped worker holds the lock for long"
            return None
        return found

    @invariant()
    def the_accounts_balance_and_no_limit_is_passed(self) -> None:
        for scope in SCOPES if hasattr(self, "lives") else ():
            found = self.totals(scope)
            if found is None:
                return
            assert found.balanced
            assert not scope.concurrency or found.open <= scope.concurrency
            if scope.quota and scope.quota_hard and self.charges_what_was_reserved(scope):
                assert found.used + found.reserved <= scope.quota
            mine = [request for request in self.requests if scope in request.scopes]
            sure = sum(request.sure for request in mine)
            assert sure <= found.admitted <= len(mine)
            recorded = [request for request in mine if request.state == "recorded"]
            assert sum(request.settled for request in recorded) <= found.committed <= len(recorded)

    def charges_what_was_reserved(self, scope: Scope) -> bool:
        """More may be charged than was reserved; then a quota can be passed, which is no fault."""
        return all(r.charged <= r.rows for r in self.requests if scope in r.scopes)

    @invariant()
    def the_rate_is_never_passed(self) -> None:
        scope = SCOPES[2]
        burst = scope.tolerance_ns // scope.interval_ns
        times = sorted(getattr(self, "admissions", []))
        for first, began in enumerate(times):
            for last in range(first, len(times)):
                assert last - first + 1 <= burst + (times[last] - began) // scope.interval_ns

    def everything_is_as_the_journals_say(self) -> None:
        """Everybody is dead and settled: committed is exactly what was recorded, the rest was refunded."""
        for scope in SCOPES:
            found = self.totals(scope)
            assert found is not None
            mine = [request for request in self.requests if scope in request.scopes]
            recorded = [request for request in mine if request.state == "recorded"]
            assert (found.committed, found.open, found.reserved, found.held) == (len(recorded), 0, 0, 0)
            assert found.admitted == found.committed + found.refunded
            assert found.used == sum(r.charged for r in recorded if r.window_id == found.window_id)


Workers.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestWorkers = Workers.TestCase
