"""What /metrics says: clean to promtool, counters that never go back, GPUs under their DCGM names."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lotabotsd.daemon.appliance import Appliance
from lotabotsd.daemon.exposition import exposition
from lotabotsd.daemon.gpu_metrics import gpu_families
from lotabotsd.daemon.metrics import Metrics, UsageSums
from lotabotsd.daemon.own_metrics import MAX_MODELS, Counts, own_families
from lotabotsd.daemon.status import status_of
from lotabotsd.daemon.wiring import open_gate
from lotabotsd.foundation.clock import NANOSECONDS, FixedClock
from lotabotsd.foundation.config import Config
from lotabotsd.gpu.facts import GpuFacts, MigDevice
from lotabotsd.gpu.health import Level
from lotabotsd.limits.counters import Counter, summed
from lotabotsd.limits.table import Table
from lotabotsd.usage.batch import Batch
from lotabotsd.usage.ledger import Ledger
from lotabotsd.usage.records import Close, Open, Outcome
from lotabotsd.usage.windows import Meters

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
GPU = GpuFacts(
    index=1,
    uuid="GPU-1",
    name="NVIDIA H100",
    driver="580",
    pci_bus_id="00000000:17:00.0",
    memory_total_bytes=80 << 30,
    memory_used_bytes=3 << 30,
    memory_free_bytes=76 << 30,
    temperature_celsius=41,
    memory_celsius=44,
    power_milliwatts=71_500,
    energy_millijoules=123_456_789_012,
    utilisation_percent=12,
    memory_busy_percent=3,
    sm_clock_mhz=1_980,
    memory_clock_mhz=2_619,
    pcie_replays=0,
    uncorrected_errors=0,
    remapped_corrected=1,
    remapped_uncorrected=2,
    remap_failed=False,
    mig_devices=(
        MigDevice("MIG-1", "1g.10gb", 7, 0, 10 << 30, 12 << 20),
        MigDevice("MIG-2", "1c.2g.20gb", 3, 1, 20 << 30, 24 << 20),
    ),
)
COUNTING = (1, *range(1, len(Counter)), *([0] * (64 - len(Counter))))


@pytest.fixture
def served(appliance: Appliance) -> Iterator[Appliance]:
    """An appliance whose gate may begin."""
    open_gate(appliance, triton_runs=False)
    yield appliance
    appliance.publishing.let_go()


def samples(text: str) -> dict[str, float]:
    """Series → value."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def names(text: str) -> set[str]:
    return set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))


def everything(status: dict[str, Any]) -> str:
    """Every family there is, with at least one sample."""
    status["licence"]["expires_at_ns"] = status["appliance"]["now_ns"] + 36 * 3_600 * NANOSECONDS
    status["ledger"]["verified_at_ns"] = status["appliance"]["now_ns"]
    status["ledger"]["reconciliation"]["until_ns"] = status["appliance"]["now_ns"]
    status["report"] |= {"last": {"until": 1_700_000_000}, "acknowledged": {"until": 1_600_000_000}}
    status["report"]["duty"] = {"state": "soon", "due_at_ns": NANOSECONDS, "restricted_at_ns": NANOSECONDS}
    status["loops"] = [{"name": "drain", "succeeded_ns": 5 * NANOSECONDS, "failures": 2}]
    status["models"] = [{"name": "page_orientation", "ready": True}]
    counts = Counts(
        {"served": Meters(3, 4, 5, 6, 7)}, {"page_orientation": 4}, 2, summed([COUNTING, COUNTING]), 1
    )
    families = gpu_families((GPU,), {"GPU-1": Level.WARNING}, {"GPU-1": 31})
    return exposition([*own_families(status, counts), *families])


