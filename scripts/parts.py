"""Run the parts of scripts/check or scripts/test and print what each of them cost.

A part is one command with a budget. `check` runs three lanes side by side and shows what failed; `test` does
so too, and then runs the parts that need the machine for themselves, with their output. All parts run,
whatever fails; the exit code says the rest.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent
CI_BUDGET_SECONDS = 40 * 60
CHECK_BUDGET_SECONDS = 60
# What a person may keep in these folders of tests/ is no unit test.
NOT_UNIT = frozenset({"conformance", "system", "golden", "simulators"})


@dataclass(frozen=True, slots=True)
class Part:
    """One command of the suite; `budget_seconds` is what it may take on a machine with two slow cores."""

    name: str
    command: tuple[str, ...]
    budget_seconds: int
    lane: str = "static"

    @property
    def limit_seconds(self) -> int:
        """When a part that hangs is ended."""
        return max(300, 3 * self.budget_seconds)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a part ended."""

    part: Part
    seconds: float
    exit_code: int
    output: str

    @property
    def word(self) -> str:
        """The last column of the table."""
        if self.exit_code == -signal.SIGKILL:
            return f"ended after {self.part.limit_seconds} s"
        if self.exit_code:
            return f"failed ({self.exit_code})"
        return "ok" if self.seconds <= self.part.budget_seconds else "ok, over its budget"


def tests_in(*folders: Path) -> tuple[str, ...]:
    """The folders that hold tests, as arguments for pytest."""
    return tuple(str(f.relative_to(ROOT)) for f in sorted(folders) if any(f.rglob("test_*.py")))


def pytest_part(name: str, folders: Sequence[str], budget_seconds: int, *options: str) -> tuple[Part, ...]:
    """One call of pytest, or nothing where there are no tests."""
    if not folders:
        return ()
    command = (str(BIN / "python"), "-m", "pytest", "--durations=5", *options, *folders)
    return (Part(name, command, budget_seconds, lane=name),)


def static_parts() -> tuple[Part, ...]:
    """What reads the code without running it."""
    ruff = str(BIN / "ruff")
    return (
        Part("format", (ruff, "format", "--check", "."), 5),
        Part("lint", (ruff, "check", "."), 5),
        Part("imports", (str(BIN / "lint-imports"), "--no-logo"), 15),
        Part("types", (str(BIN / "mypy"),), 45),
    )


def unit_parts(*options: str) -> tuple[Part, ...]:
    """The tests of every room, the architecture and the documents, in two halves for two processors."""
    folders = [f for f in (ROOT / "tests").iterdir() if f.is_dir() and f.name not in NOT_UNIT]
    halves: tuple[list[Path], list[Path]] = ([], [])
    weights = [0, 0]
    for weight, folder in sorted(((_weight(f), f) for f in folders), reverse=True):
        lighter = weights.index(min(weights))
        halves[lighter].append(folder)
        weights[lighter] += weight
    return tuple(
        part
        for number, half in enumerate(halves, start=1)
        for part in pytest_part(f"unit {number}", tests_in(*half), 55, *options)
    )


def _weight(folder: Path) -> int:
    """How long a folder's tests take is not known before; the size of their source is near enough."""
    return sum(path.stat().st_size for path in folder.rglob("*.py"))


def whole_machine_parts(*options: str) -> tuple[Part, ...]:
    """What starts real processes: the conformance and system tests, and the demo."""
    tests = ROOT / "tests"
    demo = (str(ROOT / "scripts" / "demo"), "--once", "--port", "0")
    return (
        *pytest_part("conformance", tests_in(tests / "conformance"), 180, *options),
        *pytest_part("system", tests_in(tests / "system"), 1300, *options),
        Part("demo", demo, 60),
    )


def run(part: Part, *, capture: bool) -> Outcome:
    """Run one part to its end, or to its limit."""
    begun = time.monotonic()
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ.get('PATH', '')}"}
    with tempfile.TemporaryFile("w+") as kept:
        process = subprocess.Popen(
            part.command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=kept if capture else None,
            stderr=subprocess.STDOUT if capture else None,
            start_new_session=True,
        )
        try:
            code = process.wait(part.limit_seconds)
        except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            if isinstance(error, KeyboardInterrupt):
                raise
        kept.seek(0)
        return Outcome(part, time.monotonic() - begun, code, kept.read())


def side_by_side(parts: Sequence[Part]) -> list[Outcome]:
    """Run the lanes beside each other; the parts of one lane one after the other."""
    outcomes: list[Outcome] = []
    lock = threading.Lock()

    def run_lane(lane: str) -> None:
        for part in parts:
            if part.lane == lane:
                outcome = run(part, capture=True)
                with lock:
                    outcomes.append(outcome)
                    if outcome.exit_code:
                        print(f"--- {part.name}: {' '.join(part.command)}\n{outcome.output}", flush=True)
                    elif part.lane != "static":
                        # pytest's last line, alone on its own: whoever counts tests reads it
                        print(f"{part.name}:\n{outcome.output.strip().splitlines()[-1]}", flush=True)

    lanes = [threading.Thread(target=run_lane, args=(lane,)) for lane in sorted({p.lane for p in parts})]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    return sorted(outcomes, key=lambda outcome: parts.index(outcome.part))


def one_after_the_other(parts: Sequence[Part]) -> list[Outcome]:
    """Run the parts with their output."""
    outcomes = []
    for number, part in enumerate(parts, start=1):
        shown = " ".join(part.command).replace(f"{ROOT}/", "").replace(f"{BIN}/", "")
        print(f"\n==== part {number} of {len(parts)}: {part.name} — {shown}", flush=True)
        outcomes.append(run(part, capture=False))
    return outcomes


def table(outcomes: Sequence[Outcome], wall_seconds: float, budget_seconds: int) -> str:
    """What each part cost, against its budget."""
    lines = [f"{'part':<14}{'seconds':>9}{'budget':>9}  result"]
    lines += [f"{o.part.name:<14}{o.seconds:>9.1f}{o.part.budget_seconds:>9}  {o.word}" for o in outcomes]
    share = sum(o.part.budget_seconds for o in outcomes)
    lines.append(f"{'all':<14}{wall_seconds:>9.1f}{budget_seconds:>9}  budgets of the parts: {share} s")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """`parts.py check` or `parts.py test [--slow]`."""
    begun = time.monotonic()
    if arguments[:1] == ["check"] and len(arguments) == 1:
        outcomes = side_by_side((*static_parts(), *unit_parts("--quick")))
        budget = CHECK_BUDGET_SECONDS
    elif arguments[:1] == ["test"] and set(arguments[1:]) <= {"--slow"}:
        outcomes = side_by_side((*static_parts(), *unit_parts(*arguments[1:])))
        outcomes += one_after_the_other(whole_machine_parts(*arguments[1:]))
        budget = CI_BUDGET_SECONDS
    else:
        print("usage: parts.py check | test [--slow]", file=sys.stderr)
        return 2
    failed = [outcome.part.name for outcome in outcomes if outcome.exit_code]
    print(f"\n{table(outcomes, time.monotonic() - begun, budget)}")
    print(f"failed: {', '.join(failed)}" if failed else "everything passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
