"""Why Triton ended: from its exit code and its last words."""

from __future__ import annotations

import pytest

from lotabotsd.runtime.exits import explain_exit, is_poisoned
from lotabotsd.runtime.messages import ExitKind

STARTED = 'I1123 03:24:42.938550 11562 main.cc:1] "Started HTTPService"'
IN_USE = 'E1123 03:24:57.991818 11621 main.cc:257] "failed to start HTTP service: Socket already in use "'


@pytest.mark.parametrize(
    ("code", "lines", "kind", "told"),
    [
        (0, [STARTED], ExitKind.FAILED, "it ended with 0"),
        (1, [STARTED, IN_USE], ExitKind.FAILED, "failed to start HTTP service: Socket already in use"),
        (
            1,
            ["tritonserver: unrecognized option '--x'", "Usage:"],
            ExitKind.CONFIGURATION,
            "unrecognized option",
        ),
        (
            1,
            ['Bad option: "--exit-timeout-secs".', "Invalid option value. Got abc"],
            ExitKind.CONFIGURATION,
            "abc",
        ),
        (1, ["lotabots-launch: [Errno 2] No such file"], ExitKind.CONFIGURATION, "No such file"),
        (127, [], ExitKind.FAILED, "it ended with 127"),
        (-11, ["Signal (11) received."], ExitKind.CRASHED, "it crashed (SIGSEGV)"),
        (139, [], ExitKind.CRASHED, "it crashed (SIGSEGV)"),
        (134, [IN_USE], ExitKind.CRASHED, "SIGABRT): failed to start"),
        (-9, [], ExitKind.KILLED, "out of memory"),
        (137, [], ExitKind.KILLED, "out of memory"),
    ],
)
def test_each_end_is_explained(code: int, lines: list[str], kind: ExitKind, told: str) -> None:
    facts = explain_exit(code, lines, requested=False)
    assert (facts.code, facts.kind) == (code, kind)
    assert told in facts.text


@pytest.mark.parametrize("code", [0, 1, -9, -11, 137])
def test_any_end_that_was_asked_for_is_the_wanted_one(code: int) -> None:
    assert explain_exit(code, [IN_USE], requested=True).kind is ExitKind.STOPPED


@pytest.mark.parametrize(
    ("text", "poisoned"),
    [
        ("CUDA error: device-side assert triggered", True),
        ("CUDA error: an illegal memory access was encountered", True),
        ("CUDNN_STATUS_EXECUTION_FAILED", True),
        ("invalid argument", False),
        ("", False),
    ],
)
def test_a_lost_cuda_context_is_known_by_its_words(text: str, poisoned: bool) -> None:
    assert is_poisoned(text) is poisoned
