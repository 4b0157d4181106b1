"""Format 2 of the usage report: what it says of Triton's counters, and what the vendor is told of that."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.foundation.canonical import canonical_json
from lotabotsd.foundation.envelope import PayloadType, sign
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.reconciliation import MAX_SUM, NOTHING, Count, Look, Passed, State, compare
from lotabotsd.usage.reconciliation_store import keep_state, load_state, note_own, read_held
from lotabotsd.usage.records import Outcome
from lotabotsd.usage.report import (
    ReportVerdict,
    Severity,
    build_report,
    check_report,
    freeze,
    latest_report,
    preview,
)
from lotabotsd.usage.report_zip import CSV, README, pack, unpack

GOLDEN = Path(__file__).parent.parent / "golden"
M = "page_orientation"  # the model of every request in a box


NEVER = State()


def sampled(box: Any, counters: dict[str, Count], state: State = NEVER, **changes: Any) -> State:
    """The state after a sample with the box's ledger as it is."""
    box.drain()
    held = read_held(box.ledger)
    run = changes.get("run", "a")
    fields: dict[str, Any] = {
        "at": box.now(),
        "run": run,
        "counters": {name: {"1": count} for name, count in counters.items()},
        "before": held.passed,
        "own_before": held.own.get(run, {}),
        "passed": held.passed,
        "own": held.own.get(run, {}),
    }
    return compare(state, Look(**{**fields, **changes}))


def begun(box: Any) -> State:
    """A comparison that begins before Triton counted anything."""
    return sampled(box, {}, run="")


def report_of(box: Any, state: State | None) -> bytes:
    """The report of everything up to now."""
    box.clock.advance(3_600)
    frozen = freeze(box.ledger, box.seal().until, box.about(compared=state), box.now())
    return build_report(box.ledger, frozen, box.key)


def reconciliation(data: bytes) -> Any:
    return body_of(data)["data_condition"]["reconciliation"]


def body_of(data: bytes) -> Any:
    return json.loads(base64.b64decode(json.loads(unpack(data)["report.dsse.json"])["payload"]))


def told(data: bytes) -> list[tuple[str, Severity]]:
    check = check_report(data)
    assert check.verdict is not ReportVerdict.INVALID, check.findings
    return [(finding.code, finding.severity) for finding in check.findings]


def changed(box: Any, data: bytes, change: Callable[[Any], object]) -> bytes:
    """The same with another body, well signed."""
    body, contents = body_of(data), unpack(data)
    change(body)
    signed = sign(PayloadType.USAGE_REPORT, canonical_json(body), [box.key]).to_json()
    return pack(signed, contents[CSV], contents[README])


def test_a_body_has_its_frozen_bytes(box: Any) -> None:
    state = begun(box)
    note_own(box.ledger, "a", M, 2)
    journal = box.worker()
    for outcome, inferences in ((Outcome.SERVED, 8), (Outcome.MODEL_ERROR, 0), (Outcome.REFUSED_QUOTA, 0)):
        box.close(journal, box.open(journal, reserved=8), outcome=outcome, inferences=inferences)
    box.open(journal, reserved=3)
    box.clock.advance(60)
    counters = {M: Count(7, 40), "never-called": Count(1, 1)}
    state = sampled(box, counters, state, by_request=frozenset({"never-called"}))
    box.clock.advance(3_600 - 60)
    until = box.seal().until
    shown = preview(box.ledger, until, box.about(compared=state), box.now())
    assert shown.body == (GOLDEN / "usage-report-body-2.json").read_bytes().rstrip(b"\n")


def test_without_a_comparison_a_report_keeps_the_first_format(box: Any) -> None:
    box.serve(box.worker())
    body = body_of(report_of(box, None))
    assert body["format"] == 1
    assert "reconciliation" not in body["data_condition"]


def test_a_report_frozen_in_the_first_format_is_written_so_for_ever(box: Any) -> None:
    box.serve(box.worker())
    first = report_of(box, None)
    frozen = latest_report(box.ledger)
    second = report_of(box, begun(box))
    assert build_report(box.ledger, frozen, box.key) == first
    assert (body_of(first)["format"], body_of(second)["format"]) == (1, 2)
    assert [check_report(data).verdict for data in (first, second)] == [ReportVerdict.VALID] * 2


def test_where_both_agree_nothing_is_told(box: Any) -> None:
    state = begun(box)
    box.serve(box.worker(), inferences=4)
    data = report_of(box, sampled(box, {M: Count(1, 4)}, state))
    assert told(data) == []
    found = reconciliation(data)["models"][M]
    assert (found["counted"], found["answered"]) == ({"inferences": 4, "requests": 1},) * 2
    assert found["compared"] == "all"


