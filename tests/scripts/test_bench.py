"""scripts/bench: what the load generators say is read right, and the page's numbers are made of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARK = Path(__file__).resolve().parents[2] / "scripts" / "benchmark"
NAMES = ("load", "figures", "hot_path", "identity", "rig", "targets", "page")


@pytest.fixture(scope="module")
def bench() -> Iterator[dict[str, ModuleType]]:
    """The benchmark's modules, loaded as scripts/bench does, from their own folder."""
    sys.path.insert(0, str(BENCHMARK))
    try:
        yield {name: __import__(name) for name in NAMES}
    finally:
        sys.path.remove(str(BENCHMARK))
        for name in NAMES:
            sys.modules.pop(name, None)


WRK = """Running 1s test @ http://127.0.0.1:1/
  1 threads and 64 connections
Requests/sec:   1000.00
MEASURED {"requests":1500,"duration_us":1500000,"p50_us":812.0,"p99_us":2310.0,"status":2,"broken":1}
"""


def test_wrk_is_read_in_milliseconds_with_its_failures(bench: dict[str, ModuleType]) -> None:
    seen = bench["load"].read_wrk(WRK)
    assert (seen.requests, seen.per_second, seen.p50_ms, seen.p99_ms, seen.failed) == (
        1500,
        1000.0,
        0.812,
        2.31,
        3,
    )


@pytest.mark.parametrize(
    "output", ["", "unable to connect", "MEASURED {", 'MEASURED {"requests":1}', WRK + WRK]
)
def test_a_wrk_that_measured_nothing_is_an_error(bench: dict[str, ModuleType], output: str) -> None:
    with pytest.raises(bench["load"].LoadError):
        bench["load"].read_wrk(output)


def test_h2load_is_read_from_its_log(bench: dict[str, ModuleType]) -> None:
    lines = [f"{1_000_000 + 1_000 * n}\t{503 if n == 7 else 200}\t{100 * (n + 1)}" for n in range(100)]
    seen = bench["load"].read_h2load("\n".join([*lines, "11"]))  # the last line was cut off
    assert (seen.requests, seen.failed, seen.p50_ms, seen.p99_ms) == (100, 1, 5.0, 9.9)
    assert seen.seconds == pytest.approx(0.109)


def test_an_h2load_without_answers_is_an_error(bench: dict[str, ModuleType]) -> None:
    with pytest.raises(bench["load"].LoadError):
        bench["load"].read_h2load("")


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 2), (0.75, 3), (0.99, 4), (1.0, 4)])
def test_percentiles_are_values_that_were_seen(
    bench: dict[str, ModuleType], share: float, value: int
) -> None:
    assert bench["load"].percentile([1, 2, 3, 4], share) == value


def samples(bench: dict[str, ModuleType], *rows: tuple[int, str, float]) -> object:
    figures = bench["figures"]
    return figures.Figures(
        figures.Sample(run, target, "small", rate, 1.0, 2.0, 0, 0.0) for run, target, rate in rows
    )


def test_a_ratio_is_the_median_of_the_ratios_within_each_run(bench: dict[str, ModuleType]) -> None:
    # The machine was ten times as fast in the second run: medians first would say 0.09 or 5.
    figures = samples(
        bench,
        *((0, "mine", 50), (0, "other", 100)),
        *((1, "mine", 600), (1, "other", 1000)),
        *((2, "mine", 55), (2, "other", 110)),
        (3, "mine", 1),  # without a partner in its run
    )
    assert figures.ratio("mine", "other", "small") == 0.5  # type: ignore[attr-defined]
    assert figures.ratio("mine", "nobody", "small") is None  # type: ignore[attr-defined]


def test_a_target_that_answered_nothing_has_no_ratio(bench: dict[str, ModuleType]) -> None:
    figures = samples(bench, (0, "mine", 50), (0, "other", 0))
    assert figures.ratio("mine", "other", "small") is None  # type: ignore[attr-defined]


def test_failed_requests_are_named(bench: dict[str, ModuleType]) -> None:
    made = bench["figures"]
    figures = made.Figures(
        [made.Sample(0, "mine", "small", 1, 1, 1, 3, 0), made.Sample(0, "o", "small", 1, 1, 1, 0, 0)]
    )
    assert figures.failures() == ["mine, small: 3 requests failed"]


