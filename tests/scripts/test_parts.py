"""scripts/parts.py: every part runs, one failure fails the whole, what hangs is ended, the table adds up."""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def parts() -> Iterator[ModuleType]:
    path = Path(__file__).resolve().parents[2] / "scripts" / "parts.py"
    spec = importlib.util.spec_from_file_location("scripts_parts", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["scripts_parts"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    del sys.modules["scripts_parts"]


def _python(program: str) -> tuple[str, ...]:
    return (sys.executable, "-c", program)


def test_all_parts_run_even_after_one_failed(parts: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    outcomes = parts.one_after_the_other(
        (
            parts.Part("bad", _python("raise SystemExit(3)"), 5),
            parts.Part("good", _python("print('fine')"), 5),
        )
    )
    assert [o.exit_code for o in outcomes] == [3, 0]
    assert "fine" in capfd.readouterr().out


def test_lanes_run_beside_each_other_and_only_failures_are_shown(
    parts: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    outcomes = parts.side_by_side(
        (
            parts.Part("quiet", _python("print('not shown')"), 5, lane="static"),
            parts.Part("loud", _python("print('the reason'); raise SystemExit(1)"), 5, lane="tests"),
        )
    )
    shown = capfd.readouterr().out
    assert [o.part.name for o in outcomes] == ["quiet", "loud"]
    assert "the reason" in shown
    assert "not shown" not in shown


def test_a_part_that_hangs_is_ended_with_its_children(parts: ModuleType) -> None:
    class Impatient(parts.Part):  # type: ignore[name-defined, misc]  # loaded by path
        limit_seconds = 0.3

    begun = time.monotonic()
    outcome = parts.run(Impatient("hangs", ("sh", "-c", "sleep 60 & wait"), 5), capture=True)
    assert time.monotonic() - begun < 20
    assert outcome.exit_code == -9
    assert outcome.word.startswith("ended after")


def test_the_table_shows_seconds_against_budgets(parts: ModuleType) -> None:
    part = parts.Part("unit", ("true",), 55)
    text = parts.table([parts.Outcome(part, 60.04, 0, "")], 61.0, 2400)
    assert "unit               60.0       55  ok, over its budget" in text
    assert text.splitlines()[-1].startswith("all                61.0     2400")


def test_every_folder_of_unit_tests_is_in_exactly_one_half(parts: ModuleType) -> None:
    named = [word for part in parts.unit_parts() for word in part.command if word.startswith("tests/")]
    tests = Path(__file__).resolve().parents[1]
    there = {f"tests/{path.relative_to(tests).parts[0]}" for path in tests.glob("*/**/test_*.py")}
    whole = {f"tests/{name}" for name in ("conformance", "system")}
    assert sorted(named) == sorted(there - whole)


def test_an_unknown_request_is_refused_with_usage(
    parts: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert parts.main(["everything"]) == 2
    assert "usage:" in capsys.readouterr().err
