"""A child process: its end is told, nothing of it stays, and it does not outlive its parent."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lotabotsd.runtime.child import MAX_LINE_CHARACTERS, MAX_LINES, Child

ROOT = Path(__file__).parents[2]


def run(
    command: list[str], *, stop_after_line: str = "", timeout_seconds: float = 5
) -> tuple[int, list[str]]:
    """Run a command as a child to its end, or stop it once it printed a line; its code and its lines."""

    async def both() -> tuple[int, list[str]]:
        seen = asyncio.Event()
        child = Child.start(
            command,
            {"PATH": "/usr/bin:/bin"},
            "-",
            lambda line: seen.set() if line == stop_after_line else None,
        )
        if stop_after_line:
            await asyncio.wait_for(seen.wait(), 10)
            return await child.stop(timeout_seconds), list(child.lines)
        code = await asyncio.wait_for(child.ended, 10)
        assert not child.running
        return code, list(child.lines)

    return asyncio.run(both())


def shell(script: str) -> list[str]:
    return ["/bin/sh", "-c", script]


def gone(pid: int) -> bool:
    """Whether a process is gone (or only waits to be reaped by init), within ten seconds."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], 10)[0])
    finally:
        os.close(descriptor)


def test_its_lines_and_its_code_are_told() -> None:
    assert run(shell("echo one; echo two >&2; printf three; exit 3")) == (3, ["one", "two", "three"])


def test_a_signal_is_a_negative_code() -> None:
    assert run(shell("kill -SEGV $$"))[0] == -signal.SIGSEGV


def test_only_so_many_lines_of_so_many_characters_are_kept() -> None:
    _, lines = run(shell("seq 1 3000; head -c 5000 /dev/zero | tr '\\0' x"))
    assert len(lines) == MAX_LINES
    assert max(len(line) for line in lines) <= MAX_LINE_CHARACTERS
    assert "3000" in lines


def test_bytes_that_are_no_text_are_kept_readable() -> None:
    assert run(shell("printf '\\377\\376ok\\n'"))[1] == ["��ok"]


def test_it_stops_when_told() -> None:
    assert run(shell("echo up; exec sleep 60"), stop_after_line="up")[0] == -signal.SIGTERM


def test_it_is_killed_when_it_does_not_listen() -> None:
    script = "trap '' TERM; echo up; while :; do sleep 60; done"
    assert run(shell(script), stop_after_line="up", timeout_seconds=0.1)[0] == -signal.SIGKILL


def test_what_it_started_ends_with_it_even_when_it_holds_the_output() -> None:
    _, lines = run(shell("sleep 60 & echo $!; kill -KILL $$"))
    assert gone(int(lines[0]))


def test_a_command_that_is_not_there_says_so() -> None:
    code, lines = run(["/nowhere/tritonserver"])
    assert code == 1
    assert lines[0].startswith("lotabots-launch:")


def test_it_writes_no_core_and_dies_before_the_gate() -> None:
    _, lines = run(shell("ulimit -c; umask; cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status"))
    assert lines == ["0", "0007", "500", "NoNewPrivs:\t1"]


def test_it_leads_a_session_of_its_own_and_inherits_no_descriptor() -> None:
    code, lines = run(
        [
            sys.executable,
            "-c",
            "import os; print(os.getsid(0) == os.getpid(), sorted(os.listdir('/proc/self/fd')))",
        ]
    )
    assert code == 0
    assert lines == ["True ['0', '1', '2', '3']"]  # the last is the listing itself


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_it_does_not_outlive_its_parent(end: signal.Signals) -> None:
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            """
import asyncio
from lotabotsd.runtime.child import Child
async def main():
    child = Child.start(["/bin/sleep", "60"], {"PATH": "/bin"}, "-", print)
    print(child.pid, flush=True)
    await child.ended
asyncio.run(main())
""",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert Path(f"/proc/{pid}").exists()
    parent.send_signal(end)
    parent.wait(10)
    parent.stdout.close()
    assert gone(pid)
