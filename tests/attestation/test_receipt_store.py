"""receipts.db: found by id, kept once, forgotten in time, and made anew when it is damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lotabotsd.attestation.receipt_store import DAY_NS, KeptReceipt, ReceiptStore, receipt_id_of
from lotabotsd.foundation.errors import Code, LotaBotsError
from lotabotsd.foundation.identifiers import uuid7_bytes, uuid_text

NOW_NS = 1_795_406_706_000_000_000


def receipt(at_ns: int = NOW_NS, text: str = "a.b.c") -> KeptReceipt:
    return KeptReceipt(uuid7_bytes(at_ns), "org_a", "K" * 12, text)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ReceiptStore]:
    made = ReceiptStore(tmp_path / "receipts.db", keep_days=400, keep_most=3)
    yield made
    made.close()


def test_a_receipt_is_found_by_its_id_and_stays_as_it_was_first(store: ReceiptStore) -> None:
    first = receipt()
    store.add([first, receipt(), first])
    store.add([KeptReceipt(first.receipt_id, "org_b", "k", "x.y.z")])
    assert store.find(first.receipt_id) == first
    assert store.count() == 2
    assert store.find(bytes(16)) is None
    assert first.to_dict() == {"id": uuid_text(first.receipt_id), "key": "K" * 12, "receipt": "a.b.c"}


def test_what_is_too_old_and_the_oldest_of_too_many_are_forgotten(store: ReceiptStore) -> None:
    old = receipt(NOW_NS - 401 * DAY_NS)
    kept = [receipt(NOW_NS - age * DAY_NS) for age in (399, 4, 3, 2, 1)]
    store.add([old, *kept])
    assert store.forget_old(NOW_NS) == 3
    assert [store.find(each.receipt_id) is not None for each in (old, *kept)] == [
        *(False, False, False),
        *(True, True, True),
    ]
    assert store.forget_old(NOW_NS) == 0


def test_a_clock_before_everything_forgets_nothing(store: ReceiptStore) -> None:
    store.add([receipt()])
    assert store.forget_old(0) == 0


def test_it_is_there_again_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "receipts.db"
    one = receipt()
    store = ReceiptStore(path, keep_days=1, keep_most=1)
    store.add([one])
    store.close()
    assert path.stat().st_mode & 0o777 == 0o600
    again = ReceiptStore(path, keep_days=1, keep_most=1)
    assert again.find(one.receipt_id) == one
    again.close()


def test_a_damaged_file_is_put_aside_and_usage_does_not_wait_for_it(tmp_path: Path) -> None:
    path = tmp_path / "receipts.db"
    path.write_bytes(b"no database at all" * 300)
    store = ReceiptStore(path, keep_days=1, keep_most=1)
    store.add([receipt()])
    assert store.count() == 1
    store.close()
    assert (tmp_path / "receipts.db.damaged").read_bytes().startswith(b"no database")


@pytest.mark.parametrize(
    "text", ["", "x", "0192B0C4-0000-7000-8000-000000000000", "{0192b0c4-0000-7000-8000-000000000000}"]
)
def test_what_is_no_id_is_said(text: str) -> None:
    with pytest.raises(LotaBotsError) as failure:
        receipt_id_of(text)
    assert failure.value.code is Code.VALUE_INVALID
