"""How a GPU feels: every rule, its edge, and the order of the reasons."""

from __future__ import annotations

from typing import Any

import pytest

from lotabotsd.gpu.facts import GpuFacts, XidEvent
from lotabotsd.gpu.health import Health, Level, judge


def gpu(**changes: Any) -> GpuFacts:
    return GpuFacts(**{"index": 0, "uuid": "GPU-1", "name": "a GPU", "driver": "580", **changes})


def test_a_gpu_of_which_little_is_known_is_healthy() -> None:
    assert judge(gpu()) == Health(Level.HEALTHY, ())


@pytest.mark.parametrize("xid", [13, 31, 43, 45, 68, 109])
def test_faults_that_an_application_can_cause_are_warnings(xid: int) -> None:
    assert judge(gpu(), [XidEvent("GPU-1", xid)]) == Health(
        Level.WARNING, (f"XID {xid}: an application failed on it",)
    )


@pytest.mark.parametrize("xid", [0, 1, 12, 14, 32, 48, 63, 64, 74, 79, 94, 95, 119, 154, 9_999])
def test_every_other_fault_is_critical(xid: int) -> None:
    assert judge(gpu(), [XidEvent("GPU-1", xid)]).level is Level.CRITICAL


def test_the_faults_of_another_gpu_do_not_count() -> None:
    assert judge(gpu(), [XidEvent("GPU-2", 79)]).level is Level.HEALTHY


def test_a_fault_without_a_name_counts_only_for_a_gpu_that_does_not_answer() -> None:
    nameless = [XidEvent("", 79)]
    assert judge(gpu(), nameless).level is Level.HEALTHY
    assert judge(gpu(uuid=""), nameless).level is Level.HEALTHY
    assert "XID 79: the GPU or its driver failed" in judge(gpu(failure="GPU is lost"), nameless).reasons


def test_a_fault_that_repeats_is_one_reason() -> None:
    assert judge(gpu(), [XidEvent("GPU-1", 48)] * 5).reasons == ("XID 48: the GPU or its driver failed",)


@pytest.mark.parametrize(
    ("changes", "level"),
    [
        ({"failure": "GPU is lost"}, Level.CRITICAL),
        ({"recovery_action": 1}, Level.CRITICAL),
        ({"recovery_action": 0}, Level.HEALTHY),
        ({"uncorrected_errors": 1}, Level.CRITICAL),
        ({"uncorrected_errors": 0}, Level.HEALTHY),
        ({"remap_failed": True}, Level.CRITICAL),
        ({"remap_pending": True}, Level.WARNING),
        ({"remap_pending": False, "remap_failed": False}, Level.HEALTHY),
        ({"throttle_reasons": 0x20}, Level.WARNING),
        ({"throttle_reasons": 0x40}, Level.WARNING),
        ({"throttle_reasons": 0x80}, Level.WARNING),
        ({"throttle_reasons": 0x1 | 0x2 | 0x4 | 0x10}, Level.HEALTHY),
        ({"temperature_celsius": 87, "slowdown_celsius": 87}, Level.WARNING),
        ({"temperature_celsius": 86, "slowdown_celsius": 87}, Level.HEALTHY),
        ({"temperature_celsius": 120}, Level.HEALTHY),
        ({"temperature_celsius": 41, "slowdown_celsius": 0}, Level.HEALTHY),
        ({"slowdown_celsius": 87}, Level.HEALTHY),
    ],
    ids=str,
)
def test_each_fact_has_its_level(changes: dict[str, Any], level: Level) -> None:
    health = judge(gpu(**changes))
    assert health.level is level
    assert len(health.reasons) == (0 if level is Level.HEALTHY else 1)


def test_the_worst_reason_comes_first() -> None:
    health = judge(
        gpu(remap_pending=True, uncorrected_errors=3, throttle_reasons=0x40), [XidEvent("GPU-1", 13)]
    )
    assert health.level is Level.CRITICAL
    assert health.reasons[0] == "3 uncorrected memory errors"
    assert len(health.reasons) == 4


def test_heat_is_said_once() -> None:
    hot = gpu(throttle_reasons=0x60, temperature_celsius=90, slowdown_celsius=87)
    assert judge(hot).reasons == ("it slows down because it is hot",)
