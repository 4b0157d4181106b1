"""A driver that hangs holds nobody: every call of the bounded probe returns, and says what it waits for."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.required
Ask = Callable[..., Any]
FOR_EVER_MS = 3_600_000


def test_a_question_that_hangs_fails_every_gpu_and_is_answered_late(host: Any, ask: Ask, nvml: Any) -> None:
    probe = ask("bounded", "0.5")
    assert [facts["failure"] for facts in probe("look")] == ["", ""]
    host.hang("nvmlDeviceGetTemperature", FOR_EVER_MS)
    for _ in range(2):
        begun = time.monotonic()
        silent = probe("look")
        assert time.monotonic() - begun < 10
        assert [facts["uuid"] for facts in silent] == [nvml.uuid(0), nvml.uuid(1)]
        assert all("the driver has not answered" in facts["failure"] for facts in silent)
    host.hang("nvmlDeviceGetTemperature", 0)
    host.xid(nvml.uuid(0), 31)
    deadline = time.monotonic() + 20
    while (seen := probe("look"))[0]["failure"]:
        assert time.monotonic() < deadline
    assert seen[0]["temperature_celsius"] == 41
    probe("look")
    assert probe("events") == [{"uuid": nvml.uuid(0), "xid": 31}]


def test_a_start_that_hangs_is_no_gpus_yet(host: Any, ask: Ask) -> None:
    host.hang("nvmlInitWithFlags", FOR_EVER_MS)
    probe = ask("bounded", "0.2")
    assert (probe("look"), probe("events")) == ([], [])
    assert probe("source") == "NVML has not answered yet"
    host.hang("nvmlInitWithFlags", 0)
    deadline = time.monotonic() + 20
    while not probe("look"):
        assert time.monotonic() < deadline
    assert probe("source") == "nvml"


def test_a_driver_that_is_loaded_later_is_found(host: Any, ask: Ask) -> None:
    host.fail("nvmlInitWithFlags", "driver_not_loaded")
    probe = ask("bounded", "5")
    assert probe("look") == []
    assert probe("source").startswith("NVML: Driver Not Loaded")
    host.state["fails"].clear()
    host.write()
    assert len(probe("look")) == 2
    assert probe("source") == "nvml"


def test_a_process_ends_although_its_driver_hangs(host: Any, ask: Ask) -> None:
    probe = ask("bounded", "0.2")
    probe("look")
    host.hang("nvmlDeviceGetName", FOR_EVER_MS)
    probe("look")
    begun = time.monotonic()
    assert probe("close") is None
    assert probe.end() == 0
    assert time.monotonic() - begun < 10