def test_what_triton_certainly_ran_beyond_the_ledger_is_a_warning_with_its_time(box: Any) -> None:
    state = begun(box)
    box.serve(box.worker(), inferences=4)
    box.clock.advance(60)
    check = check_report(report_of(box, sampled(box, {M: Count(3, 6)}, state)))
    assert check.verdict is ReportVerdict.VALID_WITH_FINDINGS
    [finding] = check.findings
    assert (finding.code, finding.severity) == ("unaccounted", Severity.WARNING)
    assert finding.detail == (
        f"{M}: Triton ran at least 2 requests with 2 inferences that the ledger does not hold"
    )
    assert (finding.since, finding.until) == ("2026-11-23T04:10:00Z", "2026-11-23T04:11:00Z")


def test_what_may_be_a_failed_request_is_not_held_against_anybody(box: Any) -> None:
    state = begun(box)
    journal = box.worker()
    box.close(journal, box.open(journal, reserved=4), outcome=Outcome.MODEL_ERROR, inferences=0)
    data = report_of(box, sampled(box, {M: Count(1, 4)}, state))
    assert told(data) == []
    found = reconciliation(data)["models"][M]
    assert (found["unsure"], found["certain"]["requests"]) == ({"inferences": 4, "requests": 1}, 0)


def test_each_report_tells_what_came_since_the_last_one(box: Any) -> None:
    state = begun(box)
    box.serve(box.worker(epoch=1), inferences=4)
    state = sampled(box, {M: Count(2, 8)}, state)
    first = report_of(box, state)
    box.serve(box.worker(epoch=2), inferences=1)
    state = sampled(box, {M: Count(3, 9)}, state)
    second = report_of(box, state)
    assert (told(first), told(second)) == ([("unaccounted", Severity.WARNING)], [])
    found = reconciliation(second)
    assert found["models"][M]["counted"] == {"inferences": 1, "requests": 1}
    assert (found["since"], found["runs"]) == (reconciliation(first)["until"], 0)


def test_models_without_usage_leave_no_name_and_are_found_all_the_same(box: Any) -> None:
    state = begun(box)
    box.serve(box.worker())
    counters = {M: Count(1, 1), "secret-project": Count(5, 5), "other": Count(1, 1)}
    data = report_of(box, sampled(box, counters, state))
    assert b"secret-project" not in base64.b64decode(json.loads(unpack(data)["report.dsse.json"])["payload"])
    assert reconciliation(data)["others"]["models"] == 2
    [finding] = check_report(data).findings
    assert finding.detail.startswith(
        "2 model(s) without usage in this report: Triton ran at least 6 requests"
    )


def test_a_runtime_that_was_never_sampled_is_a_note(box: Any) -> None:
    data = report_of(box, State())
    assert told(data) == [("not_compared", Severity.NOTE)]
    assert (reconciliation(data)["since"], reconciliation(data)["until"]) == (None, None)
    assert check_report(data).verdict is ReportVerdict.VALID


def test_a_runtime_that_was_sampled_no_more_is_a_note(box: Any) -> None:
    state = begun(box)
    box.clock.advance(3 * 3_600)
    assert told(report_of(box, state)) == [("not_compared", Severity.NOTE)]


def test_a_comparison_that_was_lost_begins_anew_in_the_next_report(box: Any) -> None:
    state = begun(box)
    box.serve(box.worker())
    report_of(box, sampled(box, {M: Count(1, 1)}, state))
    assert told(report_of(box, State())) == [("not_compared", Severity.NOTE)]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"by_request": frozenset({M})}, "only its requests were compared"),
        ({"clouded": True}, "it was not compared"),
    ],
)
def test_a_model_that_could_not_be_compared_is_named(box: Any, changes: Any, part: str) -> None:
    state = begun(box)
    box.serve(box.worker())
    data = report_of(box, sampled(box, {M: Count(1, 9)}, state, **changes))
    [finding] = check_report(data).findings
    assert (finding.code, finding.severity) == ("compared_in_part", Severity.NOTE)
    assert part in finding.detail


