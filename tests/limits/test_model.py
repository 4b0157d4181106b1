"""The table beside a slow model that keeps every request: same answers, same accounts, any order."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lotabotsd.limits.assign import tag_of
from lotabotsd.limits.scope import MINUTE_NS
from lotabotsd.limits.table import Refusal, Scope, Table, Ticket, Totals, create_table

BOOT = b"0123456789abcdef"
WORKERS = 3
SECOND_NS = MINUTE_NS // 60
MONTH_NS = 90 * SECOND_NS  # months of the test are short

# The last slot has two owners that take turns, as after a change of policy.
SCOPES = (
    Scope("licence", 0, tag_of("licence"), rate_per_minute=120, burst=9, quota=60, quota_hard=False),
    Scope("organisation", 1, tag_of("organisation"), quota=25, concurrency=6),
    Scope("key", 2, tag_of("key"), rate_per_minute=60, burst=4, concurrency=3, quota=9),
    Scope("model", 3, tag_of("first"), concurrency=4),
    Scope("model", 3, tag_of("second"), rate_per_minute=30, burst=2, quota=4),
)


@dataclass
class Request:
    """One admitted request, for ever."""

    worker: int
    window_id: int
    rows: int
    state: str = "open"


@dataclass
class Slow:
    """What one owner of a slot should know: all its requests, and a token bucket in fractions."""

    scope: Scope
    tokens: Fraction
    filled_ns: int
    requests: list[Request] = field(default_factory=list)

    def fill(self, now_ns: int) -> None:
        if self.scope.interval_ns:
            burst = Fraction(self.scope.tolerance_ns, self.scope.interval_ns)
            passed = Fraction(now_ns - self.filled_ns, self.scope.interval_ns)
            self.tokens = min(burst, self.tokens + passed)
        self.filled_ns = now_ns

    def open(self) -> int:
        return sum(request.state == "open" for request in self.requests)

    def rows(self, window_id: int, *states: str) -> int:
        return sum(r.rows for r in self.requests if r.window_id == window_id and r.state in states)

    def refuses(self, rows: int, window_id: int) -> set[str]:
        limits, found = self.scope, set()
        if limits.interval_ns and self.tokens < 1:
            found.add("rate")
        if limits.concurrency and self.open() + 1 > limits.concurrency:
            found.add("concurrency")
        counted = self.rows(window_id, "open", "committed")
        if limits.quota and limits.quota_hard and counted + rows > limits.quota:
            found.add("quota")
        return found


class TableBesideModel(RuleBasedStateMachine):
    """Three workers on one table, and one model."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "limits.table"
        create_table(self.path, slots=4, workers=WORKERS, boot_id=BOOT, fill=[])
        self.tables = [Table.open(self.path, worker, boot_id=BOOT) for worker in range(WORKERS)]
        self.now = 1_000 * MINUTE_NS
        self.slow: dict[int, Slow] = {}
        self.tickets: list[tuple[int, Ticket, list[Request]]] = []

    def teardown(self) -> None:
        for table in self.tables:
            table.close()
        self.directory.cleanup()

    def window(self) -> int:
        return self.now // MONTH_NS

    def model_of(self, scope: Scope) -> Slow:
        slow = self.slow.get(scope.slot)
        if slow is None or slow.scope.tag != scope.tag:
            burst = scope.tolerance_ns // scope.interval_ns if scope.interval_ns else 0
            slow = Slow(scope, Fraction(burst), self.now)
        slow.fill(self.now)
        return slow

    @rule(passed=st.one_of(st.integers(0, 3 * SECOND_NS), st.sampled_from([SECOND_NS, MONTH_NS])))
    def time_passes(self, passed: int) -> None:
        self.now += passed

    @rule(
        worker=st.integers(0, WORKERS - 1),
        chosen=st.sampled_from([(0,), (0, 1), (0, 1, 2), (2, 1, 0), (0, 1, 2, 3), (0, 1, 4), (4, 0)]),
        rows=st.integers(0, 6),
    )
    def reserve(self, worker: int, chosen: tuple[int, ...], rows: int) -> None:
        scopes = tuple(SCOPES[index] for index in chosen)
        slow = [self.model_of(scope) for scope in scopes]
        before = self.path.read_bytes()
        answer = self.tables[worker].reserve(scopes, rows, self.now, self.window(), window_ends_in_ns=5)
        reasons = {(one.scope.kind, unit) for one in slow for unit in one.refuses(rows, self.window())}
        if reasons:
            assert isinstance(answer, Refusal)
            assert (answer.kind, answer.unit) in reasons
            assert self.path.read_bytes() == before
            self.check_wait(answer, scopes, rows, slow)
            return
        assert isinstance(answer, Ticket)
        request = Request(worker, self.window(), rows)
        for one in slow:
            one.tokens -= 1
            one.requests.append(request)
            self.slow[one.scope.slot] = one
        self.tickets.append((worker, answer, [request]))

    def check_wait(self, answer: Refusal, scopes: tuple[Scope, ...], rows: int, slow: list[Slow]) -> None:
        units = {unit for one in slow for unit in one.refuses(rows, self.window())}
        if "quota" in units:
            assert (answer.unit, answer.retry_after_ns) == ("quota", 5)
        elif "rate" in units:
            missing = [(1 - one.tokens) * one.scope.interval_ns for one in slow if one.scope.interval_ns]
            assert (answer.unit, answer.retry_after_ns) == ("rate", max(missing))
        else:
            assert (answer.unit, answer.retry_after_ns) == ("concurrency", 0)

    @precondition(lambda self: self.tickets)
    @rule(which=st.integers(0, 1 << 16), rows=st.one_of(st.none(), st.integers(0, 6)))
    def end(self, which: int, rows: int | None) -> None:
        worker, ticket, requests = self.tickets.pop(which % len(self.tickets))
        for request in requests:
            request.state = "refunded" if rows is None else "committed"
            request.rows = request.rows if rows is None else rows
        if rows is None:
            assert self.tables[worker].refund(ticket)
        else:
            assert self.tables[worker].commit(ticket, rows)

    @rule(worker=st.integers(0, WORKERS - 1), settler=st.integers(0, WORKERS - 1))
    def a_worker_dies(self, worker: int, settler: int) -> None:
        self.tables[worker].close()
        if settler != worker:
            assert isinstance(self.tables[settler].settle_worker(worker), int)
        self.tables[worker] = Table.open(self.path, worker, boot_id=BOOT)
        assert isinstance(self.tables[worker].settle_worker(worker), int)
        for owner, _, requests in self.tickets:
            if owner == worker:
                for request in requests:
                    request.state = "refunded"
        self.tickets = [one for one in self.tickets if one[0] != worker]

    @invariant()
    def the_accounts_agree(self) -> None:
        for slot, slow in getattr(self, "slow", {}).items():
            found = self.tables[0].totals(slot)
            assert isinstance(found, Totals)
            assert found.balanced
            states = [request.state for request in slow.requests]
            expected = (
                len(states),
                states.count("committed"),
                states.count("refunded"),
                states.count("open"),
            )
            assert (found.admitted, found.committed, found.refunded, found.open) == expected
            assert found.used == slow.rows(found.window_id, "committed")
            assert found.reserved == slow.rows(found.window_id, "open")


TableBesideModel.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestTableBesideModel = TableBesideModel.TestCase
