"""Taking acknowledgements: only for what was made here, each once, and kept for good."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.keys import raw_public, thumbprint
from lotabotsd.usage.acknowledged import (
    first_forged,
    judge_acknowledgement,
    last_accepted_at,
    list_acknowledgements,
    rate_cards,
)
from lotabotsd.usage.acknowledgement import AckVerdict
from lotabotsd.usage.verification import Fault

KEY = raw_public(Ed25519PrivateKey.from_private_bytes(bytes([7]) * 32))  # that of conftest's vendor
VENDOR = {thumbprint(KEY): KEY}
REJECTED = {"verdict": AckVerdict.REJECTED, "reasons": ("forked: a cloned machine",)}


def code_of(call: Callable[[], Any]) -> Code:
    with pytest.raises(LotaBotsError) as caught:
        call()
    return caught.value.code


def test_an_acknowledgement_is_kept_once(box: Any) -> None:
    report = box.report()
    assert last_accepted_at(box.ledger, VENDOR) == 0
    issued_at = box.now()
    answer = box.answer(report)
    assert not judge_acknowledgement(box.ledger, answer, "apl_test").known
    first = box.accept(report, issued_at=issued_at)
    box.clock.advance(60)
    again = box.accept(report, issued_at=issued_at)
    assert (first.known, again.known) == (False, True)
    assert first.report == again.report == report
    (kept,) = list_acknowledgements(box.ledger)
    assert (kept.report, kept.accepted, kept.issued_at) == (1, True, issued_at)
    assert kept.received_at == issued_at
    assert last_accepted_at(box.ledger, VENDOR) == issued_at


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"appliance_id": "apl_other"}, Code.ACKNOWLEDGEMENT_ELSEWHERE),
        ({"sequence": 2}, Code.ACKNOWLEDGEMENT_UNKNOWN),
        ({"report_hash": bytes(32)}, Code.ACKNOWLEDGEMENT_MISMATCH),
        ({"head": bytes(32)}, Code.ACKNOWLEDGEMENT_MISMATCH),
        ({"period_from": 1_700_000_000}, Code.ACKNOWLEDGEMENT_MISMATCH),
    ],
)
def test_each_way_of_being_wrong_has_its_code_and_changes_nothing(
    box: Any, changes: dict[str, Any], code: Code
) -> None:
    report = box.report()
    assert code_of(lambda: box.accept(report, **changes)) is code
    assert (
        code_of(lambda: judge_acknowledgement(box.ledger, box.answer(report, **changes), "apl_test")) is code
    )
    assert list_acknowledgements(box.ledger) == []


def test_a_rejected_report_may_be_accepted_later_and_not_rejected_by_an_older_answer(box: Any) -> None:
    report = box.report()
    early = box.now()
    box.clock.advance(100)
    assert not box.accept(report, **REJECTED).known
    assert last_accepted_at(box.ledger, VENDOR) == 0
    box.clock.advance(100)
    box.accept(report)
    assert last_accepted_at(box.ledger, VENDOR) == box.now()
    assert code_of(lambda: box.accept(report, issued_at=early, **REJECTED)) is Code.ACKNOWLEDGEMENT_OLDER
    assert code_of(lambda: box.accept(report, **REJECTED)) is Code.ACKNOWLEDGEMENT_OLDER  # the same second
    assert [kept.accepted for kept in list_acknowledgements(box.ledger)] == [False, True]


def test_answers_to_different_reports_may_come_in_any_order(box: Any) -> None:
    first, second = box.report(), box.report()
    early = box.now()
    box.clock.advance(100)
    box.accept(second)
    newest = box.now()
    box.accept(first, issued_at=early)
    assert [kept.report for kept in list_acknowledgements(box.ledger)] == [1, 2]
    assert last_accepted_at(box.ledger, VENDOR) == newest


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE acknowledgements SET verdict = 'accepted'",
        "DELETE FROM acknowledgements",
        "INSERT INTO acknowledgements VALUES (NULL, x'00', 9, 'accepted', 1, 1, x'00', x'00')",
        "INSERT INTO acknowledgements VALUES (NULL, x'00', 1, 'fine', 1, 1, x'00', x'00')",
    ],
)
def test_what_is_kept_stays(box: Any, statement: str) -> None:
    box.accept(box.report(), **REJECTED)
    with box.ledger.reading() as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    assert [kept.accepted for kept in list_acknowledgements(box.ledger)] == [False]


def test_an_acknowledged_row_that_is_another_now_shows(box: Any) -> None:
    """The newest report may have been rewritten with the rows; what the vendor signed was not."""
    box.accept(box.report())
    box.report()
    with box.ledger.reading() as connection:
        connection.executescript(
            "DROP TRIGGER acknowledgements_stay_as_they_are; UPDATE acknowledgements SET head = zeroblob(32)"
        )
    verdict = box.ledger.verify()
    assert verdict.integrity.fault is Fault.FORKED
    assert "newest acknowledgement" in verdict.integrity.detail


@pytest.mark.parametrize(
    "forgery",
    [
        "issued_at = 1800000000", "verdict = 'accepted'", "head = zeroblob(32)", "digest = zeroblob(32)",
        "envelope = zeroblob(8)", "report = 2",
    ],
)  # fmt: skip
def test_a_row_that_is_not_as_it_was_signed_counts_for_nothing(box: Any, forgery: str) -> None:
    first = box.report()
    box.report()
    box.accept(first)
    moment = last_accepted_at(box.ledger, VENDOR)
    assert (moment, first_forged(box.ledger, VENDOR)) == (box.now(), None)
    box.clock.advance(60)
    box.accept(first, **({} if "verdict" not in forgery else REJECTED))
    with box.ledger.reading() as connection:
        connection.execute("DROP TRIGGER acknowledgements_stay_as_they_are")
        connection.execute(f"UPDATE acknowledgements SET {forgery} WHERE id = 2")  # noqa: S608 - a test's own text
    assert last_accepted_at(box.ledger, VENDOR) == moment
    assert first_forged(box.ledger, VENDOR) == (2 if "report" in forgery else 1)


def test_an_answer_under_a_key_that_nobody_named_counts_for_nothing(box: Any) -> None:
    box.accept(box.report())
    assert last_accepted_at(box.ledger, {}) == 0
    assert first_forged(box.ledger, {}) == 1


def test_without_a_rate_card_there_is_none(box: Any) -> None:
    box.accept(box.report())
    assert rate_cards(box.ledger) == []


def test_a_row_that_cannot_be_read_hides_no_rate_card_and_stops_nothing(box: Any) -> None:
    box.accept(box.report())
    with box.ledger.reading() as connection:
        connection.execute(
            "INSERT INTO acknowledgements VALUES (NULL, zeroblob(32), 1, 'accepted', 1, 1, zeroblob(32), x'')"
        )
    assert rate_cards(box.ledger) == []
