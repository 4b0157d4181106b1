"""Usage reports: frozen first, the same bytes for ever, each where the last one ended."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.usage.batch import Finding, FindingKind
from lotabotsd.usage.records import Outcome
from lotabotsd.usage.report import (
    ReportVerdict,
    build_report,
    check_report,
    export_report,
    freeze,
    latest_report,
    list_reports,
    preview,
)
from lotabotsd.usage.report_body import pseudonym
from lotabotsd.usage.report_zip import unpack

GOLDEN = Path(__file__).parent.parent / "golden"


def frozen_now(box: Any, **changes: Any) -> Any:
    """Use the appliance for an hour, seal it, freeze a report."""
    journal = box.worker(epoch=box.now())
    box.serve(journal, inferences=3)
    journal.close()
    box.clock.advance(3_600)
    return freeze(box.ledger, box.seal().until, box.about(**changes), box.now())


def export(box: Any, **options: Any) -> list[Any]:
    until = box.seal(cut=True).until
    return export_report(
        box.ledger, box.outbox, box.key, until=until, about=box.about(), now=box.now(), **options
    )


def body_of(data: bytes) -> Any:
    return json.loads(base64.b64decode(json.loads(unpack(data)["report.dsse.json"])["payload"]))


def test_a_body_has_its_frozen_bytes(box: Any) -> None:
    journal = box.worker()
    for outcome, inferences in ((Outcome.SERVED, 8), (Outcome.CLIENT_GONE, 2), (Outcome.REFUSED_QUOTA, 0)):
        box.close(journal, box.open(journal), outcome=outcome, inferences=inferences)
    box.drain()
    then = box.clock.wall_ns()
    box.clock.advance(3_600)
    box.seal()
    box.close(journal, box.open(journal, key_id="other0000000"), wall_ns=then)
    box.ledger.note(Finding(FindingKind.DAMAGE, 0, 1, 2, 64, detail="64 bytes"))
    box.clock.advance(2 * 3_600)
    until = box.seal().until
    shown = preview(box.ledger, until, box.about(), box.now())
    assert shown.body == (GOLDEN / "usage-report-body.json").read_bytes().rstrip(b"\n")


def test_what_is_frozen_is_built_valid(box: Any) -> None:
    frozen = frozen_now(box)
    check = check_report(build_report(box.ledger, frozen, box.key))
    assert (check.verdict, check.findings) == (ReportVerdict.VALID, ())
    assert check.facts is not None
    assert check.facts.report_hash == frozen.report_hash.hex()
    assert (check.facts.sequence, check.facts.first, check.facts.last) == (1, 1, 2)
    assert check.facts.head == box.ledger.head().hash
    assert check.facts.totals["charged"]["inferences"] == 3
    assert check.facts.appliance_id == "apl_test"
    assert frozen.file_name == "lotabots-usage-apl_test-000001.zip"


def test_building_again_gives_the_same_bytes_whatever_happened_since(box: Any) -> None:
    frozen = frozen_now(box)
    first = build_report(box.ledger, frozen, box.key)
    frozen_now(box, licence=None, development=True, organisation_names={})
    again = latest_report(box.ledger)
    assert again.sequence == 2
    assert build_report(box.ledger, list_reports(box.ledger)[0], box.key) == first


def test_each_report_goes_on_where_the_last_one_ended(box: Any) -> None:
    first, second = frozen_now(box), frozen_now(box)
    assert (second.sequence, second.first) == (2, first.last + 1)
    assert second.previous_head == first.head
    assert second.previous_report_hash == first.report_hash
    assert second.period_from == first.period_until
    check = check_report(build_report(box.ledger, second, box.key))
    assert check.verdict is ReportVerdict.VALID
    assert list_reports(box.ledger) == [first, second]
    assert latest_report(box.ledger) == second


def test_a_report_of_an_idle_month_is_written_too(box: Any) -> None:
    box.clock.advance(30 * 86_400)
    [frozen] = export(box)
    facts = check_report(box.outbox.read(frozen.file_name)).facts
    assert facts.data_condition["zero_windows"] == 721
    assert facts.totals["charged"]["requests"] == 0


def test_nothing_sealed_is_nothing_to_report(box: Any) -> None:
    with pytest.raises(LotaBotsError) as caught:
        freeze(box.ledger, box.now(), box.about(), box.now())
    assert caught.value.code is Code.REPORT_EMPTY
    assert latest_report(box.ledger) is None


def test_a_range_is_reported_once(box: Any) -> None:
    frozen = frozen_now(box)
    with pytest.raises(LotaBotsError) as caught:
        freeze(box.ledger, frozen.period_until, box.about(), box.now())
    assert caught.value.code is Code.REPORT_OVERLAP


def test_a_report_ends_with_the_last_window_that_ended_by_then(box: Any) -> None:
    box.clock.advance(3 * 3_600)
    until = box.seal().until
    frozen = freeze(box.ledger, until - 1, box.about(), box.now())
    assert frozen.period_until == until - 3_600


def test_after_a_crash_between_freezing_and_writing_the_same_bytes_are_written(box: Any) -> None:
    lost = frozen_now(box)
    expected = build_report(box.ledger, lost, box.key)
    box.clock.advance(3_600)
    written = export(box)
    assert [frozen.sequence for frozen in written] == [1, 2]
    assert box.outbox.read(lost.file_name) == expected


def test_a_pending_report_is_written_although_there_is_nothing_new(box: Any) -> None:
    lost = frozen_now(box)
    written = export_report(
        box.ledger, box.outbox, box.key, until=lost.period_until, about=box.about(), now=box.now()
    )
    assert written == [lost]


def test_exporting_twice_says_that_it_was_done(box: Any) -> None:
    export(box)
    with pytest.raises(LotaBotsError) as caught:
        export(box)
    assert caught.value.code is Code.REPORT_OVERLAP


def test_a_report_that_was_sent_is_not_written_again(box: Any) -> None:
    [frozen] = export(box)
    box.outbox.move(frozen.file_name, list(type(box.outbox.entries()[0].folder))[2])
    box.clock.advance(3_600)
    assert [f.sequence for f in export(box)] == [2]


def test_a_large_range_becomes_several_reports_that_tile_it(box: Any) -> None:
    box.clock.advance(10 * 3_600)
    written = export(box, max_rows=4)
    assert [frozen.sequence for frozen in written] == [1, 2, 3]
    checks = [check_report(box.outbox.read(frozen.file_name)) for frozen in written]
    assert all(check.verdict is ReportVerdict.VALID for check in checks)
    assert [len(check.facts.rows) for check in checks] == [4, 4, 3]
    for before, after in itertools.pairwise(checks):
        assert after.facts.period_from == before.facts.period_until
        assert after.facts.previous_head == before.facts.head


def test_a_window_larger_than_a_report_is_not_torn_apart(box: Any) -> None:
    journal = box.worker()
    for number in range(6):
        box.close(journal, box.open(journal, model=f"m{number}"))
    box.clock.advance(2 * 3_600)
    written = export(box, max_rows=3)
    assert [frozen.last - frozen.first + 1 for frozen in written] == [7, 2]


def test_another_key_cannot_sign_a_frozen_report(box: Any) -> None:
    frozen = frozen_now(box)
    with pytest.raises(LotaBotsError) as caught:
        build_report(box.ledger, frozen, Ed25519PrivateKey.generate())
    assert caught.value.code is Code.CONFLICT


def change_a_row(box: Any) -> None:
    with box.ledger.reading() as connection:
        connection.executescript(
            "DROP TRIGGER windows_stay_as_they_are; UPDATE windows SET inferences = 1 WHERE sequence = 1"
        )


def test_a_report_is_not_built_from_changed_rows(box: Any) -> None:
    frozen = frozen_now(box)
    change_a_row(box)
    with pytest.raises(LotaBotsError) as caught:
        build_report(box.ledger, frozen, box.key)
    assert caught.value.code is Code.LEDGER_DAMAGED


def test_a_report_is_not_frozen_over_a_broken_chain(box: Any) -> None:
    box.serve(box.worker(), inferences=3)
    box.clock.advance(3_600)
    until = box.seal().until
    change_a_row(box)
    with pytest.raises(LotaBotsError) as caught:
        freeze(box.ledger, until, box.about(), box.now())
    assert caught.value.code is Code.LEDGER_DAMAGED
    assert latest_report(box.ledger) is None


def test_a_preview_shows_the_bytes_that_leave_and_changes_nothing(box: Any) -> None:
    box.serve(box.worker())
    box.clock.advance(3_600)
    until = box.seal().until
    shown = preview(box.ledger, until, box.about(), box.now())
    assert latest_report(box.ledger) is None
    frozen = freeze(box.ledger, until, box.about(), box.now())
    assert hashlib.sha256(shown.body).digest() == frozen.report_hash
    contents = unpack(build_report(box.ledger, frozen, box.key))
    assert (contents["usage.focus.csv"], contents["README.txt"]) == (shown.csv, shown.readme)
    assert (shown.period_from, shown.period_until) == (frozen.period_from, frozen.period_until)


def test_only_names_that_occur_leave_the_building(box: Any) -> None:
    names = {"org_aaaaaaaaaaaaaaaa": "Research", "org_b": "Secret project"}
    data = build_report(box.ledger, frozen_now(box, organisation_names=names), box.key)
    assert body_of(data)["names"]["organisations"] == {"org_aaaaaaaaaaaaaaaa": "Research"}
    assert b"Secret project" not in data


def test_names_leave_as_pseudonyms_when_asked(box: Any) -> None:
    data = build_report(box.ledger, frozen_now(box, pseudonym_secret=b"s" * 32), box.key)
    names = body_of(data)["names"]
    assert names["pseudonyms"] is True
    assert names["organisations"] == {
        "org_aaaaaaaaaaaaaaaa": pseudonym(b"s" * 32, "organisation", "Research")
    }
    for name in ("Research", "frontend"):
        assert name.encode() not in unpack(data)["usage.focus.csv"]
        assert name not in json.dumps(body_of(data))
    assert check_report(data).verdict is ReportVerdict.VALID


def test_pseudonyms_are_stable_and_tell_kinds_and_secrets_apart() -> None:
    made = pseudonym(b"a", "key", "x")
    assert made == pseudonym(b"a", "key", "x")
    assert made.startswith("p-")
    others = {pseudonym(b"b", "key", "x"), pseudonym(b"a", "organisation", "x"), pseudonym(b"a", "key", "y")}
    assert len({made, *others}) == 4


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "a\nb\0c", "x" * 1_000, "\u202egnol", "", "Zoë"])
def test_names_of_any_kind_make_a_valid_report(box: Any, name: str) -> None:
    frozen = frozen_now(box, organisation_names={"org_aaaaaaaaaaaaaaaa": name})
    assert check_report(build_report(box.ledger, frozen, box.key)).verdict is ReportVerdict.VALID


def test_without_a_licence_the_report_says_so(box: Any) -> None:
    check = check_report(build_report(box.ledger, frozen_now(box, licence=None), box.key))
    assert check.verdict is ReportVerdict.VALID
    assert check.facts.licence is None


def test_a_finding_is_told_in_one_report_only(box: Any) -> None:
    box.ledger.note(Finding(FindingKind.DAMAGE, 3, 1, 2, 64, count=2, detail="64 bytes"))
    first = check_report(build_report(box.ledger, frozen_now(box), box.key))
    assert first.facts.data_condition["findings"]["by_kind"] == {"damage": 1}
    assert first.facts.data_condition["findings"]["first"][0]["worker"] == 3
    second = check_report(build_report(box.ledger, frozen_now(box), box.key))
    assert second.facts.data_condition["findings"]["total"] == 0


def test_restarts_are_counted_per_report(box: Any) -> None:
    first = check_report(build_report(box.ledger, frozen_now(box), box.key))
    second = check_report(build_report(box.ledger, frozen_now(box), box.key))
    assert [check.facts.data_condition["restarts"] for check in (first, second)] == [1, 1]


def test_very_many_findings_are_counted_and_the_first_hundred_listed(box: Any) -> None:
    for offset in range(150):
        box.ledger.note(Finding(FindingKind.DAMAGE, 0, 1, 0, offset))
    findings = check_report(build_report(box.ledger, frozen_now(box), box.key)).facts.data_condition[
        "findings"
    ]
    assert (findings["total"], len(findings["first"])) == (150, 100)