def test_tables_have_one_line_for_each_row_and_dashes_for_what_is_missing(
    bench: dict[str, ModuleType],
) -> None:
    figures = bench["figures"]
    shown = figures.table(("", "a"), [("x", figures.number(1234.5, 0)), ("y", figures.number(None))])
    assert shown.splitlines() == ["|  | a |", "|---|---:|", "| x | 1 234 |", "| y | – |"]
    assert figures.number(0.256, 2, "+") == "+0.26"


def test_an_aim_says_by_how_much_it_is_missed(bench: dict[str, ModuleType]) -> None:
    aim = bench["page"].Aim
    assert aim("x", 0.6, 0.6).word == "met"
    assert aim("x", 0.6, 0.5).word == "missed by 0.10"
    assert aim("x", 1.5, 1.8, at_most=True).word == "missed by 0.30"
    assert aim("x", 1.5, 1.0, at_most=True).word == "met"
    assert aim("x", 1.5, None).word == "no figure"


def test_a_sample_belongs_to_the_innermost_step_that_is_known(bench: dict[str, ModuleType]) -> None:
    hot_path = bench["hot_path"]
    run = [("application.py", "Inference.run"), ("runners.py", "Runner.run")]
    commit = [
        ("lock.py", "TableLock.acquire"),
        ("table.py", "Table.commit"),
        ("metering.py", "Meter.close"),
        *run,
    ]
    assert hot_path.step_of(commit) == "8 commit the limits"
    opened = [("journal.py", "Journal.append"), ("metering.py", "Meter.open"), *run]
    assert hot_path.step_of(opened) == "5 journal OPEN"
    assert hot_path.step_of([("runners.py", "Runner.run")]) == hot_path.REST


def test_the_steps_add_up_to_the_whole(bench: dict[str, ModuleType]) -> None:
    hot_path = bench["hot_path"]
    seen = [([("routes.py", "match")], 1), ([("outbox.py", "Outbox.flush")], 3)]
    found = hot_path.costs(seen, 200.0)
    assert sum(cost.microseconds for cost in found) == pytest.approx(200.0)
    assert {cost.step: cost.share for cost in found if cost.share} == {
        "match the route, name the request": 0.25,
        "hand both over to the kernel (send)": 0.75,
    }
    assert sum(cost.share for cost in hot_path.costs([], 200.0)) == 0


def test_the_page_is_written_from_few_figures(bench: dict[str, ModuleType]) -> None:
    results = {
        "samples": [],
        "steps": [{"step": "1 identify the key", "share": 1.0, "microseconds": 100.0}],
        "machine": dict.fromkeys(("processor", "cores", "memory", "kernel", "system"), "2"),
        "versions": {"Python": "3.11"},
        "date": "2026-01-02",
        "minutes": 1.0,
        "runs": 3,
        "seconds": 1.0,
        "other_load": 0.0,
    }
    text = bench["page"].write(
        samples(bench, (0, "bare Triton", 100), (0, "gate, process, 1 worker", 60)), results
    )
    assert "| small JSON, 64 clients: requests/s of bare Triton | ≥ 0.60 | 0.60 | met |" in text
    assert "no figure" in text
    assert "| 1 identify the key | 100.0 | 100% |" in text


def test_what_does_not_start_is_ended_and_its_last_words_told(
    bench: dict[str, ModuleType], tmp_path: Path
) -> None:
    program = "import time; print('no such file', flush=True); time.sleep(600)"
    child = bench["rig"].Process([sys.executable, "-c", program], tmp_path / "log")
    with pytest.raises(bench["rig"].RigError, match="no such file"):
        child.wait_until(lambda: False, "an answer", 1.0)
    assert not Path(f"/proc/{child.pid}").exists()


def test_the_identity_package_is_one_that_the_appliance_takes(
    bench: dict[str, ModuleType], tmp_path: Path
) -> None:
    from lotabotsd.models.package import Package

    identity = bench["identity"]
    for path, data in identity.files().items():
        file = tmp_path / identity.NAME / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    facts = Package.load(tmp_path / identity.NAME).facts("0" * 64)
    assert [fact.dims for fact in facts.inputs] == [(-1,)]
    assert json.dumps(facts.to_dict())
