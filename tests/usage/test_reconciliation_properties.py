"""Stories of gate, Triton and daemon in any order: never a false word, nothing lost but with Triton."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from lotabotsd.foundation.canonical import canonical_json, strict_json
from lotabotsd.usage.reconciliation import (
    NOTHING,
    Account,
    Count,
    Look,
    Passed,
    State,
    compare,
    read_state,
    state_value,
)

M = "m"

# What may happen between two moments, and what Triton, gate and daemon then know.

GATE = ("open", "run", "serve", "fail", "canary")
STEPS = (*GATE, "serve_early", "die", "load", "load_one", "unload", "sample", "restart_daemon")
UNUSED = {"1": NOTHING, "2": NOTHING}


@dataclass
class Story:
    """Triton, a gate whose journals are never wrong, and a daemon that samples."""

    state: State = field(default_factory=State)
    run: int = 1
    counters: dict[str, Count] = field(default_factory=lambda: dict(UNUSED))  # none: it is not loaded
    opened: list[list[Any]] = field(default_factory=list)  # rows, whether Triton counted it
    late: list[tuple[int, int]] = field(default_factory=list)  # rows, sample: answered and not counted yet
    passed: Passed = field(default_factory=Passed)
    own: dict[str, int] = field(default_factory=dict)
    true: Count = NOTHING
    lost: Count = NOTHING  # counted since the last sample when the counters began anew
    fresh: Count = NOTHING  # counted since the last sample
    samples: int = 0

    def count(self, rows: int) -> None:
        version = "2" if rows % 2 else "1"
        self.counters[version] += Count(1, rows)
        self.true += Count(1, rows)
        self.fresh += Count(1, rows)

    def step(self, name: str, rows: int, inside: list[tuple[str, int]]) -> None:
        counted = [one for one in self.opened if one[1]]
        waiting = [one for one in self.opened if not one[1]]
        if name == "open":
            self.opened.append([rows, False])
        elif name == "run" and waiting and self.counters:
            waiting[0][1] = True
            self.count(waiting[0][0])
        elif name == "serve" and counted:
            self.opened.remove(counted[0])
            self.passed += Passed(answered=Count(1, counted[0][0]))
        elif (
            name == "serve_early" and waiting and self.counters
        ):  # the answer is there a moment before it is counted
            self.opened.remove(waiting[0])
            self.passed += Passed(answered=Count(1, waiting[0][0]))
            self.late.append((waiting[0][0], self.samples))
        elif name == "fail" and self.opened:
            self.passed += Passed(unanswered=Count(1, self.opened.pop(0)[0]))
        elif name == "canary":
            self.own[str(self.run)] = self.own.get(str(self.run), 0) + 1
            if rows % 3 and self.counters:  # else it had no answer
                self.count(1)
        elif name in ("die", "unload", "load"):
            self.run += name == "die"
            self.counters = dict(UNUSED) if name == "load" else {}
            self.lost, self.fresh = self.lost + self.fresh, NOTHING
            self.late = []
        elif name == "load_one" and self.counters:  # the other version goes on
            self.counters["2"] = NOTHING
            self.late = [one for one in self.late if one[0] % 2 == 0]
        elif name == "sample":
            self.sample(inside)
        elif name == "restart_daemon":
            self.state = read_state(strict_json(canonical_json(state_value(self.state))))

    def sample(self, inside: list[tuple[str, int]]) -> None:
        """The world goes on while the daemon looks: before Triton is asked, and before the ledger again."""
        for rows, since in list(self.late):
            if since < self.samples:
                self.late.remove((rows, since))
                self.count(rows)
        self.samples += 1
        run = str(self.run)
        before, own_before = self.snapshot(), {M: self.own.get(run, 0)}
        for name, rows in inside[::2]:
            self.step(name, rows, [])
        counters, asked = dict(self.counters), str(self.run)
        fresh, self.fresh = self.fresh, NOTHING
        for name, rows in inside[1::2]:
            self.step(name, rows, [])
        if not run == asked == str(self.run):
            self.lost += fresh  # not the same run before and after: the sample is thrown away
            return
        self.state = compare(
            self.state,
            Look(
                at=10 * self.samples,
                run=run,
                counters={M: counters} if counters else {},
                before={M: before},
                own_before=own_before,
                passed={M: self.snapshot()},
                own={M: self.own.get(run, 0)},
            ),
        )

    def snapshot(self) -> Passed:
        rows = sum(one[0] for one in self.opened)
        return self.passed + Passed(open=Count(len(self.opened), rows))

    @property
    def account(self) -> Account:
        return self.state.accounts.get(M, Account())


def steps(*names: str) -> st.SearchStrategy[Any]:
    inner = [name for name in names if name not in ("sample", "restart_daemon")]
    inside = st.lists(st.tuples(st.sampled_from(inner), st.integers(1, 9)), max_size=8)
    return st.lists(st.tuples(st.sampled_from(names), st.integers(1, 9), inside), max_size=60)


@settings(max_examples=400, deadline=None)
@given(story=steps(*STEPS))
def test_nothing_is_ever_certain_when_nothing_went_around_the_gate(story: list[Any]) -> None:
    world = Story()
    for name, rows, inside in story:
        world.step(name, rows, inside)
        assert world.account.unaccounted == NOTHING


@settings(max_examples=300, deadline=None)
@given(story=steps(*GATE, "die", "sample", "restart_daemon"))
def test_the_sum_is_what_triton_truly_counted_but_for_what_died_with_it(story: list[Any]) -> None:
    world = Story()
    world.sample([])  # of a Triton that counted nothing yet
    for name, rows, inside in story:
        inside = [one for one in inside if one[0] != "die"]  # else the sample itself is thrown away
        world.step(name, rows, inside)
        if name == "die":
            world.step("load", rows, [])
    world.sample([])
    assert world.account.counted == world.true - world.lost


@settings(max_examples=300, deadline=None)
@given(story=steps("open", "run", "serve", "canary", "sample", "restart_daemon"), around=st.integers(1, 5))
def test_what_went_around_the_gate_is_found_once_all_others_are_answered(
    story: list[Any], around: int
) -> None:
    world = Story()
    world.sample([])
    for name, rows, _inside in story:
        world.step(name, 1 if name == "canary" else rows, [])
    for _ in range(around):
        world.count(2)
    for name in ("run", "serve"):
        for _ in range(len(world.opened)):
            world.step(name, 1, [])
    world.sample([])
    assert world.account.unaccounted == Count(around, 2 * around)
