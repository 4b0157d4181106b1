"""The loop with the vendor on the command line: a report out, its answer in, old rows purged."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lotabotsd.foundation.errors import Exit


def _vendor(clock, *arguments: object) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "vendor"))
    from lotabots_vendor.cli import run as vendor

    assert vendor([str(argument) for argument in arguments], clock) in (Exit.OK, Exit.WARNINGS)


def test_the_vendors_answer_is_checked_taken_and_shown(ctl, clock, tmp_path) -> None:
    clock.advance(3_600)
    assert ctl("usage", "export", "--output", str(tmp_path)).code == Exit.OK
    (report,) = tmp_path.glob("*.zip")
    licence, answer = tmp_path / "licence.txt", tmp_path / "answer.txt"
    order = ("--tier", "pro", "--customer", "Example GmbH", "--output", licence)
    _vendor(clock, "licence", "issue", "--development", *order)
    _vendor(clock, "ack", "issue", "--development", report, "--licence", licence, "--output", answer)
    assert "  new  " in ctl("usage", "reports").out
    checked = ctl("usage", "acknowledge", "--check", str(answer))
    assert checked.code == Exit.OK, checked.err
    assert "this would be taken:" in checked.out
    assert "tier" in checked.out.partition("the licence in it would change:")[2]
    assert ctl("licence", "show").out.startswith("state                 none")
    taken = ctl("usage", "acknowledge", str(answer))
    assert (taken.code, "the licence in it is installed; changed:" in taken.out) == (Exit.OK, True)
    assert ctl("licence", "show").out.startswith("state                 valid")
    assert "  acknowledged  accepted  " in ctl("usage", "reports").out
    assert "acknowledgement  not due, due 2026-04-17" in ctl("status").out
    again = json.loads(ctl("usage", "acknowledge", "--json", str(answer)).out)
    assert (again["known"], again["licence"]["refused"]) == (True, None)
    assert [row["action"] for row in json.loads(ctl("audit", "list", "--json").out)][-1] == "licence.install"


def test_a_rejection_is_a_warning_and_a_strange_file_an_error(ctl, clock, tmp_path) -> None:
    clock.advance(3_600)
    ctl("usage", "export", "--output", str(tmp_path))
    (report,) = tmp_path.glob("*.zip")
    answer = tmp_path / "answer.txt"
    _vendor(clock, "ack", "issue", "--development", report, "--reject", "a clone", "--output", answer)
    rejected = ctl("usage", "acknowledge", str(answer))
    assert (rejected.code, "a clone" in rejected.out) == (Exit.WARNINGS, True)
    answer.write_bytes(b"nothing of the kind")
    assert ctl("usage", "acknowledge", str(answer)).code == Exit.SIGNATURE
    assert ctl("usage", "acknowledge", str(tmp_path / "none")).code == Exit.CHECK_FAILED


def test_only_old_acknowledged_rows_are_purged_and_verify_says_from_where(ctl, clock, tmp_path) -> None:
    clock.advance(3_600)
    ctl("usage", "export", "--output", str(tmp_path))
    (report,) = tmp_path.glob("*.zip")
    answer = tmp_path / "answer.txt"
    _vendor(clock, "ack", "issue", "--development", report, "--output", answer)
    nothing = ctl("ledger", "purge", "--yes")
    assert (nothing.code, nothing.out.startswith("nothing to purge")) == (Exit.OK, True)
    ctl("usage", "acknowledge", str(answer))
    clock.advance(401 * 86_400)
    assert ctl("usage", "show").code == Exit.OK  # the hours that passed are sealed
    checked = ctl("ledger", "purge", "--check")
    assert "rows       1 to 1\n" in checked.out
    assert ctl("ledger", "purge").code == Exit.USAGE
    assert "proven from" not in ctl("ledger", "verify").out
    assert ctl("ledger", "purge", "--yes").out.startswith("taken out:")
    verified = ctl("ledger", "verify")
    assert verified.out.startswith("integrity     good\n")
    assert "proven from   row 2 on, since 2026-03-17 11:00:00 UTC; what was before is purged" in verified.out
