"""Triton's counters compared with the ledger in a real appliance, over a simulated Triton and helper."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from counting_machine import MODEL, Machine, Worker

from lotabotsd.daemon.appliance import Appliance
from lotabotsd.daemon.findings import findings_of
from lotabotsd.daemon.models import EnabledModel
from lotabotsd.daemon.reconciling import MAX_UNSAVED, OwnRequests, Reconciling, clouded
from lotabotsd.daemon.rounds import Rounds
from lotabotsd.daemon.status import status_of
from lotabotsd.daemon.wiring import open_gate
from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.config import Config
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.models.facts import ModelFacts
from lotabotsd.runtime.canary import Canary, CanaryTensor
from lotabotsd.runtime.client import UNNAMED, Counted, TritonClient
from lotabotsd.runtime.messages import NO_RUN, RunFacts, TrialFacts, TrialKind
from lotabotsd.usage.ledger import Ledger
from lotabotsd.usage.report import check_report

CANARY = Canary((CanaryTensor("x", "FP32", (1, 3)),), (CanaryTensor("scores", "FP32", (1, 4)),))
RUN = RunFacts("run1", running=True, pid=1, secret="s")


def enabled(**changes: Any) -> EnabledModel:
    return EnabledModel(MODEL, ModelFacts(MODEL, ("1",), "", 8, (), ()), **changes)


@pytest.fixture
def machine(config: Config) -> Iterator[Machine]:
    made = Machine(config)
    yield made
    made.close()


@pytest.fixture
def daemon(open_one: Callable[[], Appliance], machine: Machine) -> Appliance:
    """An appliance that has looked once, before Triton ran."""
    return restarted(open_one)


def restarted(open_one: Callable[[], Appliance], *models: EnabledModel) -> Appliance:
    appliance = open_one()
    appliance.models._models = models or (enabled(),)
    assert appliance.reconciling.look()
    return appliance


@pytest.fixture
def worker(daemon: Appliance, config: Config, machine: Machine, clock: FixedClock) -> Worker:
    return Worker(config, machine, clock)


def look(appliance: Appliance, clock: FixedClock) -> tuple[int, int]:
    """A sample ten seconds later: requests and inferences that are certainly not in the ledger."""
    clock.advance(10)
    assert appliance.reconciling.look()
    found = appliance.reconciling.state.unaccounted
    return found.requests, found.inferences


def counted(appliance: Appliance) -> int:
    return appliance.reconciling.state.accounts[MODEL].counted.requests


def test_a_request_around_the_gate_is_found_and_told(daemon, machine, worker, clock) -> None:
    open_gate(daemon, triton_runs=False)
    machine.start()
    worker.serve(3)
    assert look(daemon, clock) == (0, 0)
    assert "unaccounted" not in {one["code"] for one in status_of(daemon)["warnings"]}
    machine.infer(5)
    assert look(daemon, clock) == (1, 5)
    status = status_of(daemon)
    finding = {one["code"]: one for one in findings_of({**status})}["unaccounted"]
    assert "at least 1 requests with 5 inferences" in finding["message"]
    assert (finding["severity"], MODEL in finding["message"]) == ("warning", True)
    assert "around the gate" in finding["hint"]


def test_a_request_under_way_is_no_difference_at_any_moment_of_it(daemon, machine, worker, clock) -> None:
    machine.start()
    look(daemon, clock)
    number = worker.open(2)
    assert look(daemon, clock) == (0, 0)
    machine.infer(2)
    assert look(daemon, clock) == (0, 0)
    worker.close(number, 2)
    assert look(daemon, clock) == (0, 0)
    assert counted(daemon) == 1


def test_a_record_that_was_dropped_is_found(daemon, machine, worker, clock) -> None:
    """Whoever takes usage out of the journals leaves Triton's counters behind."""
    machine.start()
    worker.serve(1)
    machine.infer(4)  # its OPEN and CLOSE never came to the journal
    assert look(daemon, clock) == (1, 4)


def test_a_restart_of_triton_loses_nothing_that_was_sampled(daemon, machine, worker, clock) -> None:
    machine.start()
    for _ in range(3):
        worker.serve(2)
    assert look(daemon, clock) == (0, 0)
    machine.die()
    assert look(daemon, clock) == (0, 0)
    machine.start()
    for _ in range(4):
        worker.serve(2)
    assert look(daemon, clock) == (0, 0)
    assert (counted(daemon), daemon.reconciling.state.runs) == (7, 2)


def test_a_model_loaded_anew_counts_on(daemon, machine, worker, clock) -> None:
    machine.start()
    for _ in range(3):
        worker.serve(1)
    look(daemon, clock)
    machine.load()
    worker.serve(1)
    assert look(daemon, clock) == (0, 0)
    assert counted(daemon) == 4


def test_a_restart_of_the_daemon_goes_on_where_the_last_one_stopped(
    daemon, machine, worker, clock, open_one
) -> None:
    machine.start()
    worker.serve(1)
    look(daemon, clock)
    daemon.close()
    worker.serve(2)
    machine.infer(7)  # while nobody looks
    again = restarted(open_one)
    assert look(again, clock) == (1, 7)
    assert counted(again) == 3