def test_a_model_that_triton_no_longer_has_was_not_compared(box: Any) -> None:
    state = begun(box)
    box.serve(box.worker())
    assert told(report_of(box, sampled(box, {}, state))) == [("compared_in_part", Severity.NOTE)]


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r.pop("runs"),
        lambda r: r.update(more=1),
        lambda r: r.update(runs=-1),
        lambda r: r.update(since=None),
        lambda r: r.update(until="yesterday"),
        lambda r: r.update(models=[]),
        lambda r: r["models"].update(x={}),
        lambda r: r["models"][M].update(compared="mostly"),
        lambda r: r["models"][M].update(compared=[]),
        lambda r: r["models"][M].update(counted={"requests": 1}),
        lambda r: r["models"][M]["certain"].update(requests="1"),
        lambda r: r["models"][M]["certain"].update(requests=-1),
        lambda r: r["others"].pop("models"),
    ],
)
def test_a_comparison_of_another_form_is_refused(box: Any, change: Callable[[Any], object]) -> None:
    box.serve(box.worker())
    data = report_of(box, sampled(box, {M: Count(1, 1)}, begun(box)))
    check = check_report(changed(box, data, lambda body: change(body["data_condition"]["reconciliation"])))
    assert [finding.code for finding in check.findings] == ["body"]


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["models"][M]["counted"].update(requests=99),
        lambda r: r["models"].update(named=r["models"][M]),
    ],
)
def test_a_comparison_that_does_not_add_up_is_refused(box: Any, change: Callable[[Any], object]) -> None:
    box.serve(box.worker())
    data = report_of(box, sampled(box, {M: Count(1, 1)}, begun(box)))
    check = check_report(changed(box, data, lambda body: change(body["data_condition"]["reconciliation"])))
    assert ("data_condition", Severity.ERROR) in [(f.code, f.severity) for f in check.findings]


@pytest.mark.parametrize("form", [1, 3, 0, True, "2"])
def test_a_comparison_belongs_to_the_second_format_alone(box: Any, form: Any) -> None:
    box.serve(box.worker())
    data = report_of(box, begun(box))
    assert check_report(changed(box, data, lambda b: b.update(format=form))).verdict is ReportVerdict.INVALID


def test_the_ledger_tells_requests_that_reached_triton_from_those_that_did_not(box: Any) -> None:
    journal = box.worker()
    box.serve(journal, inferences=3)
    box.close(journal, box.open(journal, reserved=5), outcome=Outcome.RUNTIME_FAILED, inferences=0)
    box.close(journal, box.open(journal), outcome=Outcome.REFUSED_RATE, inferences=0)
    box.open(journal, reserved=7)
    box.drain()
    assert read_held(box.ledger).passed == {M: Passed(Count(1, 3), Count(1, 5), Count(1, 7))}
    journal.close()
    box.drain()  # the worker is gone: what it left open was aborted
    assert read_held(box.ledger).passed == {M: Passed(Count(1, 3), Count(2, 12), NOTHING)}


def test_a_state_survives_and_one_that_cannot_be_read_begins_anew(box: Any) -> None:
    state = sampled(box, {M: Count(3, 4)})
    keep_state(box.ledger, state, {"a"})
    assert load_state(box.ledger) == state
    keep_state(box.ledger, replace(state, until=9), {"a"})
    assert load_state(box.ledger).until == 9
    for damage in ("", "{}", "[]", "null", '{"format":1,"accounts":[1]}'):
        with box.ledger.transaction() as connection:
            connection.execute("UPDATE reconciliation SET state = ?", (damage,))
        assert load_state(box.ledger) == State()


def test_our_own_requests_are_kept_by_run_and_forgotten_with_it(box: Any) -> None:
    for run, requests in (("a", 1), ("b", 2), ("b", 3)):
        note_own(box.ledger, run, M, requests)
    assert read_held(box.ledger).own == {"a": {M: 1}, "b": {M: 5}}
    keep_state(box.ledger, State(), {"b"})
    assert read_held(box.ledger).own == {"b": {M: 5}}


def test_a_triton_that_exaggerates_in_every_run_still_leaves_a_report(box: Any) -> None:
    box.serve(box.worker())
    state = begun(box)
    for number in range(12):
        box.clock.advance(10)
        counters = {M: Count((1 << 48) - 1, (1 << 48) - 1), "another": Count((1 << 48) - 1, 0)}
        state = sampled(box, counters, state, run=f"run{number}")
    data = report_of(box, state)
    assert reconciliation(data)["models"][M]["counted"]["requests"] == MAX_SUM
    assert ("unaccounted", Severity.WARNING) in told(data)


@pytest.mark.parametrize("number", [1 << 63, -1])
def test_a_body_that_its_reader_refuses_is_never_frozen(box: Any, number: int) -> None:
    box.serve(box.worker())
    state = sampled(box, {M: Count(1, 1)}, begun(box))
    account = replace(state.accounts[M], passed=Passed(open=Count(number, 0)))
    broken = replace(state, accounts={M: account})
    box.clock.advance(3_600)
    until, about = box.seal().until, box.about(compared=broken)
    for attempt in (freeze, preview):
        with pytest.raises(LotaBotsError, match=r"data_condition\.reconciliation") as failure:
            attempt(box.ledger, until, about, box.now())
        assert failure.value.code is Code.REPORT_INVALID
        assert latest_report(box.ledger) is None
    assert check_report(report_of(box, state)).facts is not None, "the range is free for a report"
