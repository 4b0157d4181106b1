"""`lotabotsctl bill preview` of a real appliance, and the vendor's tool over its report: the same bytes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts" / "vendor"))

from lotabots_vendor.cli import run as run_vendor

from lotabotsd.foundation.clock import FixedClock
from lotabotsd.foundation.errors import Exit
from lotabotsd.usage.journal import Journal
from lotabotsd.usage.records import Outcome, encode_close, encode_open

CARD = Path(__file__).resolve().parents[1] / "golden" / "rate-card" / "standard.json"


@pytest.fixture
def licence(tmp_path: Path, clock: FixedClock) -> Path:
    file = tmp_path / "pro.licence"
    arguments = ["licence", "issue", "--development", "--tier", "pro", "--customer", "Example GmbH",
                 "--rate-card", str(CARD), "--output", str(file)]  # fmt: skip
    assert run_vendor(arguments, clock) == Exit.OK
    return file


@pytest.fixture
def use(tmp_path: Path, socket_path: Path, clock: FixedClock) -> Callable[[int, str], None]:
    """Let a gate worker record one request of that many inferences."""
    journal = Journal(
        tmp_path / "state" / "journal", 0, bytes(16), 1, 65_536, in_background=lambda work: None
    )

    def use(inferences: int, model: str) -> None:
        opened = journal.append(
            encode_open(
                request_id=bytes(16), wall_ns=clock.wall_ns(), key_id="k" * 12, organisation_id="org_a",
                model=model, version="1", window_id=202603, reserved=1,
            )
        )  # fmt: skip
        journal.append(
            encode_close(
                open_number=opened, wall_ns=clock.wall_ns(), outcome=Outcome.SERVED, status=200,
                inferences=inferences, input_bytes=100, output_bytes=10, gate_us=7,
            )
        )  # fmt: skip

    return use


def test_without_a_rate_card_it_says_so_and_what_to_do(ctl) -> None:
    answer = ctl("bill", "preview")
    assert answer.code == Exit.CHECK_FAILED
    assert "no rate card: there is no licence" in answer.err
    assert "hint: ask the vendor for a licence with a rate card" in answer.err


def test_the_running_month_is_shown_with_its_total(ctl, licence, use) -> None:
    assert ctl("licence", "install", str(licence)).code == Exit.OK
    use(60_000, "page_orientation")
    use(1_000, "page_segmentation")
    answer = ctl("bill", "preview")
    assert answer.code == Exit.OK
    lines = answer.out.splitlines()
    assert [line.split() for line in lines if line.startswith(("inferences", "segmentation"))] == [
        ["inferences", "free", "org_a", "page_orientation", "10", "000", "0", "per", "1", "000", "0.00"],
        ["inferences", "1", "org_a", "page_orientation", "50", "000", "1.9", "per", "1", "000", "95.00"],
        ["segmentation", "1", "org_a", "page_segmentation", "1", "000", "3.8", "per", "1", "000", "3.80"],
    ]
    assert lines[-2].split() == ["total", "98.80", "EUR"]
    assert "not a whole month" in lines[-1]
    assert "never billed" in answer.err


def test_the_vendor_rates_the_report_to_the_same_bytes(
    ctl, licence, use, tmp_path: Path, clock: FixedClock, capsys: pytest.CaptureFixture[str]
) -> None:
    ctl("licence", "install", str(licence))
    use(60_000, "page_orientation")
    clock.advance(7_200)
    use(70_001, "page_orientation")
    use(333, "page_segmentation")
    before = {form: _printed(ctl, form) for form in ("csv", "lines", "focus")}
    made = json.loads(ctl("usage", "export", "--cut", "--output", str(tmp_path), "--json").out)
    for form, expected in before.items():
        assert _printed(ctl, form) == expected, "sealing the hour changed the bill"
        capsys.readouterr()
        arguments = ["rate", "--development", "--licence", str(licence), "--format", form, made[0]["copy"]]
        assert run_vendor(arguments, clock) == Exit.OK
        assert capsys.readouterr().out == expected
    assert "100000" in before["csv"]


def test_a_card_that_comes_with_an_acknowledgement_is_used_from_its_month_on(
    ctl, licence, use, tmp_path: Path, clock: FixedClock, capsys: pytest.CaptureFixture[str]
) -> None:
    ctl("licence", "install", str(licence))
    clock.advance(3_600)
    ctl("usage", "export", "--output", str(tmp_path))
    (report,) = tmp_path.glob("*.zip")
    value = json.loads(CARD.read_bytes())
    value.update(card_id="dearer", valid_from="2026-03-01T00:00:00Z", minimum="99.00")
    plain, signed, answer = tmp_path / "plain.json", tmp_path / "card.txt", tmp_path / "answer.txt"
    plain.write_text(json.dumps(value))
    for arguments in (
        ["rate-card", "sign", "--development", "--output", str(signed), str(plain)],
        ["ack", "issue", "--development", "--rate-card", str(signed), "--output", str(answer), str(report)],
    ):
        assert run_vendor(arguments, clock) == Exit.OK, capsys.readouterr().err
    taken = ctl("usage", "acknowledge", str(answer))
    assert (taken.code, "rate card dearer came along, for 2026-03-01" in taken.out) == (Exit.OK, True)
    for month, card, total in (("2026-03", "dearer", "99.00"), ("2026-02", "standard-2026", "50.00")):
        found = json.loads(ctl("bill", "preview", "--month", month, "--json").out)
        assert (found["card"]["card_id"], found["total"]) == (card, total)


def test_another_month_is_asked_by_name(ctl, licence) -> None:
    ctl("licence", "install", str(licence))
    found = json.loads(ctl("bill", "preview", "--month", "2026-02", "--json").out)
    assert (found["month"], found["total"]) == ("2026-02", "50.00")  # nothing was used: the minimum
    for month in ("2026-04", "March", "2025-12"):
        assert ctl("bill", "preview", "--month", month).code != Exit.OK
    assert ctl("bill", "preview", "--csv", "--json").code == Exit.USAGE


def _printed(ctl, form: str) -> str:
    answer = ctl("bill", "preview", f"--{form}")
    assert answer.code == Exit.OK
    return answer.out