def test_nothing_is_found_under_concurrent_load_and_one_request_among_it_is(
    daemon, config, machine, clock
) -> None:
    machine.start()
    look(daemon, clock)
    done = threading.Event()
    workers = [Worker(config, machine, clock, number) for number in range(1, 4)]

    def load(worker: Worker) -> int:
        served = 0
        while not done.is_set() and served < 5_000:
            worker.serve(1 + served % 3)
            served += 1
        return served

    with ThreadPoolExecutor(3) as pool:
        loads = [pool.submit(load, worker) for worker in workers]
        try:
            for _ in range(12):
                assert look(daemon, clock) == (0, 0)
            machine.infer(2)
        finally:
            done.set()
        served = sum(one.result() for one in loads)
    assert look(daemon, clock) == (1, 2)
    assert counted(daemon) == served + 1


def test_our_own_canaries_and_warmups_are_subtracted_also_after_a_restart(
    machine, config, clock, open_one
) -> None:
    daemon = restarted(open_one, enabled(warmups=3))
    machine.start()
    asking = OwnRequests(daemon.reconciling, lambda: machine.run.run_id)
    client = TritonClient(config.paths.triton_http, lambda: "s", load_timeout_seconds=5, asking=asking)
    asyncio.run(client.load(MODEL))
    for _ in range(3):
        machine.infer(1)  # the warm-up
    assert asyncio.run(client.canary(MODEL, CANARY)) == ""
    daemon.close()  # before the next sample
    again = restarted(open_one, enabled(warmups=3))
    assert look(again, clock) == (0, 0)
    assert again.reconciling.state.accounts[MODEL].own == 4
    machine.infer(1)
    assert look(again, clock) == (1, 1)


def test_a_canary_is_on_record_before_it_is_sent(daemon, config, machine, clock) -> None:
    machine.start()
    asking = OwnRequests(daemon.reconciling, lambda: machine.run.run_id)
    machine.die()
    client = TritonClient(config.paths.triton_http, lambda: "s", load_timeout_seconds=5, asking=asking)
    with pytest.raises(LotaBotsError) as failure:
        asyncio.run(client.canary(MODEL, CANARY))
    assert failure.value.code is Code.RUNTIME_UNAVAILABLE
    with daemon.ledger.reading() as connection:
        assert connection.execute("SELECT * FROM own_requests").fetchall() == [("run1", MODEL, 1)]


def test_a_canary_to_a_run_on_trial_is_remembered_until_it_serves(daemon, machine, clock) -> None:
    machine.start()
    trial = TrialFacts(TrialKind.BESIDE, "image", "run2", "s")
    machine.run = RunFacts("run1", running=True, pid=1, secret="s", trial=trial)
    daemon.reconciling.note_own("run2", MODEL, 1)
    look(daemon, clock)
    machine.infer(1)  # counted by run2, which is this one from now on
    machine.triton.counted[MODEL] = [1, 1]
    machine.run = RunFacts("run2", running=True, pid=2, secret="s")
    assert look(daemon, clock) == (0, 0)


class FullLedger:
    """A ledger on a disk that is full while `full`."""

    def __init__(self, ledger: Ledger) -> None:
        self.full = True
        self._ledger = ledger
        self.reading = ledger.reading

    def transaction(self) -> Any:
        if self.full:
            raise LotaBotsError(Code.DISK_FULL, "ledger.db")
        return self._ledger.transaction()


class OneRunAfterTheOther:
    """A helper that tells of another run each time."""

    def __init__(self, *runs: RunFacts) -> None:
        self._runs = iter(runs)

    async def inspect(self) -> RunFacts:
        return next(self._runs)


def comparing(appliance: Appliance, clock: FixedClock, **parts: Any) -> Reconciling:
    """A comparison over the appliance's ledger with other parts: ledger, problems, helper, counters."""

    async def counters() -> dict[str, dict[str, Counted]]:
        return {MODEL: {"1": Counted(1, 1)}}

    return Reconciling(
        parts.get("ledger", appliance.ledger),
        lambda: None,
        parts.get("problems", tuple),
        parts.get("helper", OneRunAfterTheOther(RUN, RUN)),
        lambda secret: parts.get("counters", counters),
        lambda: [enabled()],
        clock,
    )


def test_our_own_requests_that_the_disk_has_no_room_for_are_remembered(daemon, clock) -> None:
    ledger = FullLedger(daemon.ledger)
    reconciling = comparing(daemon, clock, ledger=ledger)
    reconciling.note_own(RUN.run_id, MODEL, 1)
    ledger.full = False
    assert reconciling.look()
    account = reconciling.state.accounts[MODEL]
    assert (account.counted.requests, account.own, account.unaccounted.requests) == (1, 1, 0)


def test_a_sample_across_a_change_of_run_is_thrown_away(daemon, clock) -> None:
    other = RunFacts("another", running=True, pid=9, secret="s")
    for runs in ((RUN, other), (RUN, NO_RUN)):
        reconciling = comparing(daemon, clock, helper=OneRunAfterTheOther(*runs))
        assert not reconciling.look()
        assert MODEL not in reconciling.state.accounts


