"""What an admin is told to do about a GPU: the driver's advice first, then the verdict; never done by us."""

from __future__ import annotations

from typing import Any

import pynvml
import pytest

from lotabotsd.gpu.advice import Advice, advice_words
from lotabotsd.gpu.facts import GpuFacts, GpuProcess
from lotabotsd.gpu.health import Level, judge
from lotabotsd.gpu.recovery import Recovery, in_use_by, recovery_of

RESET = (
    "systemctl stop lotabots.target",
    "nvidia-smi --gpu-reset -i GPU-1",
    "systemctl start lotabots.target",
)
REBOOT = ("systemctl reboot",)


def gpu(**changes: Any) -> GpuFacts:
    return GpuFacts(**{"index": 0, "uuid": "GPU-1", "name": "a GPU", "driver": "580", **changes})


def judged(**changes: Any) -> Recovery:
    facts = gpu(**changes)
    return recovery_of(facts, judge(facts).level)


def test_the_drivers_advices_are_nvmls() -> None:
    numbers = {
        name.removeprefix("NVML_GPU_RECOVERY_ACTION_"): value
        for name, value in vars(pynvml).items()
        if name.startswith("NVML_GPU_RECOVERY_ACTION_")
    }
    assert {advice.name: advice.value for advice in Advice} == numbers


@pytest.mark.parametrize(
    ("action", "commands"),
    [(1, RESET), (2, REBOOT), (4, RESET), (5, ()), (6, REBOOT), (7, ()), (99, ())],
)
def test_the_drivers_advice_comes_first(action: int, commands: tuple[str, ...]) -> None:
    recovery = judged(recovery_action=action, failure="GPU is lost")
    assert recovery.words == advice_words(action)
    assert recovery.commands == commands


def test_peer_to_peer_is_drained_by_starting_triton_anew() -> None:
    assert judged(recovery_action=3).commands[0] == "systemctl restart lotabots-runtime"


def test_an_advice_of_a_later_driver_names_its_documentation() -> None:
    assert advice_words(99) == "see the driver's documentation"
    assert judge(gpu(recovery_action=99)).reasons == ("the driver advises: see the driver's documentation",)


def test_a_gpu_that_is_well_needs_nothing() -> None:
    assert judged() == Recovery()
    assert judged().text == ""


def test_a_gpu_that_does_not_answer_needs_a_reboot() -> None:
    assert judged(failure="GPU is lost").text == "reboot the host: systemctl reboot"


def test_uncorrected_errors_need_a_reset_with_everything_on_the_gpu_ended() -> None:
    recovery = judged(uncorrected_errors=2)
    assert recovery.commands == RESET
    assert recovery.text == f"end the programs on it, then reset the GPU: {' && '.join(RESET)}"


def test_a_pending_row_waits_for_a_quiet_moment() -> None:
    recovery = judged(remap_pending=True)
    assert (recovery.words, recovery.commands) == ("reset the GPU when it is idle", RESET)


def test_memory_without_spare_rows_is_not_mended_by_a_reset() -> None:
    assert judged(remap_failed=True) == Recovery("have the GPU replaced: its memory has no spare rows left")


def test_heat_alone_needs_nothing_yet() -> None:
    assert judged(throttle_reasons=0x40).text == "nothing to do yet; if it stays: nvidia-smi -q"


def test_a_gpu_without_a_name_is_reset_by_its_number() -> None:
    assert "-i 3" in recovery_of(gpu(uuid="", index=3, recovery_action=1), Level.CRITICAL).text


def test_who_uses_a_gpu_is_named_but_not_without_end() -> None:
    assert in_use_by(gpu()) == ""
    assert in_use_by(gpu(processes=(GpuProcess(7, 300 << 20),))) == "process 7 (300 MiB)"
    many = tuple(GpuProcess(number) for number in range(1, 11))
    assert in_use_by(gpu(processes=many)) == "processes 1, 2, 3, 4, 5, 6, 7, 8, and 2 more"