@pytest.mark.required
def test_promtool_finds_fault_only_with_nvidias_own_names(promtool: Path, served: Appliance) -> None:
    checked = subprocess.run(
        [str(promtool), "check", "metrics"],
        input=everything(status_of(served)),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    complaints = (checked.stdout + checked.stderr).splitlines()
    allowed = re.compile(
        r"DCGM_FI_DEV_\w+ (counter metrics should have \"_total\" suffix"
        r"|metric name should not include type 'counter'"
        r"|label names should be written in 'snake_case' not 'camelCase')"
    )
    assert [line for line in complaints if not allowed.fullmatch(line)] == []
    assert complaints, "promtool read nothing"


@pytest.mark.required
def test_promtool_sees_what_is_wrong(promtool: Path) -> None:
    checked = subprocess.run(
        [str(promtool), "check", "metrics"],
        input='# HELP a A.\n# TYPE a gauge\na{b="c} 1\n',
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert checked.returncode == 1


def test_the_document_lists_exactly_the_metrics_there_are(served: Appliance) -> None:
    listed = re.findall(r"^\| `([a-zA-Z_]+)`", DOCUMENT.read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(names(everything(status_of(served))))


def test_gpus_have_their_dcgm_names_units_and_labels() -> None:
    text = exposition(gpu_families((GPU,), {"GPU-1": Level.WARNING}, {"GPU-1": 31}))
    mine = 'gpu="1",UUID="GPU-1",pci_bus_id="00000000:17:00.0",device="nvidia1",modelName="NVIDIA H100"'
    found = samples(text)
    assert found[f"DCGM_FI_DEV_FB_USED{{{mine}}}"] == 3_072
    assert found[f"DCGM_FI_DEV_FB_FREE{{{mine}}}"] == 76 * 1_024
    assert found[f"DCGM_FI_DEV_POWER_USAGE{{{mine}}}"] == 71.5
    assert found[f"DCGM_FI_DEV_XID_ERRORS{{{mine}}}"] == 31
    assert found[f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{mine}}}"] == 123_456_789_012
    assert found[f'DCGM_FI_DEV_FB_USED{{{mine},GPU_I_PROFILE="1g.10gb",GPU_I_ID="7"}}'] == 12
    part = f'{mine},GPU_I_PROFILE="1c.2g.20gb",GPU_I_ID="3",compute_instance="1"'
    assert found[f"DCGM_FI_DEV_FB_FREE{{{part}}}"] == 20 * 1_024 - 24
    assert found['lotabots_gpu_health{gpu="1",uuid="GPU-1"}'] == 1


def test_a_gpu_that_does_not_answer_has_its_verdict_and_no_readings() -> None:
    lost = GpuFacts(0, "GPU-0", "NVIDIA H100", "580", failure="GPU is lost")
    text = exposition(gpu_families((lost,), {"GPU-0": Level.CRITICAL}, {}))
    assert samples(text) == {'lotabots_gpu_health{gpu="0",uuid="GPU-0"}': 2}


def test_without_gpus_there_are_no_gpu_series(served: Appliance) -> None:
    text = Metrics(served, lambda: status_of(served)).text()
    assert not [name for name in names(text) if name.startswith("DCGM")]


def test_a_fresh_appliance_tells_its_state_and_knows_no_gate_counters(served: Appliance) -> None:
    found = samples(Metrics(served, lambda: status_of(served)).text())
    assert found['lotabots_licence_state{state="none"}'] == 1
    assert sum(value for name, value in found.items() if name.startswith("lotabots_licence_state")) == 1
    assert found['lotabots_runtime_state{state="ready"}'] == 0
    assert found["lotabots_requests_in_flight"] == 0
    assert found['lotabots_requests_total{outcome="refused_quota"}'] == 0
    assert "lotabots_ledger_verified" not in found
    assert not [name for name in found if name.startswith("lotabots_gate_connections")]


def test_what_workers_count_is_summed_over_those_that_count(served: Appliance, config: Config) -> None:
    worker = Table.open(config.paths.limits_table, 0)
    worker.count(Counter.COUNTING)
    worker.count(Counter.CONNECTIONS, 5)
    worker.count(Counter.LINE_ENTERED, 3)
    worker.count(Counter.LINE_LEFT, 1)
    worker.count(Counter.UPSTREAM_US, 2_500_000)
    found = samples(Metrics(served, lambda: status_of(served)).text())
    worker.close()
    assert found["lotabots_gate_connections_total"] == 5
    assert found["lotabots_gate_requests_waiting"] == 2
    assert found["lotabots_gate_upstream_seconds_total"] == 2.5


def test_the_counters_indexes_are_frozen() -> None:
    assert [counter.value for counter in Counter] == list(range(len(Counter)))
    assert (Counter.COUNTING, Counter.LINE_LEFT, Counter.CLIENTS_GONE) == (0, 10, 22)
    assert summed([(0,) * 64]) == {}


def request(ledger: Ledger, at_ns: int) -> None:
    """Let one request of two inferences be counted."""
    cursor = ledger.cursor(0, 1)
    number = cursor.next_number
    opened = Open(bytes(16), at_ns, "key1", "org1", "page_orientation", "", 202603, 2)
    closed = Close(number, at_ns, Outcome.SERVED, 200, 2, 10, 20, 1_000, delivered=True)
    records = ((number, opened), (number + 1, closed))
    assert ledger.apply(Batch(0, 1, "boot", cursor, records, (0, cursor.offset + 200)))


def test_sums_never_go_back_when_hours_are_sealed(appliance: Appliance, clock: FixedClock) -> None:
    sums = UsageSums(appliance.ledger)
    assert sums.now() == {}
    for hours in range(1, 5):
        request(appliance.ledger, clock.wall_ns())
        before = sums.now()
        assert before[("served", "page_orientation", True)].requests == hours
        appliance.ledger.seal(clock.wall_ns() + 3_600 * NANOSECONDS)
        assert sums.now() == before
        assert UsageSums(appliance.ledger).now() == before, "a daemon that starts later says the same"
        clock.advance(3_600)


def test_models_beyond_the_bound_have_no_series(appliance: Appliance) -> None:
    status = {**status_of(appliance), "models": [{"name": f"m{n}", "ready": False} for n in range(150)]}
    text = Metrics(appliance, lambda: status).text()
    assert len(re.findall(r"^lotabots_inferences_total\{", text, re.MULTILINE)) == MAX_MODELS
    assert len(re.findall(r"^lotabots_model_ready\{", text, re.MULTILINE)) == MAX_MODELS
    assert samples(text)["lotabots_models_enabled"] == 150