def test_while_a_journal_cannot_be_read_nothing_is_judged(daemon, clock) -> None:
    assert not comparing(daemon, clock, problems=lambda: ["0/1.seg: denied"]).look()
    assert comparing(daemon, clock).look()


def test_a_triton_that_takes_its_time_is_asked_again_later(daemon, clock) -> None:
    async def late() -> dict[str, dict[str, Counted]]:
        raise TimeoutError

    assert not comparing(daemon, clock, counters=late).look()


def test_without_a_helper_or_with_a_silent_triton_there_is_nothing_to_see(
    open_one, config, machine, clock
) -> None:
    daemon = restarted(open_one)
    machine.start()
    running = machine.run
    machine.die()
    machine.run = running  # the helper has not noticed yet
    asyncio.run(Rounds(daemon).reconcile())
    assert not daemon.reconciling.look()
    machine.close()
    config.paths.helper_socket.unlink()
    assert not daemon.reconciling.look()
    assert daemon.reconciling.state.runs == 0


def test_a_report_takes_a_last_sample_and_tells_the_vendor(daemon, machine, worker, clock) -> None:
    machine.start()
    worker.serve(2)
    machine.infer(3)
    clock.advance(3_600)
    (report,) = daemon.reports.export("")
    check = check_report(daemon.reports.read(report["name"]))
    assert check.facts is not None
    assert check.facts.reconciliation is not None
    assert check.facts.reconciliation.until == clock.wall_ns() // 10**9
    assert {finding.code for finding in check.findings} == {"unaccounted", "development"}
    assert daemon.reconciling.value()["new_requests"] == 0, "it was told in this report"
    assert daemon.reconciling.value()["requests"] == 1


def test_a_preview_shows_the_comparison(daemon, machine, worker, clock) -> None:
    machine.start()
    worker.serve(2)
    look(daemon, clock)
    clock.advance(3_600)
    daemon.bookkeeping.drain_and_seal()
    body = daemon.reports.preview()["body"]
    assert body["format"] == 2
    assert body["data_condition"]["reconciliation"]["models"][MODEL]["counted"]["requests"] == 1


def test_a_comparison_that_stands_still_is_a_warning(daemon, clock) -> None:
    open_gate(daemon, triton_runs=False)
    status = status_of(daemon)
    status["runtime"] |= {"state": "ready", "seconds_in_state": 5_000}
    assert "not_compared" not in {one["code"] for one in findings_of(status)}
    status["appliance"]["now_ns"] += 700 * 10**9
    found = {one["code"]: one for one in findings_of(status)}
    assert (found["not_compared"]["severity"], bool(found["not_compared"]["hint"])) == ("warning", True)


@pytest.mark.parametrize(
    ("models", "live", "expected"),
    [
        ([enabled()], {MODEL: {}}, False),
        ([enabled(asks_others=True)], {MODEL: {}}, True),
        ([enabled(asks_others=True)], {}, False),
        ([], {MODEL: {}}, True),
        ([EnabledModel(MODEL)], {MODEL: {}}, True),
        ([], {}, False),
    ],
)
def test_nothing_is_certain_while_a_model_may_ask_others(models: Any, live: Any, expected: bool) -> None:
    assert clouded(models, live) is expected


def test_a_comparison_that_fails_keeps_no_report_from_being_written(daemon, clock) -> None:
    def cannot() -> None:
        raise LotaBotsError(Code.DISK_FULL, "no room to compare")

    daemon.reconciling._count_journals = cannot
    clock.advance(3_600)
    (report,) = daemon.reports.export("")
    assert check_report(daemon.reports.read(report["name"])).facts is not None


def test_a_live_model_without_a_usable_name_clouds_and_has_no_account(daemon, clock) -> None:
    async def counters() -> dict[str, dict[str, Counted]]:
        return {MODEL: {"1": Counted(1, 1)}, UNNAMED: {}, "huge": {}}

    reconciling = comparing(daemon, clock, counters=counters)
    assert reconciling.look()
    assert reconciling.state.accounts.keys() == {MODEL}
    assert reconciling.state.accounts[MODEL].clouded > 0


def test_own_requests_that_were_never_saved_are_forgotten_with_their_run(daemon, clock) -> None:
    ledger = FullLedger(daemon.ledger)
    reconciling = comparing(daemon, clock, ledger=ledger)
    reconciling.note_own("an older run", MODEL, 1)
    reconciling.note_own(RUN.run_id, MODEL, 1)
    ledger.full = False
    assert reconciling.look()
    assert reconciling._unsaved == {(RUN.run_id, MODEL): 1}


def test_of_too_many_unsaved_runs_the_oldest_is_forgotten(daemon, clock) -> None:
    reconciling = comparing(daemon, clock, ledger=FullLedger(daemon.ledger))
    for number in range(MAX_UNSAVED + 1):
        reconciling.note_own(f"run{number}", MODEL, 1)
    assert len(reconciling._unsaved) == MAX_UNSAVED
    assert ("run0", MODEL) not in reconciling._unsaved
